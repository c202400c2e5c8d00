import { isUtf8 } from 'node:buffer';
import { fc, test } from '@fast-check/vitest';
import { describe, expect } from 'vitest';
import type { SessionEvent, UpstreamFrame } from '../../src/core/types.ts';
import { GatewayError } from '../../src/errors.ts';
import { Frame, frameIn, peekFrame } from '../../src/translate/peek.ts';
import { createWire } from '../../src/translate/wire.ts';
import { brokenCopies, FUZZ_TIMEOUT_MS, fuzz, JSON_WORDS } from './support.ts';

const wire = createWire();

const TYPES = [
  'response.output_text.delta',
  'response.function_call_arguments.delta',
  'response.reasoning_summary_text.delta',
  'response.refusal.delta',
  'response.shell_call_command.delta',
  'response.of_tomorrow.delta',
] as const;

/** What ends a string, what only looks as if it did, and lengths at which an encoding changes. */
const PIECES = [
  '',
  'a',
  'Hello',
  ' world',
  '漢字',
  '🦜',
  '"',
  '\\',
  '\n',
  '\u0000',
  '}',
  '{"delta":"x"}',
  '\u2028',
  '\ud800',
];
const LENGTHS = [0, 1, 31, 32, 33, 63, 64, 65, 127, 128, 129, 300];

const delta = fc.record({
  type: fc.constantFrom(...TYPES),
  stream_id: fc.constantFrom(undefined, 'a', 'lane-1', 'ü', 'a"b', '__proto__'),
  delta: fc
    .tuple(fc.array(fc.constantFrom(...PIECES), { maxLength: 4 }), fc.constantFrom(...LENGTHS))
    .map(([pieces, length]) => pieces.join('') + 'x'.repeat(length)),
  item_id: fc.constantFrom('msg_1', 'msg_2', ''),
  output_index: fc.nat(300),
  content_index: fc.nat(3),
  sequence_number: fc.nat(2 ** 31),
  logprobs: fc.constantFrom(undefined, [], [{ token: 'a', logprob: -0.5, bytes: [97], top_logprobs: [] }]),
  obfuscation: fc.constantFrom(undefined, 'abc'),
});

const stream = fc.array(delta, { minLength: 1, maxLength: 12 }).chain((deltas) => {
  const texts = deltas.map((each) => Buffer.from(JSON.stringify(each)));
  const seeds = texts.map((bytes, at) => ({ name: String(at), bytes }));
  return fc.tuple(
    fc.constant(texts),
    fc.array(brokenCopies(seeds, [...JSON_WORDS, '\\u0022', '\\ud83e\\udd9c', '"delta":"']), {
      maxLength: 8,
    }),
  );
});

describe('deltas', { timeout: FUZZ_TIMEOUT_MS }, () => {
  // A shape is learned from the first frame of its kind and believed for the next ones, whole and broken.
  test.prop([stream, fc.constantFrom('typed', 'json', 'both')], fuzz())(
    'are the same on the fast path as read in full, or refused on both',
    (streamed, payload) => {
      for (const bytes of streamed.flat()) {
        const fast = taken(() => frameIn(bytes, 0, bytes.length));
        const slow = readInFull(bytes);
        expect(fast === undefined, bytes.toString()).toBe(slow === undefined);
        if (fast === undefined || slow === undefined) continue;
        expect([fast.type, fast.streamId]).toEqual([slow.type, slow.streamId]);
        const encode = (frame: UpstreamFrame) =>
          Buffer.from(wire.event(eventOf(frame), { payload, schemaRevision: 0 })).toString('hex');
        expect(encode(fast), bytes.toString()).toBe(encode(slow));
      }
    },
  );
});

/** Undefined: refused. */
function taken(read: () => UpstreamFrame): UpstreamFrame | undefined {
  try {
    return read();
  } catch (error) {
    if (error instanceof GatewayError) return undefined;
    throw error;
  }
}

/** Knows no shapes. Agrees with JSON.parse on what is JSON at all. */
function readInFull(bytes: Buffer): UpstreamFrame | undefined {
  const peek = peekFrame(bytes);
  let parses = isUtf8(bytes);
  try {
    JSON.parse(bytes.toString('utf8'));
  } catch {
    parses = false;
  }
  if (peek !== undefined) expect(parses, bytes.toString()).toBe(true);
  if (peek?.type === undefined) return undefined;
  return new Frame(peek.type, peek.streamId, undefined, bytes, 0, bytes.length, 0, 0);
}

function eventOf(frame: UpstreamFrame): SessionEvent {
  return {
    seq: 7,
    laneId: 'lane',
    turnId: 'turn',
    type: frame.type,
    outcome: undefined,
    frame,
    turnFailed: undefined,
    notice: undefined,
    commit: undefined,
    byteLength: frame.byteLength,
  };
}
