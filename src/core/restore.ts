import { GatewayError } from '../errors.ts';
import { restoreCarried } from './carry.ts';
import { type Core, emitOwn, tell } from './core.ts';
import { recordEnd, recordTold } from './gates.ts';
import type { SavedEvent, SavedFailure, SavedNode, SavedOutcome, SavedState } from './journal.ts';
import { type Lane, newLane } from './lane.ts';
import { REFUSED } from './recent-ids.ts';
import { readItem } from './same-item.ts';
import type { NewNode } from './transcript.ts';
import type { SessionEvent, TurnFailed, UpstreamFrame } from './types.ts';

/** How far the client that comes back has heard of the session. */
export interface Heard {
  readonly lastSeq: number;
  /** Undefined: a client that knows nothing of commits. */
  readonly lastCommit: number | undefined;
}

/** Puts a session's record into a core that is new: its outbox goes on behind `heard.lastSeq`. */
export function restore(
  core: Core,
  state: SavedState,
  heard: Heard,
  frameOf: (json: string) => UpstreamFrame,
): void {
  restoreTranscript(core, state);
  for (const [turnId, fingerprint] of state.ended) core.endedTurns.add(turnId, fingerprint);
  tellAgain(core, state, heard, frameOf);
  for (const { turnId, laneId, fingerprint } of state.running) {
    failUnknown(core, laneOf(core, laneId), turnId, fingerprint);
  }
}

function restoreTranscript(core: Core, { lanes, nodes }: SavedState): void {
  const heads = lanes.flatMap(({ headId }) => headId ?? []);
  for (const node of nodes) {
    core.transcript.add(newNodeOf(node), () => heads);
    core.lastUpstream = node.upstream;
  }
  for (const { laneId, headId, carried } of lanes) {
    const lane = laneOf(core, laneId);
    lane.headId = headId;
    for (const saved of carried) restoreCarried(core, lane, saved);
  }
  if (core.journal !== undefined) {
    core.journal.known = new WeakSet(core.transcript.findable());
    core.journal.bytes = core.transcript.bytes;
  }
}

function newNodeOf({
  id,
  laneId = '',
  parentId,
  parentLaneId,
  stored,
  upstream,
  account,
  items,
}: SavedNode): NewNode {
  return {
    id,
    laneId,
    parentId,
    parentLaneId,
    stored,
    upstream,
    account,
    input: items?.input ?? [],
    output: items?.output ?? [],
    itemIds: (items?.output ?? []).map((text) => readItem(text).id),
    compactionIndex: items?.compactionIndex,
    overflowed: items === undefined,
  };
}

function laneOf(core: Core, laneId: string): Lane {
  const known = core.lanes.get(laneId);
  if (known !== undefined) return known;
  const lane = newLane(laneId, core.nowMs);
  lane.lostReason = 'taken_over';
  core.lanes.set(laneId, lane);
  tell(core, { kind: 'laneOpened', laneId });
  return lane;
}

/** The client numbers on from what it has; what came after that was never told. */
function tellAgain(
  core: Core,
  { outcomes, outbox }: SavedState,
  { lastSeq, lastCommit }: Heard,
  frameOf: (json: string) => UpstreamFrame,
): void {
  const missed = outcomes.filter(({ commit, seq }) =>
    lastCommit === undefined ? seq > lastSeq : commit > lastCommit,
  );
  const undelivered = eventsAfter(outbox, lastSeq);
  for (const event of undelivered) {
    core.outbox.append(eventOf(event, event.seq, frameOf));
    if (event.outcome !== undefined && event.commit === undefined) core.endedTurns.add(event.turnId, REFUSED);
  }
  const seqs = new Map(undelivered.map(({ commit, seq }) => [commit, seq]));
  const told: SavedOutcome[] = [];
  const silent: SavedOutcome[] = [];
  for (const outcome of missed) {
    const seq = seqs.get(outcome.commit);
    if (seq !== undefined) {
      told.push({ ...outcome, seq });
      continue;
    }
    // Its content was never written: it is told as what can be told of it, after the others.
    if (outcome.frame === undefined && outcome.failed === undefined && outcome.notice === undefined) {
      silent.push(outcome);
      continue;
    }
    const event = eventOf({ ...outcome, notice: noticeOf(outcome) }, core.outbox.nextSeq, frameOf);
    core.outbox.append(event);
    told.push({ ...outcome, seq: event.seq });
  }
  if (outcomes.length > 0 || outbox.length > 0) recordTold(core, told, lastSeq);
  // The first of a lane that is taken back takes those after it along.
  for (const { laneId, headBefore } of [...silent].reverse()) laneOf(core, laneId).headId = headBefore;
  for (const { turnId, laneId } of silent) forget(core, laneOf(core, laneId), turnId);
}

/** What was on its way to the client at a drain; nothing where pieces are missing before it. */
function eventsAfter(outbox: readonly SavedEvent[], lastSeq: number): readonly SavedEvent[] {
  const first = outbox.findIndex(({ seq }) => seq === lastSeq + 1);
  return first < 0 ? [] : outbox.slice(first);
}

/** The turn has ended and its answer is lost: it fails. */
function forget(core: Core, lane: Lane, turnId: string): void {
  const fingerprint = core.endedTurns.get(turnId) ?? '';
  const message = 'the process that ran the turn is gone, and its answer with it';
  const error = new GatewayError('UPSTREAM_LINK_LOST', message);
  end(core, lane, turnId, fingerprint, { error, replay: 'UNSAFE', phase: 'OUTPUT_STARTED' });
}

function failUnknown(core: Core, lane: Lane, turnId: string, fingerprint: string): void {
  core.endedTurns.add(turnId, fingerprint);
  const error = new GatewayError('UPSTREAM_LINK_LOST', 'the process that ran the turn is gone');
  end(core, lane, turnId, fingerprint, { error, replay: 'UNKNOWN', phase: 'SENT' });
}

function end(core: Core, lane: Lane, turnId: string, fingerprint: string, turnFailed: TurnFailed): void {
  const { journal } = core;
  const commit = journal === undefined ? undefined : ++journal.commit;
  emitOwn(core, lane.id, turnId, { type: 'gateway.turn.failed', outcome: 'FAILED', turnFailed, commit });
  const event = core.outbox.newest as SessionEvent;
  recordEnd(core, lane, { fingerprint, headBefore: lane.headId, event });
}

function eventOf(
  { commit, laneId, turnId, type, outcome, frame: json, failed, notice, cost }: Omit<SavedEvent, 'seq'>,
  seq: number,
  frameOf: (json: string) => UpstreamFrame,
): SessionEvent {
  const frame = json === undefined ? undefined : frameOf(json);
  return {
    seq,
    laneId,
    turnId,
    type,
    outcome,
    frame,
    turnFailed: failed && failureOf(failed),
    notice,
    commit,
    cost,
    byteLength: EVENT_BYTES + (frame?.byteLength ?? 0),
  };
}

const EVENT_BYTES = 256;

function noticeOf({ notice }: SavedOutcome): SavedEvent['notice'] {
  return notice && { ...notice, replayedBytes: 0, elapsedMs: 0 };
}

function failureOf({
  reason,
  message,
  metadata,
  retryAfterMs,
  upstream,
  replay,
  phase,
}: SavedFailure): TurnFailed {
  const error = new GatewayError(reason, message, {
    metadata,
    ...(retryAfterMs !== undefined && { retryAfterMs }),
    ...(upstream !== undefined && { upstream }),
  });
  return { error, replay, phase };
}
