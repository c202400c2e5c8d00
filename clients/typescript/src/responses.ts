import {
  create,
  type DescMessage,
  type DescMethod,
  fromBinary,
  type MessageInitShape,
  type MessageShape,
  toBinary,
} from '@bufbuild/protobuf';
import {
  type ClientReadableStream,
  type Client as GrpcClient,
  InterceptingCall,
  type Interceptor,
  type Metadata,
  type ServiceError,
} from '@grpc/grpc-js';
import { StreamError, streamError } from './errors.ts';
import { Event } from './event.ts';
import type { Event as EventMessage } from './gen/responses/gateway/v1/event_pb.ts';
import type { InputItem } from './gen/responses/gateway/v1/items_pb.ts';
import type { CallOptionsSchema, Model } from './gen/responses/gateway/v1/resource_pb.ts';
import type { Response } from './gen/responses/gateway/v1/response_pb.ts';
import { ResponsesService } from './gen/responses/gateway/v1/service_pb.ts';
import { PayloadFormat } from './gen/responses/gateway/v1/session_pb.ts';
import { readToTheEnd } from './grpc-js.ts';
import { countBody, durationOf, type TurnRequest, turnBody } from './request.ts';
import { Accumulator, type Result } from './result.ts';
import { pause, retryWaitMs } from './resume.ts';
import { pathOf } from './service.ts';
import { either } from './signals.ts';

/** What all calls without a session take. */
export interface CallOptions {
  /** A configured upstream of the gateway, by name. A stored response is known where it was made. */
  readonly upstream?: string;
  /** Time limit, kept by the gateway. Default: the gateway's. */
  readonly timeoutMs?: number;
  /** Gives the call up. */
  readonly signal?: AbortSignal;
}

export interface CreateOptions extends CallOptions {
  /**
   * Makes the call safe to send again: within a day the same key with the same request gets the first call's answer, and
   * never runs a second turn. 1 to 256 visible ASCII characters. Default: each call runs.
   */
  readonly idempotencyKey?: string;
  /** Delivers the upstream's exact JSON with each event. Default: false. */
  readonly rawJson?: boolean;
}

export interface FollowOptions extends CallOptions {
  /** `sequence_number` of the last event that is known; later ones come. Default: all. */
  readonly startingAfter?: number;
  readonly include?: readonly string[];
  /** Delivers the upstream's exact JSON with each event. Default: false. */
  readonly rawJson?: boolean;
}

export interface ListOptions extends CallOptions {
  /** Items a page, 1 to 100; all pages are read. Default: the upstream's, 20. */
  readonly limit?: number;
  /** Default: the upstream's, `desc`, the newest first. */
  readonly order?: 'asc' | 'desc';
  /** Id of the item after which to begin. */
  readonly after?: string;
  readonly include?: readonly string[];
}

/**
 * Responses without a session: single turns, and what the upstream keeps of them. What answers at once is sent again by
 * itself where the gateway says that nothing was done. Each method
 * @throws StreamError with the gateway's reason, for instance UNKNOWN_RESPONSE; the signal's reason.
 */
export class Responses {
  readonly #grpc: () => GrpcClient;
  readonly #metadata: (signal: AbortSignal) => Promise<Metadata>;
  readonly #lifetime: AbortSignal;

  /** Comes from `Client.responses`. All calls end with `lifetime`, which has the reason. */
  constructor(
    grpc: () => GrpcClient,
    metadata: (signal: AbortSignal) => Promise<Metadata>,
    lifetime: AbortSignal,
  ) {
    this.#grpc = grpc;
    this.#metadata = metadata;
    this.#lifetime = lifetime;
  }

