import type { Principal } from '../access/types.ts';
import { backoffMs } from '../ground/backoff.ts';

/** Resumes in a row of which nothing came, before the next ones wait. */
const FREE_RESUMES = 5;
const WAIT = { minMs: 200, maxMs: 5_000 };

/** Some minutes of them, each with a wait before it. A path that loses its connections now and then never gets there. */
export const DEFAULT_MAX_CUT_STREAMS = 20;

/** Of one caller's sessions together, at once; one more each second. */
const FREE_CUTS_OF_CALLER = 60;
const MAX_CALLERS = 10_000;

/** The part of a session that pacing uses. */
export interface PacedSession {
  readonly principal: Principal;
  readonly driver: { readonly turnsTaken: number };
}

/** What a stream was, when it is over. */
export interface EndedStream {
  /** It ended in the middle of a message of the client, or with one that is too large. */
  readonly isCut: boolean;
  /** A message of the client came in whole. */
  readonly heard: boolean;
  /** Highest event that the client has acknowledged; 0: none. */
  readonly ackedSeq: number;
}

export type Pace =
  | { readonly kind: 'free' }
  | { readonly kind: 'slowed'; readonly waitMs: number; readonly isFirst: boolean }
  /** `cuts`: streams in a row that ended in the middle of a message. */
  | { readonly kind: 'refused'; readonly cuts: number; readonly isFirst: boolean };

interface Progress {
  resumes: number;
  cuts: number;
  /** What the session had come to when its last stream was over. */
  seq: number;
  turns: number;
  readonly told: Set<Pace['kind']>;
}

/**
 * A path that does not carry a message makes clients resume and send it again, tens of times a second where they do not
 * wait by themselves. Who comes back and nothing comes of it waits longer each time; after enough streams that ended in the
 * middle of a message the session is not resumed any more. A new turn, an acknowledgement, and any whole message of a stream that was not
 * cut are progress: a client that only loses its connections is let in at once.
 */
export class ResumePacing {
  readonly #maxCutStreams: number;
  readonly #now: () => number;
  readonly #sessions = new WeakMap<PacedSession, Progress>();
  /** By caller: streams that were cut, of which one is forgiven each second. The one cut last is the last. */
  readonly #callers = new Map<string, { readonly cuts: number; readonly atMs: number }>();

  constructor(now: () => number, maxCutStreams = DEFAULT_MAX_CUT_STREAMS) {
    this.#now = now;
    this.#maxCutStreams = maxCutStreams;
  }

  ended(session: PacedSession, { isCut, heard, ackedSeq }: EndedStream): void {
    const progress = this.#progressOf(session);
    const { turnsTaken } = session.driver;
    if (ackedSeq > progress.seq || turnsTaken > progress.turns || (heard && !isCut)) {
      progress.resumes = 0;
      progress.cuts = 0;
    } else if (isCut) progress.cuts += 1;
    progress.seq = Math.max(progress.seq, ackedSeq);
    progress.turns = turnsTaken;
    if (isCut) this.#countCut(session.principal);
  }

  /** A client comes back, and has seen events up to `lastSeq`. */
  resumed(session: PacedSession, lastSeq: number): Pace {
    const progress = this.#progressOf(session);
    if (lastSeq > progress.seq) {
      progress.seq = lastSeq;
      progress.resumes = 0;
      progress.cuts = 0;
    }
    progress.resumes += 1;
    const { resumes, cuts } = progress;
    if (cuts >= this.#maxCutStreams) return { kind: 'refused', cuts, isFirst: isFirst(progress, 'refused') };
    const ofCaller = cuts > 0 ? this.#cutsOf(keyOf(session.principal)) - FREE_CUTS_OF_CALLER : 0;
    const futile = Math.max(resumes - FREE_RESUMES, Math.ceil(ofCaller));
    if (futile <= 0) return { kind: 'free' };
    const waitMs = backoffMs(futile - 1, { ...WAIT, random: Math.random });
    return { kind: 'slowed', waitMs, isFirst: isFirst(progress, 'slowed') };
  }

  #progressOf(session: PacedSession): Progress {
    let progress = this.#sessions.get(session);
    if (progress === undefined) {
      progress = { resumes: 0, cuts: 0, seq: 0, turns: 0, told: new Set() };
      this.#sessions.set(session, progress);
    }
    return progress;
  }

  #countCut(caller: Principal): void {
    const key = keyOf(caller);
    const cuts = this.#cutsOf(key) + 1;
    this.#callers.delete(key);
    this.#callers.set(key, { cuts, atMs: this.#now() });
    if (this.#callers.size <= MAX_CALLERS) return;
    for (const oldest of this.#callers.keys()) {
      this.#callers.delete(oldest);
      return;
    }
  }

  #cutsOf(key: string): number {
    const { cuts = 0, atMs = 0 } = this.#callers.get(key) ?? {};
    return Math.max(0, cuts - (this.#now() - atMs) / 1_000);
  }
}

function isFirst({ told }: Progress, kind: Pace['kind']): boolean {
  if (told.has(kind)) return false;
  told.add(kind);
  return true;
}

function keyOf({ tenantId, subject }: Principal): string {
  return JSON.stringify([tenantId, subject]);
}
