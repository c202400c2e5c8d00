import { hash, randomUUID } from 'node:crypto';
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
  /** Tells one taking of the key from another. */
  readonly taking?: string;
  readonly outcome?: Omit<KeyedOutcome, 'message'> & { readonly hasMessage: boolean };
}

/** Of one taking, and of no other. ARGV: what was written. */
const GIVE_BACK = `
if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('DEL', KEYS[1]) end
return 0`;

/** ARGV: what is there, what replaces it, time to live in ms. */
const TAKE_OVER = `
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[3])
return 1`;

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

  const read = async (tenantId: string, key: string): Promise<Found | undefined> => {
    const name = keyOf(tenantId, key);
    const value = await client.command(name, ['GET', name], { bytes: true });
    return Buffer.isBuffer(value) ? { value, call: readCall(await open(tenantId, key, value)) } : undefined;
  };

  /** What calls of this process have written, or are about to write, to take their keys. */
  const takings = new Map<string, Buffer>();

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
  const tellUntilHeard = (work: () => Promise<void>, then = () => {}): void => {
    const told = tell(work).finally(() => {
      telling.delete(told);
      then();
    });
    telling.add(told);
  };

  /** However late it is heard, it takes nothing from whoever has the key by then. */
  const giveBack = (name: string, taking: Buffer): void =>
    tellUntilHeard(async () => {
      await client.command(name, ['EVAL', GIVE_BACK, '1', name, taking]);
    });

  /** Runs a command that takes the key. One that was not answered may have been carried out, and then nobody runs the call. */
  const take = async (name: string, taking: Buffer, command: (string | Buffer)[]): Promise<boolean> => {
    try {
      const taken = await client.command(name, command);
      return taken !== null && taken !== 0;
    } catch (error) {
      if (error instanceof StoreError && error.failure === 'unknown') giveBack(name, taking);
      throw error;
    }
  };

  const claimNew = async (
    tenantId: string,
    key: string,
    taking: Buffer,
    isFirst: boolean,
  ): Promise<'ours' | 'free' | KeyedCall> => {
    const name = keyOf(tenantId, key);
    let found: Found | undefined;
    try {
      if (await take(name, taking, ['SET', name, taking, 'NX', 'PX', String(DAY_MS)])) return 'ours';
      found = await read(tenantId, key);
    } catch (error) {
      // A store that is full takes nothing, and still knows who has the key.
      const isRefused = error instanceof StoreError && error.failure === 'refused';
      found = isRefused ? await read(tenantId, key) : undefined;
      if (found === undefined) throw error;
    }
    // Given back in this moment: the caller asks again.
    if (found === undefined) return 'free';
    const { value, call } = found;
    if (!isFirst || call.process !== processId || call.outcome !== undefined) return call;
    // This process took it without hearing of that, or has not given it back yet: nobody runs the call.
    const command = ['EVAL', TAKE_OVER, '1', name, value, taking, String(DAY_MS)];
    if (await take(name, taking, command)) return 'ours';
    return (await read(tenantId, key))?.call ?? 'free';
  };

  return {
    onFailure,
    processId,
    isAlive,

    async look(tenantId, key) {
      return (await read(tenantId, key))?.call;
    },

    release(tenantId, key) {
      const name = keyOf(tenantId, key);
      const taking = takings.get(name);
      takings.delete(name);
      if (taking !== undefined) giveBack(name, taking);
    },

    async claim(tenantId, key, request) {
      const name = keyOf(tenantId, key);
      const head: Head = { v: 1, process: processId, request, taking: randomUUID() };
      const taking = await seal(tenantId, key, head, NOTHING);
      const isFirst = !takings.has(name);
      if (isFirst) takings.set(name, taking);
      let claimed: 'ours' | 'free' | KeyedCall | undefined;
      try {
        claimed = await claimNew(tenantId, key, taking, isFirst);
        return claimed;
      } finally {
        if (claimed === 'ours') takings.set(name, taking);
        else if (isFirst) takings.delete(name);
      }
    },

    finish(tenantId, key, request, { message, ...outcome }) {
      const name = keyOf(tenantId, key);
      const isKept = sealerOf !== undefined && message !== undefined && message.length <= MAX_MESSAGE_BYTES;
      const head: Head = { v: 1, process: processId, request, outcome: { ...outcome, hasMessage: isKept } };
      const taking = takings.get(name);
      const write = async () => {
        const value = await seal(tenantId, key, head, isKept ? message : NOTHING);
        await client.command(name, ['SET', name, value, 'XX', 'PX', String(DAY_MS)]);
      };
      tellUntilHeard(write, () => {
        if (takings.get(name) === taking) takings.delete(name);
      });
    },

    async close() {
      await Promise.race([Promise.all(telling), delay(CLOSE_TIMEOUT_MS, undefined, { ref: false })]);
      isClosed = true;
    },
  };
}

const NOTHING = new Uint8Array();

interface Found {
  /** As it is in the store. */
  readonly value: Buffer;
  readonly call: KeyedCall;
}

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
