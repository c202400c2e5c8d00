import type { GatewayError } from './errors.ts';
import { Lane } from './lane.ts';
import type { WaitOptions } from './options.ts';
import type { TurnRequest } from './request.ts';
import type { SessionCore } from './session-core.ts';
import type { Turn } from './turn.ts';

/** What the gateway granted. Sizes are bytes; 0 means no limit of the gateway's own. */
export interface Limits {
  readonly maxMessageBytes: number;
  readonly maxFrameBytes: number;
  readonly maxBufferedBytes: number;
  readonly maxResumeBytes: number;
  readonly maxLanes: number;
  readonly maxTurnsInFlight: number;
  readonly maxQueuedTurnsPerLane: number;
  /** How long the gateway keeps the session after a lost stream. */
  readonly resumeGraceMs: number;
}

/** Numbers about a session, for logs and metrics. */
export interface Stats {
  /** How often a lost or old stream was replaced. */
  readonly resumes: number;
  /** Events that wait for their readers now. A batch's bytes are shared out evenly to its events. */
  readonly bufferedBytes: number;
  /** The most that ever waited. */
  readonly maxBufferedBytes: number;
  /** Requests that wait to be sent. */
  readonly queuedBytes: number;
  /** Turns without an outcome. */
  readonly runningTurns: number;
  /** Number of the newest event. */
  readonly lastSeq: number;
}

/**
 * One stream to the gateway with its own upstream connection. It outlives its stream: a lost one is resumed by itself,
 * without gap or repeat, as long as the gateway keeps the session. A turn that may have run is never run again.
 */
export class Session {
  readonly #core: SessionCore;

  /** Sessions come from `Client.connect`. */
  constructor(core: SessionCore) {
    this.#core = core;
  }

  /** Names the session in logs and traces. It is no secret. */
  get id(): string {
    return this.#core.id;
  }

  /** Whether another gateway can go on with the session, should this one fail. */
  get durable(): boolean {
    return this.#core.durable;
  }

  get limits(): Limits {
    return this.#core.limits;
  }

  get stats(): Stats {
    return this.#core.stats;
  }

  /** Resolves when the session is over: with the reason, or with undefined after `close`. Never rejects. */
  get closed(): Promise<GatewayError | undefined> {
    return this.#core.closed;
  }

  /** The lane of this name; empty is the default lane. Names are up to 256 of A-Z a-z 0-9 _ . - */
  lane(id: string): Lane {
    return new Lane(this.#core, this.#core.lane(id));
  }

  /** Starts a turn on the default lane. See `Lane.start`. */
  start(request: TurnRequest, options: WaitOptions = {}): Promise<Turn> {
    return this.lane('').start(request, options);
  }

  /** Cancels what still runs, ends the stream and waits until nothing of the session is left. */
  async close(): Promise<void> {
    await this.#core.close();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }
}
