import { describe, expect, it } from 'vitest';
import { sealersOf } from '../../src/app/durability.ts';
import { createKeyedCalls } from '../../src/store/keyed-calls.ts';
import type { TestEvent } from '../harness/client.ts';
import { startGateway, type TestGateway } from '../harness/gateway.ts';
import { ANY_SERVER, connectStore, StoreServer } from '../harness/store-server.ts';

const KEY = { id: 'k', secret: Buffer.alloc(32, 7) };
const SLOW = 'slow #deltas=40 #tps=80';

/** Gateways with one store and one upstream. */
async function world() {
  const stack = new AsyncDisposableStack();
  const server = stack.use(await StoreServer.start({ kind: ANY_SERVER ?? 'valkey' }));
  const first = stack.use(await startGateway());
  const alive = new Set<string>();
  const start = async (
    processId: string,
    { keys = [KEY], onFailure = 'local' as 'local' | 'refuse' } = {},
  ): Promise<TestGateway> => {
    const client = await connectStore(server.url, { commandTimeoutMs: 15_000 });
    stack.defer(() => client.close());
    alive.add(processId);
    const keyedCalls = createKeyedCalls({
      client,
      processId,
      isAlive: async (id) => alive.has(id),
      sealerOf: sealersOf(client, keys),
      onFailure,
    });
    return stack.use(await startGateway({ upstreamUrl: first.simulator.url, server: { keyedCalls } }));
  };
  const asked = () => first.simulator.journal.entries.filter(({ request }) => request?.['input']).length;
  return { server, alive, start, asked, [Symbol.asyncDispose]: () => stack.disposeAsync() };
}

const request = (text: string, key = 'once') => ({
  create: { model: 'gpt-5.5', input: [{ message: { role: 'user', content: [{ input_text: { text } }] } }] },
  payload: 'PAYLOAD_FORMAT_BOTH',
  idempotency_key: key,
});

const call = async (gateway: TestGateway, text: string, key?: string) =>
  gateway.client().createResponse(request(text, key)).result;

const last = ({ events }: { readonly events: readonly TestEvent[] }) => events.at(-1);

describe.runIf(ANY_SERVER !== undefined)('an idempotency key over two processes', () => {
  it('runs one call: whoever comes to the other process hears its end, while it runs and afterwards', async () => {
    await using all = await world();
    const [one, two] = [await all.start('p1'), await all.start('p2')];
    const first = one.client().createResponse(request(SLOW));
    await expect.poll(all.asked, { timeout: 15_000 }).toBe(1);
    const [a, b] = await Promise.all([first.result, call(two, SLOW)]);
    const c = await call(two, SLOW);
    for (const answer of [a, b, c]) {
      expect(last(answer)).toMatchObject({ outcome: 'TURN_OUTCOME_COMPLETED' });
      expect(last(answer)?.json).toEqual(last(a)?.json);
      expect(answer.ended.code).toBe(0);
    }
    expect(all.asked()).toBe(1);
    const other = await call(two, 'something else');
    expect(other.ended).toMatchObject({ reason: 'TURN_ID_REUSED' });
    expect(all.asked()).toBe(1);
  });

  it('tells the failure of a call again', async () => {
    await using all = await world();
    const [one, two] = [await all.start('p1'), await all.start('p2')];
    const refused = await call(one, 'no #error=invalid_prompt', 'refused');
    expect(last(refused)?.outcome).toBe('TURN_OUTCOME_FAILED');
    const again = await call(two, 'no #error=invalid_prompt', 'refused');
    expect(again.ended.reason).toBe(refused.ended.reason);
  });

  it('is told once the store has room again, when the end could not be written', async () => {
    await using all = await world();
    const [one, two] = [await all.start('p1'), await all.start('p2')];
    const first = one.client().createResponse(request(SLOW, 'full'));
    await expect.poll(all.asked, { timeout: 15_000 }).toBe(1);
    const client = await connectStore(all.server.url);
    await client.command('', ['CONFIG', 'SET', 'maxmemory', '1']);
    expect(last(await first.result)).toMatchObject({ outcome: 'TURN_OUTCOME_COMPLETED' });
    const waiting = call(two, SLOW, 'full');
    await client.command('', ['CONFIG', 'SET', 'maxmemory', '0']);
    expect(last(await waiting)).toMatchObject({ outcome: 'TURN_OUTCOME_COMPLETED' });
    expect(all.asked()).toBe(1);
    await client.close();
  });

  it('is nobody’s to run once its process is gone: what became of the call is unknown', async () => {
    await using all = await world();
    const [one, two] = [await all.start('p1'), await all.start('p2')];
    const first = one.client().createResponse(request('hangs #deltas=100000 #tps=10'));
    first.result.catch(() => {});
    await expect.poll(all.asked, { timeout: 15_000 }).toBe(1);
    all.alive.delete('p1');
    const lost = await call(two, 'hangs #deltas=100000 #tps=10');
    expect(last(lost)).toMatchObject({
      outcome: 'TURN_OUTCOME_FAILED',
      turn_failed: { reason: 'UPSTREAM_LINK_LOST', replay: 'REPLAY_VERDICT_UNKNOWN' },
    });
    expect(all.asked()).toBe(1);
    first.call.cancel();
  });

  it('keeps no answer without keys, and nothing readable with them', async () => {
    await using all = await world();
    const dump = async () => {
      const client = await connectStore(all.server.url);
      const names = (await client.command('', ['KEYS', '*idempotency:*'])) as string[];
      const values = await Promise.all(names.map((name) => client.command(name, ['GET', name])));
      await client.close();
      return values.map(String).join('\n');
    };
    const bare = [await all.start('p1', { keys: [] }), await all.start('p2', { keys: [] })];
    await call(bare[0] as TestGateway, 'violet', 'bare');
    expect(last(await call(bare[1] as TestGateway, 'violet', 'bare'))).toMatchObject({
      turn_failed: { reason: 'UPSTREAM_LINK_LOST' },
    });
    expect(await dump()).not.toContain('violet');
    const sealed = await all.start('p3');
    await call(sealed, 'violet', 'sealed');
    expect(await dump()).not.toContain('violet');
    expect(all.asked()).toBe(2);
  });

  it.each(['local', 'refuse'] as const)(
    'without the store is a matter of on_failure: %s',
    async (onFailure) => {
      await using all = await world();
      const gateway = await all.start('p1', { onFailure });
      await all.server[Symbol.asyncDispose]();
      const answer = await call(gateway, 'hello');
      if (onFailure === 'local') expect(last(answer)).toMatchObject({ outcome: 'TURN_OUTCOME_COMPLETED' });
      else expect(answer.ended).toMatchObject({ reason: 'STORE_UNAVAILABLE' });
      expect(all.asked()).toBe(onFailure === 'local' ? 1 : 0);
    },
  );
});
