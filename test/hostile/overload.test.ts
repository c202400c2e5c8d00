import { expect, onTestFinished, test } from 'vitest';
import { createAccessControl } from '../../src/access/access.ts';
import type { Limits } from '../../src/access/options.ts';
import { freePlaces, usedOf } from '../access/support.ts';
import { userMessage } from '../harness/client.ts';
import { startGateway } from '../harness/gateway.ts';

const RESOURCE_EXHAUSTED = 8;
const PROCESS = { sessions: 20, lanes: 30, turnsInFlight: 40 };
/** A tenant without limits of its own, to see what is left of the process's. */
const OTHER = { tenantId: 'other', subject: 'other' };

test('short of memory: what runs goes on, what is new is refused with a time to wait, and then all is well', async () => {
  const memory = { heapBytes: 1, heapLimitBytes: 100, rssBytes: 1, rssLimitBytes: 100 };
  const { gateway, access } = await open({}, { probe: () => memory, sampleIntervalMs: 5 });
  const stream = gateway.client().connect();
  await stream.opened();
  const running = () => stream.startTurn({ turn_id: 'running' }, '#deltas=200 #tps=400');
  running();
  await stream.event('response.created', 'running');

  memory.rssBytes = 90;
  await expect.poll(() => access.overload()).toBeDefined();
  // As a client does that does not know whether it arrived.
  running();
  stream.startTurn({ turn_id: 'new', lane_id: 'a' }, 'hello');
  const refused = (await stream.turn('new')).at(-1)?.turn_failed;
  expect(refused).toMatchObject({
    reason: 'OVERLOADED',
    code: RESOURCE_EXHAUSTED,
    replay: 'REPLAY_VERDICT_SAFE',
  });
  expect(refused).toHaveProperty('retry_after.seconds', 5);
  const other = await gateway.client().connect().ended();
  expect(other).toMatchObject({ code: RESOURCE_EXHAUSTED, reason: 'OVERLOADED' });
  expect(other.details).toContain('RetryInfo');
  const unary = gateway.client().createResponse({ create: { model: 'm', input: [userMessage('hi')] } });
  expect((await unary.result).ended.reason).toBe('OVERLOADED');
  const went = await stream.turn('running');
  expect(went.at(-1)?.outcome).toBe('TURN_OUTCOME_COMPLETED');
  expect(went.filter((event) => event.turn_failed != null)).toEqual([]);

  memory.rssBytes = 50;
  await expect.poll(() => access.overload()).toBeUndefined();
  stream.startTurn({ turn_id: 'after' }, 'hello');
  expect((await stream.turn('after')).at(-1)?.outcome).toBe('TURN_OUTCOME_COMPLETED');
});

test('over a limit: the name, the value and a time to wait, on every path', async () => {
  const { gateway } = await open({ turnsPerMinute: 2, sessions: 2 });
  const client = gateway.client();
  const stream = client.connect();
  await stream.opened();
  for (const turnId of ['t1', 't2']) {
    stream.startTurn({ turn_id: turnId }, 'hello');
    expect((await stream.turn(turnId)).at(-1)?.outcome).toBe('TURN_OUTCOME_COMPLETED');
  }
  stream.startTurn({ turn_id: 't3' }, 'hello');
  const last = (await stream.turn('t3')).at(-1)?.turn_failed;
  const metadata = { limit: 'turns_per_minute', value: '2', scope: 'tenant' };
  expect(last).toMatchObject({ reason: 'LIMIT_EXCEEDED', code: RESOURCE_EXHAUSTED, metadata });
  expect(last).toHaveProperty('retry_after.seconds', expect.closeTo(60, -1));

  const unary = await client.createResponse({ create: { model: 'm', input: [userMessage('hi')] } }).result;
  expect(unary.ended).toMatchObject({ code: RESOURCE_EXHAUSTED, reason: 'LIMIT_EXCEEDED', metadata });
  const compact = await client.compactResponse({ compact: { model: 'm', input: [userMessage('hi')] } });
  expect(compact.ended).toMatchObject({ code: RESOURCE_EXHAUSTED, reason: 'LIMIT_EXCEEDED', metadata });
  expect(compact.ended.details).toContain('RetryInfo');

  const second = client.connect();
  await second.opened();
  const third = await client.connect().ended();
  expect(third).toMatchObject({ reason: 'LIMIT_EXCEEDED', metadata: { limit: 'sessions', value: '2' } });
  second.halfClose();
  await second.ended();
  await client.connect().opened();
});

test('tokens are settled by the upstream’s usage, whatever was held', async () => {
  const { gateway, access } = await open({ tokensPerDay: 100_000 });
  const stream = gateway.client().connect();
  await stream.opened();
  stream.startTurn({ turn_id: 't1' }, 'hello');
  await stream.turn('t1');
  const last = await stream.event('response.completed', 't1');
  const { usage } = (last.response_completed as { response: { usage: { total_tokens: number } } }).response;
  expect(usage.total_tokens).toBeGreaterThan(0);
  expect(usedOf(access, 'tokens_per_day')).toBe(usage.total_tokens);
  stream.halfClose();
  await stream.ended();
  expect(freePlaces(access, OTHER)).toEqual(PROCESS);
});

async function open(limits: Limits, memoryGuard = {}) {
  const access = createAccessControl({
    auth: [{ kind: 'none', tenant: 'blue' }],
    tenants: [{ id: 'blue', limits }, { id: OTHER.tenantId }],
    processLimits: PROCESS,
    upstreamNames: ['simulator'],
    loopbackOnly: true,
    memoryGuard,
  });
  const gateway = await startGateway({ access });
  onTestFinished(async () => {
    await gateway.close();
    await access.close();
    expect(gateway.bugs).toEqual([]);
    // Whatever happened, every place is free again.
    expect(freePlaces(access, OTHER)).toEqual(PROCESS);
  });
  return { gateway, access };
}
