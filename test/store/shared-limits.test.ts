import { describe, expect, onTestFinished, test, vi } from 'vitest';
import type { Limits, TenantOptions } from '../../src/access/options.ts';
import type { PriceTable } from '../../src/access/prices.ts';
import type { Reservation, SessionLease, TurnAdmission } from '../../src/access/types.ts';
import { GatewayError } from '../../src/errors.ts';
import { openSharedLimits } from '../../src/store/shared-limits.ts';
import { ANY, BLUE, open, RED, record, turn, usage } from '../access/support.ts';
import { ANY_SERVER, AVAILABLE, connectStore, StoreServer } from '../harness/store-server.ts';

let processes = 0;

/** One process's access control with a connection of its own. */
async function replica(url: string, tenants: readonly TenantOptions[], prices?: PriceTable) {
  const client = await connectStore(url);
  processes += 1;
  const shared = openSharedLimits({ client, processId: `p${processes}`, timeoutMs: 250, ownedIdDays: 30 });
  const { access } = open({ shared, ...(prices !== undefined && { prices }) }, tenants);
  let closing: Promise<void> | undefined;
  const close = () => {
    closing ??= shared.close().then(() => client.close());
    return closing;
  };
  onTestFinished(close);
  return { access, client, shared, close };
}

type Replica = Awaited<ReturnType<typeof replica>>;

async function openSession({ access }: Replica, principal = BLUE): Promise<SessionLease> {
  const reservation = await access.reserveSession(principal);
  return using(reservation, () => access.admitSession(principal, ANY, reservation));
}

async function startTurn(session: SessionLease, facts: Partial<TurnAdmission> = {}) {
  const reservation = await session.reserveTurn(() => turn(facts), false);
  return using(reservation, () => session.admitTurn(turn(facts), reservation));
}

function using<T>(reservation: Reservation | undefined, admit: () => T): T {
  try {
    return admit();
  } finally {
    reservation?.release();
  }
}

/** How many of the attempts were let in; the refusals all name the limit. */
async function letIn(attempts: readonly Promise<unknown>[], limit: string): Promise<number> {
  const outcomes = await Promise.allSettled(attempts);
  for (const outcome of outcomes) {
    if (outcome.status === 'fulfilled') continue;
    expect(outcome.reason).toBeInstanceOf(GatewayError);
    expect(outcome.reason).toMatchObject({ reason: 'LIMIT_EXCEEDED', metadata: { limit, scope: 'tenant' } });
    expect(outcome.reason.retryAfterMs).toBeGreaterThan(0);
  }
  return outcomes.filter(({ status }) => status === 'fulfilled').length;
}

/** 0.000001 for a token of output: a thousand are a million nanos. */
const PRICES: PriceTable = {
  currency: 'EUR',
  asOf: '2026-11-30',
  models: [
    {
      model: 'priced',
      upstream: '*',
      tiers: new Map([
        [
          'default',
          {
            input: 0n,
            cachedInput: undefined,
            cacheWrite: undefined,
            output: 1_000_000n,
            reasoning: undefined,
          },
        ],
      ]),
      calls: new Map(),
    },
  ],
};

const blue = (limits: Limits): TenantOptions[] => [{ id: 'blue', limits }, { id: 'red' }];

