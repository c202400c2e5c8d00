import {
  ClientClosedError,
  ClientOfflineError,
  createClient,
  createCluster,
  createSentinel,
  ErrorReply,
  RESP_TYPES,
  type RedisClientOptions,
} from '@redis/client';
import { backoffMs } from '../ground/backoff.ts';
import { StoreError } from './store-error.ts';
import type { StoreEndpoint } from './url.ts';

export interface StoreClientOptions {
  readonly endpoint: StoreEndpoint;
  readonly username: string | undefined;
  /** Asked at each connection, so that a file may be rotated; undefined: no authentication. */
  readonly password: () => string | undefined;
  /** Undefined: no TLS. PEM texts. */
  readonly tls:
    | {
        readonly ca: string | undefined;
        readonly cert: string | undefined;
        readonly key: string | undefined;
        readonly serverName: string | undefined;
      }
    | undefined;
  /** Stands before every key, e.g. `rg:`. */
  readonly keyPrefix: string;
  /** A connection that is not ready after this is given up and tried again. Default 2,000 ms. */
  readonly connectTimeoutMs?: number;
  /** A command without an answer after this is `unknown`. Default 1,000 ms. */
  readonly commandTimeoutMs?: number;
  /** Told of trouble with the connection, at most once for each try. */
  readonly onError?: (error: Error) => void;
  /** Told of each command, for metrics. */
  readonly onCommand?: (name: string, outcome: 'ok' | StoreError['failure'], durationMs: number) => void;
}

/** An answer of the server. Texts come as Buffers where the caller asked for bytes. */
export type StoreReply = null | number | string | Buffer | readonly StoreReply[];

export interface CommandOptions {
  /** Default: the client's. */
  readonly timeoutMs?: number;
  /** Answers bulk strings as Buffers. */
  readonly bytes?: boolean;
}

/**
 * One connection to Valkey or Redis, whatever its topology. Nothing waits for a connection that is not there, and no
 * command is ever sent twice.
 */
export interface StoreClient {
  /** Whether commands can be sent now. */
  readonly ready: boolean;
  /** Rises whenever another connection, and so perhaps another server, begins to answer. */
  readonly epoch: number;
  key(name: string): string;
  /**
   * Sends one command about `key`, which decides the node in a cluster.
   * Rejects with StoreError.
   */
  command(key: string, args: readonly (string | Buffer)[], options?: CommandOptions): Promise<StoreReply>;
  /** Called after each rise of `epoch`, until the returned function is called. */
  onEpoch(listener: () => void): () => void;
  close(): Promise<void>;
}

/** What a stalled server may leave waiting: above it commands are refused at once. */
const MAX_WAITING_COMMANDS = 65_536;
/** A connection over which nothing comes is dead, even if nobody says so: pings keep a live one from being silent. */
const PING_INTERVAL_MS = 2_000;
const SILENCE_TIMEOUT_MS = 6_000;
const RECONNECT = { minMs: 50, maxMs: 2_000, random: Math.random };

/** Begins to connect and goes on for ever; returns at once. `whenReady` tells of the first success. */
export function openStoreClient(options: StoreClientOptions): StoreClient {
  return new Connected(options);
}

/** Resolves with true when the client is ready, with false after `timeoutMs`. */
export async function whenReady(client: StoreClient, timeoutMs: number): Promise<boolean> {
  if (client.ready) return true;
  const { promise, resolve } = Promise.withResolvers<void>();
  const timer = setTimeout(resolve, timeoutMs);
  const stop = client.onEpoch(() => client.ready && resolve());
  await promise;
  clearTimeout(timer);
  stop();
  return client.ready;
}

type Send = (
  key: string,
  args: readonly (string | Buffer)[],
  typeMapping: { readonly [RESP_TYPES.BLOB_STRING]?: BufferConstructor },
) => Promise<unknown>;

/** What the library's three clients have in common. */
interface Native {
  connect(): Promise<unknown>;
  destroy(): unknown;
  on(event: string, listener: (detail: unknown) => void): unknown;
  readonly isReady: () => boolean;
  readonly send: Send;
}

