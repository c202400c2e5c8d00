import type { UpstreamError } from '../dialect/upstream-error.ts';
import type { Lane } from './lane.ts';
import {
  newStream,
  rememberEnded,
  responseIdOf,
  STREAM_TRANSITIONS,
  type Stream,
  type StreamState,
} from './stream.ts';
import type { DialPurpose, LinkCapabilities, LinkRoute, UpstreamFrame } from './types.ts';

/**
 * waiting: backing off before a dial. dialing: asked for. open: takes turns. rotating: takes turns while its
 * successor is prepared. retiring: takes none, closes with its last turn.
 */
export type LinkState =
  | { readonly t: 'waiting' }
  | { readonly t: 'dialing' }
  | ({ readonly t: 'open' } & Up)
  | ({ readonly t: 'rotating'; readonly successorId: number } & Up)
  | ({ readonly t: 'retiring'; readonly reason: string } & Up);

/** Every legal step. A link that is lost or closed leaves the session's table instead. */
export const LINK_TRANSITIONS: Readonly<Record<LinkState['t'], readonly LinkState['t'][]>> = {
  waiting: ['dialing'],
  dialing: ['open'],
  open: ['open', 'rotating', 'retiring'],
  rotating: ['open', 'rotating', 'retiring'],
  retiring: ['retiring'],
};

export interface Up {
  readonly capabilities: LinkCapabilities;
  readonly route: LinkRoute;
  readonly upAtMs: number;
}

/** A response that the link's upstream holds in its connection-local cache (upstream.md#connection-cache). */
export interface CachedResponse {
  /** The id to name on the wire; a warm-up's own id differs from the node it stands for. */
  readonly responseId: string;
  readonly nodeId: string;
}

export interface LinkSlot {
  readonly id: number;
  readonly purpose: DialPurpose;
  readonly attempt: number;
  readonly askedAtMs: number;
  /** For Notices: why this link replaces an earlier one, and since when. */
  readonly replaces: { readonly reason: string; readonly sinceMs: number } | undefined;
  readonly state: LinkState;
  /** Lanes that live here. */
  readonly lanes: ReadonlySet<string>;
  /** Of them, those that are doing or waiting for something. */
  load: number;
  /** Of them, those with a queued turn that only this link keeps waiting. */
  readonly ready: Set<Lane>;
  /** Names the upstream has seen; never freed in the link's life (upstream.md#lanes). */
  readonly names: ReadonlySet<string>;
  /** Lanes that live here and will need a name. */
  readonly unnamedLanes: number;
  /** The lane on the unnamed slot. */
  unnamed: string | undefined;
  readonly streams: ReadonlyMap<string, Stream>;
  /** Streams with a create that the upstream has not finished. */
  readonly inFlight: number;
  /** Of them, those whose turn was given up. */
  readonly abandoned: number;
  readonly cache: Map<string, CachedResponse>;
  /** The upstream refused a further name although we thought there was room. */
  namesExhausted: boolean;
  /** The upstream has answered here with the name of a lane. */
  namesLanes: boolean;
  /** Responses of this upstream begin with `response.created`. */
  announces: boolean;
  /** `response.created` names the parent that the create named. */
  echoesParent: boolean;
  /** Responses end under another id than that which they began with. */
  renames: boolean;
  /** Errors that named no lane while several waited for an answer; `frame` where the client has not seen it. */
  refusals: { readonly error: UpstreamError; readonly frame: UpstreamFrame | undefined }[];
  blocked: boolean;
  paused: boolean;
  lastUsedAtMs: number;
}

type Writable<T> = { -readonly [K in keyof T]: T[K] };

export function newLinkSlot(
  id: number,
  purpose: DialPurpose,
  attempt: number,
  state: LinkState,
  nowMs: number,
  replaces: LinkSlot['replaces'],
): LinkSlot {
  return {
    id,
    purpose,
    attempt,
    askedAtMs: nowMs,
    replaces,
    state,
    lanes: new Set(),
    load: 0,
    ready: new Set(),
    names: new Set(),
    unnamedLanes: 0,
    unnamed: undefined,
    streams: new Map(),
    inFlight: 0,
    abandoned: 0,
    cache: new Map(),
    namesExhausted: false,
    namesLanes: false,
    announces: false,
    echoesParent: false,
    renames: false,
    refusals: [],
    blocked: false,
    paused: false,
    lastUsedAtMs: nowMs,
  };
}

/** The only writer of `link.state`. */
export function moveLink(link: LinkSlot, next: LinkState): void {
  if (!LINK_TRANSITIONS[link.state.t].includes(next.t))
    throw new Error(`link cannot go from ${link.state.t} to ${next.t}`);
  (link as Writable<LinkSlot>).state = next;
}

export function upOf(link: LinkSlot): Up | undefined {
  return link.state.t === 'waiting' || link.state.t === 'dialing' ? undefined : link.state;
}

export function retire(link: LinkSlot, up: Up, reason: string): void {
  const { capabilities, route, upAtMs } = up;
  moveLink(link, { t: 'retiring', reason, capabilities, route, upAtMs });
}

/** What was assumed of the link was wrong; whatever else it does goes on. */
export function restrict(link: LinkSlot, up: Up, capabilities: Partial<LinkCapabilities>): void {
  const state = link.state as Extract<LinkState, Up>;
  moveLink(link, { ...state, capabilities: { ...up.capabilities, ...capabilities } });
}

