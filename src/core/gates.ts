import type { GatewayError } from '../errors.ts';
import { type Core, emitNotice, tell } from './core.ts';
import {
  type JournalEntry,
  MAX_SAVED_ENDED,
  MAX_SAVED_OUTCOMES,
  type SavedBegin,
  type SavedEvent,
  type SavedFailure,
  type SavedLane,
  type SavedNode,
  type SavedOutcome,
  type SavedState,
  withoutContent,
} from './journal.ts';
import type { Lane } from './lane.ts';
import { REFUSED } from './recent-ids.ts';
import type { TranscriptNode } from './transcript.ts';
import type { Turn } from './turn.ts';
import type { JournalOptions, Output, SessionEvent, TurnFailed } from './types.ts';

/**
 * What of a session waits for its journal: the first write of a turn waits for `begin`, events with an outcome wait for
 * `commit`. A gate opens by itself after a while; the session is then not durable until its journal has caught up.
 */

/** A server in the same network answers within a millisecond; longer, and turns would be slower than without a store. */
const GATE_TIMEOUT_MS = 250;
/** A journal is not made shorter below this. */
const MIN_SNAP_BYTES = 64 * 1024;
const ENTRY_OVERHEAD_BYTES = 200;
const ENDED_BYTES = 80;
/** Events of one entry, as far as they can be divided. */
const OUTBOX_PART_BYTES = 256 * 1024;

/**
 * durable: gates wait. late: entries go out and nothing waits for them. lost: entries are not taken; a snap comes when
 * they are. over: another process has the session.
 */
type JournalState = 'durable' | 'late' | 'lost' | 'over';

export interface Journal {
  /** Whether what users and models say may be written, too. */
  readonly keepsContent: boolean;
  readonly gateTimeoutMs: number;
  state: JournalState;
  /** Number of the newest entry, and of the newest that is written with all before it. */
  made: number;
  written: number;
  /** Rises with each begin and each outcome, also while nothing is written. */
  commit: number;
  heardSeq: number;
  lostCommit: number;
  /** Events from `seq` on wait for entry `n`. In order. */
  commitGates: { readonly n: number; readonly seq: number; readonly sinceMs: number }[];
  /** Creates that wait for their turn's `begin`. In order. */
  withheld: { readonly turn: Turn; readonly send: Send; readonly sinceMs: number }[];
  /** Turns whose `begin` was made. */
  readonly begun: Map<string, Begun>;
  outcomes: SavedOutcome[];
  outcomeBytes: number;
  /** Responses that the journal has. */
  known: WeakSet<TranscriptNode>;
  /** Since the last snap, which is counted in. */
  bytes: number;
  snapN: number;
  /** A lane stands on something that only this process can go on from. */
  incomplete: boolean;
}

interface Begun {
  readonly saved: SavedBegin;
  /** Of the entry; undefined: it is in no journal. */
  n: number | undefined;
  /** That the record has with the entry. */
  readonly commit: number | undefined;
}

type Send = Extract<Output, { kind: 'send' }>;

export function newJournal({ keepsContent, open, gateTimeoutMs = GATE_TIMEOUT_MS }: JournalOptions): Journal {
  return {
    keepsContent,
    gateTimeoutMs,
    state: open ? 'durable' : 'lost',
    made: 0,
    written: 0,
    commit: 0,
    heardSeq: 0,
    lostCommit: 0,
    commitGates: [],
    withheld: [],
    begun: new Map(),
    outcomes: [],
    outcomeBytes: 0,
    known: new WeakSet(),
    bytes: 0,
    snapN: 0,
    incomplete: false,
  };
}

/** Whether another process could go on with the session now. */
export function isDurable({ journal }: Core): boolean {
  return journal?.state === 'durable' && !journal.incomplete;
}

/** Whether what happens is written down, at least late. */
export function hasRecord({ journal }: Core): boolean {
  return journal !== undefined && (journal.state === 'durable' || journal.state === 'late');
}

/** Whether the record is behind for want of a store, which may come back. */
export function isRecordAway({ journal }: Core): boolean {
  return journal?.state === 'lost';
}

/** A turn is about to be written: its `begin` is made, before anything is said of it. */
export function announceBegin(core: Core, turn: Turn): void {
  const { journal } = core;
  if (journal === undefined) return;
  const { n } = journal.begun.get(turn.id) ?? begin(core, journal, turn);
  if (!isWritten(journal, n) && mayGo(core, journal, n)) goUnwritten(core, journal, turn);
}

