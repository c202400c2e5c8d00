import { performance } from 'node:perf_hooks';
import type { Fact, TurnOutcome, TurnRecord } from '../core/types.ts';
import type { CallRefusal, SessionStart, TurnSplit, Watcher } from '../telemetry/types.ts';
import type { UpstreamEvent } from '../upstream/types.ts';
import type { Entry } from './entries.ts';
import { type CountName, type Sample, SampleRing } from './samples.ts';
import { type HistoryShare, SessionHistory } from './session-history.ts';
import { UpstreamBoard, type UpstreamRow } from './upstream-board.ts';
import { UsageBoard, type UsageRow } from './usage-board.ts';

export interface HistoryOptions {
  /** Turns, links and marks that are kept over all sessions; the oldest goes first. */
  readonly maxEntries: number;
  /** Turns that are kept of one session. */
  readonly maxTurnsPerSession: number;
  /** Sessions that have ended and are still shown. */
  readonly maxEndedSessions: number;
  /** Milliseconds since the epoch. */
  readonly clock?: () => number;
}

const MAX_LINKS_PER_SESSION = 64;
const MAX_MARKS_PER_SESSION = 128;
const SAMPLES = 3_600;
const SECOND_MS = 1_000;

const OUTCOME_COUNTS = {
  COMPLETED: 'completed',
  INCOMPLETE: 'incomplete',
  FAILED: 'failed',
  CANCELLED: 'cancelled',
  DEADLINE_EXCEEDED: 'deadlineExceeded',
} as const satisfies Record<TurnOutcome, CountName>;

/**
 * What this process remembers of its sessions, and counts each second. All of it is bounded, and none of it costs more
 * than a few assignments for each fact of a turn.
 */
export class History implements Watcher {
  readonly #sessions = new Map<string, SessionHistory>();
  readonly #ended = new Set<string>();
  readonly #samples = new SampleRing(SAMPLES);
  readonly #usage = new UsageBoard();
  readonly #upstreams = new UpstreamBoard();
  readonly #options: HistoryOptions;
  readonly #clock: () => number;
  readonly #share: HistoryShare;
  /** The oldest entries over all sessions, as a ring. */
  readonly #owners: (SessionHistory | undefined)[];
  readonly #entries: (Entry | undefined)[];
  #next = 0;
  #timer: NodeJS.Timeout | undefined;
  #loop = performance.eventLoopUtilization();
  #turnsRunning = 0;
  #lanes = 0;
  #streams = 0;

