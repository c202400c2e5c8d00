import { describe, expect, it } from 'vitest';
import { ResponseStore } from '../../src/simulator/index.ts';
import { errorOf, functionTool, RawClient, responseOf, simulator } from './support.ts';

describe('the connection-local cache', () => {
  it('remembers the most recent response of a lane, stored or not', async () => {
    const client = await RawClient.open(await simulator());
    const first = await client.turn({ input: 'one' });
    const second = await client.turn({ input: 'two', previous_response_id: first.id });
    expect(second.usage.input_tokens_details.cached_tokens).toBeGreaterThan(0);
    client.create({ input: 'again', previous_response_id: first.id });
    const missing = await client.type('error');
    expect(errorOf(missing).code).toBe('previous_response_not_found');
    // The parent of the failed turn was not in the cache, so nothing was evicted.
    await client.turn({ input: 'three', previous_response_id: second.id });
  });

  it('hydrates stored responses, also on another connection and after a restart', async () => {
    const store = new ResponseStore();
    const running = await simulator({}, store);
    const first = await (await RawClient.open(running)).turn({ input: 'one', store: true });
    const other = await RawClient.open(running);
    const hydrated = await other.turn({ input: 'two', previous_response_id: first.id });
    expect(hydrated.usage.input_tokens_details.cached_tokens).toBe(0);
    await running.close();
    const restarted = await RawClient.open(await simulator({}, store));
    const resumed = await restarted.turn({ input: 'two', previous_response_id: first.id });
    expect(resumed.previous_response_id).toBe(first.id);
    restarted.create({ input: 'x', previous_response_id: hydrated.id });
    expect(errorOf(await restarted.type('error')).code).toBe('previous_response_not_found');
  });

  it('sees the same conversation whether it came whole or by id', async () => {
    const running = await simulator();
    const client = await RawClient.open(running);
    const first = await client.turn({ input: 'one #reasoning' });
    await client.turn({ input: 'two', previous_response_id: first.id });
    const history = [
      { role: 'user', content: [{ type: 'input_text', text: 'one #reasoning' }] },
      ...first.output.filter((item) => item.type === 'message').map(({ id: _id, ...item }) => item),
      { role: 'user', content: 'two' },
    ];
    await client.turn({ input: history });
    const [, byId, whole] = running.journal.entries;
    expect(whole?.contextHash).toBe(byId?.contextHash);
    expect([byId?.reasoningItems, whole?.reasoningItems]).toEqual([1, 0]);
  });

  it('drops the parent when a same-lane continuation fails, and keeps it when a fork fails', async () => {
    const client = await RawClient.open(await simulator());
    const parent = await client.turn({ input: 'one' });
    client.create({ stream_id: 'fork', input: 'bad', previous_response_id: parent.id, temperature: 9 });
    expect(errorOf(await client.type('error', 'fork')).code).toBe('decimal_above_max_value');
    const fork = await client.turn({ stream_id: 'fork', input: 'good', previous_response_id: parent.id });
    expect(fork.previous_response_id).toBe(parent.id);
    client.create({ input: 'bad', previous_response_id: parent.id, temperature: 9 });
    await client.type('error');
    client.create({ input: 'good', previous_response_id: parent.id });
    expect(errorOf(await client.type('error')).code).toBe('previous_response_not_found');
  });

  it.each([
    ['same-lane', false, false],
    ['any-lane', true, false],
    ['never', true, true],
  ] as const)('evicts by the rule %s', async (evictOnError, failsInFork, survives) => {
    const client = await RawClient.open(await simulator({ switches: { evictOnError } }));
    const parent = await client.turn({ input: 'one' });
    const lane = failsInFork ? { stream_id: 'fork' } : {};
    client.create({ ...lane, input: '#error=500', previous_response_id: parent.id });
    await client.type('error');
    client.create({ input: 'on', previous_response_id: parent.id });
    const type = (await client.next((f) => f.type === 'error' || f.type === 'response.completed')).type;
    expect(type).toBe(survives ? 'response.completed' : 'error');
  });

  it.each([true, false])('lets response.failed evict: %s', async (failedResponseEvicts) => {
    const client = await RawClient.open(await simulator({ switches: { failedResponseEvicts } }));
    const parent = await client.turn({ input: 'one' });
    client.create({ input: '#fail=rate_limit_exceeded', previous_response_id: parent.id });
    const failed = responseOf(await client.type('response.failed'));
    expect(failed.error?.code).toBe('rate_limit_exceeded');
    client.create({ input: 'on', previous_response_id: parent.id });
    const last = await client.terminal();
    expect(last.type).toBe(failedResponseEvicts ? 'error' : 'response.completed');
  });

  it('continues an incomplete response', async () => {
    const client = await RawClient.open(await simulator());
    client.create({ input: '#incomplete #deltas=20' });
    const cut = responseOf(await client.type('response.incomplete'));
    expect(cut.incomplete_details?.reason).toBe('max_output_tokens');
    expect(cut.usage.output_tokens).toBe(10);
    await client.turn({ input: 'go on', previous_response_id: cut.id });
    client.create({ input: '#deltas=100', max_output_tokens: 16 });
    expect(responseOf(await client.type('response.incomplete')).usage.output_tokens).toBe(16);
  });
});