/**
 * Writes a turn's create; the first time not before its `begin` is in the journal. What was said of the turn from
 * `saidFromSeq` on waits, too: a client that has heard of a turn does not ask for it again.
 */
export function sendTurn(core: Core, turn: Turn, send: Send, saidFromSeq: number): void {
  const { journal } = core;
  if (journal === undefined) {
    core.outputs.push(send);
    return;
  }
  const begun = journal.begun.get(turn.id) ?? begin(core, journal, turn);
  if (mayGo(core, journal, begun.n)) core.outputs.push(send);
  else {
    journal.withheld.push({ turn, send, sinceMs: core.nowMs });
    if (begun.n !== undefined && saidFromSeq < core.outbox.nextSeq) hold(core, journal, begun.n, saidFromSeq);
    armGates(core, journal);
  }
}

/** The turn was handed to its link, but nothing was written yet. */
export function isWithheld({ journal }: Core, turn: Turn): boolean {
  return journal?.withheld.some((one) => one.turn === turn) === true;
}

/** What was to be written for the turn is not any more. */
export function forgetWithheld({ journal }: Core, turn: Turn): void {
  if (journal !== undefined) journal.withheld = journal.withheld.filter((one) => one.turn !== turn);
}

/**
 * For what is said of a turn before it is written: should its `begin` be lost, a record without it is too old for a client
 * that has heard of the turn and does not ask for it again.
 */
export function commitOfBegin({ journal }: Core, turn: Turn): number | undefined {
  return journal?.begun.get(turn.id)?.commit;
}

/** It was needed for `begin` already, and takes hashing. */
export function fingerprintOf({ journal, fingerprints }: Core, turn: Turn): string {
  return journal?.begun.get(turn.id)?.saved.fingerprint ?? fingerprints.of(turn.request);
}

/** Whether the turn was begun: another process would report it and not run it. */
export function hasBegun({ journal }: Core, turnId: string): boolean {
  return journal?.begun.has(turnId) === true;
}

/** For the event that ends a turn. Undefined without a journal. */
export function nextCommit({ journal }: Core): number | undefined {
  if (journal === undefined) return undefined;
  journal.commit += 1;
  return journal.commit;
}

export interface EndedTurn {
  readonly fingerprint: string;
  /** What the lane stood on before the turn. */
  readonly headBefore: string | undefined;
  /** The turn's last. */
  readonly event: SessionEvent;
}

/** A turn has ended, and its lane stands where it will stand. */
export function recordEnd(core: Core, lane: Lane, { fingerprint, headBefore, event }: EndedTurn): void {
  const { journal } = core;
  if (journal === undefined || journal.state === 'over') return;
  journal.begun.delete(event.turnId);
  const outcome = outcomeOf(event, headBefore);
  remember(core, journal, outcome);
  if (journal.state === 'lost') return;
  const nodes = unknownNodes(core, journal, lane);
  const n = make(core, journal, {
    kind: 'commit',
    outcome,
    fingerprint,
    lane: laneOf(lane),
    nodes,
    heardSeq: journal.heardSeq,
    ...(core.spent !== undefined && { spent: core.spent }),
  });
  hold(core, journal, n, event.seq);
  noteIncomplete(core, journal, nodes);
  if (isTooLong(core, journal)) snap(core, journal);
}

/** After a takeover: what the client hears again, under these seqs. No event goes before it is written. */
export function recordTold(core: Core, outcomes: readonly SavedOutcome[], heardSeq: number): void {
  const { journal } = core;
  if (journal === undefined) return;
  for (const outcome of outcomes) remember(core, journal, outcome);
  if (journal.state === 'lost' || journal.state === 'over') return;
  const told = outcomes.map(({ commit, seq }) => ({ commit, seq }));
  const n = make(core, journal, { kind: 'told', outcomes: told, heardSeq });
  if (core.outbox.nextSeq > heardSeq + 1) hold(core, journal, n, heardSeq + 1);
}

/**
 * The session is let go for another process: what its client may not have received goes along. A client that is there
 * and has been given everything reads it before its stream ends.
 */
export function recordOutbox(core: Core): void {
  const { journal, outbox } = core;
  if (journal === undefined || !hasRecord(core) || !journal.keepsContent) return;
  if (core.attached && outbox.waiting === 0) return;
  let part: SavedEvent[] = [];
  let bytes = 0;
  for (const event of outbox.unacknowledged) {
    part.push(savedEvent(event));
    bytes += event.byteLength;
    if (bytes < OUTBOX_PART_BYTES) continue;
    make(core, journal, { kind: 'outbox', events: part });
    part = [];
    bytes = 0;
  }
  if (part.length > 0) make(core, journal, { kind: 'outbox', events: part });
}

