import type { HistoryRefusal } from '../dialect/history-refusal.ts';
import { memoryOfTexts } from '../ground/text-memory.ts';
import type { Carried } from './lane.ts';
import type { OpenResponse } from './open-response.ts';
import type { ReplayForm } from './replay.ts';
import type {
  InjectTurn,
  LinkRoute,
  ReplayVerdict,
  StartTurn,
  SteerTurn,
  TurnFailed,
  TurnOutcome,
  TurnPhase,
  Usage,
} from './types.ts';

/**
 * queued: not written. sent: written, nothing heard. running: created. settling: the terminal came, but steers
 * of it are undecided (upstream.md#life-of-a-steer). What the upstream still does for a turn that has ended is its stream's business.
 */
export type TurnState =
  | { readonly t: 'queued' }
  | { readonly t: 'sent'; readonly linkId: number }
  | { readonly t: 'running'; readonly linkId: number; readonly response: OpenResponse }
  | {
      readonly t: 'settling';
      readonly linkId: number;
      readonly responseId: string;
      readonly outcome: TurnOutcome;
      /** Why, when the outcome is FAILED. */
      readonly failed: TurnFailed | undefined;
    }
  | { readonly t: 'ended' };

/** One submission to `response.steer`. held: the target has no id yet. sent: not answered. queued: accepted. */
export type SteerState =
  | { readonly t: 'held' }
  | { readonly t: 'sent'; readonly targetId: string }
  | { readonly t: 'queued'; readonly targetId: string; readonly id: string | undefined };

/** Every legal step; a steer that is decided leaves its turn. */
export const STEER_TRANSITIONS: Readonly<Record<SteerState['t'], readonly SteerState['t'][]>> = {
  held: ['sent'],
  sent: ['queued'],
  queued: [],
};

export interface Steer {
  readonly state: SteerState;
  readonly input: readonly string[];
  readonly bytes: number;
}

/** Tool outputs that were sent into a running response and have no answer yet. */
export interface Inject {
  readonly targetId: string;
  readonly input: readonly string[];
  readonly bytes: number;
}

/** The only writer of `steer.state`. */
export function moveSteer(steer: Steer, next: SteerState): void {
  if (!STEER_TRANSITIONS[steer.state.t].includes(next.t))
    throw new Error(`steer cannot go from ${steer.state.t} to ${next.t}`);
  (steer as { state: SteerState }).state = next;
}

/** How the turn was last written. */
export interface SendPlan {
  readonly parentId: string | undefined;
  /** What extends the parent: becomes the transcript's input. */
  readonly input: readonly string[];
  /** The client's part of `input`. */
  readonly ownInput: readonly string[];
  /** The rest of it: what the lane had to bring along; it goes back when the turn leaves nothing behind. */
  readonly carried: Carried;
  /** The id on the wire; differs from `parentId` after a warm-up or when an older ancestor is cached. */
  readonly wireParentId: string | undefined;
  /** The response that the wire id stands for; what came after it is replayed. */
  readonly stoppedAt: string | undefined;
  /** Whose cache entry the wire id is; its own lane's entry is evicted when the turn fails. */
  readonly cachedIn: string | undefined;
  readonly replayedItems: readonly string[];
  readonly replayedBytes: number;
  readonly replayReason: string | undefined;
}

export interface Turn {
  readonly id: string;
  readonly laneId: string;
  readonly request: StartTurn;
  /** Memory that the request takes until the turn ends. */
  readonly requestBytes: number;
  state: TurnState;
  plan: SendPlan | undefined;
  /** After a refusal of the usual one. */
  replayForm: ReplayForm | undefined;
  /** Each kind is answered once. */
  historyRefusals: readonly HistoryRefusal[];
  /** The upstream does not go on from these. */
  avoidIds: Set<string> | undefined;
  replayReason: string | undefined;
  steers: Steer[];
  injects: Inject[];
  outputStarted: boolean;
  /** Its response has begun, of an upstream that gives it no id. */
  announced: boolean;
  holds: string | undefined;
  deadlineMs: number | undefined;
  acceptedAtMs: number;
  sentAtMs: number | undefined;
  createdAtMs: number | undefined;
  firstOutputAtMs: number | undefined;
  lastOutputAtMs: number | undefined;
  /** When the upstream last said something else of it, or it was written. */
  lastSignAtMs: number;
  rateLimitWaits: number;
  outputEvents: number;
  events: number;
  bytesUp: number;
  /** Of the frame that was written last. */
  frameBytes: number;
  bytesDown: number;
  fullContextBytes: number;
  toolCalls: number;
  hostedCalls: Map<string, number> | undefined;
  replays: number;
  sends: number;
  usage: Usage | undefined;
  responseId: string | undefined;
  /** The last response that finished: the lane's head, once the turn has ended well. */
  headId: string | undefined;
  responseModel: string | undefined;
  serviceTier: string | undefined;
  finishReason: string | undefined;
  failed: TurnFailed | undefined;
  route: LinkRoute | undefined;
}

