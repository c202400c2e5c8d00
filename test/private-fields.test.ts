import { readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import * as grpc from '@grpc/grpc-js';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { WebSocket, WebSocketServer } from 'ws';
import { takeTextFrames } from '../src/upstream/text-frames.ts';

/**
 * Every private field of a package that we read, with the version it was read in. docs/dependencies.md says what for. A
 * new version of a package fails here until somebody has read it again and moved the version.
 */
const READ_IN: Readonly<Record<string, string>> = { ws: '8.23.0', '@grpc/grpc-js': '1.14.7' };
const WS_RECEIVER = ['_opcode', '_fragmented', '_extensions', '_maxPayload', '_write'];
const GRPC_SERVER = ['commonServerOptions', '_setupHandlers'];
const GRPC_CALL = [
  'stream',
  'decoder',
  'decompressMessage',
  'maxReceiveMessageSize',
  'isReadPending',
  'readQueue',
];
const GRPC_DECODER = ['write', 'maxReadMessageLength'];

const versionOf = (name: string): unknown =>
  JSON.parse(readFileSync(createRequire(import.meta.url).resolve(`${name}/package.json`), 'utf8')).version;

it.each(Object.entries(READ_IN))('%s is still the version whose fields were read', (name, version) => {
  expect(versionOf(name)).toBe(version);
});

describe('ws', () => {
  let server: WebSocketServer;
  let client: WebSocket;

  beforeAll(async () => {
    server = new WebSocketServer({ port: 0, host: '127.0.0.1' });
    await new Promise((resolve) => server.once('listening', resolve));
    client = new WebSocket(`ws://127.0.0.1:${(server.address() as { port: number }).port}`);
    await new Promise((resolve) => client.once('open', resolve));
  });

  afterAll(() => {
    client.terminate();
    server.close();
  });

  it('has a receiver with the fields that the fast path reads', () => {
    const receiver = Reflect.get(client, '_receiver') as object;
    expect(WS_RECEIVER.filter((field) => !(field in receiver))).toEqual([]);
  });

  it('hands text to the fast path, and none of it to its own event', async () => {
    const own: unknown[] = [];
    client.on('message', (data) => own.push(data));
    const text = new Promise<string>((resolve) => {
      takeTextFrames(client, (chunk, start, end) => resolve(chunk.toString('utf8', start, end)));
    });
    for (const peer of server.clients) peer.send('{"type":"x"}');
    expect(await text).toBe('{"type":"x"}');
    expect(own).toEqual([]);
  });
});

describe('grpc-js', () => {
  it('has servers with the fields that share and pace connections', () => {
    const server = new grpc.Server();
    expect(GRPC_SERVER.filter((field) => !(field in server))).toEqual([]);
  });

  it('has calls with the fields that bound messages and reset streams', async () => {
    let call: object | undefined;
    const server = new grpc.Server({
      interceptors: [
        (_method, base) => {
          call = base;
          return new grpc.ServerInterceptingCall(base);
        },
      ],
    });
    const bytes = (data: Buffer) => data;
    const echo = {
      path: '/test.Echo/Echo',
      requestStream: false,
      responseStream: false,
      requestSerialize: bytes,
      requestDeserialize: bytes,
      responseSerialize: bytes,
      responseDeserialize: bytes,
    };
    server.addService(
      { echo },
      {
        echo: (request: grpc.ServerUnaryCall<Buffer, Buffer>, done: grpc.sendUnaryData<Buffer>) =>
          done(null, request.request),
      },
    );
    const port = await new Promise<number>((resolve, reject) => {
      server.bindAsync('127.0.0.1:0', grpc.ServerCredentials.createInsecure(), (error, bound) =>
        error ? reject(error) : resolve(bound),
      );
    });
    const client = new grpc.Client(`127.0.0.1:${port}`, grpc.credentials.createInsecure());
    await new Promise((resolve, reject) => {
      client.makeUnaryRequest(echo.path, bytes, bytes, Buffer.from('x'), (error, answer) =>
        error ? reject(error) : resolve(answer),
      );
    });
    client.close();
    server.forceShutdown();
    expect(GRPC_CALL.filter((field) => !(field in (call ?? {})))).toEqual([]);
    const decoder = Reflect.get(call ?? {}, 'decoder') as object;
    expect(GRPC_DECODER.filter((field) => !(field in decoder))).toEqual([]);
  });
});
