import { EventEmitter } from 'node:events';
import { deflateSync, gzipSync } from 'node:zlib';
import type { ServerInterceptingCallInterface } from '@grpc/grpc-js';
import { describe, expect, it, vi } from 'vitest';
import { Inflation } from '../../../src/grpc/hardening/inflation.ts';
import { startGateway } from '../../harness/gateway.ts';
import { grpcFrame, openCall, openHttp2, outcomeOf } from '../../hostile/raw.ts';

const MIB = 1024 * 1024;
const ROOMY = { bytes: 64 * MIB, connectionBytes: 64 * MIB };

function framed(message: Uint8Array): Buffer {
  const frame = grpcFrame(message);
  frame[0] = 1;
  return frame;
}

/** The part of grpc-js's call that has to do with reading. */
function fakeCall(session: object = {}) {
  const call = {
    stream: Object.assign(new EventEmitter(), { session, destroyed: false, close() {}, pause() {} }),
    maxReceiveMessageSize: 0,
    decoder: { maxReadMessageLength: 0 },
    readQueue: [] as { compressedMessage: Buffer }[],
    isReadPending: false,
    reads: 0,
    decompressMessage: (message: Buffer, _encoding: string): Buffer | Promise<Buffer> => message.subarray(5),
    startRead() {
      call.isReadPending = true;
    },
    /** A message has come in. */
    push(message: Buffer, encoding = 'gzip'): Promise<Buffer> {
      call.readQueue.push({ compressedMessage: message });
      return Promise.resolve(call.decompressMessage(message, encoding)).then((bytes) => {
        call.readQueue.shift();
        call.isReadPending = false;
        return bytes;
      });
    },
  };
  return { call, base: call as unknown as ServerInterceptingCallInterface };
}

const turn = () => new Promise<void>((resolve) => setImmediate(resolve));

describe('Inflation', () => {
  it('inflates what is asked for, and leaves the rest as it came', async () => {
    const { call, base } = fakeCall();
    const inflation = new Inflation(ROOMY);
    inflation.watch(base, MIB);
    const [first, second] = [framed(gzipSync(Buffer.from('one'))), framed(deflateSync(Buffer.from('two')))];
    const one = call.push(first);
    let isTwo = false;
    const two = call.push(second, 'deflate').then((bytes) => {
      isTwo = true;
      return bytes;
    });
    expect(inflation.bytes).toBe(0);
    call.startRead();
    expect((await one).toString()).toBe('one');
    for (let n = 0; n < 20; n++) await turn();
    expect(isTwo).toBe(false);
    call.startRead();
    expect((await two).toString()).toBe('two');
    expect(inflation.bytes).toBe(0);
  });

  it('leaves other encodings to grpc-js', async () => {
    const { call, base } = fakeCall();
    new Inflation(ROOMY).watch(base, MIB);
    expect((await call.push(grpcFrame(Buffer.from('plain')), 'identity')).toString()).toBe('plain');
  });

  it.each([
    [
      'becomes too large',
      gzipSync(Buffer.alloc(2 * MIB)),
      { code: 8, details: /decompresses to a size larger/ },
    ],
    ['is no gzip', Buffer.from('not gzip at all'), { code: 13, details: /^Failed to decompress/ }],
    ['is cut off', gzipSync(Buffer.from('hello')).subarray(0, 12), { code: 13, details: /^Failed/ }],
  ])('refuses what %s, and gives its memory back', async (_, message, { code, details }) => {
    const { call, base } = fakeCall();
    const inflation = new Inflation(ROOMY);
    inflation.watch(base, MIB);
    const refused = call.push(framed(message)).then(
      () => undefined,
      (refusal: { code: number; details: string }) => refusal,
    );
    call.startRead();
    expect(await refused).toMatchObject({ code, details: expect.stringMatching(details) as string });
    expect(inflation.bytes).toBe(0);
  });

  it('keeps within its bounds; connections take turns, and who left is passed over', async () => {
    const inflation = new Inflation({ bytes: 5 * MIB, connectionBytes: 2 * MIB });
    const crowd = {};
    const message = framed(gzipSync(Buffer.alloc(MIB)));
    const done: string[] = [];
    const begin = (name: string, session: object) => {
      const { call, base } = fakeCall(session);
      inflation.watch(base, MIB);
      const read = call.push(message).then(() => done.push(name));
      call.startRead();
      return { call, read };
    };
    const crowded = Array.from({ length: 6 }, (_, n) => begin(`crowd ${n}`, crowd));
    const other = begin('other', {});
    const left = crowded[5];
    if (left !== undefined) left.call.stream.destroyed = true;
    expect(inflation.bytes).toBe(4 * MIB);
    await Promise.all([...crowded.slice(0, 5).map(({ read }) => read), other.read]);
    await vi.waitUntil(() => inflation.bytes === 0, { timeout: 30_000 });
    expect(done).toHaveLength(6);
    expect(done.indexOf('other')).toBeLessThan(2);
  });
});

describe('open services', () => {
  it.each(['/grpc.health.v1.Health/Check', '/grpc.reflection.v1.ServerReflection/ServerReflectionInfo'])(
    '%s takes small messages only, however small they are on the wire',
    async (path) => {
      await using gateway = await startGateway();
      const connection = await openHttp2(gateway.port);
      const call = (message: Buffer) => {
        const stream = openCall(connection, { ':path': path, 'grpc-encoding': 'gzip' });
        stream.end(message);
        return outcomeOf(stream);
      };
      expect(await call(framed(gzipSync(Buffer.alloc(19 * MIB))))).toBe('status 8');
      expect(await call(grpcFrame(Buffer.alloc(17 * 1024)))).toBe('status 8');
      expect(await call(framed(gzipSync(Buffer.alloc(0))))).not.toBe('status 8');
      connection.destroy();
      expect(gateway.bugs).toEqual([]);
    },
  );
});
