/**
 * The contract between the session core and everything around it. Times are milliseconds since the epoch,
 * taken from a clock that never goes back; sizes are bytes of UTF-8 JSON.
 */
import type { OutgoingFrame } from '../dialect/frames.ts';
import type { CreateBody, LinkDown, TraceContext, UpstreamFrame, Usage } from '../dialect/types.ts';
import type { GatewayError } from '../errors.ts';
import type { JournalEntry } from './journal.ts';

export type { CreateBody, LinkDown, TraceContext, UpstreamFrame, Usage };

export type Chain =
  | { readonly kind: 'automatic' }
  | { readonly kind: 'newConversation' }
  | { readonly kind: 'from'; readonly responseId: string };

export interface StartTurn {
  readonly kind: 'startTurn';
  readonly laneId: string;
  readonly turnId: string;
  readonly create: CreateBody;
  readonly chain: Chain;
  readonly inputMode: 'incremental' | 'fullHistory';
  readonly timeoutMs: number | undefined;
  readonly waitOnRateLimit: boolean;
  readonly traceContext: TraceContext | undefined;
  /** When its first byte arrived; for telemetry alone. */
  readonly receivedAtMs?: number;
}

export interface SteerTurn {
  readonly kind: 'steerTurn';
  readonly laneId: string;
  /** Undefined: whatever turn runs on the lane. */
  readonly turnId: string | undefined;
  /** Raw JSON of each user message. */
  readonly input: readonly string[];
}

/** Tool outputs for a response that runs. */
export interface InjectTurn {
  readonly kind: 'injectTurn';
  readonly laneId: string;
  /** Undefined: whatever turn runs on the lane. */
  readonly turnId: string | undefined;
  /** Raw JSON of each item. */
  readonly input: readonly string[];
}

export interface CancelTurn {
  readonly kind: 'cancelTurn';
  readonly laneId: string;
  readonly turnId: string;
}

/** What a link can do; from the provider's description and the transport that was reached. */
export interface LinkCapabilities {
  readonly transport: 'websocket' | 'sse';
  /** Whether lanes are named upstream (`stream_id`); if not, a link serves one lane. */
  readonly multiplexed: boolean;
  /**
   * Nobody has seen this upstream answer with the name that a create brought. The first named lane of the link is then
   * a probe. Absent: it is known to.
   */
  readonly lanesUnproven?: boolean;
  /** Turns in flight over all lanes of the link. 16 at OpenAI. */
  readonly maxInFlight: number;
  /** Distinct lane names in the link's life, the unnamed lane not counted. 32 at OpenAI. */
  readonly maxNamedLanes: number;
  /** Whether the link remembers responses that were not stored (the connection-local cache). */
  readonly keepsUnstored: boolean;
  /** Whether `store: true` responses can be continued by id from another link. */
  readonly storesResponses: boolean;
  readonly steering: boolean;
  /** Whether a running response takes tool outputs (multi-agent beta). Absent: no. */
  readonly injecting?: boolean;
  readonly warmUp: boolean;
  /** Age at which the upstream ends the link. */
  readonly maxAgeMs: number;
  /** Age at which rotation starts; jitter is the core's. Undefined: never. */
  readonly rotateAfterMs: number | undefined;
  readonly maxFrameBytes: number;
}

/** Who answered a dial; for telemetry and for pinning follow-up links to the same upstream. */
export interface LinkRoute {
  readonly upstream: string;
  readonly provider: string;
  readonly serverAddress: string;
  readonly serverPort: number;
  /** Tells credentials apart within the session, wherever it goes on; undefined: none, or not known. */
  readonly account?: string;
  /** True when the link came ready from the pool. */
  readonly pooled: boolean;
}

