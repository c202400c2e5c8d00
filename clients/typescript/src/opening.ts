import type { Metadata } from '@grpc/grpc-js';
import { type Call, openCall } from './call.ts';
import type { Connection, Connections } from './connections.ts';
import { inferred, StreamError } from './errors.ts';
import type { Opened } from './gen/responses/gateway/v1/session_pb.ts';
import { bounded, tokenLate } from './signals.ts';

/** An open that is not answered so long may wait for a peer that takes no more streams on the connection. */
const PATIENCE_MS = 1_000;
/** For balancers that hash on it: a session's streams reach the same gateway where that is possible. */
const AFFINITY_HEADER = 'x-responses-session';

export interface Attempt {
  readonly open: Uint8Array;
  /** Names the session to balancers: the same for all its streams. */
  readonly affinity: string;
  /** A resume waits for the connection; the first attempt fails at once if nobody listens. */
  readonly waitForReady: boolean;
  readonly timeoutMs: number;
  /** Ends the attempt with the signal's reason. */
  readonly signal: AbortSignal;
}

/** What is opened has its place on a connection until it ends. */
export interface Accepted {
  readonly call: Call;
  readonly opened: Opened;
  readonly connection: Connection;
}

/** Opens streams for sessions: what the calls of a client share. */
export class Opener {
  readonly #connections: Connections;
  readonly #metadata: () => Promise<Metadata>;

  constructor(connections: Connections, metadata: () => Promise<Metadata>) {
    this.#connections = connections;
    this.#metadata = metadata;
  }

  /**
   * Opens one stream. An open that nobody answers on a shared connection is tried on a further one.
   * @throws StreamError, or the signal's reason.
   */
  async open({ open, affinity, waitForReady, timeoutMs, signal }: Attempt): Promise<Accepted> {
    const deadlineMs = performance.now() + timeoutMs;
    const leftMs = () => Math.max(1, deadlineMs - performance.now());
    for (;;) {
      const metadata = await bounded(leftMs(), signal, tokenLate, () => this.#metadata());
      metadata.setOptions({ waitForReady });
      metadata.set(AFFINITY_HEADER, affinity);
      const connection = this.#connections.take();
      const giveBack = () => this.#connections.giveBack(connection);
      const others = connection.streams - 1;
      const impatient = others > 0 && leftMs() > PATIENCE_MS;
      try {
        const waitMs = impatient ? PATIENCE_MS : leftMs();
        const accepted = await bounded(waitMs, signal, openLate, (attempt) =>
          openCall(connection.grpc, open, metadata, attempt, giveBack),
        );
        return { ...accepted, connection };
      } catch (error) {
        const isLate = error instanceof StreamError && error.reason === 'CONNECT_TIMEOUT';
        if (!isLate || !impatient) throw error;
        connection.limit = others;
      }
    }
  }
}

const openLate = () => inferred('DEADLINE_EXCEEDED', 'CONNECT_TIMEOUT', 'the session was not open in time');
