import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { GatewayError } from '../../src/errors.ts';
import { loadApi } from '../../src/translate/api.ts';
import { createWire, frameFromBytes, peekFrame } from '../../src/translate/index.ts';
import { type DecodedEvent, decodeEvent, eventOf, payloadOf, TYPED } from './support.ts';

const api = loadApi();
const wire = createWire(api);

const DELTA = {
  type: 'response.output_text.delta',
  sequence_number: 4,
  item_id: 'msg_1',
  output_index: 0,
  content_index: 0,
  delta: 'Hello',
  logprobs: [],
};

function translate(text: string | Buffer): DecodedEvent {
  return decodeEvent(wire.event(eventOf(frameFromBytes(Buffer.from(text))), TYPED), api);
}

/** The delta with one member spelled by hand. */
function deltaWith(member: string): string {
  return `{${member},${JSON.stringify(DELTA).slice(1)}`;
}

describe('JSON that is hard to carry', () => {
  const deep = (depth: number) => `"deep":${'['.repeat(depth)}${']'.repeat(depth)}`;
  const call = (args: string) =>
    `{"type":"response.output_item.done","sequence_number":1,"output_index":0,"item":{"type":"tool_search_call","id":"t","call_id":null,"execution":"server","arguments":${args},"status":"completed"}}`;

  test.each([
    ['an unknown member', deltaWith('"new":1')],
    ['a member named __proto__', deltaWith('"__proto__":{"delta":"evil"}')],
    ['a member named constructor', deltaWith('"constructor":null')],
    ['a member nested 10,000 deep', deltaWith(deep(10_000))],
    ['half a surrogate pair', JSON.stringify({ ...DELTA, delta: 'x' }).replace('"x"', '"\\ud83d"')],
    ['the wrong half of one', JSON.stringify({ ...DELTA, delta: 'x' }).replace('"x"', '"\\ude00\\ud83d"')],
    [
      'a number beyond double',
      JSON.stringify(DELTA).replace(
        '"logprobs":[]',
        '"logprobs":[{"token":"a","logprob":1e400,"top_logprobs":[]}]',
      ),
    ],
    [
      'a number with more digits than a double',
      JSON.stringify(DELTA).replace(
        '"logprobs":[]',
        '"logprobs":[{"token":"a","logprob":0.12345678901234567890,"top_logprobs":[]}]',
      ),
    ],
    ['a fraction where an integer belongs', JSON.stringify(DELTA).replace(':4,', ':4.5,')],
    ['an integer spelled as a fraction', JSON.stringify(DELTA).replace(':4,', ':4.0,')],
    ['an integer beyond 64 bits', JSON.stringify(DELTA).replace(':4,', ':92233720368547758080,')],
    [
      'an index beyond 32 bits',
      JSON.stringify(DELTA).replace('"output_index":0', '"output_index":4294967296'),
    ],
    ['minus zero', JSON.stringify(DELTA).replace(':4,', ':-0,')],
    ['null where a value belongs', JSON.stringify({ ...DELTA, delta: null })],
    ['another type where a string belongs', JSON.stringify({ ...DELTA, delta: { text: 'a' } })],
    ['a required member left out', JSON.stringify({ ...DELTA, item_id: undefined })],
    ['a key spelled with escapes', JSON.stringify(DELTA).replace('"delta"', '"d\\u0065lta"')],
    ['an unknown item kind', call('{}').replace('"tool_search_call"', '"brand_new_call"')],
    ['an item without a kind', call('{}').replace('"type":"tool_search_call",', '')],
    ['null in a list', JSON.stringify({ ...DELTA, logprobs: [null] })],
  ])('%s: the exact JSON is there', (_name, text) => {
    expect(translate(text).json.toString()).toBe(text);
  });

  test.each([
    ['a member', JSON.stringify(DELTA).replace('{', '{"delta":"first",')],
    ['the type', JSON.stringify(DELTA).replace('{', '{"type":"response.refusal.delta",')],
    ['a member of an item', call('{}').replace('"id":"t"', '"id":"t","id":"u"')],
  ])('%s twice: the JSON is there, and no payload that chose between them', (_name, text) => {
    const event = translate(text);
    expect(event.json.toString()).toBe(text);
    expect(event.payload).toBeUndefined();
  });

  test.each([
    ['spaces and line breaks', JSON.stringify(DELTA, null, 2)],
    [
      'escapes of all kinds',
      JSON.stringify(DELTA).replace('Hello', '\\"\\\\\\/\\b\\f\\n\\r\\t\\u00e9\\u20ac\\ud83d\\ude00\\u0000'),
    ],
    ['a 64-bit sequence number', JSON.stringify(DELTA).replace(':4,', ':9223372036854775807,')],
    [
      'other spellings of the same number',
      JSON.stringify(DELTA).replace(
        '"logprobs":[]',
        '"logprobs":[{"token":"a","logprob":-1.50e-7,"top_logprobs":[]}]',
      ),
    ],
    ['null for what may be left out', JSON.stringify({ ...DELTA, obfuscation: null })],
  ])('%s: typed, without the JSON', (_name, text) => {
    const event = translate(text);
    expect(event.json).toHaveLength(0);
    expect(event.payload?.[0]).toBe('output_text_delta');
  });

  test('strings come out as JSON.parse reads them', () => {
    const text = fc.oneof(fc.string({ unit: 'binary' }), fc.string({ unit: 'grapheme', maxLength: 300 }));
    fc.assert(
      fc.property(text, fc.boolean(), (delta, escaped) => {
        const json = JSON.stringify({ ...DELTA, delta });
        const spelled = escaped
          ? json.replaceAll(/[\u0080-\uffff]/g, (c) => `\\u${c.charCodeAt(0).toString(16).padStart(4, '0')}`)
          : json;
        const event = translate(spelled);
        expect(payloadOf(event)['delta']).toBe(delta.toWellFormed());
        expect(event.json.toString()).toBe(delta.isWellFormed() ? '' : spelled);
      }),
      { numRuns: 500 },
    );
  });

  test('doubles come out as JSON.parse reads them', () => {
    fc.assert(
      fc.property(fc.double({ noNaN: true, noDefaultInfinity: true }), (logprob) => {
        const event = translate(
          JSON.stringify({ ...DELTA, logprobs: [{ token: 'a', logprob, top_logprobs: [] }] }),
        );
        expect(event.json).toHaveLength(0);
        expect(payloadOf(event)).toMatchObject({ logprobs: [{ logprob: logprob === 0 ? 0 : logprob }] });
      }),
      { numRuns: 500 },
    );
  });

  test('pass-through JSON keeps its bytes: key order, number spelling, duplicate keys, spaces', () => {
    const raw = '{ "b":1.0,"a":1e400,"10":"\\u00e9","2":null, "a":-0.00 }';
    const event = translate(call(raw));
    expect(event.json).toHaveLength(0);
    const { item } = payloadOf(event) as { item: { tool_search_call: { arguments: Uint8Array } } };
    expect(Buffer.from(item.tool_search_call.arguments).toString()).toBe(raw);
  });

  test('an unknown item kind is in the json arm, byte for byte', () => {
    const item = '{"type":"brand_new_call", "b":1.0,"a":[]}';
    const event = translate(
      `{"type":"response.output_item.done","sequence_number":1,"output_index":0,"item":${item}}`,
    );
    expect(Buffer.from((payloadOf(event) as { item: { json: Uint8Array } }).item.json).toString()).toBe(item);
  });

  test('an unknown event has its JSON and its type', () => {
    const event = translate('{"type":"codex.rate_limits","primary":{"used_percent":1.50}}');
    expect(event.type).toBe('codex.rate_limits');
    expect(event.payload).toBeUndefined();
    expect(event.json.toString()).toBe('{"type":"codex.rate_limits","primary":{"used_percent":1.50}}');
  });

  test('filters nested deeper than protobuf parsers go stay readable, with the JSON beside them', () => {
    const filter = `${'{"type":"and","filters":['.repeat(200)}{"type":"eq","key":"k","value":1}${']}'.repeat(200)}`;
    const text = call('{}').replace(
      /"item":.*\}\}$/,
      `"item":{"type":"tool_search_output","id":"t","tools":[{"type":"file_search","vector_store_ids":["v"],"filters":${filter}}]}}`,
    );
    expect(translate(text).json.toString()).toBe(text);
  });

  test('20 MB of base64 come through', () => {
    const image = 'iVBO'.repeat(5_000_000);
    const text = `{"type":"response.image_generation_call.partial_image","item_id":"i","output_index":0,"sequence_number":3,"partial_image_index":0,"partial_image_b64":"${image}"}`;
    const event = translate(text);
    expect(event.json).toHaveLength(0);
    expect(payloadOf(event)['partial_image_b64']).toBe(image);
  });
});

