import { fileURLToPath } from 'node:url';
import {
  type ChannelCredentials,
  type Client,
  type ClientDuplexStream,
  type ClientReadableStream,
  credentials as channelCredentials,
  loadPackageDefinition,
  Metadata,
  type ServiceClientConstructor,
  type StatusObject,
} from '@grpc/grpc-js';
import { loadSync } from '@grpc/proto-loader';
import protobuf from 'protobufjs';

/** Decoded messages, as a client without generated code sees them. */
export type Message = Readonly<Record<string, unknown>>;

export interface TestEvent {
  readonly seq: number;
  readonly lane_id: string;
  readonly turn_id: string;
  readonly type: string;
  readonly outcome: string;
  readonly json: Buffer;
  readonly payload?: string;
  readonly turn_failed?: {
    readonly code: number;
    readonly reason: string;
    readonly message: string;
    readonly replay: string;
    readonly phase: string;
    readonly metadata: Readonly<Record<string, string>>;
    readonly retry_after?: { readonly seconds: number; readonly nanos: number };
  };
  readonly notice?: { readonly kind: string; readonly reason: string };
  readonly [field: string]: unknown;
}

export interface Ended {
  readonly code: number;
  readonly message: string;
  /** `ErrorInfo.reason`, if there were details. */
  readonly reason: string | undefined;
  readonly metadata: Readonly<Record<string, string>>;
  /** Short names of all details. */
  readonly details: readonly string[];
}

export const NO_OUTCOME = 'TURN_OUTCOME_UNSPECIFIED';

// The test reads the .proto files by itself: it must not agree with the gateway by sharing its code.
const packageDefinition = loadSync('responses/gateway/v1/service.proto', {
  includeDirs: [fileURLToPath(new URL('../../proto', import.meta.url))],
  keepCase: true,
  longs: Number,
  enums: String,
  defaults: true,
  oneofs: true,
});

const api = loadPackageDefinition(packageDefinition) as unknown as {
  responses: { gateway: { v1: { ResponsesService: ServiceClientConstructor } } };
};

type Api = Client & {
  Connect(metadata: Metadata): ClientDuplexStream<Message, Message>;
  CreateResponse(request: Message, metadata: Metadata): ClientReadableStream<Message>;
  StreamResponse(request: Message, metadata: Metadata): ClientReadableStream<Message>;
  CompactResponse(
    request: Message,
    metadata: Metadata,
    callback: (error: StatusObject | null, reply?: Message) => void,
  ): unknown;
};

export interface TestClientOptions {
  readonly credentials?: ChannelCredentials;
  readonly metadata?: Readonly<Record<string, string>>;
  readonly channel?: Readonly<Record<string, string | number>>;
}

/** One connection of a client. */
export class TestClient {
  readonly api: Api;
  readonly #metadata: Readonly<Record<string, string>>;

  constructor(address: string, options: TestClientOptions = {}) {
    this.#metadata = options.metadata ?? {};
    this.api = new api.responses.gateway.v1.ResponsesService(
      address,
      options.credentials ?? channelCredentials.createInsecure(),
      {
        'grpc.max_receive_message_length': 64 * 1024 * 1024,
        'grpc.enable_retries': 0,
        // A channel of its own: tests cut connections.
        'grpc.use_local_subchannel_pool': 1,
        ...options.channel,
      },
    ) as unknown as Api;
  }

  /** Opens a stream; `open: null` sends nothing first. */
  connect(open: Message | null = {}, metadata: Readonly<Record<string, string>> = {}): TestStream {
    const stream = new TestStream(this.api.Connect(this.metadata(metadata)));
    if (open !== null) stream.send({ open });
    return stream;
  }

  createResponse(
    request: Message,
    metadata: Readonly<Record<string, string>> = {},
  ): {
    readonly call: ClientReadableStream<Message>;
    readonly result: Promise<{ events: TestEvent[]; ended: Ended }>;
  } {
    return collect(this.api.CreateResponse(request, this.metadata(metadata)));
  }

