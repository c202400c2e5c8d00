import {
  type ChannelCredentials,
  type ClientDuplexStream,
  credentials,
  type Client as GrpcClient,
  Metadata,
  makeGenericClientConstructor,
} from '@grpc/grpc-js';
import { loadApi } from '../../src/translate/index.ts';

/** TLS and a key, as callers in production have them. */
export interface ClientAccess {
  /** PEM. */
  readonly ca: string;
  readonly key: string;
}

/**
 * A client that costs as little as a client can: it takes messages as bytes and looks only at the fields that
 * say how many events there are and which turn is over. What is measured is the gateway, not this.
 */
export class LightClient {
  readonly #client: GrpcClient;

  constructor(address: string, access?: ClientAccess) {
    this.#client = new Generic(address, channelCredentials(access), {
      'grpc.max_receive_message_length': 64 * 1024 * 1024,
      'grpc.use_local_subchannel_pool': 1,
      'grpc.enable_retries': 0,
    });
  }

  /** Rejects when the stream ends before it was granted. */
  async open(
    payload: 'TYPED' | 'JSON' = 'TYPED',
    resume?: LightResume,
    echo: 'FULL' | 'NONE' = 'FULL',
  ): Promise<LightStream> {
    const call = (this.#client as unknown as { connect(): ClientDuplexStream<object, Buffer> }).connect();
    const stream = new LightStream(call);
    await stream.opened(payload, resume, echo);
    return stream;
  }

  close(): void {
    this.#client.close();
  }
}

export interface LightResume {
  readonly token: string;
  readonly last_seq: number;
  readonly last_commit: number;
}

/** As the clients of this project do. */
const ACK_EVENTS = 512;
const ACK_BYTES = 256 * 1024;

export class LightStream {
  events = 0;
  batches = 0;
  bytes = 0;
  /** Of Opened. */
  resumeToken = '';
  outcome = 0;
  /** Highest of the events. */
  lastCommit = 0;
  /** Resolves when the stream is over, however. */
  readonly ended: Promise<void>;
  #acked = 0;
  #unackedBytes = 0;
  readonly #call: ClientDuplexStream<object, Buffer>;
  readonly #turns = new Map<
    string,
    { firstMs: number; done: (times: { firstMs: number; endMs: number }) => void }
  >();
  #onOpened: { done: () => void; failed: (error: Error) => void } | undefined;
  /** Called with the moment each event of a turn arrived, when set. */
  onEvent: ((turnId: string, type: string, atMs: number) => void) | undefined;
  /** Full bytes of every event, when set. */
  onEventBytes: ((turnId: string, type: string, event: Buffer) => void) | undefined;

  constructor(call: ClientDuplexStream<object, Buffer>) {
    this.#call = call;
    call.on('data', (bytes: Buffer) => this.#take(bytes));
    this.ended = new Promise((resolve) => call.once('status', () => resolve()));
    call.on('error', (error) => {
      this.#onOpened?.failed(error);
      for (const turn of this.#turns.values()) turn.done({ firstMs: Number.NaN, endMs: Number.NaN });
      if (!/cancel|ECONNRESET|Connection dropped/i.test(String(error)))
        process.stderr.write(`stream: ${error.message}\n`);
    });
  }

  opened(payload: 'TYPED' | 'JSON', resume?: LightResume, echo: 'FULL' | 'NONE' = 'FULL'): Promise<void> {
    const open = {
      payload: payload === 'JSON' ? 2 : 1,
      schema_revision: 3,
      resume,
      echo: echo === 'NONE' ? 2 : 1,
    };
    this.#call.write({ open });
    // Numbers go on where the session was.
    this.events = resume?.last_seq ?? 0;
    return new Promise((done, failed) => {
      this.#onOpened = { done, failed };
    });
  }

  /** Resolves at the turn's last event. Times are `performance.now()`. */
  turn(request: {
    readonly turnId: string;
    readonly laneId?: string;
    readonly create: object;
    readonly inputMode?: number;
  }): Promise<{ firstMs: number; endMs: number }> {
    return new Promise((done) => {
      this.#turns.set(request.turnId, { firstMs: Number.NaN, done });
      this.#call.write({
        start_turn: {
          turn_id: request.turnId,
          lane_id: request.laneId ?? '',
          create: request.create,
          ...(request.inputMode === undefined ? {} : { input_mode: request.inputMode }),
        },
      });
    });
  }

  /** Like `turn`, with a StartTurn that is encoded already. */
  encodedTurn(turnId: string, startTurn: Uint8Array): Promise<{ firstMs: number; endMs: number }> {
    return new Promise((done) => {
      this.#turns.set(turnId, { firstMs: Number.NaN, done });
      this.#call.write(startTurn);
    });
  }

