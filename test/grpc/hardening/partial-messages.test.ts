import { EventEmitter } from 'node:events';
import { fc, test as property } from '@fast-check/vitest';
import type { ServerInterceptingCallInterface } from '@grpc/grpc-js';
import { expect, test } from 'vitest';
import { PartialMessages } from '../../../src/grpc/hardening/partial-messages.ts';
import { MessageDecoder } from '../../../src/grpc/message-decoder.ts';

const KIB = 1024;

function fakeCall(session?: object) {
  const stream = Object.assign(new EventEmitter(), {
    session,
    destroyed: false,
    closedWith: undefined as number | undefined,
    pause() {},
    close(code: number) {
      stream.closedWith = code;
      stream.emit('close');
    },
  });
  // As grpc-js reads a stream.
  const decoder = new MessageDecoder(-1);
  stream.on('data', (chunk: Buffer) => decoder.write(chunk));
  return { stream, base: { stream, decoder } as unknown as ServerInterceptingCallInterface };
}

function frame(length: number): Buffer {
  const bytes = Buffer.alloc(5 + length);
  bytes.writeUInt32BE(length, 1);
  return bytes;
}

property.prop([fc.array(fc.nat(300), { maxLength: 10 }), fc.array(fc.nat(2_000), { maxLength: 10 })])(
  'counts what is open, however the bytes are cut',
  (lengths, cuts) => {
    const partial = new PartialMessages({ bytes: KIB * KIB, connectionBytes: KIB * KIB });
    const { stream, base } = fakeCall();
    partial.watch(base);
    const frames = lengths.map(frame);
    const bytes = Buffer.concat(frames);
    const places = [0, ...cuts.map((at) => at % (bytes.length + 1)).sort((a, b) => a - b), bytes.length];
    places.slice(1).forEach((end, at) => {
      stream.emit('data', bytes.subarray(places[at] ?? 0, end));
      let open = end;
      for (const { length } of frames)
        if (open >= length) open -= length;
        else break;
      expect(partial.bytes).toBe(open);
    });
    expect(partial.bytes).toBe(0);
  },
);

test('gives up the oldest open message above the bound, and forgets streams that leave', () => {
  const partial = new PartialMessages({ bytes: 300 * KIB, connectionBytes: 300 * KIB });
  const calls = [fakeCall(), fakeCall(), fakeCall(), fakeCall()];
  for (const { base } of calls) partial.watch(base);
  for (const { stream } of calls.slice(0, 3)) stream.emit('data', frame(1_000 * KIB).subarray(0, 100 * KIB));
  calls[0]?.stream.emit('data', Buffer.alloc(800 * KIB));
  expect(calls.map(({ stream }) => stream.closedWith)).toEqual([11, undefined, undefined, undefined]);
  expect(partial.bytes).toBe(200 * KIB);
  calls[0]?.stream.emit('data', Buffer.alloc(50 * KIB));
  expect(partial.bytes).toBe(200 * KIB);
  calls[1]?.stream.emit('close');
  expect(partial.bytes).toBe(100 * KIB);
  calls[3]?.stream.emit('data', frame(1_000 * KIB).subarray(0, 250 * KIB));
  expect(calls.map(({ stream }) => stream.closedWith)).toEqual([11, undefined, 11, undefined]);
  expect(partial.bytes).toBe(250 * KIB);
});

test('gives up the oldest open message of a connection that has too many', () => {
  const partial = new PartialMessages({ bytes: 1_000 * KIB, connectionBytes: 200 * KIB });
  const [flood, neighbour] = [{}, {}];
  const calls = [fakeCall(neighbour), fakeCall(flood), fakeCall(flood), fakeCall(neighbour)];
  for (const { base } of calls) partial.watch(base);
  for (const { stream } of calls) stream.emit('data', frame(1_000 * KIB).subarray(0, 90 * KIB));
  calls[2]?.stream.emit('data', Buffer.alloc(50 * KIB));
  expect(calls.map(({ stream }) => stream.closedWith)).toEqual([undefined, 11, undefined, undefined]);
  expect(partial.bytes).toBe(320 * KIB);
});
