import { type AddressInfo, connect, createServer, type Socket } from 'node:net';

/** What goes wrong in one direction. Nothing set: bytes pass as they come. */
export interface Toxics {
  /** Every byte arrives this much later, give or take `jitterMs`; order stays. */
  readonly latencyMs?: number;
  readonly jitterMs?: number;
  readonly bytesPerSecond?: number;
  /**
   * A throttled direction takes in this much ahead, default 64 KiB. With latency it acts as the window of the
   * connection: at most so much per latency.
   */
  readonly readAheadBytes?: number;
  /** The sender is TCP: it begins slowly, and again after a pause. */
  readonly slowStart?: SlowStart;
  /** Writes of at most this size, with a pause after each. */
  readonly slice?: { readonly bytes: number; readonly delayMs?: number };
  /** Nothing is read any more, so the sender's buffers fill. */
  readonly stall?: boolean;
  /** Half-open: everything is taken, nothing is passed on, the end neither. For good: a stream of TCP has no holes. */
  readonly swallow?: boolean;
  /** The connection is reset after this many bytes of the direction. */
  readonly limitBytes?: number;
}

/**
 * As Linux has it by default, on a path without loss: what has not been acknowledged is at most a window, which grows
 * with what is acknowledged and shrinks while nothing is sent. Without a round trip it never limits.
 */
export interface SlowStart {
  /** The latency of both directions: bytes are acknowledged so much after they were sent. */
  readonly roundTripMs: number;
  /** Default 10 segments of 1,460 bytes (RFC 6928). */
  readonly initialWindowBytes?: number;
}

/** `up`: client to target. `down`: target to client. */
export interface ToxicSet {
  readonly up?: Toxics;
  readonly down?: Toxics;
}

export interface ChaosProxyOptions extends ToxicSet {
  readonly target: { readonly host: string; readonly port: number };
  /** Default 1. The same seed gives the same jitter for the same bytes. */
  readonly seed?: number;
}

export interface ChaosConnection {
  readonly bytesUp: number;
  readonly bytesDown: number;
  /** Replaces the toxics of this connection only. */
  set(toxics: ToxicSet): void;
  /** RST to both sides. */
  cut(): void;
}

export interface ChaosProxy {
  readonly port: number;
  /** The open ones, oldest first. */
  readonly connections: readonly ChaosConnection[];
  /** Replaces the toxics of all connections, open and to come. */
  set(toxics: ToxicSet): void;
  cutAll(): void;
  /** Both directions of the open connections stand still; `set` moves them again. */
  stallAll(): void;
  /** Resets what is open and stops listening. */
  close(): Promise<void>;
}

/** A TCP proxy on a free port of 127.0.0.1 that misbehaves as told. */
export async function startChaosProxy(options: ChaosProxyOptions): Promise<ChaosProxy> {
  const random = seeded(options.seed ?? 1);
  const open = new Set<Pair>();
  let toxics: ToxicSet = options;
  const server = createServer({ allowHalfOpen: true }, (client) => {
    const pair = new Pair(client, options.target, toxics, random, () => open.delete(pair));
    open.add(pair);
  });
  await new Promise<void>((resolve, reject) => {
    server.once('error', reject);
    server.listen(0, '127.0.0.1', resolve);
  });
  const { port } = server.address() as AddressInfo;
  return {
    port,
    get connections() {
      return [...open];
    },
    set: (next) => {
      toxics = next;
      for (const pair of open) pair.set(next);
    },
    cutAll: () => {
      for (const pair of [...open]) pair.cut();
    },
    stallAll: () => {
      for (const pair of open) pair.set({ up: { stall: true }, down: { stall: true } });
    },
    close: async () => {
      const closed = new Promise((resolve) => server.close(resolve));
      for (const pair of [...open]) pair.cut();
      await closed;
    },
  };
}

class Pair implements ChaosConnection {
  readonly #client: Socket;
  readonly #target: Socket;
  readonly #up: Pipe;
  readonly #down: Pipe;
  readonly #onClosed: () => void;

