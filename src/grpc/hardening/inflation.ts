import { gunzip, type InputType, inflate, type ZlibOptions } from 'node:zlib';
import { type ServerInterceptingCallInterface, status } from '@grpc/grpc-js';
import { http2Stream } from '../call.ts';

/** DEFLATE makes at most this much of a byte. */
const MAX_RATIO = 1_032;
/** While a message is put together its parts exist as well. */
const COPIES = 2;
/** gRPC's frame: a flag, four bytes of length. */
const HEADER_BYTES = 5;

const INFLATE: Readonly<Record<string, typeof gunzip>> = { gzip: gunzip, deflate: inflate };

export interface InflationLimits {
  readonly bytes: number;
  /** For the streams of one connection. */
  readonly connectionBytes: number;
}

/**
 * Compressed messages. grpc-js inflates each as soon as it has come, beside all others, and nobody sees what they
 * become: 40 of 20 kB were a gigabyte. Here a message is inflated when its call asks for it, and waits until what it
 * may become at most fits in the memory for that; connections take turns.
 */
export class Inflation {
  readonly #max: InflationLimits;
  /** In the order of their next turns. */
  readonly #waiting = new Map<object, Job[]>();
  readonly #usedBy = new WeakMap<object, number>();
  #used = 0;

  constructor(max: InflationLimits) {
    this.#max = max;
  }

  /** Bytes that are spoken for. */
  get bytes(): number {
    return this.#used;
  }

  /** Takes over the inflating of a call, whose messages may become `maxBytes` each. */
  watch(base: ServerInterceptingCallInterface, maxBytes: number): void {
    if (!hasInternals(base)) throw new Error('grpc-js has changed: its decompression cannot be reached');
    const stream = http2Stream(base);
    const connection = stream?.session ?? base;
    const decompress = base.decompressMessage.bind(base);
    const startRead = base.startRead.bind(base);
    const jobs: Job[] = [];
    base.maxReceiveMessageSize = maxBytes;
    base.decoder.maxReadMessageLength = maxBytes;
    const begin = () => {
      const [job] = jobs;
      // What is read ahead stays as it came.
      if (job === undefined || !base.isReadPending || base.readQueue[0]?.compressedMessage !== job.framed)
        return;
      jobs.shift();
      this.#enqueue(connection, job);
    };
    base.decompressMessage = (framed, encoding) => {
      const run = INFLATE[encoding];
      if (run === undefined) return decompress(framed, encoding);
      return new Promise((resolve, reject) => {
        jobs.push({ framed, run, maxBytes, resolve, reject, isOver: () => stream?.destroyed === true });
        begin();
      });
    };
    base.startRead = () => {
      startRead();
      begin();
    };
  }

  #enqueue(connection: object, job: Job): void {
    const queue = this.#waiting.get(connection);
    if (queue === undefined) this.#waiting.set(connection, [job]);
    else queue.push(job);
    this.#beginWhatFits();
  }

  #beginWhatFits(): void {
    for (const [connection, queue] of [...this.#waiting]) {
      const [job] = queue;
      if (job === undefined) continue;
      const bytes = job.isOver() ? 0 : mostOf(job);
      const held = this.#usedBy.get(connection) ?? 0;
      if (this.#used + bytes > this.#max.bytes) return;
      if (held + bytes > this.#max.connectionBytes) continue;
      queue.shift();
      this.#waiting.delete(connection);
      if (queue.length > 0) this.#waiting.set(connection, queue);
      if (job.isOver()) continue;
      this.#count(connection, bytes);
      run(job, () => {
        this.#count(connection, -bytes);
        this.#beginWhatFits();
      });
    }
  }

  #count(connection: object, bytes: number): void {
    this.#used += bytes;
    this.#usedBy.set(connection, (this.#usedBy.get(connection) ?? 0) + bytes);
  }
}

interface Job {
  /** The message in its gRPC frame. */
  readonly framed: Buffer;
  readonly run: typeof gunzip;
  readonly maxBytes: number;
  resolve(message: Buffer): void;
  reject(refusal: Refusal): void;
  /** Nobody waits for it any more. */
  isOver(): boolean;
}

/** What grpc-js ends a call with. */
interface Refusal {
  readonly code: status;
  readonly details: string;
}

function mostOf({ framed, maxBytes }: Job): number {
  return COPIES * Math.min(maxBytes, MAX_RATIO * framed.length);
}

function run({ framed, run: inflateAll, maxBytes, resolve, reject }: Job, done: () => void): void {
  const message: InputType = framed.subarray(HEADER_BYTES);
  const options: ZlibOptions = { maxOutputLength: maxBytes };
  inflateAll(message, options, (error, result) => {
    done();
    if (error === null) resolve(result);
    else reject(refusalOf(error, maxBytes));
  });
}

/** In grpc-js's own words, which are given our details with all its refusals. */
function refusalOf(error: NodeJS.ErrnoException, maxBytes: number): Refusal {
  if (error.code !== 'ERR_BUFFER_TOO_LARGE')
    return { code: status.INTERNAL, details: 'Failed to decompress message' };
  return {
    code: status.RESOURCE_EXHAUSTED,
    details: `Received message that decompresses to a size larger than ${maxBytes}`,
  };
}

interface Internals extends ServerInterceptingCallInterface {
  maxReceiveMessageSize: number;
  readonly decoder: { maxReadMessageLength: number };
  readonly readQueue: readonly { readonly compressedMessage: Buffer | null }[];
  readonly isReadPending: boolean;
  decompressMessage(framed: Buffer, encoding: string): Buffer | Promise<Buffer>;
}

/** grpc-js has no options for this; these fields are the only handle. */
function hasInternals(base: ServerInterceptingCallInterface): base is Internals {
  return (
    'decompressMessage' in base &&
    typeof base.decompressMessage === 'function' &&
    'maxReceiveMessageSize' in base &&
    'isReadPending' in base &&
    'readQueue' in base &&
    Array.isArray(base.readQueue) &&
    'decoder' in base &&
    typeof base.decoder === 'object' &&
    base.decoder !== null &&
    'maxReadMessageLength' in base.decoder
  );
}
