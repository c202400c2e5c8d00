import { StoreError } from '../store/store-error.ts';
import type { KeyedCall, KeyedCalls, KeyedOutcome } from '../store/types.ts';

/** What a worker asks or tells the primary about idempotency keys. `name`: of tenant and key. */
export type KeysCall =
  | { readonly what: 'claim'; readonly name: string; readonly request: string }
  | { readonly what: 'look'; readonly name: string }
  | { readonly what: 'finish'; readonly name: string; readonly outcome: SentOutcome }
  | { readonly what: 'release'; readonly name: string };

export type KeysAnswer = 'ours' | 'free' | SentCall;

/** As a message between processes holds it: bytes in base64. */
type SentOutcome = Omit<KeyedOutcome, 'message'> & { readonly message: string | undefined };
type SentCall = Omit<KeyedCall, 'outcome'> & { readonly outcome: SentOutcome | undefined };

interface Held {
  readonly worker: number;
  readonly request: string;
  readonly atMs: number;
  gone: boolean;
  outcome: SentOutcome | undefined;
}

const DAY_MS = 86_400_000;
/** Of the last message of a call. A longer one is told by its own worker alone. */
const MAX_MESSAGE_BYTES = 256 * 1024;
/** Above them the oldest calls lose their messages, or are forgotten. */
const MAX_TEXT = 64 * 1024 * 1024;
const MAX_KEYS = 50_000;

/** Calls with an idempotency key on any worker of the machine, kept by their primary. */
export class HostKeys {
  readonly #now: () => number;
  readonly #held = new Map<string, Held>();
  #text = 0;

  constructor(now: () => number) {
    this.#now = now;
  }

  answer(worker: number, call: KeysCall): KeysAnswer | undefined {
    const held = this.#held.get(call.name);
    switch (call.what) {
      case 'claim':
        if (held !== undefined && this.#now() - held.atMs < DAY_MS) return sent(held, worker);
        this.#drop(call.name);
        this.#sweep();
        this.#held.set(call.name, {
          worker,
          request: call.request,
          atMs: this.#now(),
          gone: false,
          outcome: undefined,
        });
        return 'ours';
      case 'look':
        return held === undefined ? 'free' : sent(held, worker);
      case 'finish':
        if (held?.worker !== worker || held.outcome !== undefined) return undefined;
        held.outcome = call.outcome;
        this.#text += call.outcome.message?.length ?? 0;
        return undefined;
      case 'release':
        if (held?.worker === worker && held.outcome === undefined) this.#drop(call.name);
        return undefined;
    }
  }

  /** The worker has died: what became of its calls is not known. */
  forget(worker: number): void {
    for (const held of this.#held.values()) if (held.worker === worker) held.gone = true;
  }

  #drop(name: string): void {
    this.#text -= this.#held.get(name)?.outcome?.message?.length ?? 0;
    this.#held.delete(name);
  }

  #sweep(): void {
    const oldestMs = this.#now() - DAY_MS;
    for (const [name, held] of this.#held) {
      if (held.atMs > oldestMs && this.#held.size < MAX_KEYS) break;
      this.#drop(name);
    }
    for (const held of this.#held.values()) {
      if (this.#text <= MAX_TEXT) return;
      this.#text -= held.outcome?.message?.length ?? 0;
      if (held.outcome !== undefined) held.outcome = { ...held.outcome, message: undefined };
    }
  }
}

const SELF = 'self';
const OTHER = 'other';
const GONE = 'gone';

function sent({ worker, request, gone, outcome }: Held, asking: number): SentCall {
  return { process: gone ? GONE : worker === asking ? SELF : OTHER, request, outcome };
}

/** A worker's side of it. `ask` resolves with undefined when the primary does not answer. */
export function workerKeys(channel: {
  readonly ask: (call: KeysCall) => Promise<unknown>;
  readonly say: (call: KeysCall) => void;
}): KeyedCalls {
  const nameOf = (tenantId: string, key: string) => JSON.stringify([tenantId, key]);
  const ask = async (call: KeysCall): Promise<'ours' | 'free' | KeyedCall> => {
    const answer = (await channel.ask(call)) as KeysAnswer | undefined;
    if (answer === undefined) throw new StoreError('unknown', 'the primary did not answer');
    return typeof answer === 'string' ? answer : received(answer);
  };
  return {
    processId: SELF,
    onFailure: 'local',
    isAlive: async (processId) => processId !== GONE,
    async claim(tenantId, key, request) {
      const name = nameOf(tenantId, key);
      try {
        return await ask({ what: 'claim', name, request });
      } catch (error) {
        // Behind the claim, should that still arrive.
        channel.say({ what: 'release', name });
        throw error;
      }
    },
    async look(tenantId, key) {
      const answer = await ask({ what: 'look', name: nameOf(tenantId, key) });
      return typeof answer === 'string' ? undefined : answer;
    },
    finish(tenantId, key, _request, { message, ...outcome }) {
      const isKept = message !== undefined && message.length <= MAX_MESSAGE_BYTES;
      const text = isKept ? Buffer.from(message).toString('base64') : undefined;
      channel.say({ what: 'finish', name: nameOf(tenantId, key), outcome: { ...outcome, message: text } });
    },
    release: (tenantId, key) => channel.say({ what: 'release', name: nameOf(tenantId, key) }),
    close: async () => {},
  };
}

function received({ outcome, ...call }: SentCall): KeyedCall {
  if (outcome === undefined) return { ...call, outcome };
  const { message, ...rest } = outcome;
  return {
    ...call,
    outcome: {
      ...rest,
      message: message === undefined ? undefined : Uint8Array.from(Buffer.from(message, 'base64')),
    },
  };
}
