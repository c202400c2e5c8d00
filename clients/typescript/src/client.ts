import { type ChannelCredentials, credentials, Client as GrpcClient, Metadata } from '@grpc/grpc-js';
import { Connections } from './connections.ts';
import { inferred, type StreamError } from './errors.ts';
import { type Log, logOf } from './log.ts';
import { Opener } from './opening.ts';
import {
  type ClientOptions,
  DEFAULT_ADDRESS,
  DEFAULT_CONNECT_TIMEOUT_MS,
  DEFAULT_MAX_RECEIVE_BYTES,
  parseAddress,
  type SessionOptions,
} from './options.ts';
import { Responses } from './responses.ts';
import { Session } from './session.ts';
import { SessionCore } from './session-core.ts';
import { bounded, either, tokenLate } from './signals.ts';
import { currentTraceContext } from './trace.ts';

/**
 * Fixed, so that what is in flight when a stream is lost fits the gateway's resume buffer: 2 MiB of upstream JSON, some
 * five times what the same events take here.
 */
const STREAM_WINDOW_BYTES = 128 * 1024;
const KEEPALIVE_TIME_MS = 30_000;
const KEEPALIVE_TIMEOUT_MS = 10_000;
const MIN_RECONNECT_MS = 100;
const MAX_RECONNECT_MS = 3_000;

/** Holds the connections to a gateway. It connects when first used and serves any number of sessions. */
export class Client {
  /** Turns without a session, and what the upstream keeps of responses. */
  readonly responses: Responses;
  readonly #connections: Connections;
  readonly #options: ClientOptions;
  readonly #token: ClientOptions['token'];
  readonly #log: Log;
  readonly #sessions = new Set<SessionCore>();
  /** Aborted by `close`: what is being opened, and calls without a session, end with it. */
  readonly #lifetime = new AbortController();
  #closed: Promise<void> | undefined;

  /** Does not connect yet: a wrong address shows at {@link connect}. */
  constructor(options: ClientOptions = {}) {
    this.#options = options;
    this.#token = options.token ?? (process.env['RESPONSES_GATEWAY_TOKEN'] || undefined);
    this.#log = logOf(options.logger);
    const { target, plain } = parseAddress(
      options.address ?? (process.env['RESPONSES_GATEWAY_ADDR'] || DEFAULT_ADDRESS),
    );
    const credentials = credentialsOf(options, plain);
    const channelOptions = {
      'grpc.max_receive_message_length': options.maxReceiveBytes ?? DEFAULT_MAX_RECEIVE_BYTES,
      'grpc.max_send_message_length': -1,
      // A turn that may have run is never sent again behind the session's back.
      'grpc.enable_retries': 0,
      'grpc.keepalive_time_ms': KEEPALIVE_TIME_MS,
      'grpc.keepalive_timeout_ms': KEEPALIVE_TIMEOUT_MS,
      'grpc.initial_reconnect_backoff_ms': MIN_RECONNECT_MS,
      'grpc.max_reconnect_backoff_ms': MAX_RECONNECT_MS,
      'grpc-node.flow_control_window': STREAM_WINDOW_BYTES,
      // Otherwise closing this client would leave its connection to a pool.
      'grpc.use_local_subchannel_pool': 1,
      ...options.channelOptions,
    };
    this.#connections = new Connections(() => new GrpcClient(target, credentials, channelOptions));
    this.responses = new Responses(
      () => this.#connections.apart,
      (signal) => bounded(DEFAULT_CONNECT_TIMEOUT_MS, signal, tokenLate, () => this.metadata()),
      this.#lifetime.signal,
    );
  }

  /**
   * Opens a session. Close it, or let `await using` do so.
   * @throws StreamError, or the signal's reason.
   */
  async connect(options: SessionOptions = {}): Promise<Session> {
    if (this.#closed) throw closedError();
    const { signal, leave } = either(this.#lifetime.signal, options.signal);
    try {
      const opener = new Opener(this.#connections, () => this.metadata());
      const receiving = { maxReceiveBytes: this.#options.maxReceiveBytes ?? DEFAULT_MAX_RECEIVE_BYTES };
      const core = await SessionCore.connect(opener, options, this.#log, receiving, signal);
      this.#sessions.add(core);
      void core.closed.then(() => this.#sessions.delete(core));
      if (!this.#closed) return new Session(core);
      await core.close(closedError());
      throw closedError();
    } finally {
      leave();
    }
  }

  /** Runs `work` with a session of its own and closes it. An error of `work` wins over one of closing. */
  async withSession<T>(options: SessionOptions, work: (session: Session) => Promise<T>): Promise<T> {
    const session = await this.connect(options);
    try {
      return await work(session);
    } finally {
      await session.close();
    }
  }

  /** A client of grpc-js with a connection of its own, for calls without a session. See `./proto`. */
  get grpc(): GrpcClient {
    return this.#connections.apart;
  }

  /** How many connections there are now: a further one where a peer takes no more streams. */
  get connections(): number {
    return this.#connections.size;
  }

  /**
   * Token, metadata and the current span's trace context, for a call of {@link grpc}.
   * @throws StreamError with reason TOKEN_SOURCE_FAILED.
   */
  async metadata(): Promise<Metadata> {
    const metadata = new Metadata();
    const trace = currentTraceContext();
    for (const [key, value] of Object.entries(this.#options.metadata ?? {})) metadata.add(key, value);
    if (trace?.traceparent) metadata.set('traceparent', trace.traceparent);
    if (trace?.tracestate) metadata.set('tracestate', trace.tracestate);
    const token = await this.#askForToken();
    try {
      if (token) metadata.set('authorization', `Bearer ${token}`);
    } catch {
      // What grpc-js says of it has the token in it.
      const message = 'the token has characters that a header cannot carry';
      throw inferred('UNAUTHENTICATED', 'TOKEN_SOURCE_FAILED', message);
    }
    return metadata;
  }

  /**
   * Ends the sessions that are still open, or being opened, at once with CLIENT_CLOSED: their turns are cancelled, as by
   * `Session.close`. Resolves when the gateway has heard of it and the connections are closed; it need not be waited for.
   */
  close(): Promise<void> {
    this.#closed ??= this.#end();
    return this.#closed;
  }

  [Symbol.dispose](): void {
    void this.close();
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  async #end(): Promise<void> {
    this.#lifetime.abort(closedError());
    await Promise.all([...this.#sessions].map((core) => core.close(closedError())));
    this.#connections.close();
  }

  async #askForToken(): Promise<string | undefined> {
    if (typeof this.#token !== 'function') return this.#token;
    try {
      return await this.#token();
    } catch (error) {
      throw inferred('UNAUTHENTICATED', 'TOKEN_SOURCE_FAILED', 'the token source failed', error);
    }
  }
}

function closedError(): StreamError {
  return inferred('CANCELLED', 'CLIENT_CLOSED', 'the client was closed');
}

function credentialsOf(options: ClientOptions, plain: boolean): ChannelCredentials {
  if (options.credentials) return options.credentials;
  if (options.tls) {
    const { ca, key, cert } = options.tls;
    return credentials.createSsl(ca ?? null, key ?? null, cert ?? null);
  }
  return plain ? credentials.createInsecure() : credentials.createSsl();
}
