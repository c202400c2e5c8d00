import type { Context, Item } from './context.ts';

/** A response as later turns need it. `json` is the final Response object, already serialised. */
export interface ResponseRecord {
  readonly id: string;
  readonly stored: boolean;
  /** False for a failed response: it can be retrieved, but not continued. */
  readonly isUsable: boolean;
  readonly context: Context;
  readonly input: readonly Item[];
  readonly output: readonly Item[];
  readonly json: string;
}

/**
 * What survives a connection: responses with `store: true`, their items, and conversations. Pass one store to two
 * simulators to model a restart. Oldest entries go first when a limit is reached, as if they had expired.
 */
export class ResponseStore {
  readonly #maxResponses: number;
  readonly #maxBytes: number;
  readonly #responses = new Map<string, ResponseRecord>();
  readonly #items = new Map<string, Item>();
  readonly #conversations = new Map<string, Context>();
  #bytes = 0;

  constructor(limits: { maxResponses?: number; maxBytes?: number } = {}) {
    this.#maxResponses = limits.maxResponses ?? DEFAULT_MAX_RESPONSES;
    this.#maxBytes = limits.maxBytes ?? DEFAULT_MAX_BYTES;
  }

  get(id: string): ResponseRecord | undefined {
    return this.#responses.get(id);
  }

  item(id: string): Item | undefined {
    return this.#items.get(id);
  }

  put(record: ResponseRecord): void {
    this.#responses.set(record.id, record);
    this.#bytes += record.json.length;
    for (const item of [...record.input, ...record.output]) {
      if (typeof item.id === 'string') this.#items.set(item.id, item);
    }
    for (const oldest of this.#responses.values()) {
      if (this.#responses.size <= this.#maxResponses && this.#bytes <= this.#maxBytes) break;
      this.delete(oldest.id);
    }
  }

  delete(id: string): boolean {
    const record = this.#responses.get(id);
    if (record === undefined) return false;
    this.#responses.delete(id);
    this.#bytes -= record.json.length;
    for (const item of [...record.input, ...record.output]) {
      if (typeof item.id === 'string') this.#items.delete(item.id);
    }
    return true;
  }

  clear(): void {
    this.#responses.clear();
    this.#items.clear();
    this.#conversations.clear();
    this.#bytes = 0;
  }

  conversation(id: string): Context | undefined {
    return this.#conversations.get(id);
  }

  setConversation(id: string, context: Context): void {
    this.#conversations.delete(id);
    this.#conversations.set(id, context);
    const oldest = this.#conversations.keys().next().value;
    if (this.#conversations.size > this.#maxResponses && oldest !== undefined)
      this.#conversations.delete(oldest);
  }

  get size(): number {
    return this.#responses.size;
  }
}

/** Enough for any test run; a simulator left running for weeks must not grow. */
const DEFAULT_MAX_RESPONSES = 10_000;
const DEFAULT_MAX_BYTES = 256 * 1024 * 1024;