  close(): Promise<void> {
    return new Promise((resolve) => {
      this.#call.once('status', () => resolve());
      this.#call.end();
    });
  }

  #take(bytes: Buffer): void {
    const now = performance.now();
    this.bytes += bytes.length;
    eachField(bytes, 0, bytes.length, (field, from, to) => {
      if (field === 1) this.#readOpened(bytes, from, to);
      if (field !== 2) return;
      this.batches += 1;
      this.#unackedBytes += to - from;
      eachField(bytes, from, to, (_, eventFrom, eventTo) => this.#event(bytes, eventFrom, eventTo, now));
    });
    if (this.events - this.#acked < ACK_EVENTS && this.#unackedBytes < ACK_BYTES) return;
    this.#unackedBytes = 0;
    this.#acked = this.events;
    // The first event of a new session has seq 1, and none is left out.
    this.#call.write({ ack: { seq: this.events } });
  }

  #readOpened(bytes: Buffer, from: number, to: number): void {
    eachField(bytes, from, to, (field, start, end) => {
      if (field === 2) this.resumeToken = bytes.toString('latin1', start, end);
      else if (field === 4) this.outcome = bytes[start] ?? 0;
    });
    this.#onOpened?.done();
  }

  #event(bytes: Buffer, from: number, to: number, now: number): void {
    this.events += 1;
    let turnId = '';
    let type = '';
    let ended = false;
    eachField(bytes, from, to, (field, start, end) => {
      if (field === 3) turnId = bytes.toString('latin1', start, end);
      else if (field === 4) type = bytes.toString('latin1', start, end);
      else if (field === 5) ended = true;
      else if (field === 76) this.lastCommit = Math.max(this.lastCommit, readVarint(bytes, start));
    });
    this.onEvent?.(turnId, type, now);
    this.onEventBytes?.(turnId, type, bytes.subarray(from, to));
    const turn = this.#turns.get(turnId);
    if (turn === undefined) return;
    if (Number.isNaN(turn.firstMs) && type.endsWith('.delta')) turn.firstMs = now;
    if (!ended) return;
    this.#turns.delete(turnId);
    turn.done({ firstMs: turn.firstMs, endMs: now });
  }
}

function readVarint(bytes: Buffer, from: number): number {
  let value = 0;
  let scale = 1;
  for (let at = from; ; at += 1) {
    const byte = bytes[at] as number;
    value += (byte & 0x7f) * scale;
    if (byte < 0x80) return value;
    scale *= 128;
  }
}

/** Top-level fields of a message: number, and where the content of one lies. */
export function eachField(
  bytes: Buffer,
  from: number,
  to: number,
  visit: (field: number, from: number, to: number) => void,
): void {
  let at = from;
  const varint = () => {
    let value = 0;
    let scale = 1;
    for (;;) {
      const byte = bytes[at] as number;
      at += 1;
      value += (byte & 0x7f) * scale;
      if (byte < 0x80) return value;
      scale *= 128;
    }
  };
  while (at < to) {
    const tag = varint();
    const wire = tag & 7;
    if (wire === 2) {
      const length = varint();
      visit(tag >>> 3, at, at + length);
      at += length;
    } else if (wire === 0) {
      const start = at;
      varint();
      visit(tag >>> 3, start, at);
    } else at += wire === 1 ? 8 : 4;
  }
}

export function userMessage(text: string): object {
  return { message: { role: 'user', content: [{ input_text: { text } }] } };
}

/** A ConnectRequest as its bytes. */
export function encodeRequest(request: object): Buffer {
  return Buffer.from(requestType.encode(requestType.fromObject(request)).finish());
}

function channelCredentials(access: ClientAccess | undefined): ChannelCredentials {
  if (access === undefined) return credentials.createInsecure();
  const bearer = credentials.createFromMetadataGenerator((_, done) => {
    const metadata = new Metadata();
    metadata.set('authorization', `Bearer ${access.key}`);
    done(null, metadata);
  });
  return credentials.combineChannelCredentials(credentials.createSsl(Buffer.from(access.ca)), bearer);
}

const requestType = loadApi().type('ConnectRequest');
const Generic = makeGenericClientConstructor(
  {
    connect: {
      path: '/responses.gateway.v1.ResponsesService/Connect',
      requestStream: true,
      responseStream: true,
      requestSerialize: (value: object) => (Buffer.isBuffer(value) ? value : encodeRequest(value)),
      requestDeserialize: (bytes: Buffer) => bytes,
      responseSerialize: (bytes: Buffer) => bytes,
      responseDeserialize: (bytes: Buffer) => bytes,
    },
  },
  'ResponsesService',
);