/** What the library says when another connection begins to answer. */
const EPOCH_EVENTS: Readonly<Record<StoreEndpoint['kind'], readonly string[]>> = {
  single: ['ready'],
  sentinel: ['ready', 'topology-change'],
  cluster: ['connect', 'node-ready'],
};

/** Redis 5 speaks no other; nothing here needs one. */
const PROTOCOL = 2;

/**
 * The library's own timeout only lets go of what was not yet written, and costs an AbortSignal for each command: as much
 * as the rest of its work on one. `command` has a timer of its own.
 */
const NO_TIMEOUT = 0;

const AS_BYTES = { [RESP_TYPES.BLOB_STRING]: Buffer } as const;
const AS_TEXT = {} as const;

class Connected implements StoreClient {
  readonly #options: StoreClientOptions;
  readonly #native: Native;
  readonly #timeoutMs: number;
  readonly #listeners = new Set<() => void>();
  #epoch = 0;
  #closed = false;
  #retry: NodeJS.Timeout | undefined;

  constructor(options: StoreClientOptions) {
    this.#options = options;
    this.#timeoutMs = options.commandTimeoutMs ?? 1_000;
    this.#native = nativeOf(options);
    this.#native.on('error', (error: unknown) => options.onError?.(asError(error)));
    for (const event of EPOCH_EVENTS[options.endpoint.kind]) this.#native.on(event, () => this.#newEpoch());
    this.#connect(0);
  }

  get ready(): boolean {
    return !this.#closed && this.#native.isReady();
  }

  get epoch(): number {
    return this.#epoch;
  }

  key(name: string): string {
    return this.#options.keyPrefix + name;
  }

