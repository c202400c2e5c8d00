import { readdirSync, readFileSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import { SCENARIOS } from '../../scripts/capture/scenarios.ts';
import { lacking, type Skeleton, skeletonOf } from '../../scripts/capture/skeleton.ts';
import { type CaptureOptions, capture, type Recording } from '../../scripts/capture.ts';
import { frameFromBytes, loadApi } from '../../src/translate/index.ts';
import { createWire } from '../../src/translate/wire.ts';
import { RawClient, simulator } from '../simulator/support.ts';
import { decodeEvent, eventOf, TYPED } from '../translate/support.ts';

const FOLDER = new URL('.', import.meta.url);
/** Recordings of live endpoints, each with its source. Whoever has a key can add one: `npm run capture`. */
const RECORDINGS = readdirSync(FOLDER)
  .filter((file) => file.endsWith('.json'))
  .map((file) => [file, JSON.parse(readFileSync(new URL(file, FOLDER), 'utf8')) as Recording] as const);

const typesOf = (frames: readonly Skeleton[]): readonly unknown[] =>
  frames.map((frame) => (frame as { readonly type?: Skeleton }).type);

async function recorded(options: Partial<CaptureOptions> = {}): Promise<Recording> {
  const running = await simulator();
  return capture({ url: running.httpUrl, model: 'gpt-5.5', transport: 'websocket', ...options });
}

describe.each(RECORDINGS)('%s', (_file, live) => {
  it.each(Object.keys(live.scenarios))('the simulator says all of it, in its order: %s', async (name) => {
    const ours = (await recorded()).scenarios[name] ?? [];
    const theirs = live.scenarios[name] ?? [];
    expect(typesOf(ours)).toEqual(typesOf(theirs));
    expect(
      theirs.flatMap((frame, n) => lacking(frame, ours[n] ?? 'null', String(typesOf(theirs)[n]))),
    ).toEqual([]);
  });

  it.each(Object.entries(live.scenarios))(
    'the translator has a typed place for all of it: %s',
    (_name, frames) => {
      const wire = createWire(loadApi());
      for (const frame of frames) {
        const bytes = Buffer.from(JSON.stringify(filled(frame)));
        const event = decodeEvent(wire.event(eventOf(frameFromBytes(bytes)), TYPED));
        if (event.type === 'error') continue;
        expect(event.payload, event.type).toBeDefined();
        expect(event.json.toString(), event.type).toBe('');
      }
    },
  );
});

it('the simulator encrypts reasoning anew for the terminal, as the live API does', async () => {
  const client = await RawClient.open(await simulator());
  const scenario = SCENARIOS.find(({ name }) => name === 'reasoning');
  const { output } = await client.turn({ ...scenario?.create });
  const done = client.frames.find(
    ({ type, item }) =>
      type === 'response.output_item.done' && (item as { type: string }).type === 'reasoning',
  );
  const [first, last] = [done?.item as Record<string, unknown>, output[0]];
  expect(last).toMatchObject({ id: first['id'], summary: first['summary'] });
  expect(last?.['encrypted_content']).not.toBe(first['encrypted_content']);
  // Either can be told again.
  for (const item of [first, last]) {
    const { id: _id, ...bare } = item as Record<string, unknown>;
    await client.turn({ input: [bare, { role: 'user', content: 'on' }] });
  }
});

it('a frame that lacks what a recording has is told by its path', () => {
  const live = { type: '"response.created"', response: { user: 'null', usage: { total_tokens: 'number' } } };
  expect(lacking(live, { type: '"response.created"', response: { user: 'string' } })).toEqual([
    'response.usage is missing',
  ]);
  expect(lacking(live, { type: '"response.done"', response: {} })).toHaveLength(3);
  expect(lacking([{ type: '"a"' }, { type: '"b"' }], [{ type: '"b"' }])).toHaveLength(1);
});

describe('a recording', () => {
  it.each(['websocket', 'http'] as const)('has none of the content, over %s', async (transport) => {
    const apiKey = 'sk-secret-key-of-somebody';
    const text = JSON.stringify(await recorded({ transport, apiKey }));
    for (const content of [
      apiKey,
      'hello',
      'Oslo',
      'weather',
      'primes',
      'resp_',
      'msg_',
      'gAAAAA',
      'gpt-5.5',
    ])
      expect(text.toLowerCase()).not.toContain(content.toLowerCase());
    expect(text).toContain('response.completed');
  });

  it('has no name that somebody chose, and no end of a list', () => {
    const bones = skeletonOf({
      metadata: { 'my secret': 'x' },
      usage: { attribution: { items: { msg_123: { input_tokens: 1 } } } },
      type: 'Call me at 555',
      tools: [{ type: 'function', parameters: { properties: { secret: {} } } }],
      long: Array.from({ length: 1000 }, (_, n) => ({ [`k${n}`]: 1 })),
    });
    const text = JSON.stringify(bones);
    expect(text).not.toMatch(/secret|msg_123|555|k500/);
    expect(text.length).toBeLessThan(1000);
  });
});

/** A document with such bones, and content that means nothing. */
function filled(bones: Skeleton): unknown {
  if (Array.isArray(bones)) return bones.map(filled);
  if (typeof bones === 'object')
    return Object.fromEntries(
      Object.entries(bones).map(([key, each]) => [key === '*' ? 'item_1' : key, filled(each)]),
    );
  if (bones.startsWith('"')) return bones.slice(1, -1);
  return { null: null, number: 1, boolean: true, object: {}, list: [], string: 'x' }[bones];
}