  /**
   * Runs one turn. With `create: { background: true }` it goes on when nobody reads, see {@link stream}. `from` continues
   * a stored response; what is about lanes has no meaning here.
   */
  create(request: TurnRequest, options: CreateOptions = {}): ResponseStream {
    const { rawJson, idempotencyKey, upstream, timeoutMs = request.timeoutMs, signal } = options;
    const message = {
      create: turnBody(request),
      payload: payloadOf(rawJson),
      idempotencyKey: idempotencyKey ?? '',
      upstream: upstream ?? '',
      waitOnRateLimit: request.waitOnRateLimit ?? false,
      ...(timeoutMs !== undefined && { timeout: durationOf(timeoutMs) }),
    };
    return this.#events(
      (ends) => this.#stream(ResponsesService.method.createResponse, message, ends),
      signal,
    );
  }

  /** A stored response; of a background one that runs, as far as it is. */
  async get(
    responseId: string,
    options: CallOptions & { readonly include?: readonly string[] } = {},
  ): Promise<Response> {
    const message = { responseId, include: [...(options.include ?? [])], options: callOptions(options) };
    return answered(
      (await this.#call(ResponsesService.method.getResponse, message, options.signal)).response,
    );
  }

  /**
   * Follows a background response to its end, from the event behind `startingAfter` on. To go on after a lost connection,
   * give `lastSequenceNumber` of what was read before.
   */
  stream(responseId: string, options: FollowOptions = {}): ResponseStream {
    const { startingAfter, include = [], rawJson } = options;
    const message = {
      responseId,
      include: [...include],
      options: { ...callOptions(options), payload: payloadOf(rawJson) },
      ...(startingAfter !== undefined && { startingAfter: BigInt(startingAfter) }),
    };
    return this.#events(
      (ends) => this.#stream(ResponsesService.method.streamResponse, message, ends),
      options.signal,
    );
  }

  /** Deletes a stored response. */
  async delete(responseId: string, options: CallOptions = {}): Promise<void> {
    const message = { responseId, options: callOptions(options) };
    await this.#call(ResponsesService.method.deleteResponse, message, options.signal);
  }

  /** Stops a background response, and returns it as it was left. */
  async cancel(responseId: string, options: CallOptions = {}): Promise<Response> {
    const message = { responseId, options: callOptions(options) };
    const { response } = await this.#call(ResponsesService.method.cancelResponse, message, options.signal);
    return answered(response);
  }

  /** What a stored response was given, page after page. */
  async *inputItems(
    responseId: string,
    options: ListOptions = {},
  ): AsyncGenerator<InputItem, void, undefined> {
    const { limit, order, include = [], signal } = options;
    for (let after = options.after; ; ) {
      const message = {
        responseId,
        include: [...include],
        options: callOptions(options),
        ...(limit !== undefined && { limit }),
        ...(order !== undefined && { order }),
        ...(after !== undefined && { after }),
      };
      const { page } = await this.#call(ResponsesService.method.listInputItems, message, signal);
      yield* page?.data ?? [];
      after = page?.lastId;
      if (!page?.hasMore || after === undefined) return;
    }
  }

  /** How many tokens of input a request has; it does not run. */
  async countInputTokens(request: TurnRequest, options: CallOptions = {}): Promise<number> {
    const message = { count: countBody(request), options: callOptions(options) };
    const { count } = await this.#call(ResponsesService.method.countInputTokens, message, options.signal);
    return Number(count?.inputTokens ?? 0n);
  }

  /** The models that the caller may use. */
  async models(options: CallOptions = {}): Promise<readonly Model[]> {
    const message = { options: callOptions(options) };
    const { models } = await this.#call(ResponsesService.method.listModels, message, options.signal);
    return models?.data ?? [];
  }

  async #call<I extends DescMessage, O extends DescMessage>(
    method: DescMethod & { readonly input: I; readonly output: O },
    message: MessageInitShape<I>,
    signal: AbortSignal | undefined,
  ): Promise<MessageShape<O>> {
    const { signal: ends, leave } = either(this.#lifetime, signal);
    try {
      for (let attempt = 1; ; attempt += 1) {
        try {
          return await this.#attempt(method, message, ends);
        } catch (error) {
          const waitMs = waitBefore(error, attempt);
          if (waitMs === undefined) throw error;
          await pause(waitMs, ends);
          ends.throwIfAborted();
        }
      }
    } finally {
      leave();
    }
  }

  async #attempt<I extends DescMessage, O extends DescMessage>(
    method: DescMethod & { readonly input: I; readonly output: O },
    message: MessageInitShape<I>,
    signal: AbortSignal,
  ): Promise<MessageShape<O>> {
    const metadata = await this.#metadata(signal);
    signal.throwIfAborted();
    return new Promise((resolve, reject) => {
      const call = this.#grpc().makeUnaryRequest(
        pathOf(method),
        (bytes: Uint8Array) => Buffer.from(bytes),
        (bytes: Buffer) => fromBinary(method.output, bytes),
        toBinary(method.input, create(method.input, message)),
        metadata,
        (error: ServiceError | null, reply) => {
          signal.removeEventListener('abort', onAbort);
          if (error !== null) reject(signal.aborted ? signal.reason : streamError(error, 'STREAM_LOST'));
          else resolve(reply as MessageShape<O>);
        },
      );
      const onAbort = () => call.cancel();
      signal.addEventListener('abort', onAbort, { once: true });
    });
  }

  #events(open: Open, signal: AbortSignal | undefined): ResponseStream {
    return new ResponseStream(open, () => either(this.#lifetime, signal));
  }

  async #stream<I extends DescMessage, O extends DescMessage>(
    method: DescMethod & { readonly input: I; readonly output: O },
    message: MessageInitShape<I>,
    signal: AbortSignal,
  ): Promise<ClientReadableStream<Batch>> {
    const metadata = await this.#metadata(signal);
    signal.throwIfAborted();
    return this.#grpc().makeServerStreamRequest(
      pathOf(method),
      (bytes: Uint8Array) => Buffer.from(bytes),
      (bytes: Buffer) => fromBinary(method.output, bytes) as unknown as Batch,
      toBinary(method.input, create(method.input, message)),
      metadata,
      { interceptors: [readsToTheEnd] },
    );
  }
}

/** A call that failed has sent events before, which may still wait to be read. */
const readsToTheEnd: Interceptor = (options, nextCall) => {
  const call = nextCall(options);
  return new InterceptingCall(call, {
    start: (metadata, _listener, next) =>
      next(metadata, {
        onReceiveMetadata: (received, forward) => {
          readToTheEnd(call);
          forward(received);
        },
      }),
  });
};

