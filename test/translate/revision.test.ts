import { readFileSync } from 'node:fs';
import fc from 'fast-check';
import protobuf from 'protobufjs';
import 'protobufjs/ext/descriptor/index.js';
import { describe, expect, test } from 'vitest';
import { loadApi } from '../../src/translate/api.ts';
import { createWire, type EventFormat, frameFromBytes } from '../../src/translate/index.ts';
import { arbitraries, type Schema } from './arbitrary.ts';
import { decodeEvent, eventOf, payloadOf } from './support.ts';

/** What a client was built with that knows revision 1 only: the descriptors as they were, without our options. */
const OLD = new URL('./fixtures/revision-1.json', import.meta.url);
const root = protobuf.Root.fromJSON(JSON.parse(readFileSync(OLD, 'utf8')) as protobuf.INamespace);
const OldEvent = root.lookupType('responses.gateway.v1.Event');
/** What the import of ext/descriptor adds; its types do not say so. */
interface FromDescriptor {
  fromDescriptor(set: Uint8Array): protobuf.Root;
}

/** What clients of the last release were built with. */
const RELEASED = 2;
const ReleasedEvent = (protobuf.Root as unknown as FromDescriptor)
  .fromDescriptor(readFileSync(new URL('../../proto/baseline.binpb', import.meta.url)))
  .lookupType('responses.gateway.v1.Event');
const NewEvent = loadApi().type('Event');
const schema = JSON.parse(
  readFileSync(new URL('./fixtures/responses.schema.json', import.meta.url), 'utf8'),
) as Schema;

const wire = createWire();
const FIRST = { payload: 'typed', schemaRevision: 1 } as const;
const NEWEST = { payload: 'typed', schemaRevision: 0 } as const;

const STEER =
  '{"type":"response.steer.accepted","sequence_number":4,"steer":{"id":"steer_1","previous_response_id":"resp_1"}}';

const INJECTED = '{"type":"response.inject.created","sequence_number":4,"response_id":"resp_1"}';

const OF_AN_AGENT = JSON.stringify({
  type: 'response.output_text.delta',
  sequence_number: 1,
  item_id: 'msg_1',
  output_index: 0,
  content_index: 0,
  delta: 'hi',
  logprobs: [],
  agent: { agent_name: '/root/reader' },
});

const USAGE = {
  input_tokens: 3,
  output_tokens: 2,
  total_tokens: 5,
  attribution: {
    items: { msg_1: { input_tokens: 2, output_tokens: 0, content: [{ input_tokens: 2 }] } },
    request_fields: { instructions: { input_tokens: 1, cached_tokens: 1, cache_write_tokens: 0 } },
  },
};

/** What revision 1 does not know, and in part revision 2. */
const NEWER = [
  STEER,
  INJECTED,
  OF_AN_AGENT,
  responseWith({ tool_usage: { web_search: { num_requests: 1 } } }),
  responseWith({ usage: USAGE }),
  responseWith({
    output: [
      { type: 'multi_agent_call', id: 'i', call_id: 'c', action: 'list_agents', arguments: '{}' },
      { type: 'agent_message', id: 'm', author: '/root', recipient: '/root/reader', content: [] },
    ],
  }),
];

function translate(text: string, format: EventFormat): Uint8Array {
  return wire.event(eventOf(frameFromBytes(Buffer.from(text))), format);
}

function responseWith(members: object): string {
  const response = { id: 'r', created_at: 1, output: [], metadata: {}, tools: [], ...members };
  return JSON.stringify({ type: 'response.completed', sequence_number: 1, response });
}

describe('a client of an older revision', () => {
  test('knows a revision below the newest', () => {
    expect(loadApi().schemaRevision).toBeGreaterThan(1);
  });

  test('gets an event that is newer as JSON, and reads its type', () => {
    const event = OldEvent.toObject(OldEvent.decode(translate(STEER, FIRST)), { defaults: true });
    expect(event).toMatchObject({ type: 'response.steer.accepted', seq: expect.anything() });
    expect(Buffer.from((event as { json: Uint8Array }).json).toString()).toBe(STEER);
    expect(decodeEvent(translate(STEER, FIRST)).payload).toBeUndefined();
  });

  test('gets a newer field of an older message as JSON beside the typed rest', () => {
    const text = responseWith({ image: { context_compression: 'enabled' } });
    const event = decodeEvent(translate(text, FIRST));
    expect(event.json.toString()).toBe(text);
    expect(payloadOf(event)).toMatchObject({ response: { id: 'r' } });
    expect(Object.keys(payloadOf(event)['response'] as object)).not.toContain('image');
    expect(decodeEvent(translate(text, NEWEST)).json).toHaveLength(0);
  });

  test('gets a newer kind of item in the json arm', () => {
    const item = { type: 'configuration_update', id: 'c', reasoning: { effort: 'high' } };
    const text = responseWith({ output: [item] });
    const event = decodeEvent(translate(text, FIRST));
    const { output } = (payloadOf(event) as { response: { output: { json: Uint8Array }[] } }).response;
    expect(JSON.parse(Buffer.from(output[0]?.json ?? []).toString())).toEqual(item);
    expect(decodeEvent(translate(text, NEWEST)).json).toHaveLength(0);
  });

  test.each([
    ['1', 1, OldEvent],
    ['of the last release', RELEASED, ReleasedEvent],
  ])('of revision %s gets nothing that its descriptors do not know', (_, schemaRevision, Known) => {
    const events = arbitraries(schema)['ResponsesServerEvent'] ?? fc.constant({});
    const later = fc.constantFrom(...NEWER);
    fc.assert(
      fc.property(
        fc.oneof(
          later,
          events.map((event) => JSON.stringify(event)),
        ),
        (text) => {
          const bytes = translate(text, { payload: 'typed', schemaRevision });
          // What decoding passes over is not there when encoded again.
          const all = NewEvent.encode(NewEvent.decode(bytes)).finish();
          expect(Known.encode(Known.decode(bytes)).finish()).toHaveLength(all.length);
        },
      ),
      { numRuns: 400 },
    );
  });

  test('of the last release is told all of an inject in JSON, and of the agent beside the text', () => {
    const format = { payload: 'typed', schemaRevision: RELEASED } as const;
    const inject = decodeEvent(translate(INJECTED, format));
    expect([inject.type, inject.payload, inject.json.toString()]).toEqual([
      'response.inject.created',
      undefined,
      INJECTED,
    ]);
    const delta = decodeEvent(translate(OF_AN_AGENT, format));
    expect(payloadOf(delta)).toMatchObject({ delta: 'hi' });
    expect(delta.json.toString()).toBe(OF_AN_AGENT);
    expect(decodeEvent(translate(OF_AN_AGENT, NEWEST)).json).toHaveLength(0);
  });

  test('gets usage by item and field as it came, from the newest typed', () => {
    const event = decodeEvent(translate(responseWith({ usage: USAGE }), NEWEST));
    expect(event.json).toHaveLength(0);
    const plain = NewEvent.toObject(NewEvent.decode(translate(responseWith({ usage: USAGE }), NEWEST)), {
      longs: Number,
    });
    expect(plain).toMatchObject({ response_completed: { response: { usage: USAGE } } });
  });

  test('a client of a newer revision than ours gets all that we know', () => {
    const bytes = wire.event(eventOf(frameFromBytes(Buffer.from(STEER))), {
      payload: 'typed',
      schemaRevision: 99,
    });
    expect(decodeEvent(bytes).payload?.[0]).toBe('steer_accepted');
  });
});