export type Input =
  | StartTurn
  | SteerTurn
  | InjectTurn
  | CancelTurn
  /** A request that failed before it reached the core (translation, limits): becomes a turn-level failure. */
  | {
      readonly kind: 'refuse';
      readonly laneId: string;
      readonly turnId: string;
      readonly error: GatewayError;
    }
  /** The same for a request about a turn, which goes on: a steer. */
  | {
      readonly kind: 'reject';
      readonly laneId: string;
      readonly turnId: string;
      readonly error: GatewayError;
    }
  | { readonly kind: 'ack'; readonly seq: number }
  /** A client stream begins to listen, after `lastSeq` if it resumes. */
  | { readonly kind: 'attach'; readonly lastSeq: number | undefined }
  /** The client stream is gone; the grace time starts. */
  | { readonly kind: 'detach' }
  /** The client sends no more; running turns finish, then the session ends. */
  | { readonly kind: 'halfClose' }
  | {
      readonly kind: 'linkUp';
      readonly linkId: number;
      readonly capabilities: LinkCapabilities;
      readonly route: LinkRoute;
    }
  | { readonly kind: 'linkDown'; readonly linkId: number; readonly down: LinkDown }
  | { readonly kind: 'frame'; readonly linkId: number; readonly frame: UpstreamFrame }
  /** The link's send buffer is full / has room again. */
  | { readonly kind: 'linkBlocked'; readonly linkId: number }
  | { readonly kind: 'linkWritable'; readonly linkId: number }
  /** The session belongs to another upstream, as its first turn tells: what it has dialled so far is of no use. */
  | { readonly kind: 'reroute' }
  /** The gateway goes down: running turns may finish until the deadline. */
  | { readonly kind: 'drain'; readonly deadlineMs: number }
  /**
   * Memory is short: an idle session gives up the transcripts that recovery would need, or the events kept for a
   * resume.
   */
  | { readonly kind: 'shed'; readonly what: 'transcript' | 'keptEvents' }
  /** Something about the session that is decided outside, for its client to hear of. */
  | { readonly kind: 'notify'; readonly notice: Pick<Notice, 'kind' | 'reason' | 'detail'> }
  /** End at once. Every turn fails with the error. */
  | { readonly kind: 'terminate'; readonly error: GatewayError }
  | { readonly kind: 'time' }
  /** Entries up to number `n` are in the journal. */
  | { readonly kind: 'journaled'; readonly n: number }
  /** What was not reported written is gone; no entry is taken until `journalBack`, which asks for a snap. */
  | { readonly kind: 'journalLost' }
  | { readonly kind: 'journalBack' }
  /** Another process has the session. */
  | { readonly kind: 'fenced' };

export type DialPurpose = 'session' | 'lanes' | 'recovery' | 'rotation';

export type Output =
  | {
      readonly kind: 'dial';
      readonly linkId: number;
      readonly purpose: DialPurpose;
      /** 0 for the first try since the last link that came up. */
      readonly attempt: number;
    }
  | {
      readonly kind: 'send';
      readonly linkId: number;
      readonly frame: OutgoingFrame;
      readonly turnId: string;
    }
  /** HTTP links only: give up one lane's running request. */
  | { readonly kind: 'abort'; readonly linkId: number; readonly streamId: string | undefined }
  | { readonly kind: 'closeLink'; readonly linkId: number; readonly code: number; readonly reason: string }
  | { readonly kind: 'pauseLink'; readonly linkId: number }
  | { readonly kind: 'resumeLink'; readonly linkId: number }
  /** `movable`: the session goes on elsewhere as soon as its client asks for it there. */
  | {
      readonly kind: 'goAway';
      readonly reason: 'draining' | 'maxAge';
      readonly timeLeftMs: number;
      readonly movable: boolean;
    }
  /** The next entry of the session's journal, with its number. */
  | { readonly kind: 'journal'; readonly n: number; readonly entry: JournalEntry }
  /** The client stream ends: OK without error. `resumable`: the session itself waits for a resume. */
  | { readonly kind: 'endStream'; readonly error: GatewayError | undefined; readonly resumable: boolean }
  /**
   * Nothing more will come. Its record: `end`, the session is over; `release`, any process may go on with it; `leave`,
   * it is another's.
   */
  | { readonly kind: 'closed'; readonly record: 'end' | 'release' | 'leave' }
  | { readonly kind: 'fact'; readonly fact: Fact };

export type TurnOutcome = 'COMPLETED' | 'INCOMPLETE' | 'FAILED' | 'CANCELLED' | 'DEADLINE_EXCEEDED';
export type ReplayVerdict = 'SAFE' | 'UNSAFE' | 'UNKNOWN';
export type TurnPhase = 'NOT_SENT' | 'SENT' | 'CREATED' | 'OUTPUT_STARTED';

export interface TurnFailed {
  readonly error: GatewayError;
  readonly replay: ReplayVerdict;
  readonly phase: TurnPhase;
}

export type NoticeKind =
  | 'recovered'
  | 'rotated'
  | 'replayed'
  | 'full_input_sent'
  | 'transcript_dropped'
  | 'rate_limited'
  | 'steer_lost'
  | 'inject_lost'
  | 'upstream_changed'
  | 'durability_lost'
  | 'durability_restored'
  | 'budget_low';