  streamResponse(request: Message): {
    readonly call: ClientReadableStream<Message>;
    readonly result: Promise<{ events: TestEvent[]; ended: Ended }>;
  } {
    return collect(this.api.StreamResponse(request, this.metadata()));
  }

  /** One of the calls that have one answer. */
  call(method: string, request: Message): Promise<{ reply: Message | undefined; ended: Ended }> {
    const api = this.api as unknown as Record<string, UnaryCall>;
    return new Promise((resolve) => {
      api[method]?.(request, this.metadata(), (error, reply) => {
        resolve({ reply, ended: error === null ? OK : endedBy(error) });
      });
    });
  }

  compactResponse(
    request: Message,
    metadata: Readonly<Record<string, string>> = {},
  ): Promise<{ reply: Message | undefined; ended: Ended }> {
    return new Promise((resolve) => {
      this.api.CompactResponse(request, this.metadata(metadata), (error, reply) => {
        resolve({ reply, ended: error === null ? OK : endedBy(error) });
      });
    });
  }

  metadata(more: Readonly<Record<string, string>> = {}): Metadata {
    const metadata = new Metadata();
    for (const [key, value] of Object.entries({ ...this.#metadata, ...more })) metadata.set(key, value);
    return metadata;
  }

  close(): void {
    this.api.close();
  }
}

type UnaryCall = (
  request: Message,
  metadata: Metadata,
  done: (error: StatusObject | null, reply?: Message) => void,
) => void;

function collect(call: ClientReadableStream<Message>) {
  const events: TestEvent[] = [];
  const result = new Promise<{ events: TestEvent[]; ended: Ended }>((resolve) => {
    call.on('data', (message: Message) => events.push(...(message.events as TestEvent[])));
    call.on('error', () => {});
    call.on('status', (status: StatusObject) => resolve({ events, ended: endedBy(status) }));
  });
  return { call, result };
}

const OK: Ended = { code: 0, message: 'OK', reason: undefined, metadata: {}, details: [] };

type Opened = Message & { resume_token: string; resume_outcome: string; session_id: string };

type Waiter = {
  readonly look: () => boolean;
  readonly resolve: () => void;
  readonly reject: (e: Error) => void;
};

/** One Connect stream. Everything that came is kept; waits look at what is there and at what comes. */
export class TestStream {
  readonly call: ClientDuplexStream<Message, Message>;
  readonly events: TestEvent[] = [];
  readonly goAways: Message[] = [];
  batches = 0;
  heartbeats = 0;
  openedMessage: Message | undefined;
  endedWith: Ended | undefined;
  readonly #waiters = new Set<Waiter>();

  constructor(call: ClientDuplexStream<Message, Message>) {
    this.call = call;
    call.on('data', (message: Message) => this.#take(message));
    call.on('error', () => {});
    call.on('status', (status: StatusObject) => {
      this.endedWith = endedBy(status);
      this.#look();
    });
  }

  send(message: Message): void {
    this.call.write(message);
  }

  /** Starts a turn with one user message, or with the given create. */
  startTurn(turn: Message & { readonly turn_id: string }, text?: string): void {
    const create = (turn.create as Message | undefined) ?? {};
    const input = text === undefined ? create.input : [userMessage(text)];
    this.send({
      start_turn: { ...turn, create: { model: 'gpt-6', ...create, ...(input ? { input } : {}) } },
    });
  }

  opened(): Promise<Opened> {
    return this.#wait(
      () => this.openedMessage !== undefined,
      () => this.openedMessage as Opened,
    );
  }

  /** All events of the turn, once its last one has come. */
  turn(turnId: string): Promise<TestEvent[]> {
    return this.#wait(
      () => this.events.some((e) => e.turn_id === turnId && e.outcome !== NO_OUTCOME),
      () => this.events.filter((event) => event.turn_id === turnId),
    );
  }

  /** The first event of this type (of this turn). */
  event(type: string, turnId?: string): Promise<TestEvent> {
    const fits = (event: TestEvent) =>
      event.type === type && (turnId === undefined || event.turn_id === turnId);
    return this.#wait(
      () => this.events.some(fits),
      () => this.events.find(fits) as TestEvent,
    );
  }

  ended(): Promise<Ended> {
    return this.#wait(
      () => this.endedWith !== undefined,
      () => this.endedWith as Ended,
    );
  }