describe.each(AVAILABLE)('limits over replicas, by %s', (kind) => {
  async function two(limits: Limits, prices?: PriceTable) {
    const server = await StoreServer.start({ kind });
    onTestFinished(() => server[Symbol.asyncDispose]());
    const replicas = await Promise.all([
      replica(server.url, blue(limits), prices),
      replica(server.url, blue(limits), prices),
    ]);
    return { server, a: replicas[0], b: replicas[1] };
  }

  test('sixty turns a minute are sixty', async () => {
    const { a, b } = await two({ turnsPerMinute: 60 });
    const sessions = [await openSession(a), await openSession(b)];
    const attempts = Array.from({ length: 120 }, (_, at) => startTurn(sessions[at % 2] as SessionLease));
    expect(await letIn(attempts, 'turns_per_minute')).toBe(60);
    // Another tenant's are its own.
    await startTurn(await openSession(a, RED));
  });

  test('a turn that never ran counts for nobody', async () => {
    const { a, b } = await two({ turnsPerMinute: 2 });
    const session = await openSession(a);
    for (let n = 0; n < 5; n++) (await startTurn(session)).abandon();
    await startTurn(session);
    const other = await openSession(b);
    await startTurn(other);
    expect(await letIn([startTurn(other), startTurn(session)], 'turns_per_minute')).toBe(0);
  });

  test('tokens are held by the guess and settled by the usage', async () => {
    const { a, b } = await two({ tokensPerMinute: 1_000 });
    // 100 bytes are 25 tokens.
    const facts = { inputBytes: 100, maxOutputTokens: 875 };
    const running = await startTurn(await openSession(a), facts);
    const other = await openSession(b);
    expect(await letIn([startTurn(other, facts)], 'tokens_per_minute')).toBe(0);
    running.settle(record({ usage: usage(20, 10) }));
    await vi.waitFor(async () => void (await startTurn(other, facts)));
    expect(await letIn([startTurn(other, { inputBytes: 4, maxOutputTokens: 70 })], 'tokens_per_minute')).toBe(
      0,
    );
    await startTurn(other, { inputBytes: 4, maxOutputTokens: 60 });
  });

  test('a turn whose guess costs nothing asks for the budget, and pays what it cost', async () => {
    const { a, b } = await two({ moneyPerDay: 1_000_000 }, PRICES);
    // The model that a stored prompt names is not known before it answers.
    const facts = { model: undefined };
    const running = await startTurn(await openSession(a), facts);
    running.settle(record({ requestModel: undefined, responseModel: 'priced', usage: usage(0, 2_000) }));
    const other = await openSession(b);
    await vi.waitFor(async () => expect(await letIn([startTurn(other, facts)], 'money_per_day')).toBe(0));
    await startTurn(other, { ...facts, runsModel: false });
  });

  test('sessions are counted together, and a place that is given back is free for all', async () => {
    const { a, b } = await two({ sessions: 3 });
    const attempts = Array.from({ length: 12 }, (_, at) => openSession(at % 2 === 0 ? a : b));
    expect(await letIn(attempts, 'sessions')).toBe(3);
    const open = (await Promise.allSettled(attempts)).flatMap((each) =>
      each.status === 'fulfilled' ? [each.value] : [],
    );
    for (const lease of open) lease.release();
    const again = Array.from({ length: 5 }, () => openSession(b));
    expect(await letIn(again, 'sessions')).toBe(3);
  });

  test('a large limit is not exceeded, and asks the store seldom', async () => {
    const { a, b } = await two({ turnsInFlight: 640 });
    const sessions = [await openSession(a), await openSession(b)];
    const command = vi.spyOn(a.client, 'command');
    const attempts = Array.from({ length: 1_000 }, (_, at) => startTurn(sessions[at % 2] as SessionLease));
    const started = await letIn(attempts, 'turns_in_flight');
    expect(started).toBeLessThanOrEqual(640);
    expect(started).toBeGreaterThan(600);
    expect(command.mock.calls.length).toBeLessThan(100);
  });

  test('the places of a process that goes are free', async () => {
    const { a, b } = await two({ sessions: 2 });
    await openSession(a);
    await openSession(a);
    expect(await letIn([openSession(b)], 'sessions')).toBe(0);
    await a.close();
    await vi.waitFor(async () => void (await openSession(b)));
  });

  test('response ids are known to all, after a restart too, and to their tenant only', async () => {
    const { server, a, b } = await two({});
    (await openSession(a)).ownResponse('resp_1');
    const name = (at: Replica, principal = BLUE) =>
      openSession(at, principal).then((session) => startTurn(session, { responseIds: ['resp_1'] }));
    await vi.waitFor(async () => void (await name(b)));
    await expect(name(b, RED)).rejects.toMatchObject({ reason: 'UNKNOWN_RESPONSE' });
    await Promise.all([a.close(), b.close()]);
    const later = await replica(server.url, blue({}));
    await name(later);
    await later.shared.forget('blue');
    const last = await replica(server.url, blue({}));
    await expect(name(last)).rejects.toMatchObject({ reason: 'UNKNOWN_RESPONSE' });
  });

  test('items of a response are known to all', async () => {
    const { a, b } = await two({});
    (await openSession(a)).ownItem('msg_1');
    const input = ['{"type":"item_reference","id":"msg_1"}'];
    const name = async (principal = BLUE) => startTurn(await openSession(b, principal), { input });
    await vi.waitFor(async () => void (await name()));
    await expect(name(RED)).rejects.toMatchObject({ reason: 'PERMISSION_DENIED' });
  });

  test("another tenant's id is refused where unknown ones pass", async () => {
    const server = await StoreServer.start({ kind });
    onTestFinished(() => server[Symbol.asyncDispose]());
    const tenants: TenantOptions[] = [{ id: 'blue', storedIds: 'allow' }, { id: 'red' }];
    const a = await replica(server.url, tenants);
    const b = await replica(server.url, tenants);
    (await openSession(a, RED)).ownResponse('resp_red');
    await vi.waitFor(async () => expect(await b.shared.knows(['red'], 'resp_red')).toBe(true));
    const session = await openSession(b);
    await startTurn(session, { responseIds: ['resp_elsewhere'] });
    await expect(startTurn(session, { responseIds: ['resp_red'] })).rejects.toMatchObject({
      reason: 'UNKNOWN_RESPONSE',
    });
  });
});

