import type { SendPlan, Steer, Turn } from './turn.ts';

/**
 * What a link's upstream is doing for one lane.
 *
 * idle: nothing was asked for, or all of it was answered. turn: a create of the client; how far its response is says
 * `turn.state`. warmUp: a create of ours that generates nothing. abandoned: the client has heard the end of the turn,
 * or the warm-up was given up, and the upstream has not finished it; what it still says is swallowed.
 */
export type StreamState =
  | { readonly t: 'idle' }
  | { readonly t: 'turn'; readonly turn: Turn }
  | {
      readonly t: 'warmUp';
      readonly nodeId: string;
      readonly plan: SendPlan;
      readonly responseId: string | undefined;
    }
  | {
      readonly t: 'abandoned';
      /** Empty: it was a warm-up. */
      readonly turnId: string;
      /** Not the rest of the plan: what the turn brought along would stay for as long as the upstream is silent. */
      readonly plan: Pick<SendPlan, 'cachedIn' | 'wireParentId'> | undefined;
      readonly phase: 'awaiting' | 'open' | 'settling';
      readonly responseId: string | undefined;
      /** The id before `response.created` came once more with another: the end of either is the end. */
      readonly formerId: string | undefined;
      /** The upstream may yet begin a successor for them (upstream.md#life-of-a-steer). */
      readonly steers: readonly Steer[];
      readonly sinceMs: number;
    };

/** Every legal step; `moveStream` in link-slot.ts is the only one that takes them. */
export const STREAM_TRANSITIONS: Readonly<Record<StreamState['t'], readonly StreamState['t'][]>> = {
  idle: ['turn', 'warmUp'],
  turn: ['idle', 'abandoned'],
  warmUp: ['idle', 'warmUp', 'abandoned'],
  abandoned: ['idle', 'abandoned'],
};

/** A lane on one link. Frames belong to a response, and responses of a lane do not overlap (upstream.md#order-of-events). */
export interface Stream {
  readonly laneId: string;
  state: StreamState;
  /** Whose content comes now; undefined: it belongs to nobody who listens. The hot path looks at nothing else. */
  listener: Turn | undefined;
  /** The lane has left the link while the upstream may still speak of it; it never comes back here. */
  muted: boolean;
  /** A response has begun here before: content that no `response.created` announced may be its rest. */
  answered: boolean;
  /** A response that nobody asked for is under way: '' when it named no id. */
  strayId: string | undefined;
  /** The last responses that are over, newest last. */
  readonly endedIds: string[];
  /** The last failure as it was told, to know it again. */
  lastFailure: { readonly code: string | undefined; readonly sequence: number } | undefined;
  /** The lane left while its create had no answer; an error that names no lane may be that. */
  owesAnswer: boolean;
  /** Was waiting for its first frame when an error named no lane. */
  suspect: boolean;
}

/** A hostile upstream cannot make this grow; an honest one repeats its last words, not those of an hour ago. */
const REMEMBERED_RESPONSES = 16;

export function newStream(laneId: string): Stream {
  return {
    laneId,
    state: { t: 'idle' },
    listener: undefined,
    muted: false,
    answered: false,
    strayId: undefined,
    endedIds: [],
    lastFailure: undefined,
    owesAnswer: false,
    suspect: false,
  };
}

export function rememberEnded(stream: Stream, ...ids: readonly (string | undefined)[]): void {
  for (const id of ids) {
    if (id === undefined || id === '' || stream.endedIds.includes(id)) continue;
    stream.endedIds.push(id);
    if (stream.endedIds.length > REMEMBERED_RESPONSES) stream.endedIds.shift();
  }
}

/** It was said to be over, and goes on. */
export function forgetEnded({ endedIds }: Stream, id: string | undefined): void {
  const at = id === undefined ? -1 : endedIds.indexOf(id);
  if (at >= 0) endedIds.splice(at, 1);
}

/** The response that is under way, as far as it has been named. */
export function responseIdOf(state: StreamState): string | undefined {
  if (state.t === 'turn') return state.turn.state.t === 'running' ? state.turn.state.response.id : undefined;
  return state.t === 'idle' ? undefined : state.responseId;
}

/** The turn that was written here, unless its client has given it up. */
export function turnOf(stream: Stream | undefined): Turn | undefined {
  return stream?.state.t === 'turn' ? stream.state.turn : undefined;
}

/** The create was written and nothing of its response has come. */
export function isAwaiting({ state, owesAnswer }: Stream): boolean {
  switch (state.t) {
    case 'idle':
      return owesAnswer;
    case 'turn':
      return state.turn.state.t === 'sent' && !state.turn.outputStarted && !state.turn.announced;
    case 'warmUp':
      return state.responseId === undefined;
    case 'abandoned':
      return state.phase === 'awaiting';
  }
}
