import { once } from 'node:events';
import { connect } from 'node:net';
import {
  Client,
  type ClientReadableStream,
  credentials,
  Metadata,
  type StatusObject,
  status,
} from '@grpc/grpc-js';
import { afterEach, describe, expect, it, vi } from 'vitest';
import { startGateway, type TestGateway } from '../harness/gateway.ts';

let gateway: TestGateway | undefined;
let client: Client | undefined;

afterEach(async () => {
  client?.close();
  await gateway?.close();
});

/** The status of a call with an empty request. */
function call(path: string): Promise<number> {
  client ??= new Client(gateway?.address ?? '', credentials.createInsecure());
  const same = (bytes: Buffer) => bytes;
  return new Promise((resolve) => {
    client?.makeUnaryRequest(path, same, same, Buffer.alloc(0), new Metadata(), (error) =>
      resolve(error?.code ?? status.OK),
    );
  });
}

describe('the services of the port', () => {
  it('are the gateway, health and what was switched on', async () => {
    gateway = await startGateway({ server: { channelz: true } });
    expect(await call('/grpc.health.v1.Health/Check')).toBe(status.OK);
    expect(await call('/grpc.channelz.v1.Channelz/GetServers')).toBe(status.OK);
    expect(await call('/grpc.channelz.v1.Channelz/GetServer')).toBe(status.NOT_FOUND);
    expect(await call('/no.Such/Method')).toBe(status.UNIMPLEMENTED);
  });

  it('do not tell of the inside by default', async () => {
    gateway = await startGateway({ server: { reflection: false } });
    client = undefined;
    expect(await call('/grpc.channelz.v1.Channelz/GetServers')).toBe(status.UNIMPLEMENTED);
    expect(await call('/grpc.reflection.v1.ServerReflection/ServerReflectionInfo')).toBe(
      status.UNIMPLEMENTED,
    );
  });
});

describe('a server that is closed', () => {
  const same = (bytes: Buffer) => bytes;

  async function endedByServer(stream: ClientReadableStream<Buffer>): Promise<number> {
    stream.on('error', () => {});
    await once(stream, 'data');
    stream.resume();
    const ended = new Promise<StatusObject>((resolve) => stream.once('status', resolve));
    await gateway?.server.close();
    return (await ended).code;
  }

  it('leaves no client that watches its health', async () => {
    gateway = await startGateway();
    client = new Client(gateway.address, credentials.createInsecure());
    const watch = client.makeServerStreamRequest('/grpc.health.v1.Health/Watch', same, same, Buffer.alloc(0));
    expect(await endedByServer(watch)).toBe(status.UNAVAILABLE);
  });

  it('leaves no client that could ask for more reflection', async () => {
    gateway = await startGateway();
    client = new Client(gateway.address, credentials.createInsecure());
    const path = '/grpc.reflection.v1.ServerReflection/ServerReflectionInfo';
    const stream = client.makeBidiStreamRequest(path, same, same);
    stream.write(Buffer.from([0x3a, 0x00]));
    expect(await endedByServer(stream)).toBe(status.UNAVAILABLE);
  });

  it('leaves no client that does not hang up', async () => {
    gateway = await startGateway();
    const socket = connect({ port: gateway.port, host: '127.0.0.1', allowHalfOpen: true });
    socket.on('error', () => {});
    socket.write('PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n');
    socket.write(Buffer.from([0, 0, 0, 4, 0, 0, 0, 0, 0]));
    await once(socket, 'data');
    socket.resume();
    await gateway.server.close();
    await vi.waitFor(() => {
      // What comes on a closed connection is answered with a reset, which the next write finds.
      socket.write('x');
      expect(socket.closed).toBe(true);
    });
  });
});