export interface Notice {
  readonly kind: NoticeKind;
  /** Why, from a short closed list per kind, e.g. `previous_response_not_found`, `link_lost`. */
  readonly reason: string;
  readonly replayedBytes: number;
  readonly elapsedMs: number;
  /** A sentence for people. */
  readonly detail?: string | undefined;
}

/** What a turn cost by the operator's price table. */
export interface TurnCost {
  /** Exact decimal, e.g. `0.00123`. */
  readonly amount: string;
  /** As the price table has it, e.g. `USD`. */
  readonly currency: string;
  /** Date of the prices, `YYYY-MM-DD`. */
  readonly pricesAsOf: string;
}

/** What a session has used so far. */
export interface Spent {
  readonly turns: number;
  readonly tokens: number;
  /** Exact decimal, in the currency of the price table. */
  readonly money: string;
}

/** What the end of a turn is told with, worked out outside. */
export interface TurnAccount {
  readonly cost: TurnCost | undefined;
  /** Why there is no cost, from a short list; undefined: there is one, or no price table. */
  readonly unpriced?: string | undefined;
  /** The session with this turn; undefined: nobody asks. */
  readonly spent: Spent | undefined;
}

/**
 * One event for the client. Exactly one of `frame`, `turnFailed`, `notice` is set, but a terminal that the
 * upstream sent as an error carries both `frame` and `turnFailed`.
 */
export interface SessionEvent {
  readonly seq: number;
  readonly laneId: string;
  readonly turnId: string;
  /** The upstream's name, or `gateway.turn.failed`, `gateway.request.rejected`, `gateway.notice`. */
  readonly type: string;
  /** On the last event of a turn, and only there. */
  readonly outcome: TurnOutcome | undefined;
  readonly frame: UpstreamFrame | undefined;
  readonly turnFailed: TurnFailed | undefined;
  readonly notice: Notice | undefined;
  /** How far the session's record reaches with this event. */
  readonly commit: number | undefined;
  /** With an outcome, where prices are known. */
  readonly cost?: TurnCost | undefined;
  readonly byteLength: number;
}

/** Everything about a turn that telemetry and limits want, told once, at its end. */
export interface TurnRecord {
  readonly laneId: string;
  readonly turnId: string;
  readonly outcome: TurnOutcome;
  readonly failed: TurnFailed | undefined;
  readonly acceptedAtMs: number;
  readonly sentAtMs: number | undefined;
  readonly createdAtMs: number | undefined;
  readonly firstOutputAtMs: number | undefined;
  readonly lastOutputAtMs: number | undefined;
  readonly endedAtMs: number;
  readonly outputEvents: number;
  readonly events: number;
  readonly requestModel: string | undefined;
  readonly responseModel: string | undefined;
  readonly responseId: string | undefined;
  readonly serviceTier: string | undefined;
  readonly finishReason: string | undefined;
  readonly usage: Usage | undefined;
  /** Bytes of all frames written for this turn. */
  readonly bytesUp: number;
  /** What the same turn had cost with the whole context as input. */
  readonly fullContextBytes: number;
  readonly bytesDown: number;
  readonly toolCalls: number;
  /** Calls of tools that the upstream runs itself, by type of their item, e.g. `web_search_call`. */
  readonly hostedCalls?: ReadonlyMap<string, number> | undefined;
  readonly replays: number;
  readonly sends: number;
  readonly route: LinkRoute | undefined;
  readonly warmUp: boolean;
  readonly cost?: TurnCost | undefined;
  /** Why there is none; undefined: there is one, or no price table. */
  readonly unpriced?: string | undefined;
}