/** Makes a call that brings events. */
type Open = (signal: AbortSignal) => Promise<ClientReadableStream<Batch>>;

interface Batch {
  readonly events: readonly EventMessage[];
}

/**
 * The events of one response, up to the one with an `outcome`. It is read once: by iterating, or by `final`, which takes
 * what is left into account. Leaving the iteration gives the call up, which a background response survives.
 */
export class ResponseStream implements AsyncIterable<Event> {
  readonly #result = new Accumulator();
  readonly #events: AsyncGenerator<Event, void, undefined>;
  #lastSequenceNumber: number | undefined;
  #failed: { readonly error: unknown } | undefined;

  /** Comes from `create` and `stream`, and calls when it is first read. */
  constructor(open: Open, begin: () => ReturnType<typeof either>) {
    this.#events = this.#keepFailure(this.#read(open, begin));
  }

  [Symbol.asyncIterator](): AsyncGenerator<Event, void, undefined> {
    return this.#events;
  }

  /**
   * Reads to the end. An incomplete response is no error: see `Result.outcome`.
   * @throws TurnError for one that failed; StreamError when the call was lost; the signal's reason. Each time.
   */
  async final(): Promise<Result> {
    for await (const _ of this.#events);
    if (this.#failed) throw this.#failed.error;
    return this.result;
  }

  /** What has been read so far. */
  get result(): Result {
    return this.#result.result({ id: '', lane: { id: '' } });
  }

  /** Of the last event that was read, for `startingAfter`; undefined before the first. */
  get lastSequenceNumber(): number | undefined {
    return this.#lastSequenceNumber;
  }

  /** Asked again, a generator that has thrown only says that it is over. */
  async *#keepFailure(
    events: AsyncGenerator<Event, void, undefined>,
  ): AsyncGenerator<Event, void, undefined> {
    try {
      yield* events;
    } catch (error) {
      this.#failed = { error };
      throw error;
    }
  }

  async *#read(open: Open, begin: () => ReturnType<typeof either>): AsyncGenerator<Event, void, undefined> {
    const { signal, leave } = begin();
    let call: ClientReadableStream<Batch> | undefined;
    const onAbort = () => call?.cancel();
    signal.addEventListener('abort', onAbort, { once: true });
    try {
      call = await open(signal);
      // Aborted in the moment in which there was none yet.
      if (signal.aborted) call.cancel();
      for await (const { events } of call as AsyncIterable<Batch>) {
        for (const message of events) {
          this.#result.add(message);
          this.#lastSequenceNumber = sequenceNumberOf(message) ?? this.#lastSequenceNumber;
          const event = new Event(message);
          yield event;
          if (event.outcome === undefined) continue;
          const { failure } = event;
          if (failure === undefined) return;
          failure.result = this.result;
          throw failure;
        }
      }
    } catch (error) {
      if (signal.aborted) throw signal.reason;
      throw isServiceError(error) ? streamError(error, 'STREAM_LOST') : error;
    } finally {
      leave();
      call?.cancel();
    }
  }
}

function isServiceError(error: unknown): error is ServiceError {
  return error instanceof Error && 'details' in error && 'metadata' in error;
}

function sequenceNumberOf({ payload }: EventMessage): number | undefined {
  const { value } = payload;
  return value !== undefined && typeof value === 'object' && 'sequenceNumber' in value
    ? Number(value.sequenceNumber)
    : undefined;
}

function callOptions({ upstream, timeoutMs }: CallOptions): MessageInitShape<typeof CallOptionsSchema> {
  return {
    ...(upstream !== undefined && { upstream }),
    ...(timeoutMs !== undefined && { timeout: durationOf(timeoutMs) }),
  };
}

function payloadOf(rawJson: boolean | undefined): PayloadFormat {
  return rawJson ? PayloadFormat.BOTH : PayloadFormat.TYPED;
}

/** Only JSON would have no typed answer, and nobody asks for that here. */
function answered(response: Response | undefined): Response {
  if (response === undefined) throw new TypeError('the gateway answered without a response');
  return response;
}

const MAX_ATTEMPTS = 4;
/** A caller who waits for one call does not expect to wait longer by itself. */
const MAX_TOLD_WAIT_MS = 10_000;

/**
 * The wait before a call is sent again; undefined: it may not be, or that would not help. gRPC's own retry policy knows only
 * codes, and UNAVAILABLE is also what a connection says that broke in the middle of the work.
 */
function waitBefore(error: unknown, attempt: number): number | undefined {
  if (!(error instanceof StreamError) || error.inferred || attempt >= MAX_ATTEMPTS) return undefined;
  const { retryAfterMs, code, reason, metadata } = error;
  if (metadata['replay'] !== 'safe') return undefined;
  const passes = code === 'UNAVAILABLE' || reason === 'UPSTREAM_RATE_LIMITED';
  if (retryAfterMs === undefined && !passes) return undefined;
  const waitMs = retryWaitMs(attempt, retryAfterMs);
  return waitMs > MAX_TOLD_WAIT_MS ? undefined : waitMs;
}