/** The client has processed everything up to `seq`. */
export function heard({ journal }: Core, seq: number): void {
  if (journal === undefined || seq <= journal.heardSeq) return;
  journal.heardSeq = seq;
  while (journal.outcomes[0] !== undefined && journal.outcomes[0].seq <= seq) dropOutcome(journal);
}

/** Everything up to entry `n` is in the journal. */
export function handleJournaled(core: Core, n: number): void {
  const { journal } = core;
  if (journal === undefined || journal.state === 'lost' || journal.state === 'over') return;
  journal.written = Math.max(journal.written, n);
  openGates(core, journal);
  if (journal.state === 'late' && journal.written === journal.made) restored(core, journal);
}

/** Entries that were not reported written are gone, and no more are taken for now. */
export function handleJournalLost(core: Core): void {
  const { journal } = core;
  if (journal === undefined || journal.state === 'over') return;
  for (const begun of journal.begun.values()) if ((begun.n ?? 0) > journal.written) begun.n = undefined;
  if (journal.state === 'durable') doubt(core, journal, 'lost', 'store_lost');
  else journal.state = 'lost';
  openGates(core, journal);
}

/** Entries are taken again: everything is written once more. */
export function handleJournalBack(core: Core): void {
  const { journal } = core;
  if (journal?.state !== 'lost') return;
  journal.state = 'late';
  snap(core, journal);
}

/** The oldest gate has waited long enough. */
export function gateExpired(core: Core): void {
  const { journal } = core;
  if (journal === undefined) return;
  const sinceMs = oldestGateMs(journal);
  if (sinceMs === undefined) return;
  if (journal.state === 'durable' && core.nowMs >= sinceMs + journal.gateTimeoutMs)
    doubt(core, journal, 'late', 'store_slow');
  openGates(core, journal);
}

/** Another process has the session: nothing is written or told any more. */
export function leaveJournal(core: Core): void {
  const { journal } = core;
  if (journal === undefined) return;
  journal.state = 'over';
  journal.commitGates = [];
  journal.withheld = [];
  core.deadlines.clear({ kind: 'journal' });
}

/** The session ends: what it has to say is said, whether it is written or not. */
export function openAllGates(core: Core): void {
  if (core.journal === undefined) return;
  core.journal.commitGates = [];
  core.journal.withheld = [];
  core.outbox.holdFrom(undefined);
}

/** A client has come: creates that nobody was there for may go. */
export function openGatesForClient(core: Core): void {
  const { journal } = core;
  if (journal === undefined) return;
  if (journal.state !== 'durable') {
    for (const { turn } of journal.withheld)
      if (!isWritten(journal, journal.begun.get(turn.id)?.n)) goUnwritten(core, journal, turn);
  }
  openGates(core, journal);
}

/** The whole state, to begin a journal anew from. */
function stateOf(core: Core, journal: Journal): SavedState {
  const taken = [...core.endedTurns.entries()].filter(([, fingerprint]) => fingerprint !== REFUSED);
  return {
    commit: journal.commit,
    heardSeq: journal.heardSeq,
    lanes: [...core.lanes.values()].map(laneOf),
    nodes: core.transcript.findable().map((node) => saved(core, node).node),
    running: [...journal.begun.values()].map(({ saved }) => saved),
    ended: taken.slice(-MAX_SAVED_ENDED),
    outcomes: [...journal.outcomes],
    lostCommit: journal.lostCommit,
    outbox: [],
    ...(core.spent !== undefined && { spent: core.spent }),
  };
}

function begin(core: Core, journal: Journal, turn: Turn): Begun {
  const saved = { turnId: turn.id, laneId: turn.laneId, fingerprint: core.fingerprints.of(turn.request) };
  const isTaken = journal.state !== 'lost';
  if (isTaken) journal.commit += 1;
  const commit = isTaken ? journal.commit : undefined;
  const n = commit === undefined ? undefined : make(core, journal, { kind: 'begin', ...saved, commit });
  const begun = { saved, n, commit };
  journal.begun.set(turn.id, begun);
  return begun;
}

/**
 * Without an answer of the store a turn is run for a client that is here, and for no other: one that is gone may be
 * at another process, which has heard nothing of the turn and runs it, too.
 */
