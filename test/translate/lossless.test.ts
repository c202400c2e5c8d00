import { readFileSync } from 'node:fs';
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { loadApi } from '../../src/translate/api.ts';
import { createWire, frameFromBytes } from '../../src/translate/index.ts';
import { Output } from '../../src/translate/output.ts';
import { Reader } from '../../src/translate/reader.ts';
import { objectOf, Writer } from '../../src/translate/writer.ts';
import { arbitraries, type Schema } from './arbitrary.ts';
import { decode, decodeEvent, documentOf, eventOf, TYPED, withoutNulls } from './support.ts';

const FIXTURE = new URL('./fixtures/responses.schema.json', import.meta.url);
const schema = JSON.parse(readFileSync(FIXTURE, 'utf8')) as Schema;
const of = arbitraries(schema);
const api = loadApi();
const wire = createWire(api);
const RUNS = { numRuns: 1500 };

function arbitrary(name: string): fc.Arbitrary<Readonly<Record<string, unknown>>> {
  return of[name] as fc.Arbitrary<Readonly<Record<string, unknown>>>;
}

describe('upstream JSON → event → upstream JSON', () => {
  test('is the same document where typed, and the same bytes where not', () => {
    let typed = 0;
    fc.assert(
      fc.property(arbitrary('ResponsesServerEvent'), (document) => {
        const text = JSON.stringify(document);
        const event = decodeEvent(wire.event(eventOf(frameFromBytes(Buffer.from(text))), TYPED), api);
        expect(event.type).toBe(document['type']);
        if (event.json.length > 0) expect(event.json.toString()).toBe(text);
        else {
          typed++;
          expect(withoutNulls(documentOf(event))).toEqual(withoutNulls(JSON.parse(text)));
        }
      }),
      RUNS,
    );
    // Most events of the schema need no JSON beside them; otherwise the property above would say nothing.
    expect(typed).toBeGreaterThan(RUNS.numRuns / 2);
  });

  test('an event with a member that nobody knows also carries its exact JSON', () => {
    const member = fc.tuple(
      fc.string({ minLength: 1 }).map((key) => `x_${key}`),
      fc.jsonValue(),
    );
    fc.assert(
      fc.property(arbitrary('ResponsesServerEvent'), member, (document, [key, value]) => {
        const text = JSON.stringify({ [key]: value, ...document });
        const event = decodeEvent(wire.event(eventOf(frameFromBytes(Buffer.from(text))), TYPED), api);
        expect(event.json.toString()).toBe(text);
      }),
      { numRuns: 300 },
    );
  });

  test('the payload choice adds the JSON, or leaves out the payload', () => {
    fc.assert(
      fc.property(arbitrary('ResponsesServerEvent'), (document) => {
        const bytes = Buffer.from(JSON.stringify(document));
        const json = decodeEvent(
          wire.event(eventOf(frameFromBytes(bytes)), { ...TYPED, payload: 'json' }),
          api,
        );
        expect(json.payload).toBeUndefined();
        expect(json.json.equals(bytes)).toBe(true);
        const both = decodeEvent(
          wire.event(eventOf(frameFromBytes(bytes)), { ...TYPED, payload: 'both' }),
          api,
        );
        expect(both.payload).toBeDefined();
        expect(both.json.equals(bytes)).toBe(true);
      }),
      { numRuns: 200 },
    );
  });

  test('a batch holds the same events as the events alone', () => {
    fc.assert(
      fc.property(fc.array(arbitrary('ResponsesServerEvent'), { maxLength: 5 }), (documents) => {
        const events = documents.map((document) =>
          eventOf(frameFromBytes(Buffer.from(JSON.stringify(document)))),
        );
        const alone = events.map((event) => decode('Event', wire.event(event, TYPED), api));
        const response = decode('ConnectResponse', wire.events(events, TYPED), api);
        expect(response).toMatchObject({ events: { events: alone } });
        const unary = decode('CreateResponseResponse', wire.createResponse(events, TYPED), api);
        expect(unary).toMatchObject({ events: alone });
      }),
      { numRuns: 150 },
    );
  });
});

describe('upstream JSON → message → upstream JSON, for what clients send', () => {
  test.each([
    ['ResponsesClientEventResponseCreate', 'CreateBody', withoutEnvelope],
    ['CompactResponseMethodPublicBody', 'CompactBody', itself],
    ['InputItem', 'CreateBody', (item: unknown) => ({ input: [item] })],
    ['OutputItem', 'CompactedResponse', (item: unknown) => ({ id: 'c', created_at: 1, output: [item] })],
    ['Tool', 'CreateBody', (tool: unknown) => ({ tools: [tool] })],
  ])('%s', (definition, message, wrap) => {
    const out = new Output();
    const reader = new Reader(out);
    const plan = api.plan(message);
    let typed = 0;
    fc.assert(
      fc.property(arbitrary(definition), (document) => {
        const text = JSON.stringify(wrap(document));
        out.at = 0;
        reader.read(plan, Buffer.from(text), api.schemaRevision);
        if (!reader.lossless) return;
        typed++;
        const members: [string, string][] = [];
        const decoded = decode(message, out.take(0), api);
        new Writer(false).eachMember(plan, decoded, message, (...member) => members.push(member));
        expect(withoutNulls(JSON.parse(objectOf(members)))).toEqual(withoutNulls(JSON.parse(text)));
      }),
      { numRuns: 600 },
    );
    // Only what is typed throughout is compared; most bodies of random parts have an untyped one.
    expect(typed).toBeGreaterThan(40);
  });
});

function itself(document: object): object {
  return document;
}

/** StartTurn says the rest. */
function withoutEnvelope({ type, stream_id, stream, ...body }: Readonly<Record<string, unknown>>): object {
  return body;
}
