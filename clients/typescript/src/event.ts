import { type TurnError, turnError } from './errors.ts';
import { type Event as EventMessage, type Notice, TurnOutcome } from './gen/responses/gateway/v1/event_pb.ts';

/** How a turn ended. */
export type Outcome = 'completed' | 'incomplete' | 'failed' | 'cancelled' | 'deadline_exceeded';

/** The typed content: `payload.case` tells the arms apart, `payload.value` is its content. */
export type EventPayload = EventMessage['payload'];

/** One thing that happened, to a turn or to the session. */
export class Event {
  /** The whole message. Do not change it. */
  readonly message: EventMessage;

  constructor(message: EventMessage) {
    this.message = message;
  }

  /** Counts the session's events: 1, 2, 3 … also across reconnects. */
  get seq(): number {
    return Number(this.message.seq);
  }

  /** The lane; empty for the default lane. */
  get laneId(): string {
    return this.message.laneId;
  }

  /** The turn; empty for events about the whole session. */
  get turnId(): string {
    return this.message.turnId;
  }

  /**
   * The upstream's name, for instance `response.output_text.delta`, or one of the gateway's: `gateway.turn.failed`,
   * `gateway.request.rejected`, `gateway.notice`. Pass over those that you do not know.
   */
  get type(): string {
    return this.message.type;
  }

  /** Narrow it by `payload.case`; undefined for kinds of event that this client does not know: see `json`. */
  get payload(): EventPayload {
    return this.message.payload;
  }

  /** The upstream's exact JSON: with `rawJson`, and where an event has no typed payload. Empty otherwise. */
  get json(): Uint8Array {
    return this.message.json;
  }

  /** Set on the last event of a turn, and only there. */
  get outcome(): Outcome | undefined {
    return outcomeOf(this.message.outcome);
  }

  /** The piece of visible answer that the event brings; empty for other events. */
  get textDelta(): string {
    const { payload } = this.message;
    return payload.case === 'outputTextDelta' ? payload.value.delta : '';
  }

  /** What the gateway did, for events of type `gateway.notice`. */
  get notice(): Notice | undefined {
    const { payload } = this.message;
    return payload.case === 'notice' ? payload.value : undefined;
  }

  /** Why the turn failed or a request about it was refused. */
  get failure(): TurnError | undefined {
    const { payload } = this.message;
    return payload.case === 'turnFailed' ? turnError(this.message, payload.value) : undefined;
  }
}

/** Announces the end of a stream. */
export interface GoAway {
  /** The gateway shuts down. Otherwise the stream is old and is replaced by itself. */
  readonly draining: boolean;
  /** How long running turns may still take. */
  readonly timeLeftMs: number;
  /** The session goes on at another gateway by itself: new turns wait until it is there. */
  readonly movable: boolean;
}

export function outcomeOf(outcome: TurnOutcome): Outcome | undefined {
  switch (outcome) {
    case TurnOutcome.UNSPECIFIED:
      return undefined;
    case TurnOutcome.COMPLETED:
      return 'completed';
    case TurnOutcome.INCOMPLETE:
      return 'incomplete';
    case TurnOutcome.CANCELLED:
      return 'cancelled';
    case TurnOutcome.DEADLINE_EXCEEDED:
      return 'deadline_exceeded';
    default:
      // FAILED, and outcomes that are newer than this client: ended, and not known to be well.
      return 'failed';
  }
}
