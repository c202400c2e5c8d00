import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { GatewayError } from '../../src/errors.ts';
import { createWire, frameFromBytes, frameIn } from '../../src/translate/index.ts';
import { Frame } from '../../src/translate/peek.ts';
import { eventOf } from './support.ts';

const wire = createWire();

/** The kinds of text that decide how a value is read: plain, escaped, foreign, broken. */
const word = fc.oneof(
  { weight: 4, arbitrary: fc.stringMatching(/^[a-z0-9_]{1,50}$/) },
  fc.string({ unit: 'binary', maxLength: 20 }),
  fc.constantFrom('', 'line\nline', 'say "no"', 'żółć 漢字 🦜', '\ud800', 'x'.repeat(3_000)),
);
const count = fc.oneof(fc.nat(), fc.constantFrom(0, -1, 0.5, 2 ** 31, 2 ** 53 - 1, 1e21));

const message = (text: string, id: string) => ({
  id,
  type: 'message',
  role: 'assistant',
  status: 'completed',
  content: [{ type: 'output_text', text, annotations: [], logprobs: [] }],
});
const call = (name: string, id: string) => ({
  id,
  type: 'function_call',
  call_id: id,
  name,
  arguments: '{}',
  status: 'completed',
});

const turn = fc.record({
  id: word,
  parent: fc.option(word),
  text: word,
  tokens: count,
  cached: count,
  at: fc.nat(),
  isCall: fc.boolean(),
  instructions: fc.constantFrom(null, 'Be brief.', 'x'.repeat(9_000)),
  metadata: fc.constantFrom({}, { a: 'b' }),
  own: fc.constantFrom({}, {}, {}, { new_field: 1 }),
});

/** The events of a turn that repeat its request. */
function eventsOf(one: typeof turn extends fc.Arbitrary<infer T> ? T : never): object[] {
  const { id, parent, text, tokens, cached, at, isCall, instructions, metadata, own } = one;
  const response = {
    id,
    object: 'response',
    created_at: at,
    status: 'in_progress',
    error: null,
    incomplete_details: null,
    instructions,
    max_output_tokens: null,
    model: 'gpt-5.5',
    output: [] as object[],
    parallel_tool_calls: true,
    previous_response_id: parent,
    reasoning: { effort: 'medium', summary: null },
    store: false,
    temperature: 1,
    text: { format: { type: 'text' }, verbosity: 'medium' },
    tool_choice: 'auto',
    tools: [{ type: 'function', name: 'f', parameters: { type: 'object', properties: {} }, strict: true }],
    top_p: 0.98,
    truncation: 'disabled',
    usage: null,
    metadata,
    ...own,
  };
  const item = isCall ? call(text, id) : message(text, id);
  const usage = {
    input_tokens: tokens,
    input_tokens_details: { cached_tokens: cached },
    output_tokens: 20,
    output_tokens_details: { reasoning_tokens: 0 },
    total_tokens: tokens,
  };
  return [
    { type: 'response.created', sequence_number: 0, response },
    { type: 'response.in_progress', sequence_number: 1, response },
    { type: 'response.output_item.done', sequence_number: 7, output_index: 0, item },
    {
      type: 'response.completed',
      sequence_number: 9,
      response: { ...response, status: 'completed', output: [item], usage },
    },
  ];
}

const lane = fc.constantFrom(undefined, undefined, 'a', 'b', 'ü');
const frames = fc
  .array(fc.tuple(turn, lane), { minLength: 20, maxLength: 40 })
  .map((turns) =>
    turns.flatMap(([one, stream_id]) =>
      eventsOf(one).map((event) => JSON.stringify(stream_id === undefined ? event : { stream_id, ...event })),
    ),
  );