  /** Resolves as soon as the condition holds; rejects if the stream ends before, unless that is waited for. */
  until(condition: () => boolean): Promise<void> {
    return this.#wait(condition, () => {});
  }

  /** A test that fails leaves its other waits behind; they must not fail the run when it passes on its repetition. */
  #wait<T>(condition: () => boolean, result: () => T): Promise<T> {
    const waiting = new Promise<void>((resolve, reject) => {
      this.#waiters.add({ look: condition, resolve, reject });
      this.#look();
    }).then(result);
    waiting.catch(() => {});
    return waiting;
  }

  halfClose(): void {
    this.call.end();
  }

  /** As a client that dies: no status comes any more. */
  cancel(): void {
    this.call.cancel();
  }

  #take(message: Message): void {
    if (message.opened) this.openedMessage = message.opened as Message;
    if (message.heartbeat) this.heartbeats += 1;
    if (message.go_away) this.goAways.push(message.go_away as Message);
    if (message.events) {
      this.batches += 1;
      this.events.push(...((message.events as Message).events as TestEvent[]));
    }
    this.#look();
  }

  #look(): void {
    for (const waiter of this.#waiters) {
      if (waiter.look()) {
        this.#waiters.delete(waiter);
        waiter.resolve();
      } else if (this.endedWith !== undefined) {
        this.#waiters.delete(waiter);
        waiter.reject(new Error(`stream ended before: ${JSON.stringify(this.endedWith)}`));
      }
    }
  }
}

export function userMessage(text: string): Message {
  return { message: { role: 'user', content: [{ input_text: { text } }] } };
}

/** The whole text of a turn from its deltas. */
export function textOf(events: readonly TestEvent[]): string {
  return events
    .map((event) => (event.output_text_delta as { delta?: string } | undefined)?.delta ?? '')
    .join('');
}

/** Throws if seq has a gap or a repeat. */
export function checkSeq(events: readonly TestEvent[], first = 1): void {
  events.forEach((event, index) => {
    if (event.seq !== first + index) throw new Error(`seq ${event.seq} where ${first + index} was due`);
  });
}

const rpc = protobuf.parse(
  `
  syntax = "proto3";
  package google.rpc;
  message Any { string type_url = 1; bytes value = 2; }
  message Status { int32 code = 1; string message = 2; repeated Any details = 3; }
  message ErrorInfo { string reason = 1; string domain = 2; map<string, string> metadata = 3; }
`,
  { keepCase: true },
).root;

export function endedBy(status: Pick<StatusObject, 'code' | 'details' | 'metadata'>): Ended {
  const bytes = status.metadata?.get('grpc-status-details-bin')[0];
  if (!Buffer.isBuffer(bytes)) {
    return { code: status.code, message: status.details, reason: undefined, metadata: {}, details: [] };
  }
  const decoded = rpc.lookupType('google.rpc.Status').decode(bytes) as unknown as {
    details: { type_url: string; value: Uint8Array }[];
  };
  const info = decoded.details.find(({ type_url }) => type_url.endsWith('/google.rpc.ErrorInfo'));
  const type = rpc.lookupType('google.rpc.ErrorInfo');
  const error = info === undefined ? {} : type.toObject(type.decode(info.value), { objects: true });
  return {
    code: status.code,
    message: status.details,
    reason: error.reason as string | undefined,
    metadata: (error.metadata ?? {}) as Record<string, string>,
    details: decoded.details.map(({ type_url }) => type_url.split('.').at(-1) ?? ''),
  };
}