  /** One promise for a command, beside the library's own: each turn of a session has two. */
  command(
    key: string,
    args: readonly (string | Buffer)[],
    { timeoutMs = this.#timeoutMs, bytes = false }: CommandOptions = {},
  ): Promise<StoreReply> {
    if (!this.ready) return Promise.reject(new StoreError('not_sent', 'no connection to the store'));
    const startedAtMs = performance.now();
    const observe = this.#options.onCommand;
    const name = String(args[0]);
    return new Promise((resolve, reject) => {
      let settled = false;
      const fail = (cause: unknown) => {
        if (settled) return;
        settled = true;
        clearTimeout(timer);
        const error = explain(cause, name);
        observe?.(name, error.failure, performance.now() - startedAtMs);
        reject(error);
      };
      const timeUp = () => fail(new StoreError('unknown', `no answer of the store within ${timeoutMs} ms`));
      // When this process was late itself, the answer may have come: sockets are read before immediates run.
      const timer = setTimeout(() => setImmediate(timeUp), timeoutMs);
      this.#native.send(key, args, bytes ? AS_BYTES : AS_TEXT).then((reply) => {
        if (settled) return;
        settled = true;
        clearTimeout(timer);
        observe?.(name, 'ok', performance.now() - startedAtMs);
        resolve(reply as StoreReply);
      }, fail);
    });
  }

  onEpoch(listener: () => void): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  async close(): Promise<void> {
    if (this.#closed) return;
    this.#closed = true;
    clearTimeout(this.#retry);
    this.#listeners.clear();
    try {
      await this.#native.destroy();
    } catch {
      // It was never open.
    }
  }

  /** The library goes on by itself once it was connected; until then some of its clients give up after a try. */
  #connect(attempt: number): void {
    this.#native.connect().catch((error: unknown) => {
      if (this.#closed) return;
      this.#options.onError?.(asError(error));
      this.#retry = setTimeout(() => this.#connect(attempt + 1), backoffMs(attempt, RECONNECT));
    });
  }

  #newEpoch(): void {
    if (this.#closed) return;
    this.#epoch += 1;
    for (const listener of [...this.#listeners]) listener();
  }
}

function nativeOf(options: StoreClientOptions): Native {
  const { endpoint } = options;
  const common = nodeOptions(options);
  switch (endpoint.kind) {
    case 'single': {
      const client = createClient({
        ...common,
        RESP: PROTOCOL,
        database: endpoint.database,
        socket: { ...common.socket, ...endpoint.server },
      });
      return native(
        client,
        () => client.isReady,
        (_key, args, typeMapping) => client.sendCommand(args, { typeMapping, timeout: NO_TIMEOUT }),
      );
    }
    case 'sentinel': {
      const client = createSentinel({
        RESP: PROTOCOL,
        name: endpoint.primaryName,
        sentinelRootNodes: [...endpoint.sentinels],
        nodeClientOptions: { ...common, database: endpoint.database },
        sentinelClientOptions: { ...common, pingInterval: PING_INTERVAL_MS },
        // Its default sends a command again whose answer was lost: an entry, a count or a script would run twice.
        maxCommandRediscovers: 0,
        scanInterval: 5_000,
      });
      return native(
        client,
        () => client.isReady,
        (_key, args, typeMapping) =>
          client.sendCommand(false, [...args], { typeMapping, timeout: NO_TIMEOUT }),
      );
    }
    case 'cluster': {
      const client = createCluster({
        RESP: PROTOCOL,
        rootNodes: endpoint.nodes.map((node) => ({ ...common, socket: { ...common.socket, ...node } })),
        defaults: common,
      });
      return native(
        client,
        () => client.isReady,
        (key, args, typeMapping) =>
          client.sendCommand(key, false, [...args], { typeMapping, timeout: NO_TIMEOUT }),
      );
    }
  }
}

function native(
  client: Pick<Native, 'connect' | 'destroy' | 'on'>,
  isReady: () => boolean,
  send: Send,
): Native {
  return {
    connect: () => client.connect(),
    destroy: () => client.destroy(),
    on: (event, listener) => client.on(event, listener),
    isReady,
    send,
  };
}

function nodeOptions({ username, password, tls, connectTimeoutMs = 2_000 }: StoreClientOptions) {
  const credentials = () => {
    const text = password();
    return Promise.resolve({
      ...(username === undefined ? {} : { username }),
      ...(text === undefined ? {} : { password: text }),
    });
  };
  const timing = {
    connectTimeout: connectTimeoutMs,
    socketTimeout: SILENCE_TIMEOUT_MS,
    reconnectStrategy: (retries: number) => backoffMs(retries, RECONNECT),
  };
  return {
    name: 'responses-gateway',
    credentialsProvider: { type: 'async-credentials-provider', credentials },
    // What waits for a connection would be written at a time when nobody waits for its answer.
    disableOfflineQueue: true,
    commandsQueueMaxLength: MAX_WAITING_COMMANDS,
    pingInterval: PING_INTERVAL_MS,
    maintNotifications: 'disabled',
    socket: tls === undefined ? timing : { ...timing, tls: true as const, ...pemOptions(tls) },
  } satisfies RedisClientOptions;
}

function pemOptions({ ca, cert, key, serverName }: NonNullable<StoreClientOptions['tls']>) {
  return {
    ...(ca === undefined ? {} : { ca }),
    ...(cert === undefined ? {} : { cert }),
    ...(key === undefined ? {} : { key }),
    ...(serverName === undefined ? {} : { servername: serverName }),
  };
}

function explain(cause: unknown, command: string): StoreError {
  if (cause instanceof StoreError) return cause;
  if (cause instanceof ErrorReply) {
    const [code = ''] = cause.message.split(' ', 1);
    // A message may repeat arguments, which are keys and content.
    return new StoreError('refused', `the store refused ${command}: ${code}`, { code, cause });
  }
  const sent = !(cause instanceof ClientOfflineError || cause instanceof ClientClosedError);
  return new StoreError(sent ? 'unknown' : 'not_sent', 'the connection to the store was lost', { cause });
}

function asError(error: unknown): Error {
  return error instanceof Error ? error : new Error(String(error));
}