describe('frames that are none', () => {
  test.each([
    '',
    ' ',
    '[]',
    '"a"',
    '1',
    'null',
    '{',
    '{}',
    '{"type":1}',
    '{"type":"a"',
    '{"type":"a"}}',
    '{"type":"a",}',
    '{"type":"a" "b":1}',
    '{"type":"a","b":01}',
    '{"type":"a","b":1.}',
    '{"type":"a","b":.5}',
    '{"type":"a","b":+1}',
    '{"type":"a","b":tru}',
    '{"type":"a","b":"\\x"}',
    '{"type":"a","b":"\\u12g4"}',
    '{"type":"a","b":"\n"}',
    '{"type":"a","b":[1,]}',
    '{"type":"a","b":[1 2]}',
    "{'type':'a'}",
    '{"type":"a"} x',
    '\ufeff{"type":"a"}',
    '{"type":"a","b":[}',
    '{"type":"a","b":{]}',
    '{type:"a"}',
  ])('%j is refused', (text) => {
    expect(() => frameFromBytes(Buffer.from(text))).toThrow(GatewayError);
  });

  test('bytes that are not UTF-8 are refused', () => {
    const bytes = Buffer.from('{"type":"a","b":"x"}');
    bytes[bytes.indexOf('x')] = 0xff;
    expect(() => frameFromBytes(bytes)).toThrow(expect.objectContaining({ reason: 'UPSTREAM_PROTOCOL' }));
  });

  test('the error says nothing of the content', () => {
    expect(() => frameFromBytes(Buffer.from('{"secret":"s3cr3t"}'))).toThrow(/^(?!.*s3cr3t)/);
  });

  test('an event made of a malformed frame still goes out, with its bytes', () => {
    const text = fc.oneof(
      fc.string(),
      fc.tuple(fc.nat(300), fc.string({ maxLength: 3 })).map(([at, noise]) => {
        const json = JSON.stringify({ ...DELTA, logprobs: [{ token: 'a', logprob: 1, top_logprobs: [] }] });
        return json.slice(0, at) + noise + json.slice(at + noise.length);
      }),
    );
    fc.assert(
      fc.property(text, (garbage) => {
        const frame = {
          type: DELTA.type,
          streamId: undefined,
          bytes: Buffer.from(garbage),
          byteLength: Buffer.byteLength(garbage),
          json: () => ({}),
        };
        const event = decodeEvent(wire.event(eventOf(frame), TYPED), api);
        expect(event.type).toBe(DELTA.type);
      }),
      { numRuns: 2000 },
    );
  });
});

