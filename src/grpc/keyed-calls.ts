import { setTimeout as delay } from 'node:timers/promises';
import { GatewayError, type Reason } from '../errors.ts';
import { backoffMs } from '../ground/backoff.ts';
import { StoreError } from '../store/store-error.ts';
import type { KeyedCall, KeyedCalls, KeyedOutcome } from '../store/types.ts';
import type { KeyedRun, KeyedRuns } from './idempotency.ts';

/** A call that has its key: whoever else comes with it listens to its run. */
export interface KeyedTurn {
  readonly run: KeyedRun;
  /** Everything was said. `ran`: false, and the key is free again. */
  end(error: GatewayError | undefined, ran: boolean): void;
}

export interface KeyedRequest {
  readonly tenantId: string;
  readonly key: string;
  readonly fingerprint: string;
}

export interface KeyedSurroundings {
  readonly keyedRuns: KeyedRuns;
  /** Undefined: each process knows its own. */
  readonly keyedCalls: KeyedCalls | undefined;
  readonly onBug: (error: unknown) => void;
}

const LOOK_AGAIN = { minMs: 50, maxMs: 2_000, random: Math.random };

/**
 * Who runs the call of a key. Rejects with TURN_ID_REUSED for another request, with STORE_UNAVAILABLE where nobody can tell
 * and that is not to be risked. `lost` makes the message of a call whose process is gone.
 */
export async function enterKeyed(
  edge: KeyedSurroundings,
  request: KeyedRequest,
  lost: (error: GatewayError) => Uint8Array,
): Promise<{ readonly listenTo: KeyedRun } | { readonly turn: KeyedTurn }> {
  const { keyedRuns, keyedCalls: shared } = edge;
  const { tenantId, key, fingerprint } = request;
  const earlier = keyedRuns.find(tenantId, key, fingerprint);
  if (earlier !== undefined) return { listenTo: earlier };
  const run = keyedRuns.begin(tenantId, key, fingerprint);
  let isShared = false;
  let isEnded = false;
  const end: KeyedTurn['end'] = (error, ran) => {
    if (isEnded) return;
    isEnded = true;
    const message = run.newest;
    run.end(error);
    if (!ran) keyedRuns.release(tenantId, key, run);
    if (shared === undefined || !isShared) return;
    if (ran) shared.finish(tenantId, key, fingerprint, { message, failure: error && savedFailure(error) });
    else shared.release(tenantId, key);
  };
  if (shared === undefined) return { turn: { run, end } };
  try {
    const claim = await shared.claim(tenantId, key, fingerprint);
    isShared = claim === 'ours';
    if (claim === 'ours') return { turn: { run, end } };
    if (claim !== 'free' && claim.request !== fingerprint) throw keyReused();
    follow(shared, request, run, claim === 'free' ? undefined : claim, lost)
      .then((ran) => {
        if (!ran) keyedRuns.release(tenantId, key, run);
      })
      .catch(edge.onBug);
    return { listenTo: run };
  } catch (cause) {
    if (cause instanceof StoreError && shared.onFailure === 'local') return { turn: { run, end } };
    // What cannot be read is another process's, and may run.
    const error = cause instanceof GatewayError ? cause : storeAway();
    end(error, false);
    throw error;
  }
}

/** Tells what becomes of another process's call. False: nothing ran. */
async function follow(
  shared: KeyedCalls,
  { tenantId, key }: KeyedRequest,
  run: KeyedRun,
  first: KeyedCall | undefined,
  lost: (error: GatewayError) => Uint8Array,
): Promise<boolean> {
  let call = first;
  let wasAlive = true;
  for (let attempt = 0; call !== undefined; attempt += 1) {
    if (call.outcome !== undefined) {
      tell(run, call.outcome, lost);
      return true;
    }
    // What it wrote as its last before it went is read once more.
    if (!wasAlive) {
      const error = new GatewayError('UPSTREAM_LINK_LOST', 'the process that ran the call is gone');
      run.message(lost(error));
      run.end(error);
      return true;
    }
    await delay(backoffMs(attempt, LOOK_AGAIN), undefined, { ref: false });
    try {
      wasAlive = call.process !== shared.processId && (await shared.isAlive(call.process));
      call = await shared.look(tenantId, key);
    } catch {
      // The store is away for the moment, and the call goes on.
      wasAlive = true;
    }
  }
  run.end(firstDidNotRun());
  return false;
}

/** For whoever listens to a call that came to nothing: the key is free, and the caller may come again at once. */
export function firstDidNotRun(): GatewayError {
  return new GatewayError('UPSTREAM_UNAVAILABLE', 'the first call with the key failed before it ran', {
    retryAfterMs: 0,
  });
}

function tell(
  run: KeyedRun,
  { message, failure }: KeyedOutcome,
  lost: (error: GatewayError) => Uint8Array,
): void {
  const told = failure && failureOf(failure);
  const error =
    told ??
    (message === undefined
      ? new GatewayError('UPSTREAM_LINK_LOST', 'another process ran the call, and its answer is not kept')
      : undefined);
  if (message !== undefined) run.message(message);
  else if (error !== undefined) run.message(lost(error));
  run.end(error);
}

function savedFailure({ reason, message, metadata, retryAfterMs }: GatewayError): KeyedOutcome['failure'] {
  return { reason, message, metadata, retryAfterMs };
}

function failureOf({
  reason,
  message,
  metadata,
  retryAfterMs,
}: NonNullable<KeyedOutcome['failure']>): GatewayError {
  return new GatewayError(reason as Reason, message, {
    metadata,
    ...(retryAfterMs !== undefined && { retryAfterMs }),
  });
}

function keyReused(): GatewayError {
  return new GatewayError('TURN_ID_REUSED', 'idempotency_key: used within a day for another request', {
    metadata: { field: 'idempotency_key' },
  });
}

function storeAway(): GatewayError {
  return new GatewayError('STORE_UNAVAILABLE', 'the store of idempotency keys does not answer', {
    retryAfterMs: 1_000,
  });
}