describe('lanes', () => {
  it('runs 16 at once, queues the rest silently, and keeps the order inside a lane', async () => {
    const running = await simulator({ timing: { timeToFirstTokenMs: 30 } });
    const client = await RawClient.open(running);
    for (let n = 0; n < 20; n += 1) client.create({ stream_id: `lane_${n}`, input: 'x' });
    client.create({ stream_id: 'lane_0', input: 'second' });
    let open = 0;
    let most = 0;
    const started: string[] = [];
    for (let done = 0; done < 21; ) {
      const frame = await client.next();
      if (frame.type === 'response.created') {
        open += 1;
        started.push(String(frame.stream_id));
      }
      if (frame.type === 'response.completed') {
        open -= 1;
        done += 1;
      }
      most = Math.max(most, open);
    }
    expect(most).toBe(16);
    expect(started.slice(0, 16)).toEqual(Array.from({ length: 16 }, (_, n) => `lane_${n}`));
    expect(started.filter((lane) => lane === 'lane_0')).toHaveLength(2);
    expect(client.frames.some((frame) => frame.type === 'error')).toBe(false);
  });

  it('gives 32 names and the default lane, refuses the 33rd, never frees one', async () => {
    const client = await RawClient.open(await simulator());
    for (let n = 0; n < 32; n += 1) await client.turn({ stream_id: `a.${n}`, input: 'x' });
    await client.turn({ input: 'default' });
    client.create({ stream_id: 'a.32', input: 'x' });
    const refused = await client.type('error');
    expect(refused).toMatchObject({ status: 400, stream_id: 'a.32' });
    expect(errorOf(refused).code).toBe('websocket_stream_limit_reached');
    await client.turn({ stream_id: 'a.31', input: 'still here' });
  });

  it.each(['', 'a b', 'ä', 'x'.repeat(257), 7, null, ['a']])(
    'refuses the name %j without echoing it',
    async (name) => {
      const client = await RawClient.open(await simulator());
      client.create({ stream_id: name, input: 'x' });
      const refused = await client.type('error');
      expect(errorOf(refused)).toMatchObject({ code: 'invalid_stream_id', param: 'stream_id' });
      expect('stream_id' in refused).toBe(false);
    },
  );

  it.each([
    [true, 'error'],
    [false, 'response.completed'],
  ] as const)('counts the name of a rejected create: %s', async (rejectedCreateUsesLaneName, expected) => {
    const client = await RawClient.open(
      await simulator({ switches: { maxLanes: 1, rejectedCreateUsesLaneName } }),
    );
    client.create({ stream_id: 'bad', input: 'x', model: 5 });
    await client.type('error', 'bad');
    client.create({ stream_id: 'good', input: 'x' });
    expect((await client.terminal('good')).type).toBe(expected);
  });

  it('refuses what exceeds the queue, and an old deployment refuses lanes', async () => {
    const running = await simulator({ switches: { maxQueued: 1, maxInFlight: 1 } });
    const client = await RawClient.open(running);
    client.create({ input: '#hang' });
    client.create({ input: 'waits' });
    client.create({ input: 'too many' });
    expect((await client.type('error')).status).toBe(429);
    running.configure({ switches: { lanes: false } });
    client.create({ stream_id: 'a', input: 'x' });
    expect(errorOf(await client.type('error')).code).toBe('unsupported_parameter');
  });

  it('lets a fork and its source go on side by side', async () => {
    const running = await simulator();
    const client = await RawClient.open(running);
    const root = await client.turn({ input: 'root' });
    client.create({ stream_id: 'left', input: 'L', previous_response_id: root.id });
    await client.type('response.in_progress', 'left');
    client.create({ input: 'R', previous_response_id: root.id });
    await client.terminal('');
    const hashes = new Set(running.journal.entries.map((entry) => entry.contextHash));
    expect(hashes.size).toBe(3);
  });

  it('calls the given tools in turn, in parallel if asked, as often as asked', async () => {
    const client = await RawClient.open(await simulator());
    const tools = [
      functionTool('alpha', { n: { type: 'integer' } }),
      functionTool('beta', { on: { type: 'boolean' } }),
    ];
    let response = await client.turn({ input: 'go #tools=5 #parallel=2', tools });
    const names: unknown[] = [];
    for (let step = 0; step < 10 && response.output[0]?.type === 'function_call'; step += 1) {
      names.push(response.output.map((item) => item.name));
      const input = response.output.map((item) => ({
        type: 'function_call_output',
        call_id: item.call_id,
        output: 'ok',
      }));
      response = await client.turn({ input, previous_response_id: response.id, tools });
    }
    expect(names).toEqual([['alpha', 'beta'], ['alpha', 'beta'], ['alpha']]);
    expect(response.output[0]?.type).toBe('message');
  });
});
