/**
 * The floor: what any WebSocket to gRPC relay in Node pays. One message up, frames down as they are, batched per
 * tick, no parsing, no state. Prints `listening HOST:PORT`.
 */
import { Server, ServerCredentials, type ServerDuplexStream } from '@grpc/grpc-js';
import { WebSocket } from 'ws';

const upstreamUrl = process.argv[2] as string;
const bytes = (value: Buffer) => value;
const server = new Server({ 'grpc.enable_channelz': 0 });
server.addService(
  {
    relay: {
      path: '/floor.Relay/Relay',
      requestStream: true,
      responseStream: true,
      requestSerialize: bytes,
      requestDeserialize: bytes,
      responseSerialize: bytes,
      responseDeserialize: bytes,
    },
  },
  {
    relay: (call: ServerDuplexStream<Buffer, Buffer>) => {
      const socket = new WebSocket(`${upstreamUrl}/responses`, { perMessageDeflate: false });
      let batch: Buffer[] = [];
      const flush = () => {
        call.write(Buffer.concat(batch));
        batch = [];
      };
      socket.on('message', (frame: Buffer) => {
        if (batch.push(frame, NEWLINE) === 2) setImmediate(flush);
      });
      socket.once('open', () =>
        call.on('data', (message: Buffer) => socket.send(message, { binary: false })),
      );
      call.on('end', () => {
        socket.close();
        call.end();
      });
      call.on('cancelled', () => socket.terminate());
    },
  },
);
const NEWLINE = Buffer.from('\n');
server.bindAsync('127.0.0.1:0', ServerCredentials.createInsecure(), (error, port) => {
  if (error) throw error;
  process.stdout.write(`listening 127.0.0.1:${port}\n`);
});
