import { hash } from 'node:crypto';
import { setTimeout as delay } from 'node:timers/promises';
import { backoffMs } from '../ground/backoff.ts';
import type { StoreClient } from './client.ts';
import { StoreError } from './store-error.ts';
import type { KeyedCall, KeyedCalls, KeyedOutcome, Sealer } from './types.ts';

export interface KeyedCallsOptions {
  readonly client: StoreClient;
  /** This process, as its heartbeat has it. */
  readonly processId: string;
  /** Whether that process is alive. Rejects with StoreError. */
  readonly isAlive: (processId: string) => Promise<boolean>;
  /** Undefined: there are no keys, and no answer is kept. */
  readonly sealerOf: ((tenantId: string, name: string, renew: boolean) => Promise<Sealer>) | undefined;
  /** Calls while the store is away: known to this process alone, or refused. */
  readonly onFailure: 'local' | 'refuse';
}

const DAY_MS = 86_400_000;
/** Of an answer's last event, before it is sealed. A longer one is not told again by another process. */
const MAX_MESSAGE_BYTES = 256 * 1024;
/** What the store has to hear is told again until it answers: half an hour at most. */
const TELL_AGAIN = { minMs: 500, maxMs: 60_000, random: Math.random };
const MAX_TELLS = 36;
/** What is still to be told when the process goes. */
const CLOSE_TIMEOUT_MS = 2_000;
/** Nothing but this is sealed under a call's name. */
const PLACE = { id: { fence: 0, n: 0 }, kind: 'keyed' } as const;

/** What the store has of a call: one line of JSON, then the answer's last message. */
interface Head {
  readonly v: 1;
  readonly process: string;
  readonly request: string;
  readonly outcome?: Omit<KeyedOutcome, 'message'> & { readonly hasMessage: boolean };
}

/** A key for each call, set once, whose value its process replaces when the call has ended. */
export function createKeyedCalls(options: KeyedCallsOptions): KeyedCalls {
  const { client, processId, isAlive, sealerOf, onFailure } = options;
  const keyOf = (tenantId: string, key: string) => client.key(`idempotency:${digestOf([tenantId, key])}`);

  const seal = async (tenantId: string, key: string, head: Head, message: Uint8Array): Promise<Buffer> => {
    const plain = Buffer.concat([Buffer.from(`${JSON.stringify(head)}\n`), message]);
    const name = keyOf(tenantId, key);
    const sealer = await sealerOf?.(tenantId, name, false);
    return sealer?.seal(plain, { sessionId: name, ...PLACE }) ?? plain;
  };

  const open = async (tenantId: string, key: string, value: Buffer): Promise<Buffer> => {
    if (sealerOf === undefined) return value;
    const name = keyOf(tenantId, key);
    const place = { sessionId: name, ...PLACE };
    try {
      return (await sealerOf(tenantId, name, false)).open(value, place);
    } catch (error) {
      if (!(error instanceof Error) || error.name !== 'SealError') throw error;
      return (await sealerOf(tenantId, name, true)).open(value, place);
    }
  };

  const look = async (tenantId: string, key: string): Promise<KeyedCall | undefined> => {
    const name = keyOf(tenantId, key);
    const value = await client.command(name, ['GET', name], { bytes: true });
    return Buffer.isBuffer(value) ? readCall(await open(tenantId, key, value)) : undefined;
  };

  const release = async (tenantId: string, key: string): Promise<void> => {
    const name = keyOf(tenantId, key);
    await client.command(name, ['UNLINK', name]);
  };

  const telling = new Set<Promise<void>>();
  let isClosed = false;
  const tell = async (work: () => Promise<void>): Promise<void> => {
    for (let attempt = 0; attempt < MAX_TELLS && !isClosed; attempt += 1) {
      try {
        return await work();
      } catch {
        await delay(backoffMs(attempt, TELL_AGAIN), undefined, { ref: false });
      }
    }
  };
  const tellUntilHeard = (work: () => Promise<void>): void => {
    const told = tell(work).finally(() => telling.delete(told));
    telling.add(told);
  };

  /** Its taking was not answered, and may have been carried out. Nobody runs the call, and nobody would ever say so. */
  const giveBack = (tenantId: string, key: string): void =>
    tellUntilHeard(async () => {
      const found = await look(tenantId, key);
      if (found?.process === processId && found.outcome === undefined) await release(tenantId, key);
    });

  return {
    onFailure,
    processId,
    isAlive,
    look,

    release: (tenantId, key) => tellUntilHeard(() => release(tenantId, key)),

    async claim(tenantId, key, request) {
      const name = keyOf(tenantId, key);
      const value = await seal(tenantId, key, { v: 1, process: processId, request }, NOTHING);
      try {
        const taken = await client.command(name, ['SET', name, value, 'NX', 'PX', String(DAY_MS)]);
        if (taken !== null) return 'ours';
      } catch (error) {
        const failure = error instanceof StoreError ? error.failure : undefined;
        if (failure === 'unknown') giveBack(tenantId, key);
        // A store that is full takes nothing, and still knows who has the key.
        const found = failure === 'refused' ? await look(tenantId, key) : undefined;
        if (found !== undefined) return found;
        throw error;
      }
      // Given back in this moment: the caller asks again.
      return (await look(tenantId, key)) ?? 'free';
    },

    finish(tenantId, key, request, { message, ...outcome }) {
      const name = keyOf(tenantId, key);
      const isKept = sealerOf !== undefined && message !== undefined && message.length <= MAX_MESSAGE_BYTES;
      const head: Head = { v: 1, process: processId, request, outcome: { ...outcome, hasMessage: isKept } };
      tellUntilHeard(async () => {
        const value = await seal(tenantId, key, head, isKept ? message : NOTHING);
        await client.command(name, ['SET', name, value, 'XX', 'PX', String(DAY_MS)]);
      });
    },

    async close() {
      await Promise.race([Promise.all(telling), delay(CLOSE_TIMEOUT_MS, undefined, { ref: false })]);
      isClosed = true;
    },
  };
}

const NOTHING = new Uint8Array();

function readCall(value: Buffer): KeyedCall {
  const end = value.indexOf(0x0a);
  const { process, request, outcome } = JSON.parse(value.toString('utf8', 0, end)) as Head;
  if (outcome === undefined) return { process, request, outcome: undefined };
  const { hasMessage, ...rest } = outcome;
  return {
    process,
    request,
    outcome: { ...rest, message: hasMessage ? Uint8Array.from(value.subarray(end + 1)) : undefined },
  };
}

function digestOf(parts: readonly string[]): string {
  return hash('sha256', JSON.stringify(parts), 'base64url');
}
