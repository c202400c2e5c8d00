import { createHmac, timingSafeEqual } from 'node:crypto';
import {
  Client,
  type ClientDuplexStream,
  credentials,
  status as grpcStatus,
  Metadata,
  type StatusObject,
} from '@grpc/grpc-js';
import type { Principal } from '../access/types.ts';
import { RunningWork } from '../session/running-work.ts';
import type { RpcCall } from './call.ts';

/** Who called, said by one process of the gateway to another. */
const HOP_KEY = 'x-responses-gateway-hop';

export interface PeersOptions {
  /** Unique among the processes, without dots. */
  readonly id: string;
  /** Address of the process with that id; only processes of this gateway can reach it. */
  readonly addressOf: (id: string) => string;
  /** Known to the processes of this gateway only, new at every start. */
  readonly secret: Uint8Array;
}

/**
 * The other processes that share the port. A connection reaches any of them, and a session lives in one: a token says
 * in which, and a stream that resumes at another is carried over there, message by message.
 */
export class Peers {
  /** Streams that are carried for another process. */
  readonly carried = new RunningWork();
  readonly #options: PeersOptions;
  readonly #clients = new Map<string, Client>();

  constructor(options: PeersOptions) {
    this.#options = options;
  }

  /** Stands before the resume tokens of this process. */
  get tokenPrefix(): string {
    return `${this.#options.id}.`;
  }

  /** The principal that another process has authenticated; undefined when the call comes from outside. */
  principalOf(metadata: Metadata): Principal | undefined {
    const [text] = metadata.get(HOP_KEY);
    const [, payload = '', signature = ''] = /^([\w-]+)\.([\w-]+)$/.exec(String(text ?? '')) ?? [];
    if (payload === '') return undefined;
    const expected = this.#sign(payload);
    const given = Buffer.from(signature, 'base64url');
    if (given.length !== expected.length || !timingSafeEqual(given, expected)) return undefined;
    return JSON.parse(Buffer.from(payload, 'base64url').toString()) as Principal;
  }

  /**
   * Carries the call over to the process that the token names. Resolves with false, and nothing has happened, when the
   * token is no other process's, that process is gone, or it does not have the session. A client that leaves before is
   * done with: true.
   */
  async forward(call: RpcCall, principal: Principal, token: string, open: Uint8Array): Promise<boolean> {
    const [, id] = /^([\w-]+)\./.exec(token) ?? [];
    if (id === undefined || id === this.#options.id) return false;
    const payload = Buffer.from(JSON.stringify(principal)).toString('base64url');
    const metadata = new Metadata();
    metadata.set(HOP_KEY, `${payload}.${this.#sign(payload).toString('base64url')}`);
    const stream: ClientDuplexStream<Uint8Array, Buffer> = this.#client(id).makeBidiStreamRequest(
      `/${call.method}`,
      (bytes: Uint8Array) => Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength),
      (bytes) => bytes,
      metadata,
    );
    const { answered, over } = carry(call, stream, open);
    this.carried.add(over);
    const answer = await answered;
    // Ids come from tokens, and tokens from callers: only those of real processes are kept.
    if (answer === 'unreachable' || answer === 'unheard') this.#forget(id);
    return answer === 'taken' || answer === 'unheard';
  }

  close(): void {
    for (const client of this.#clients.values()) client.close();
    this.#clients.clear();
  }

  #sign(payload: string): Buffer {
    return createHmac('sha256', this.#options.secret).update(payload).digest();
  }

  #forget(id: string): void {
    this.#clients.get(id)?.close();
    this.#clients.delete(id);
  }

  #client(id: string): Client {
    const known = this.#clients.get(id);
    if (known !== undefined) return known;
    const client = new Client(this.#options.addressOf(id), credentials.createInsecure(), {
      'grpc.max_receive_message_length': -1,
      'grpc.max_send_message_length': -1,
      'grpc.enable_retries': 0,
    });
    this.#clients.set(id, client);
    return client;
  }
}

/** unheard: the client has left before. */
type Answer = 'taken' | 'unknown session' | 'unreachable' | 'unheard';

interface Carried {
  /** Where the session is unknown or nobody is reached nothing has happened, and the client still waits. */
  readonly answered: Promise<Answer>;
  readonly over: Promise<void>;
}

/** Both directions, each held back by the one who reads it. */
function carry(call: RpcCall, stream: ClientDuplexStream<Uint8Array, Buffer>, open: Uint8Array): Carried {
  const answered = Promise.withResolvers<Answer>();
  const over = Promise.withResolvers<void>();
  let hasAnswered = false;
  let status: StatusObject | undefined;
  let ended = false;
  const finish = (): void => {
    // The status comes when it is received, which may be before the last messages are read.
    if (status === undefined || !ended) return;
    const answer = hasAnswered ? 'taken' : answerOf(status);
    // A refusal is the client's to hear: the session is still there, and it may try again.
    if (answer === 'taken') call.endWith(status);
    answered.resolve(answer);
    over.resolve();
  };
  stream.on('data', (bytes: Buffer) => {
    call.write(bytes);
    if (!call.hasRoom) stream.pause();
    if (hasAnswered) return;
    hasAnswered = true;
    answered.resolve('taken');
    void carryUp(call, stream);
  });
  call.onRoom = () => stream.resume();
  const left = (): void => {
    stream.cancel();
    // Nobody waits for a session any more, wherever it would be.
    answered.resolve('unheard');
    over.resolve();
  };
  call.signal.addEventListener('abort', left, { once: true });
  // The same as the status says.
  stream.on('error', () => {});
  stream.on('status', (received: StatusObject) => {
    status = received;
    finish();
  });
  stream.on('end', () => {
    ended = true;
    finish();
  });
  stream.write(open);
  return { answered: answered.promise, over: over.promise };
}

/** A status before the first message. */
function answerOf({ code }: StatusObject): Answer {
  if (code === grpcStatus.NOT_FOUND) return 'unknown session';
  return code === grpcStatus.UNAVAILABLE ? 'unreachable' : 'taken';
}

async function carryUp(call: RpcCall, stream: ClientDuplexStream<Uint8Array, Buffer>): Promise<void> {
  for (;;) {
    const received = await call.read();
    if (received.kind === 'gone') return stream.cancel();
    if (received.kind === 'halfClose') return void stream.end();
    if (!stream.write(received.bytes)) await roomOrEnd(call, stream);
  }
}

function roomOrEnd(call: RpcCall, stream: ClientDuplexStream<Uint8Array, Buffer>): Promise<void> {
  return new Promise((resolve) => {
    const done = (): void => {
      stream.off('drain', done);
      call.signal.removeEventListener('abort', done);
      resolve();
    };
    stream.once('drain', done);
    call.signal.addEventListener('abort', done, { once: true });
  });
}