export type Fact =
  | {
      readonly kind: 'turnAccepted';
      readonly laneId: string;
      readonly turnId: string;
      readonly model: string | undefined;
      readonly traceContext: TraceContext | undefined;
      readonly atMs: number;
    }
  | { readonly kind: 'turnSent'; readonly turnId: string; readonly linkId: number; readonly atMs: number }
  /** `responseId` is now known to belong to this session. Automatic successors report here too. */
  | {
      readonly kind: 'responseCreated';
      readonly turnId: string;
      readonly responseId: string;
      readonly atMs: number;
    }
  | { readonly kind: 'firstOutput'; readonly turnId: string; readonly atMs: number }
  | { readonly kind: 'toolCalled'; readonly turnId: string; readonly name: string; readonly atMs: number }
  | { readonly kind: 'turnEnded'; readonly record: TurnRecord }
  /** A request that was not taken: a turn, or something about one (steer, cancel). */
  | { readonly kind: 'refused'; readonly request: 'turn' | 'other'; readonly error: GatewayError }
  /** An output item of this session; the upstream may know it by its id from now on. */
  | { readonly kind: 'itemDone'; readonly itemId: string }
  /**
   * Usage of a response that no turn's record holds: its client had already heard the outcome (cancelled, timed out).
   * `turnId` is empty for warm-ups of ours and for what follows a turn that was given up.
   */
  | {
      readonly kind: 'lateUsage';
      readonly turnId: string;
      readonly responseId?: string | undefined;
      readonly usage: Usage;
    }
  | { readonly kind: 'laneOpened' | 'laneClosed'; readonly laneId: string }
  /** Another process could not go on with the session now. */
  | { readonly kind: 'durabilityLost'; readonly reason: string }
  | {
      readonly kind: 'linkDialing';
      readonly linkId: number;
      readonly purpose: DialPurpose;
      readonly atMs: number;
    }
  | { readonly kind: 'linkUp'; readonly linkId: number; readonly route: LinkRoute; readonly atMs: number }
  | {
      readonly kind: 'linkDown';
      readonly linkId: number;
      readonly reason: string;
      readonly closeCode: number | undefined;
      readonly atMs: number;
    }
  | {
      readonly kind: 'recovered' | 'rotated' | 'replayed';
      readonly linkId: number;
      readonly turnId: string | undefined;
      readonly reason: string;
      readonly bytes: number;
      readonly startedAtMs: number;
      readonly endedAtMs: number;
    }
  | { readonly kind: 'paused' | 'unpaused'; readonly bufferedBytes: number; readonly atMs: number }
  /** A frame that belongs to no turn that is under way; nobody was shown it. */
  | { readonly kind: 'strayFrame'; readonly linkId: number; readonly type: string }
  /** Whether the upstream of this link answers with the name of the lane that asked; told once a link. */
  | { readonly kind: 'lanesProven' | 'lanesRefuted'; readonly linkId: number };

/** A share of the process-wide memory for transcripts. */
export interface ByteBudget {
  /** False: nothing was taken. */
  tryTake(bytes: number): boolean;
  /** So little is left that what nobody may ever need is better given back. */
  readonly scarce?: boolean;
  give(bytes: number): void;
}

export interface SessionOptions {
  /** In [0, 1); injected so that a schedule replays from its seed. */
  readonly random: () => number;
  readonly transcriptBudget: ByteBudget;
  readonly limits: SessionLimits;
  /** Undefined: no journal is written. */
  readonly journal?: JournalOptions | undefined;
  /** Called once for each turn, at its end. Undefined: turns are told without cost. */
  readonly account?: ((record: TurnRecord) => TurnAccount) | undefined;
}

export interface JournalOptions {
  /** False: ids only; whatever users, tools and models say stays in the process. */
  readonly keepsContent: boolean;
  /** False: there is no store at the moment. */
  readonly open: boolean;
  /** How long a turn boundary waits for the journal. Default 250 ms. */
  readonly gateTimeoutMs?: number | undefined;
}

export interface SessionLimits {
  /** Events not yet taken by the client's stream; above it the links pause. */
  readonly maxBufferedBytes: number;
  /** Events kept after they were taken, for a resume. */
  readonly maxResumeBytes: number;
  readonly maxTranscriptBytes: number;
  readonly maxQueuedTurnsPerLane: number;
  readonly maxLanes: number;
  readonly maxLinks: number;
  readonly maxFrameBytes: number;
  /** How long a session waits for its client to come back. */
  readonly resumeGraceMs: number;
  /** How long a client may let the buffer stay full before its stream is cut. */
  readonly slowClientTimeoutMs: number;
  readonly steerSettleMs: number;
  readonly redialMinMs: number;
  readonly redialMaxMs: number;
  /** Dials in a row that may fail before waiting turns fail. */
  readonly maxDialAttempts: number;
  /** Turns without their own timeout end after this; undefined: never. */
  readonly defaultTurnTimeoutMs: number | undefined;
  /** A written turn of which the upstream says nothing for so long ends; undefined: never. */
  readonly silentTurnTimeoutMs: number | undefined;
}