function mayGo(core: Core, journal: Journal, n: number | undefined): boolean {
  if (isWritten(journal, n)) return true;
  return journal.state !== 'durable' && core.attached;
}

function isWritten(journal: Journal, n: number | undefined): boolean {
  return n !== undefined && n <= journal.written;
}

/** The client hears of the turn and of a commit that only a record with the turn has. */
function goUnwritten(core: Core, journal: Journal, { laneId, id }: Turn): void {
  journal.commit += 1;
  if (journal.state === 'late') make(core, journal, { kind: 'mark', commit: journal.commit });
  emitNotice(core, laneId, id, { kind: 'durability_lost', reason: 'not_written', commit: journal.commit });
}

function openGates(core: Core, journal: Journal): void {
  const waits = journal.state === 'durable' ? (n: number) => n > journal.written : () => false;
  while (journal.commitGates[0] !== undefined && !waits(journal.commitGates[0].n))
    journal.commitGates.shift();
  core.outbox.holdFrom(journal.commitGates[0]?.seq);
  const { withheld } = journal;
  journal.withheld = withheld.filter(({ turn }) => !mayGo(core, journal, journal.begun.get(turn.id)?.n));
  for (const one of withheld) if (!journal.withheld.includes(one)) core.outputs.push(one.send);
  armGates(core, journal);
}

function hold(core: Core, journal: Journal, n: number, seq: number): void {
  if (journal.state !== 'durable') return;
  journal.commitGates.push({ n, seq, sinceMs: core.nowMs });
  core.outbox.holdFrom(journal.commitGates[0]?.seq);
  armGates(core, journal);
}

function armGates(core: Core, journal: Journal): void {
  const sinceMs = journal.state === 'durable' ? oldestGateMs(journal) : undefined;
  if (sinceMs === undefined) core.deadlines.clear({ kind: 'journal' });
  else core.deadlines.set({ kind: 'journal' }, sinceMs + journal.gateTimeoutMs);
}

function oldestGateMs({ commitGates, withheld }: Journal): number | undefined {
  const [commit] = commitGates;
  const [send] = withheld;
  if (commit === undefined || send === undefined) return commit?.sinceMs ?? send?.sinceMs;
  return Math.min(commit.sinceMs, send.sinceMs);
}

/**
 * The session is not durable any more. The client hears a commit that the record does not have: a record without it is
 * too old to go on from.
 */
function doubt(core: Core, journal: Journal, state: 'late' | 'lost', reason: string): void {
  journal.state = state;
  journal.commit += 1;
  if (state === 'late') make(core, journal, { kind: 'mark', commit: journal.commit });
  tell(core, { kind: 'durabilityLost', reason });
  emitNotice(core, '', '', { kind: 'durability_lost', reason, commit: journal.commit });
}

function restored(core: Core, journal: Journal): void {
  journal.state = 'durable';
  if (!journal.incomplete)
    emitNotice(core, '', '', { kind: 'durability_restored', reason: 'store_back', commit: journal.commit });
}

/** Only a process with the same connection, or one that may read what was said, could go on from these. */
function noteIncomplete(core: Core, journal: Journal, nodes: readonly SavedNode[]): void {
  if (journal.incomplete) return;
  if (nodes.every(({ stored, items }) => stored || (journal.keepsContent && items !== undefined))) return;
  journal.incomplete = true;
  const reason = journal.keepsContent ? 'transcript_dropped' : 'content_not_kept';
  tell(core, { kind: 'durabilityLost', reason });
  emitNotice(core, '', '', { kind: 'durability_lost', reason, commit: journal.commit });
}

function make(core: Core, journal: Journal, entry: JournalEntry): number {
  journal.made += 1;
  const n = journal.made;
  journal.bytes += sizeOf(entry);
  core.outputs.push({
    kind: 'journal',
    n,
    entry: journal.keepsContent ? entry : withoutContent(entry),
  });
  return n;
}

function snap(core: Core, journal: Journal): void {
  const state = stateOf(core, journal);
  journal.known = new WeakSet(core.transcript.findable());
  journal.bytes = 0;
  journal.snapN = make(core, journal, { kind: 'snap', state });
  for (const begun of journal.begun.values()) begun.n ??= journal.snapN;
}

/** More than half of the journal is of no use any more. */
function isTooLong(core: Core, journal: Journal): boolean {
  if (journal.state !== 'durable' || journal.snapN > journal.written) return false;
  const live = core.transcript.bytes + journal.outcomeBytes + ENDED_BYTES * core.endedTurns.size;
  return journal.bytes > MIN_SNAP_BYTES + 2 * live;
}