export function newTurn(request: StartTurn, nowMs: number): Turn {
  return {
    id: request.turnId,
    laneId: request.laneId,
    request,
    requestBytes: memoryOfRequest(request),
    state: { t: 'queued' },
    plan: undefined,
    replayForm: undefined,
    historyRefusals: [],
    avoidIds: undefined,
    replayReason: undefined,
    steers: [],
    injects: [],
    outputStarted: false,
    announced: false,
    holds: undefined,
    deadlineMs: request.timeoutMs === undefined ? undefined : nowMs + request.timeoutMs,
    acceptedAtMs: nowMs,
    sentAtMs: undefined,
    createdAtMs: undefined,
    firstOutputAtMs: undefined,
    lastOutputAtMs: undefined,
    lastSignAtMs: nowMs,
    rateLimitWaits: 0,
    outputEvents: 0,
    events: 0,
    bytesUp: 0,
    frameBytes: 0,
    bytesDown: 0,
    fullContextBytes: 0,
    toolCalls: 0,
    hostedCalls: undefined,
    replays: 0,
    sends: 0,
    usage: undefined,
    responseId: undefined,
    headId: undefined,
    responseModel: undefined,
    serviceTier: undefined,
    finishReason: undefined,
    failed: undefined,
    route: undefined,
  };
}

/** Everything that a request keeps alive, in bytes: its input, and instructions, tools and settings beside it. */
export function memoryOfRequest(request: StartTurn | SteerTurn | InjectTurn): number {
  if (request.kind !== 'startTurn') return REQUEST_OVERHEAD_BYTES + memoryOfTexts(request.input);
  const { input, fields, long } = request.create;
  return REQUEST_OVERHEAD_BYTES + memoryOfTexts(input, long) + memoryOfTexts(fields.values(), long);
}

const REQUEST_OVERHEAD_BYTES = 1_024;

/** Every legal step. Those to `queued` may write a turn twice, and ask for a proof: `requeueTurn`. */
export const TURN_TRANSITIONS: Readonly<Record<TurnState['t'], readonly TurnState['t'][]>> = {
  queued: ['sent', 'ended'],
  sent: ['running', 'queued', 'ended'],
  running: ['running', 'queued', 'settling', 'ended'],
  settling: ['running', 'ended'],
  ended: [],
};

/** What shows that a written turn did not run (upstream.md#error-codes: the safe codes, refusals by name, no connection). */
export type NotRunProof =
  | 'previous_response_not_found'
  | 'history_refused'
  | 'connection_limit_reached'
  | 'stream_limit_reached'
  | 'rate_limited'
  | 'lanes_not_supported'
  | 'not_reached';

/** The only writer of `turn.state`. */
export function moveTurn(turn: Turn, next: Exclude<TurnState, { t: 'queued' }>): void {
  step(turn, next);
}

/** Back into the queue, with the proof that nothing ran. */
export function requeueTurn(turn: Turn, proof: NotRunProof): void {
  step(turn, { t: 'queued' });
  turn.replayReason = proof;
  // Its first response, if there was one, never ran.
  turn.createdAtMs = undefined;
  turn.responseId = undefined;
}

/** Whether repeating a turn that was given up or cut off in this phase is harmless, nothing more being known. */
export function verdictByPhase(phase: TurnPhase): ReplayVerdict {
  if (phase === 'NOT_SENT') return 'SAFE';
  return phase === 'SENT' ? 'UNKNOWN' : 'UNSAFE';
}

export function phaseOf(turn: Turn): TurnPhase {
  if (turn.outputStarted) return 'OUTPUT_STARTED';
  if (turn.createdAtMs !== undefined) return 'CREATED';
  return turn.state.t === 'queued' ? 'NOT_SENT' : 'SENT';
}

function step(turn: Turn, next: TurnState): void {
  if (!TURN_TRANSITIONS[turn.state.t].includes(next.t)) {
    throw new Error(`turn cannot go from ${turn.state.t} to ${next.t}`);
  }
  turn.state = next;
}