/** The only writer of `stream.state`, and of the counts that follow from it. */
export function moveStream(link: LinkSlot, stream: Stream, next: StreamState): void {
  const before = stream.state;
  if (!STREAM_TRANSITIONS[before.t].includes(next.t))
    throw new Error(`stream cannot go from ${before.t} to ${next.t}`);
  const counts = link as Writable<LinkSlot>;
  if (before.t === 'idle') counts.inFlight += 1;
  if (next.t === 'idle') counts.inFlight -= 1;
  if (before.t === 'abandoned') counts.abandoned -= 1;
  if (next.t === 'abandoned') counts.abandoned += 1;
  stream.state = next;
  stream.listener = undefined;
  if (next.t !== 'idle') return;
  stream.suspect = false;
  // Whatever still comes of it is no answer to what is asked next.
  rememberEnded(stream, responseIdOf(before), before.t === 'abandoned' ? before.formerId : undefined);
}

export function streamFor(link: LinkSlot, laneId: string): Stream {
  const known = link.streams.get(laneId);
  if (known !== undefined) return known;
  const stream = newStream(laneId);
  (link.streams as Map<string, Stream>).set(laneId, stream);
  return stream;
}

/** The upstream has something under way for the lane here. */
export function isBusy(link: LinkSlot, laneId: string): boolean {
  const stream = link.streams.get(laneId);
  return stream !== undefined && stream.state.t !== 'idle';
}

/** Whether new turns may be written now. */
export function takesTurns(link: LinkSlot): boolean {
  const { state } = link;
  if ((state.t !== 'open' && state.t !== 'rotating') || link.blocked) return false;
  return link.inFlight < capacityOf(link, state.capabilities);
}

/**
 * How many creates may be under way at once, `laneId` among them. Which lane an answer is for is certain only once the
 * upstream has named one: until then, and as soon as a lane has a name, it is one.
 */
export function capacityOf(
  link: LinkSlot,
  { multiplexed, lanesUnproven, maxInFlight }: LinkCapabilities,
  laneId = '',
): number {
  const hasNames = laneId !== '' || link.names.size > 0 || link.unnamedLanes > 0;
  return multiplexed && lanesUnproven === true && hasNames ? 1 : maxInFlight;
}

/** Whether the lane may be given this link, by the upstream's rules for names. */
export function hasRoomFor(link: LinkSlot, laneId: string, capabilities: LinkCapabilities): boolean {
  const stream = link.streams.get(laneId);
  if (stream !== undefined && (stream.muted || stream.state.t === 'abandoned')) return false;
  if (link.lanes.has(laneId)) return true;
  if (!capabilities.multiplexed)
    return link.lanes.size === 0 && (link.unnamed === undefined || link.unnamed === laneId);
  if (laneId === '') return link.unnamed === undefined || link.unnamed === '';
  if (!canProbe(link, laneId)) return false;
  return (
    link.names.has(laneId) ||
    (!link.namesExhausted && link.names.size + link.unnamedLanes < capabilities.maxNamedLanes)
  );
}

/** A probe needs a link on which nothing but its own answer can come without a name. */
export function canProbe(link: LinkSlot, laneId: string): boolean {
  const isUnproven = upOf(link)?.capabilities.lanesUnproven === true;
  return laneId === '' || !isUnproven || link.streams.get('')?.answered !== true;
}

/** The lane lives here from now on. */
export function addLane(link: LinkSlot, laneId: string): void {
  if (link.lanes.has(laneId)) return;
  (link.lanes as Set<string>).add(laneId);
  if (laneId !== '' && !link.names.has(laneId)) (link as Writable<LinkSlot>).unnamedLanes += 1;
}

export function removeLane(link: LinkSlot, laneId: string): void {
  if (!(link.lanes as Set<string>).delete(laneId)) return;
  if (laneId !== '' && !link.names.has(laneId)) (link as Writable<LinkSlot>).unnamedLanes -= 1;
}

/** The upstream's name for the lane on this link; undefined is the unnamed slot. */
export function streamIdFor(
  link: LinkSlot,
  laneId: string,
  capabilities: LinkCapabilities,
): string | undefined {
  if (!capabilities.multiplexed || laneId === '') {
    link.unnamed = laneId;
    return undefined;
  }
  if (!link.names.has(laneId)) {
    (link.names as Set<string>).add(laneId);
    if (link.lanes.has(laneId)) (link as Writable<LinkSlot>).unnamedLanes -= 1;
  }
  return laneId;
}

/** The upstream never took the name. */
export function forgetName(link: LinkSlot, laneId: string): void {
  if (!(link.names as Set<string>).delete(laneId)) return;
  if (laneId !== '' && link.lanes.has(laneId)) (link as Writable<LinkSlot>).unnamedLanes += 1;
}

/** The stream that a frame of this link belongs to. A name that nobody was given here says nothing. */
export function streamOf(link: LinkSlot, streamId: string | undefined): Stream | undefined {
  const named = streamId === undefined ? undefined : link.streams.get(streamId);
  return named ?? (link.unnamed === undefined ? undefined : link.streams.get(link.unnamed));
}

/** Whether the frame says which lane it is for, by a name that the link has given. */
export function isNamed(link: LinkSlot, streamId: string | undefined): boolean {
  return streamId !== undefined && streamId !== '' && link.streams.has(streamId);
}

/** What a frame without a name can be about, where nothing else is under way. */
export function onlyBusy(link: LinkSlot): Stream | undefined {
  if (link.inFlight !== 1) return undefined;
  for (const stream of link.streams.values()) if (stream.state.t !== 'idle') return stream;
  return undefined;
}