describe('events that repeat their request', () => {
  it('are read and translated as if each were the first', () => {
    let known = 0;
    let all = 0;
    fc.assert(
      fc.property(frames, fc.constantFrom(0, 1), (texts, schemaRevision) => {
        const format = { payload: 'typed', schemaRevision } as const;
        for (const text of texts) {
          const chunk = Buffer.from(`..${text}..`);
          const frame = frameIn(chunk, 2, chunk.length - 2) as Frame;
          const value = JSON.parse(text) as { type: string; stream_id?: string };
          expect([frame.type, frame.streamId]).toEqual([value.type, value.stream_id]);
          const { type, streamId, byteLength, bytes } = frame;
          // Without its shape the frame is read in full.
          const plain = { type, streamId, byteLength, bytes, json: () => frame.json() };
          expect(wire.event(eventOf(frame), format)).toEqual(wire.event(eventOf(plain), format));
          expect(frame.json()).toEqual(value);
          const response = (json: object) => (json as { response?: object }).response;
          expect({ ...response(frame.brief()), instructions: 0, tools: 0 }).toEqual({
            ...response(value),
            instructions: 0,
            tools: 0,
          });
          all += 1;
          known += frame.values === undefined ? 0 : 1;
        }
      }),
      { numRuns: 8 },
    );
    expect(known).toBeGreaterThan(all / 20);
  });

  it.each(['typed', 'json', 'both'] as const)('come without the request on wish (%s)', (payload) => {
    const format = { payload, schemaRevision: 0 } as const;
    const bare = (text: string) => {
      const event = JSON.parse(text) as { response?: object };
      const response = event.response && { ...event.response, instructions: null, tools: [] };
      return JSON.stringify(response === undefined ? event : { ...event, response });
    };
    // Numbers are written as JSON.stringify writes them.
    const same = frames.map((texts) => texts.map((text) => JSON.stringify(JSON.parse(text))));
    fc.assert(
      fc.property(same, (texts) => {
        for (const text of texts) {
          const told = eventOf(frameFromBytes(Buffer.from(text)));
          const { type, streamId, bytes, json } = frameFromBytes(Buffer.from(bare(text)));
          const wanted = { type, streamId, byteLength: bytes.length, bytes, json };
          const got = wire.event(told, { ...format, echo: 'none' });
          expect(got).toEqual(wire.event({ ...told, frame: wanted }, format));
        }
      }),
      { numRuns: 8 },
    );
  });

  it.each(['response.failed', 'response.done', 'response.canceled'])(
    'come without the request in every member of a last event (%s)',
    (type) => {
      const response = { id: 'r', instructions: 'SAID BEFORE', tools: [{ type: 'function', name: 'f' }] };
      const frame = frameFromBytes(Buffer.from(JSON.stringify({ type, response })));
      const error = new GatewayError('RESPONSE_FAILED', 'no', { upstream: { json: frame.bytes } });
      const turnFailed = { error, replay: 'UNKNOWN', phase: 'CREATED' } as const;
      for (const payload of ['typed', 'json', 'both'] as const) {
        const event = { ...eventOf(frame), ...(type === 'response.failed' && { turnFailed }) };
        const text = (echo: 'none' | undefined) =>
          Buffer.from(wire.event(event, { payload, schemaRevision: 0, ...(echo && { echo }) })).toString(
            'latin1',
          );
        expect(text('none')).not.toContain('SAID BEFORE');
        expect(text(undefined)).toContain('SAID BEFORE');
      }
    },
  );

  it('are refused when JSON.parse or UTF-8 refuses them, wherever they are damaged', () => {
    const damage = fc.record({ at: fc.nat(), byte: fc.integer({ min: 0, max: 255 }), cut: fc.boolean() });
    fc.assert(
      fc.property(frames, fc.array(damage, { minLength: 30, maxLength: 30 }), (texts, damages) => {
        for (const text of texts) frameFromBytes(Buffer.from(text));
        for (const [index, { at, byte, cut }] of damages.entries()) {
          const whole = Buffer.from(texts[index % texts.length] ?? '');
          const bytes = cut ? whole.subarray(0, at % whole.length) : whole;
          if (!cut) bytes[at % bytes.length] = byte;
          const value = parsed(bytes);
          const frame = taken(bytes);
          expect(frame === undefined).toBe(value === undefined);
          if (frame !== undefined) expect([frame.type, frame.json()]).toEqual([value?.['type'], value]);
        }
      }),
      { numRuns: 20 },
    );
  });

  it('leave what was read before as it was', () => {
    const text = (id: string) =>
      JSON.stringify({
        type: 'response.of_this_test',
        sequence_number: 0,
        response: { id, output: [], deep: { id } },
      });
    const values = Array.from({ length: 40 }, (_, n) =>
      frameFromBytes(Buffer.from(text(`resp_${n}`))).json(),
    );
    expect(values.map((value) => JSON.stringify(value))).toEqual(values.map((_, n) => text(`resp_${n}`)));
    expect(frameFromBytes(Buffer.from(text('resp_x')))).toMatchObject({ values: expect.any(Int32Array) });
  });
});

function taken(bytes: Buffer): Frame | undefined {
  try {
    const frame = frameFromBytes(bytes);
    return frame instanceof Frame ? frame : undefined;
  } catch {
    return undefined;
  }
}

function parsed(bytes: Buffer): Record<string, unknown> | undefined {
  try {
    const text = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(bytes);
    const value = JSON.parse(text) as Record<string, unknown> | null;
    return typeof value === 'object' && typeof value?.['type'] === 'string' ? value : undefined;
  } catch {
    return undefined;
  }
}