describe('peekFrame', () => {
  test('agrees with JSON.parse on any object, with any order, spelling and repetition of keys', () => {
    const key = fc.oneof(
      fc.constantFrom('"type"', '"stream_id"', '"t\\u0079pe"', '"\\u0073tream_id"', '"typ"', '"__proto__"'),
      fc.string().map((text) => JSON.stringify(text)),
    );
    const value = fc.oneof(fc.string(), fc.jsonValue(), fc.constant({ type: 'inner', stream_id: 'inner' }));
    const space = fc.constantFrom('', ' ', '\n\t');
    const member = fc
      .tuple(key, space, value)
      .map(([k, gap, v]) => `${gap}${k}${gap}:${gap}${JSON.stringify(v)}${gap}`);
    fc.assert(
      fc.property(fc.array(member, { maxLength: 6 }), (members) => {
        const text = `{${members.join(',')}}`;
        const parsed = JSON.parse(text) as Record<string, unknown>;
        const own = (name: string) => {
          const found = Object.hasOwn(parsed, name) ? parsed[name] : undefined;
          return typeof found === 'string' ? found : undefined;
        };
        expect(peekFrame(Buffer.from(text))).toEqual({ type: own('type'), streamId: own('stream_id') });
      }),
      { numRuns: 2000 },
    );
  });

  test('takes what JSON.parse takes and refuses what it refuses', () => {
    const pieces = fc.constantFrom(
      '{',
      '}',
      '[',
      ']',
      ',',
      ':',
      '"',
      '"a"',
      '"type"',
      '1',
      '-',
      '0',
      '.5',
      'e3',
      'true',
      'nul',
      'null',
      ' ',
      '\\',
      '\\u0041',
      '\u0001',
    );
    fc.assert(
      fc.property(fc.array(pieces, { maxLength: 12 }), (parts) => {
        const text = `{"type":"a","b":${parts.join('')}}`;
        expect(peekFrame(Buffer.from(text)) !== undefined).toBe(parsed(text) !== undefined);
        // An event of which more than that is wanted is read whole at once.
        const whole = `{"type":"response.created","stream_id":"s","b":${parts.join('')}}`;
        const json = parsed(whole);
        if (json === undefined) {
          expect(() => frameFromBytes(Buffer.from(whole))).toThrow(GatewayError);
          return;
        }
        const frame = frameFromBytes(Buffer.from(whole));
        expect([frame.type, frame.streamId]).toEqual([json['type'], json['stream_id']]);
        expect(frame.json()).toEqual(json);
      }),
      { numRuns: 5000 },
    );
  });

  test.each([
    ['{"type":"response.created","type":"last"}', 'last'],
    ['{"type":"response.created","stream_id":7}', 'response.created'],
    ['{"type":"response.created","t\\u0079pe":"last"}', 'last'],
  ])('of equal names the last counts: %s', (text, type) => {
    expect(frameFromBytes(Buffer.from(text))).toMatchObject({ type, streamId: undefined });
  });

  function parsed(text: string): Record<string, unknown> | undefined {
    try {
      return JSON.parse(text) as Record<string, unknown>;
    } catch {
      return undefined;
    }
  }
});
