import { fc, test as property } from '@fast-check/vitest';
import { expect, test } from 'vitest';
import { doneWith, MessageDecoder } from '../../src/grpc/message-decoder.ts';
import { MessageMemory } from '../../src/grpc/message-memory.ts';
import { grpcFrame } from '../hostile/raw.ts';

const KIB = 1024;

property.prop([
  fc.array(fc.oneof(fc.nat(300), fc.constantFrom(70_000, 300_000)), { maxLength: 6 }),
  fc.array(fc.nat(900_000), { maxLength: 10 }),
])('messages are the same however their bytes were cut', (lengths, cuts) => {
  const frames = lengths.map((length, n) => grpcFrame(Buffer.alloc(length, n + 1)));
  const bytes = Buffer.concat(frames);
  const places = [0, ...cuts.map((at) => at % (bytes.length + 1)).sort((a, b) => a - b), bytes.length];
  const decoder = new MessageDecoder(1_000_000);
  const messages = places.slice(1).flatMap((end, at) => decoder.write(bytes.subarray(places[at], end)));
  expect(messages.length).toBe(frames.length);
  for (const [n, message] of messages.entries()) expect(message.equals(frames[n] as Buffer)).toBe(true);
});

test('a message over the limit is refused by its length alone', () => {
  const decoder = new MessageDecoder(1_000);
  expect(decoder.write(grpcFrame(Buffer.alloc(1_000)))).toHaveLength(1);
  expect(() => decoder.write(grpcFrame(Buffer.alloc(1_001)).subarray(0, 5))).toThrow(
    'Received message larger than max (1001 vs 1000)',
  );
});

test('nothing more comes of a stream whose message was refused', () => {
  const decoder = new MessageDecoder(1_000);
  expect(() => decoder.write(grpcFrame(Buffer.alloc(0), 0xffff_ffff))).toThrow();
  expect(decoder.write(Buffer.alloc(10))).toEqual([]);
  expect(decoder.write(grpcFrame(Buffer.from('x')))).toEqual([]);
});

test('a message in pieces of a byte is kept in few parts, and is the same', () => {
  const decoder = new MessageDecoder(1_000_000);
  const frame = grpcFrame(Buffer.from(Array.from({ length: 100_000 }, (_, n) => n % 251)));
  for (let at = 0; at < frame.length - 1; at += 1) decoder.write(frame.subarray(at, at + 1));
  expect(decoder.pieces).toBeLessThan(1_000);
  expect(decoder.write(frame.subarray(-1))).toEqual([frame]);
});

test('memory of a large message is used again, once, when its user is done with it', () => {
  const decoder = new MessageDecoder(1_000_000);
  const read = () => decoder.write(grpcFrame(Buffer.alloc(400_000)))[0] as Buffer;
  const first = read();
  const second = read();
  expect(second.buffer).not.toBe(first.buffer);
  doneWith(first.subarray(100, 200));
  doneWith(first);
  expect(read().buffer).toBe(first.buffer);
  expect(read().buffer).not.toBe(first.buffer);
});

test('memory that nobody uses is bounded, and small messages have their own', () => {
  const memory = new MessageMemory();
  const small = memory.take(10 * KIB);
  memory.giveBack(small.buffer);
  expect(memory.freeBytes).toBe(0);
  const blocks = Array.from({ length: 20 }, () => memory.take(KIB * KIB));
  for (const { buffer } of blocks) memory.giveBack(buffer);
  expect(memory.freeBytes).toBe(16 * KIB * KIB);
});