  constructor(options: HistoryOptions) {
    this.#options = options;
    this.#clock = options.clock ?? (() => performance.timeOrigin + performance.now());
    this.#owners = [];
    this.#entries = [];
    this.#share = {
      limits: {
        turns: options.maxTurnsPerSession,
        links: MAX_LINKS_PER_SESSION,
        marks: MAX_MARKS_PER_SESSION,
      },
      clock: this.#clock,
      kept: (session, entry) => this.#kept(session, entry),
      onTurnAccepted: () => {
        this.#turnsRunning += 1;
        this.#samples.count('turnsStarted');
      },
      onTurnEnded: (session, record, split) => this.#turnEnded(session, record, split),
      onFact: (fact) => this.#fact(fact),
      onResumed: () => this.#samples.count('resumes'),
      onStream: (attached) => {
        this.#streams += attached ? 1 : -1;
      },
      onEnded: (session) => this.#sessionEnded(session),
    };
  }

  /** Seconds begin to be counted. `openLinks` is asked once in each. */
  start(openLinks: () => number): void {
    this.#timer = setInterval(() => this.tick(openLinks()), SECOND_MS);
    this.#timer.unref();
  }

  session(start: SessionStart): SessionHistory {
    const session = new SessionHistory(this.#share, start);
    // One that ran here before and has come back.
    this.#ended.delete(start.sessionId);
    this.#sessions.set(start.sessionId, session);
    return session;
  }

  upstream(event: UpstreamEvent): void {
    this.#upstreams.event(event, this.#clock());
  }

  callRefused(_refusal: CallRefusal): void {
    this.#samples.count('refusals');
  }

  /** Running ones, and the last of those that have ended. */
  sessions(): IterableIterator<SessionHistory> {
    return this.#sessions.values();
  }

  get(id: string): SessionHistory | undefined {
    return this.#sessions.get(id);
  }

  usage(): readonly UsageRow[] {
    return this.#usage.rows(this.#clock());
  }

  upstreams(): readonly UpstreamRow[] {
    return this.#upstreams.rows(this.#clock());
  }

  lastSample(): Sample | undefined {
    return this.#samples.last();
  }

  past(stepS: number, seconds = SAMPLES): readonly Sample[] {
    return this.#samples.past(stepS, seconds);
  }

  /** Ends a second. */
  tick(links: number): void {
    const loop = performance.eventLoopUtilization();
    const { utilization } = performance.eventLoopUtilization(loop, this.#loop);
    this.#loop = loop;
    this.#samples.push(Math.round(this.#clock() / SECOND_MS), {
      sessions: this.#sessions.size - this.#ended.size,
      attachedStreams: this.#streams,
      turnsRunning: this.#turnsRunning,
      lanes: this.#lanes,
      links,
      eventLoopShare: utilization,
      rssBytes: process.memoryUsage.rss(),
    });
  }

  close(): void {
    clearInterval(this.#timer);
    this.#timer = undefined;
  }

  #kept(session: SessionHistory, entry: Entry): void {
    const slot = this.#next;
    const oldest = this.#entries[slot];
    if (oldest !== undefined) this.#owners[slot]?.forget(oldest);
    this.#owners[slot] = session;
    this.#entries[slot] = entry;
    this.#next = (slot + 1) % this.#options.maxEntries;
  }

  #turnEnded(session: SessionHistory, record: TurnRecord, split: TurnSplit): void {
    const samples = this.#samples;
    this.#turnsRunning -= 1;
    samples.count(OUTCOME_COUNTS[record.outcome]);
    const { usage } = record;
    if (usage !== undefined) {
      samples.count('inputTokens', usage.inputTokens);
      samples.count('cachedInputTokens', usage.cachedInputTokens);
      samples.count('outputTokens', usage.outputTokens);
    }
    samples.count('bytesUp', record.bytesUp);
    samples.count('bytesSaved', Math.max(0, record.fullContextBytes - record.bytesUp));
    samples.queue.add(split.queueSeconds * SECOND_MS);
    if (split.firstOutputSeconds !== undefined) samples.firstToken.add(split.firstOutputSeconds * SECOND_MS);
    this.#usage.add(session.start.tenantId, record, record.endedAtMs);
  }

  #fact({ kind }: Fact): void {
    switch (kind) {
      case 'laneOpened':
        this.#lanes += 1;
        return;
      case 'laneClosed':
        this.#lanes -= 1;
        return;
      case 'recovered':
        return this.#samples.count('recoveries');
      case 'rotated':
        return this.#samples.count('rotations');
      case 'replayed':
        return this.#samples.count('replays');
      case 'refused':
        return this.#samples.count('refusals');
      default:
        return;
    }
  }

  #sessionEnded(session: SessionHistory): void {
    const { sessionId } = session.start;
    this.#lanes -= session.lanes?.size ?? 0;
    this.#turnsRunning -= session.running;
    this.#streams -= session.attached;
    // It has come back already.
    if (this.#sessions.get(sessionId) !== session) return;
    // Of one that did nothing there is nothing to show.
    if (session.turnsTotal === 0) {
      this.#sessions.delete(sessionId);
      return;
    }
    this.#ended.add(sessionId);
    if (this.#ended.size <= this.#options.maxEndedSessions) return;
    const [oldest] = this.#ended;
    if (oldest === undefined) return;
    this.#ended.delete(oldest);
    this.#sessions.delete(oldest);
  }
}