function remember(core: Core, journal: Journal, outcome: SavedOutcome): void {
  journal.outcomes.push(outcome);
  journal.outcomeBytes += outcomeBytes(outcome);
  while (
    journal.outcomes.length > MAX_SAVED_OUTCOMES ||
    (journal.outcomes.length > 1 && journal.outcomeBytes > core.limits.maxResumeBytes)
  )
    journal.lostCommit = dropOutcome(journal)?.commit ?? journal.lostCommit;
}

function dropOutcome(journal: Journal): SavedOutcome | undefined {
  const dropped = journal.outcomes.shift();
  if (dropped !== undefined) journal.outcomeBytes -= outcomeBytes(dropped);
  return dropped;
}

function outcomeBytes({ frame }: SavedOutcome): number {
  return ENTRY_OVERHEAD_BYTES + (frame?.length ?? 0);
}

/** The path to the head, as far as the journal does not have it, parents first. */
function unknownNodes(core: Core, journal: Journal, { id, headId }: Lane): readonly SavedNode[] {
  const path: SavedNode[] = [];
  let at = headId === undefined ? undefined : core.transcript.get(headId, id);
  while (at !== undefined && !journal.known.has(at)) {
    journal.known.add(at);
    const { node, parent } = saved(core, at);
    path.push(node);
    at = parent;
  }
  return path.reverse();
}

function saved(
  core: Core,
  node: TranscriptNode,
): { readonly node: SavedNode; readonly parent: TranscriptNode | undefined } {
  const { id, laneId, stored, upstream, account } = node;
  const { parent, parentId, items } = core.transcript.folded(node);
  const kept = items && {
    input: items.input,
    output: items.output,
    compactionIndex: items.compactionIndex,
  };
  const parentLaneId = parent?.laneId;
  return { node: { id, laneId, parentId, parentLaneId, stored, upstream, account, items: kept }, parent };
}

function laneOf({ id, headId, carried }: Lane): SavedLane {
  const saved = Array.from(carried, ([responseId, { steers, outputs }]) => ({
    responseId,
    steers: steers.map(({ input }) => input),
    outputs,
  }));
  return { laneId: id, headId, carried: saved };
}

const utf8 = new TextDecoder();

function outcomeOf(event: SessionEvent, headBefore: string | undefined): SavedOutcome {
  const { seq, laneId, turnId, type, frame, turnFailed, notice, commit, outcome, cost } = event;
  if (commit === undefined || outcome === undefined) throw new Error('an event that ends no turn');
  return {
    commit,
    seq,
    laneId,
    turnId,
    outcome,
    type,
    frame: frame && utf8.decode(frame.bytes),
    failed: turnFailed && failureOf(turnFailed),
    notice: notice && { kind: notice.kind, reason: notice.reason },
    headBefore,
    ...(cost !== undefined && { cost }),
  };
}

function savedEvent({ frame, turnFailed, byteLength: _, ...event }: SessionEvent): SavedEvent {
  return { ...event, frame: frame && utf8.decode(frame.bytes), failed: turnFailed && failureOf(turnFailed) };
}

function failureOf({ error, replay, phase }: TurnFailed): SavedFailure {
  const { reason, message, metadata, retryAfterMs } = error;
  return { reason, message, metadata, retryAfterMs, upstream: upstreamOf(error), replay, phase };
}

function upstreamOf({ upstream }: GatewayError): SavedFailure['upstream'] {
  if (upstream === undefined) return undefined;
  const { json: _inTheFrame, ...facts } = upstream;
  return facts;
}

function sizeOf(entry: JournalEntry): number {
  switch (entry.kind) {
    case 'commit':
      return outcomeBytes(entry.outcome) + entry.nodes.reduce((sum, node) => sum + nodeBytes(node), 0);
    case 'snap': {
      const { nodes, outcomes, ended } = entry.state;
      const nodeSum = nodes.reduce((sum, node) => sum + nodeBytes(node), 0);
      return outcomes.reduce((sum, one) => sum + outcomeBytes(one), nodeSum + ENDED_BYTES * ended.length);
    }
    default:
      return ENTRY_OVERHEAD_BYTES;
  }
}

function nodeBytes({ items }: SavedNode): number {
  let bytes = ENTRY_OVERHEAD_BYTES;
  for (const text of items?.input ?? []) bytes += text.length;
  for (const text of items?.output ?? []) bytes += text.length;
  return bytes;
}