  constructor(
    client: Socket,
    target: ChaosProxyOptions['target'],
    toxics: ToxicSet,
    random: () => number,
    onClosed: () => void,
  ) {
    this.#client = client;
    this.#target = connect({ ...target, allowHalfOpen: true });
    this.#onClosed = onClosed;
    client.setNoDelay();
    this.#target.setNoDelay();
    const cut = () => this.cut();
    this.#up = new Pipe(client, this.#target, toxics.up ?? {}, random, cut);
    this.#down = new Pipe(this.#target, client, toxics.down ?? {}, random, cut);
    for (const [socket, pipe] of [
      [client, this.#up],
      [this.#target, this.#down],
    ] as const) {
      // 'close' follows.
      socket.on('error', () => {});
      socket.once('close', () => this.#closed(pipe));
    }
  }

  get bytesUp(): number {
    return this.#up.bytes;
  }

  get bytesDown(): number {
    return this.#down.bytes;
  }

  set(toxics: ToxicSet): void {
    this.#up.set(toxics.up ?? {});
    this.#down.set(toxics.down ?? {});
  }

  cut(): void {
    this.#up.stop();
    this.#down.stop();
    this.#client.resetAndDestroy();
    this.#target.resetAndDestroy();
    this.#onClosed();
  }

  #closed(from: Pipe): void {
    // A half-open peer does not hear that the other side is gone.
    if (from.swallows) return;
    if (this.#client.destroyed && this.#target.destroyed) return this.cut();
    const orderly = from.ended;
    if (!orderly) this.cut();
  }
}

/** More than this is not read ahead, so that a throttled direction pushes back on its sender. */
const READ_AHEAD_BYTES = 64 * 1024;
/** A throttled direction writes this often. */
const QUANTUM_MS = 10;

class Pipe {
  bytes = 0;
  ended = false;
  readonly #source: Socket;
  readonly #sink: Socket;
  readonly #random: () => number;
  readonly #cut: () => void;
  #toxics: Toxics;
  #window: CongestionWindow | undefined;
  #queue: { bytes: Buffer | 'end'; readonly dueAt: number }[] = [];
  #queuedBytes = 0;
  #lastDueAt = 0;
  #freeAt = 0;
  #timer: NodeJS.Timeout | undefined;
  #draining = false;
  #stopped = false;
  #swallows = false;

  constructor(source: Socket, sink: Socket, toxics: Toxics, random: () => number, cut: () => void) {
    this.#source = source;
    this.#sink = sink;
    this.#toxics = toxics;
    this.#swallows = toxics.swallow === true;
    this.#window = toxics.slowStart && new CongestionWindow(toxics.slowStart);
    this.#random = random;
    this.#cut = cut;
    source.on('data', (chunk: Buffer) => this.#take(chunk));
    source.once('end', () => {
      this.ended = true;
      if (!this.swallows) this.#enqueue('end');
    });
    this.#flow();
  }

  get swallows(): boolean {
    return this.#swallows;
  }

  set(toxics: Toxics): void {
    this.#toxics = toxics;
    this.#window = toxics.slowStart && new CongestionWindow(toxics.slowStart);
    clearTimeout(this.#timer);
    this.#timer = undefined;
    this.#freeAt = 0;
    if (toxics.swallow === true) {
      this.#swallows = true;
      this.#queue = [];
      this.#queuedBytes = 0;
    }
    this.#flow();
    this.#pump();
  }

  stop(): void {
    this.#stopped = true;
    clearTimeout(this.#timer);
    this.#queue = [];
  }

  #take(chunk: Buffer): void {
    if (this.swallows) return;
    this.#enqueue(chunk);
  }

  #enqueue(bytes: Buffer | 'end'): void {
    const { latencyMs = 0, jitterMs = 0 } = this.#toxics;
    const delayMs = Math.max(0, latencyMs + (this.#random() * 2 - 1) * jitterMs);
    const now = performance.now();
    const sends = bytes === 'end' ? undefined : this.#window?.send(bytes, now);
    for (const send of sends ?? [{ bytes, sentAt: now }]) {
      this.#lastDueAt = Math.max(this.#lastDueAt, send.sentAt + delayMs);
      this.#queue.push({ bytes: send.bytes, dueAt: this.#lastDueAt });
    }
    if (bytes !== 'end') this.#queuedBytes += bytes.length;
    this.#flow();
    this.#pump();
  }

  /** Latency alone must not slow a direction down, so only a throttled one stops at the read-ahead. */
  #flow(): void {
    const { stall, bytesPerSecond, slice, readAheadBytes = READ_AHEAD_BYTES } = this.#toxics;
    const narrow = bytesPerSecond !== undefined || slice !== undefined || this.#draining;
    if (stall === true || (narrow && this.#queuedBytes > readAheadBytes)) this.#source.pause();
    else this.#source.resume();
  }

  #pump(): void {
    while (!this.#stopped && !this.#draining && this.#timer === undefined && this.#toxics.stall !== true) {
      const head = this.#queue[0];
      if (head === undefined) return;
      const waitMs = Math.max(head.dueAt, this.#freeAt) - performance.now();
      if (waitMs > 0) {
        this.#timer = setTimeout(() => {
          this.#timer = undefined;
          this.#pump();
        }, Math.ceil(waitMs));
        return;
      }
      if (head.bytes === 'end') {
        this.#queue.shift();
        this.#sink.end();
        return;
      }
      this.#write(head.bytes);
    }
  }

  #write(bytes: Buffer): void {
    const { bytesPerSecond, slice, limitBytes = Number.POSITIVE_INFINITY } = this.#toxics;
    const quantum =
      bytesPerSecond === undefined ? Number.POSITIVE_INFINITY : (bytesPerSecond * QUANTUM_MS) / 1_000;
    const left = Math.max(0, limitBytes - this.bytes);
    const size = Math.min(bytes.length, Math.max(1, Math.floor(quantum)), slice?.bytes ?? bytes.length, left);
    const piece = bytes.subarray(0, size);
    const [head] = this.#queue;
    if (head !== undefined && size < bytes.length) head.bytes = bytes.subarray(size);
    else this.#queue.shift();
    this.#queuedBytes -= size;
    this.bytes += size;
    const busyMs =
      (bytesPerSecond === undefined ? 0 : (size / bytesPerSecond) * 1_000) + (slice?.delayMs ?? 0);
    this.#freeAt = Math.max(this.#freeAt, performance.now()) + busyMs;
    if (size > 0 && !this.#sink.write(piece)) {
      this.#draining = true;
      this.#sink.once('drain', () => {
        this.#draining = false;
        this.#flow();
        this.#pump();
      });
    }
    if (this.bytes >= limitBytes) return this.#cut();
    this.#flow();
  }
}

const INITIAL_WINDOW_BYTES = 10 * 1_460;
/** Linux retransmits no sooner than this after the acknowledgement was due. */
const RETRANSMISSION_MARGIN_MS = 200;

/**
 * The congestion window of a TCP sender. All times follow from when bytes are handed in, so that timers that fire late
 * do not add up over the round trips.
 */
class CongestionWindow {
  readonly #roundTripMs: number;
  readonly #initialBytes: number;
  #bytes: number;
  /** Oldest first. */
  readonly #unacknowledged: { readonly bytes: number; readonly acknowledgedAt: number }[] = [];
  #unacknowledgedBytes = 0;
  /** Most that was unacknowledged at once since nothing was. */
  #peakBytes = 0;
  #lastSentAt = 0;

  constructor({ roundTripMs, initialWindowBytes = INITIAL_WINDOW_BYTES }: SlowStart) {
    this.#roundTripMs = roundTripMs;
    this.#initialBytes = initialWindowBytes;
    this.#bytes = initialWindowBytes;
  }

  /** Which bytes leave when. */
  send(bytes: Buffer, handedInAt: number): readonly { readonly bytes: Buffer; readonly sentAt: number }[] {
    const sends: { bytes: Buffer; sentAt: number }[] = [];
    let sentAt = Math.max(handedInAt, this.#lastSentAt);
    this.#acknowledge(sentAt);
    this.#shrink(sentAt);
    for (let from = 0; from < bytes.length; ) {
      const room = this.#bytes - this.#unacknowledgedBytes;
      const oldest = this.#unacknowledged[0];
      if (room <= 0 && oldest !== undefined) {
        sentAt = oldest.acknowledgedAt;
        this.#acknowledge(sentAt);
        continue;
      }
      const piece = bytes.subarray(from, from + room);
      from += piece.length;
      sends.push({ bytes: piece, sentAt });
      this.#unacknowledged.push({ bytes: piece.length, acknowledgedAt: sentAt + this.#roundTripMs });
      this.#unacknowledgedBytes += piece.length;
      this.#peakBytes = Math.max(this.#peakBytes, this.#unacknowledgedBytes);
    }
    this.#lastSentAt = sentAt;
    return sends;
  }

  /** A window of which less than half is used does not grow (`tcp_is_cwnd_limited`). */
  #acknowledge(now: number): void {
    const later = this.#unacknowledged.findIndex(({ acknowledgedAt }) => acknowledgedAt > now);
    for (const { bytes } of this.#unacknowledged.splice(0, later < 0 ? this.#unacknowledged.length : later)) {
      this.#unacknowledgedBytes -= bytes;
      this.#bytes = Math.max(this.#bytes, Math.min(this.#bytes + bytes, 2 * this.#peakBytes));
    }
    if (this.#unacknowledged.length === 0) this.#peakBytes = 0;
  }

  /** Halved for each retransmission timeout without a byte, as `tcp_slow_start_after_idle` has it (RFC 2861). */
  #shrink(now: number): void {
    if (this.#unacknowledged.length > 0) return;
    const timeoutMs = this.#roundTripMs + RETRANSMISSION_MARGIN_MS;
    const timeouts = Math.floor((now - this.#lastSentAt) / timeoutMs);
    this.#bytes = Math.max(this.#initialBytes, Math.floor(this.#bytes / 2 ** timeouts));
  }
}

/** mulberry32. */
function seeded(seed: number): () => number {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}
