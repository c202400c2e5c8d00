import type { JsonObject } from './json.ts';
import type { Lane } from './lanes.ts';
import type { Switches } from './options.ts';
import {
  type EndedResponse,
  judgeSteer,
  type SteerFailureCode,
  steerAcceptedFrame,
  steerFailedFrame,
  steerPendingFrame,
} from './steering.ts';
import type { ResponseRecord } from './store.ts';
import type { Run, Steer } from './turn.ts';

export interface SteerHost {
  send(json: string): void;
  switches(): Switches;
  active(id: string): Run | undefined;
  /** `previous_response_id` of the create that is next in the lane's queue. */
  nextParent(lane: Lane): unknown;
  /** Starts the automatic successor; false when it cannot be created. */
  startSuccessor(lane: Lane, target: Run, parent: ResponseRecord): boolean;
}

/** What becomes of the steers of one connection, from submission to commit or failure (upstream.md#life-of-a-steer). */
export class SteerFlow {
  readonly #host: SteerHost;
  readonly #ended = new Map<string, EndedResponse>();

  constructor(host: SteerHost) {
    this.#host = host;
  }

  submit(frame: JsonObject): void {
    const targetId = frame.previous_response_id;
    const id = String(targetId);
    const verdict = judgeSteer(frame, this.#host.active(id), this.#ended.get(id), this.#host.switches());
    if (verdict.kind === 'failed') {
      this.#host.send(steerFailedFrame({ ...verdict, targetId, input: frame.input }));
      return;
    }
    this.#host.send(steerAcceptedFrame(verdict.steer, verdict.run, id));
    verdict.run.steers.push(verdict.steer);
  }

  /** A response of this connection that has ended; the last few hundred are known. */
  ended(id: string): EndedResponse | undefined {
    return this.#ended.get(id);
  }

  /** Settles the steers of a run that has ended; `record` is null when an error frame ended it. */
  targetEnded(lane: Lane, run: Run, record: ResponseRecord | null): void {
    const ended = this.#remember(run);
    if (run.steers.length === 0) return;
    if (record === null || !record.isUsable) {
      this.#fail(run.id, ended, run.steers, this.#host.switches().failedTargetSteerCode);
    } else if (record.context.openCalls.size > 0) {
      lane.waiting = { targetId: run.id, ended, steers: run.steers };
      if (this.#host.nextParent(lane) === run.id) return;
      for (const steer of run.steers) {
        this.#host.send(steerPendingFrame(steer, ended, run.id, record.context.openCalls.values()));
      }
    } else if (!this.#host.startSuccessor(lane, run, record)) {
      this.#fail(run.id, ended, run.steers, 'successor_creation_failed');
    }
  }

  /** The lane has gone another way than the one its waiting steers were for. */
  abandonWaiting(lane: Lane): void {
    if (lane.waiting === null) return;
    const { targetId, ended, steers } = lane.waiting;
    lane.waiting = null;
    this.#fail(targetId, ended, steers, 'successor_creation_failed');
  }

  #remember(run: Run): EndedResponse {
    const ended = {
      streamId: run.streamId,
      isCompleted: run.outcome?.status === 'completed',
      sequence: run.sequence,
    };
    this.#ended.set(run.id, ended);
    const oldest = this.#ended.keys().next().value;
    if (this.#ended.size > MAX_ENDED && oldest !== undefined) this.#ended.delete(oldest);
    return ended;
  }

  #fail(targetId: string, target: EndedResponse, steers: readonly Steer[], code: SteerFailureCode): void {
    for (const { id, rawInput } of steers) {
      this.#host.send(steerFailedFrame({ target, targetId, input: rawInput, id, code }));
    }
  }
}

/** Late steers name recent responses; older ones are "not found", which is as true. */
const MAX_ENDED = 256;
