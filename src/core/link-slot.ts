import type { Turn } from './turn.ts';
import type { DialPurpose, LinkCapabilities, LinkRoute } from './types.ts';

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

export interface Up {
  readonly capabilities: LinkCapabilities;
  readonly route: LinkRoute;
  readonly upAtMs: number;
}

/** A response that the link's upstream holds in its connection-local cache (protocol.md 4.1). */
export interface CachedResponse {
  /** The id to name on the wire; a warm-up's own id differs from the node it stands for. */
  readonly responseId: string;
  readonly nodeId: string;
}

export interface LinkSlot {
  readonly id: number;
  readonly purpose: DialPurpose;
  readonly attempt: number;
  state: LinkState;
  readonly askedAtMs: number;
  /** Lanes that live here. */
  readonly lanes: Set<string>;
  /** Names the upstream has seen; never freed in the link's life (protocol.md 5). */
  readonly names: Set<string>;
  /** The lane on the unnamed slot. */
  unnamed: string | undefined;
  /** At most one turn of each lane, the discarded ones and warm-ups too. */
  readonly inFlight: Map<string, Turn>;
  readonly cache: Map<string, CachedResponse>;
  /** Lanes that left while the upstream may still speak of them; they never come back here. */
  readonly muted: Set<string>;
  /** The upstream refused a further name although we thought there was room. */
  namesExhausted: boolean;
  blocked: boolean;
  paused: boolean;
  lastUsedAtMs: number;
  /** For Notices: why this link replaces an earlier one, and since when. */
  readonly replaces: { readonly reason: string; readonly sinceMs: number } | undefined;
}

export function upOf(link: LinkSlot): Up | undefined {
  return link.state.t === 'waiting' || link.state.t === 'dialing' ? undefined : link.state;
}

export function retire(link: LinkSlot, up: Up, reason: string): void {
  const { capabilities, route, upAtMs } = up;
  link.state = { t: 'retiring', reason, capabilities, route, upAtMs };
}

/** Whether new turns may be written now. */
export function takesTurns(link: LinkSlot): boolean {
  return (
    (link.state.t === 'open' || link.state.t === 'rotating') &&
    !link.blocked &&
    link.inFlight.size < link.state.capabilities.maxInFlight
  );
}

/** Whether the lane may be given this link, by the upstream's rules for names. */
export function hasRoomFor(link: LinkSlot, laneId: string, capabilities: LinkCapabilities): boolean {
  if (link.muted.has(laneId)) return false;
  if (link.lanes.has(laneId)) return true;
  if (!capabilities.multiplexed) return link.lanes.size === 0 && link.unnamed === undefined;
  if (laneId === '') return link.unnamed === undefined || link.unnamed === '';
  return (
    link.names.has(laneId) ||
    (!link.namesExhausted && link.names.size + pendingNames(link) < capabilities.maxNamedLanes)
  );
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
  link.names.add(laneId);
  return laneId;
}

/** The lane that a frame of this link belongs to. */
export function laneOf(link: LinkSlot, streamId: string | undefined): string | undefined {
  return streamId ?? link.unnamed;
}

/** Whether the frame's lane has left this link. */
export function isMuted(link: LinkSlot, streamId: string | undefined): boolean {
  const laneId = laneOf(link, streamId);
  return laneId !== undefined && link.muted.has(laneId);
}

function pendingNames(link: LinkSlot): number {
  let count = 0;
  for (const laneId of link.lanes) if (laneId !== '' && !link.names.has(laneId)) count += 1;
  return count;
}
