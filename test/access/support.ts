import { readFileSync } from 'node:fs';
import { onTestFinished } from 'vitest';
import { createAccessControl, type RunningAccess } from '../../src/access/access.ts';
import { createApiKey } from '../../src/access/auth/api-keys.ts';
import type { AccessOptions, AccessWarning, TenantOptions } from '../../src/access/options.ts';
import type { CallerFacts, Principal, SessionLease, TurnAdmission } from '../../src/access/types.ts';
import type { TurnRecord, Usage } from '../../src/core/types.ts';
import { GatewayError } from '../../src/errors.ts';

export const NOW_MS = Date.parse('2027-01-01T00:00:00Z');

export function caller(facts: Partial<CallerFacts> = {}): CallerFacts {
  return {
    authorization: undefined,
    upstreamKey: undefined,
    peerAddress: '127.0.0.1:5000',
    peerCertificate: undefined,
    ...facts,
  };
}

export function bearer(token: string): CallerFacts {
  return caller({ authorization: `Bearer ${token}` });
}

export function turn(facts: Partial<TurnAdmission> = {}): TurnAdmission {
  return {
    model: 'gpt-6',
    upstream: undefined,
    inputBytes: 400,
    maxOutputTokens: 100,
    responseIds: [],
    conversation: false,
    ...facts,
  };
}

export function record(facts: Partial<TurnRecord> = {}): TurnRecord {
  return {
    laneId: '',
    turnId: 't1',
    outcome: 'COMPLETED',
    failed: undefined,
    acceptedAtMs: 0,
    sentAtMs: 1,
    createdAtMs: 2,
    firstOutputAtMs: 3,
    lastOutputAtMs: 4,
    endedAtMs: 5,
    outputEvents: 1,
    events: 3,
    requestModel: 'gpt-6',
    responseModel: 'gpt-6',
    responseId: 'resp_1',
    serviceTier: undefined,
    finishReason: 'stop',
    usage: undefined,
    bytesUp: 1,
    fullContextBytes: 1,
    bytesDown: 1,
    toolCalls: 0,
    replays: 0,
    sends: 1,
    route: undefined,
    warmUp: false,
    ...facts,
  };
}

export function usage(inputTokens: number, outputTokens: number): Usage {
  return { inputTokens, outputTokens, cachedInputTokens: 0, cacheWriteTokens: 0, reasoningTokens: 0 };
}

export const quietMemory = () => ({ heapBytes: 1, heapLimitBytes: 100, rssBytes: 1, rssLimitBytes: 100 });

/** Two tenants with a key each, one upstream, memory that is never short. Closed with the test. */
export function open(options: Partial<AccessOptions> = {}, tenants?: readonly TenantOptions[]) {
  const warnings: AccessWarning[] = [];
  const blue = createApiKey();
  const red = createApiKey();
  const access = createAccessControl({
    auth: [
      {
        kind: 'apiKeys',
        keys: [
          { id: blue.id, hash: blue.hash, tenant: 'blue', subject: 'blue-service' },
          { id: red.id, hash: red.hash, tenant: 'red', subject: 'red-service' },
        ],
      },
    ],
    tenants: tenants ?? [{ id: 'blue' }, { id: 'red' }],
    upstreamNames: ['openai'],
    loopbackOnly: true,
    memoryGuard: { probe: quietMemory },
    now: () => NOW_MS,
    onWarning: (warning) => warnings.push(warning),
    ...options,
  });
  onTestFinished(() => access.close());
  return { access, warnings, blue, red };
}

export const BLUE = { tenantId: 'blue', subject: 'blue-service' };
export const RED = { tenantId: 'red', subject: 'red-service' };
export const ANY = { upstream: undefined, upstreamKey: undefined };

/** The places that these callers can still take together, found by taking them. */
export function freePlaces(access: RunningAccess, ...callers: readonly Principal[]) {
  const sessions: SessionLease[] = [];
  for (const principal of callers) takeAll(() => sessions.push(access.admitSession(principal, ANY)));
  const lanes = sessions.flatMap((session) => takeAll(() => session.admitLane()));
  const turns = sessions.flatMap((session) => takeAll(() => session.admitTurn(turn({ runsModel: false }))));
  for (const one of turns) one.abandon();
  for (const session of sessions) session.release();
  return { sessions: sessions.length, lanes: lanes.length, turnsInFlight: turns.length };
}

function takeAll<T>(take: () => T): T[] {
  const taken: T[] = [];
  try {
    for (;;) taken.push(take());
  } catch (error) {
    if (error instanceof GatewayError && error.reason === 'LIMIT_EXCEEDED') return taken;
    throw error;
  }
}

/** Points of the window that are used, the whole window at most, as the refusal of a turn that would need all of it tells. */
export function usedOf(access: RunningAccess, limit: string, model = 'gpt-6'): number {
  const session = access.admitSession(BLUE, ANY);
  try {
    session.admitTurn(turn({ model, inputBytes: 0, maxOutputTokens: 1e12 })).abandon();
    return 0;
  } catch (error) {
    if (!(error instanceof GatewayError) || error.metadata['limit'] !== limit) throw error;
    return Number(error.metadata['value']) - Number(error.metadata['left']);
  } finally {
    session.release();
  }
}

/** The error of a call that has to be refused. */
export function refusal(call: () => unknown): GatewayError {
  try {
    call();
  } catch (error) {
    if (error instanceof GatewayError) return error;
    throw error;
  }
  throw new Error('was not refused');
}

export async function refusalOf(call: Promise<unknown>): Promise<GatewayError> {
  return call.then(
    () => {
      throw new Error('was not refused');
    },
    (error: unknown) => {
      if (error instanceof GatewayError) return error;
      throw error;
    },
  );
}

export function fixture(name: string): string {
  return readFileSync(new URL(`./fixtures/${name}`, import.meta.url), 'utf8');
}
