import { EventEmitter } from 'node:events';
import type { ClientRequest } from 'node:http';
import { PassThrough } from 'node:stream';
import { setImmediate as turn } from 'node:timers/promises';
import { fc, test } from '@fast-check/vitest';
import { describe, expect } from 'vitest';
import { redactorFor } from '../../src/upstream/redact.ts';
import { SseRequest } from '../../src/upstream/sse-request.ts';
import { brokenCopies, corpus, FUZZ_TIMEOUT_MS, fuzz, JSON_WORDS } from './support.ts';

const seeds = corpus('sse');
const WORDS = [
  ...JSON_WORDS,
  'data:',
  'data: ',
  'event: ',
  'id: \u0000',
  'retry: 1',
  '\n',
  '\n\n',
  '\r',
  '\r\n',
  ': ',
  '[DONE]',
];
const MAX_BYTES = 64 * 1024;
const TERMINAL = /^(response\.(completed|incomplete|failed)|error)$/;

describe('the SSE reader', { timeout: FUZZ_TIMEOUT_MS }, () => {
  test.prop([brokenCopies(seeds, WORDS), fc.array(fc.nat(200), { maxLength: 20 })], {
    ...fuzz({ examples: seeds.map(({ bytes }): [Buffer, number[]] => [bytes, [1, 2, 3]]) }),
  })('gives the same frames however the bytes are cut, and exactly one last one', async (bytes, cuts) => {
    const whole = await framesOf([bytes]);
    expect(whole.filter(({ type }) => TERMINAL.test(type))).toHaveLength(1);
    expect(whole.at(-1)?.type).toMatch(TERMINAL);
    expect(await framesOf(cut(bytes, cuts))).toEqual(whole);
  });

  test('an event without an end is cut off at the limit', async () => {
    const frames = await framesOf([Buffer.from(`data: {"type":"x","text":"${'y'.repeat(2 * MAX_BYTES)}`)]);
    expect(frames.map(({ text }) => JSON.parse(text).error.code)).toEqual(['upstream_protocol']);
  });
});

async function framesOf(chunks: readonly Buffer[]): Promise<{ type: string; text: string }[]> {
  const frames: { type: string; text: string }[] = [];
  const request = Object.assign(new EventEmitter(), { destroy: () => response.destroy() });
  const response = Object.assign(new PassThrough(), {
    statusCode: 200,
    headers: { 'content-type': 'text/event-stream' },
  });
  let ends = 0;
  new SseRequest({
    request: request as unknown as ClientRequest,
    streamId: undefined,
    secure: false,
    maxInboundBytes: MAX_BYTES,
    redactor: redactorFor(undefined),
    onFrame: (frame) => frames.push({ type: frame.type, text: Buffer.from(frame.bytes).toString() }),
    onWritten: () => {},
    onEnd: () => {
      ends += 1;
    },
  });
  request.emit('socket', { connecting: false });
  request.emit('response', response);
  for (const chunk of chunks) response.write(chunk);
  response.end();
  while (ends === 0) await turn();
  response.destroy();
  expect(ends).toBe(1);
  return frames;
}

function cut(bytes: Buffer, cuts: readonly number[]): readonly Buffer[] {
  const places = [0, ...cuts.map((at) => Math.min(at, bytes.length)).sort((a, b) => a - b), bytes.length];
  return places.slice(1).map((end, n) => bytes.subarray(places[n] ?? 0, end));
}
