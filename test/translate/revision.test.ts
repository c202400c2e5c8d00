import { readFileSync } from 'node:fs';
import fc from 'fast-check';
import protobuf from 'protobufjs';
import { describe, expect, test } from 'vitest';
import { loadApi } from '../../src/translate/api.ts';
import { createWire, frameFromBytes } from '../../src/translate/index.ts';
import { arbitraries, type Schema } from './arbitrary.ts';
import { decodeEvent, eventOf, payloadOf } from './support.ts';

/** What a client was built with that knows revision 1 only: the descriptors as they were, without our options. */
const OLD = new URL('./fixtures/revision-1.json', import.meta.url);
const root = protobuf.Root.fromJSON(JSON.parse(readFileSync(OLD, 'utf8')) as protobuf.INamespace);
const OldEvent = root.lookupType('responses.gateway.v1.Event');
const NewEvent = loadApi().type('Event');
const schema = JSON.parse(
  readFileSync(new URL('./fixtures/responses.schema.json', import.meta.url), 'utf8'),
) as Schema;

const wire = createWire();
const FIRST = { payload: 'typed', schemaRevision: 1 } as const;
const NEWEST = { payload: 'typed', schemaRevision: 0 } as const;

const STEER =
  '{"type":"response.steer.accepted","sequence_number":4,"steer":{"id":"steer_1","previous_response_id":"resp_1"}}';

function translate(text: string, format: typeof FIRST | typeof NEWEST): Uint8Array {
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

  test('gets nothing that its descriptors do not know', () => {
    const events = arbitraries(schema)['ResponsesServerEvent'] ?? fc.constant({});
    const later = fc.constantFrom(STEER, responseWith({ tool_usage: { web_search: { num_requests: 1 } } }));
    fc.assert(
      fc.property(
        fc.oneof(
          later,
          events.map((event) => JSON.stringify(event)),
        ),
        (text) => {
          const bytes = translate(text, FIRST);
          // What decoding passes over is not there when encoded again.
          const all = NewEvent.encode(NewEvent.decode(bytes)).finish();
          expect(OldEvent.encode(OldEvent.decode(bytes)).finish()).toHaveLength(all.length);
        },
      ),
      { numRuns: 400 },
    );
  });

  test('a client of a newer revision than ours gets all that we know', () => {
    const bytes = wire.event(eventOf(frameFromBytes(Buffer.from(STEER))), {
      payload: 'typed',
      schemaRevision: 99,
    });
    expect(decodeEvent(bytes).payload?.[0]).toBe('steer_accepted');
  });
});