test.each(AVAILABLE)('a Cluster of %s takes all commands', async (kind) => {
  await using server = await StoreServer.start({ kind, config: ['cluster-enabled yes'] });
  const plain = await connectStore(server.url);
  await plain.command('', ['CLUSTER', 'ADDSLOTSRANGE', '0', '16383']);
  await vi.waitFor(
    async () => expect(await plain.command('', ['CLUSTER', 'INFO'])).toContain('cluster_state:ok'),
    { timeout: 15_000, interval: 100 },
  );
  const client = await connectStore(server.url.replace('valkey:', 'valkey+cluster:'));
  const shared = openSharedLimits({ client, processId: 'p', timeoutMs: 5_000, ownedIdDays: 30 });
  expect(await shared.allot('blue', 'sessions', 3, 5)).toBe(3);
  expect(await shared.allot('blue', 'sessions', 3, 5)).toBe(2);
  const turn = { name: 'turnsPerMinute', seconds: 60, points: 1, limit: 1 } as const;
  expect(await shared.charge('blue', [turn])).toMatchObject({ kind: 'taken' });
  expect(await shared.charge('blue', [turn])).toMatchObject({ kind: 'full', name: 'turnsPerMinute' });
  for (let n = 0; n < 300; n++) shared.remember('blue', `resp_${n}`);
  expect(await shared.knows(['blue'], 'resp_299')).toBe(true);
  expect(await shared.knows(['red'], 'resp_299')).toBe(false);
  await shared.forget('blue');
  expect(await shared.knows(['blue'], 'resp_299')).toBe(false);
  await shared.close();
  await Promise.all([client.close(), plain.close()]);
});

describe.skipIf(ANY_SERVER === undefined)('a store that does not answer', () => {
  test('leaves each process its part of the limits', async () => {
    await using server = await StoreServer.start({ kind: ANY_SERVER ?? 'valkey' });
    const limits: Limits = { turnsPerMinute: 10, sessions: 4 };
    const a = await replica(server.url, blue(limits));
    const b = await replica(server.url, blue(limits));
    await vi.waitFor(() => expect([a.shared.processes, b.shared.processes]).toEqual([2, 2]), 20_000);
    server.stall();
    const sessions = [await openSession(a), await openSession(b)];
    const attempts = Array.from({ length: 30 }, (_, at) => startTurn(sessions[at % 2] as SessionLease));
    expect(await letIn(attempts, 'turns_per_minute')).toBe(10);
    expect(await letIn([openSession(a), openSession(a), openSession(a)], 'sessions')).toBe(1);
    server.goOn();
    // What was taken meanwhile counts when the store is back.
    await vi.waitFor(
      async () => expect(await letIn([openSession(b), openSession(b)], 'sessions')).toBe(1),
      20_000,
    );
  });
});
