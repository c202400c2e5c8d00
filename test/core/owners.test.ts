import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { type JournalEntry, JournalFold } from '../../src/core/journal.ts';
import { DEFAULT_SESSION_LIMITS } from '../../src/core/limits.ts';
import { Session } from '../../src/core/session.ts';
import type { Input, SessionEvent, SessionOptions } from '../../src/core/types.ts';
import { frameText } from '../../src/dialect/frames.ts';
import { GatewayError } from '../../src/errors.ts';
import { COMPACTION, type Execution, FakeUpstream, toFrame, userItem } from './fake-upstream.ts';
import { OPENAI, ROUTE } from './world.ts';

/** 1,000 in the normal run; `OWNER_SCHEDULES=100000` for a night. */
const SCHEDULES = Number(process.env['OWNER_SCHEDULES'] ?? 1_000);
/** Replays one shrunk failure, with the seed that was printed beside it. */
const PATH = process.env['OWNER_PATH'];
const SEED = process.env['OWNER_SEED'] ?? (process.env['CI'] === undefined ? undefined : '1');

type Step = readonly [kind: number, a: number, b: number];

/** Schedules that once failed. */
const KNOWN: readonly (readonly Step[])[] = [
  // What was said of a turn before its `begin` was written is heard, and the journal is lost at once.
  [
    [14, 0, 0],
    [0, 0, 0],
    [34, 0, 0],
    [48, 0, 0],
    [14, 1, 0],
    [14, 783, 0],
    [81, 0, 0],
    [98, 0, 0],
    [90, 0, 0],
    [0, 0, 0],
    [14, 0, 0],
    [76, 0, 0],
    [62, 409, 0],
    [81, 0, 0],
  ],
];

describe('one session and three owners', () => {
  it.each(KNOWN.map((steps, index) => [index, steps] as const))(
    'keep every invariant in known schedule %i',
    (_, steps) => new Run().play(steps),
  );

  it(`keep every invariant over a journal that may fail in any way (${SCHEDULES} schedules)`, {
    timeout: 3_600_000,
  }, () => {
    const step = fc.tuple(fc.nat(99), fc.nat(1_000), fc.nat(1_000));
    fc.assert(
      fc.property(fc.array(step, { maxLength: 120, size: 'max' }), (steps) => new Run().play(steps)),
      {
        numRuns: SCHEDULES,
        interruptAfterTimeLimit: 3_000_000,
        // Fewer schedules than were asked for prove less than is said.
        markInterruptAsFailure: true,
        ...(SEED === undefined ? {} : { seed: Number(SEED) }),
        ...(PATH === undefined ? {} : { path: PATH }),
      },
    );
  });
});

interface Id {
  readonly fence: number;
  readonly n: number;
}

interface Stored {
  readonly id: Id;
  readonly entry: JournalEntry | { readonly kind: 'take' };
}

function isAfter(id: Id, last: Id | undefined): boolean {
  return last === undefined || id.fence > last.fence || (id.fence === last.fence && id.n > last.n);
}

/** The stream of one session as a server keeps it: an id that is not greater than the newest is refused. */
class ModelJournal {
  entries: Stored[] = [];
  /** Turns whose end was ever written. */
  readonly ended = new Set<string>();

  get last(): Id | undefined {
    return this.entries.at(-1)?.id;
  }

  append(stored: Stored): boolean {
    if (!isAfter(stored.id, this.last)) return false;
    this.entries.push(stored);
    const { entry } = stored;
    if (entry.kind === 'commit') this.ended.add(entry.outcome.turnId);
    if (entry.kind === 'snap') for (const [turnId] of entry.state.ended) this.ended.add(turnId);
    return true;
  }

  /** Holes in the numbers of a fence: entries were lost, and nothing before the next snap counts. */
  fold(): { readonly fold: JournalFold; readonly damaged: boolean } {
    const fold = new JournalFold();
    let damaged = false;
    let last: Id | undefined;
    for (const { id, entry } of this.entries) {
      const follows =
        last === undefined ? id.n === 0 : id.fence > last.fence ? id.n === 0 : id.n === last.n + 1;
      if (!follows) damaged = true;
      last = id;
      if (entry.kind === 'take') continue;
      if (entry.kind === 'snap') damaged = false;
      fold.apply(entry);
    }
    return { fold, damaged };
  }
}

interface Sent extends Stored {
  readonly coreN: number;
}

/** A process that holds the session, or believes so. */
class Owner {
  readonly run: Run;
  readonly index: number;
  session: Session;
  fence: number;
  nextN: number;
  alive = true;
  fenced = false;
  /** As it believes. */
  attached = true;
  /** On their way to the store, in order. */
  sent: Sent[] = [];
  /** Executed there; the answer is on its way. */
  answers: Sent[] = [];
  /** What the store has acknowledged. */
  ackedN: number;
  /** journalLost was said; nothing is written until the journal is back. */
  lost = false;
  readonly dials: number[] = [];
  readonly links = new Set<number>();

  constructor(run: Run, index: number, fence: number, make: (options: SessionOptions) => Session) {
    this.run = run;
    this.index = index;
    this.fence = fence;
    this.nextN = 1;
    this.ackedN = 0;
    this.session = make({
      random: () => 0.5,
      transcriptBudget: { tryTake: () => true, give: () => undefined },
      limits: { ...DEFAULT_SESSION_LIMITS, resumeGraceMs: 1e12 },
      journal: { keepsContent: true, open: true },
    });
    this.drain();
  }

  feed(input: Input): void {
    if (!this.alive) return;
    if (input.kind === 'attach' || input.kind === 'detach') this.attached = input.kind === 'attach';
    this.session.handle(input, this.run.now);
    this.drain();
  }

  drain(): void {
    for (const output of this.session.takeOutputs()) {
      switch (output.kind) {
        case 'dial':
          this.dials.push(output.linkId);
          break;
        case 'send':
          this.run.wrote(this, output.turnId);
          this.run.upstream.receive(this.wire(output.linkId), frameText(output.frame));
          break;
        case 'closeLink':
          this.links.delete(output.linkId);
          this.run.upstream.close(this.wire(output.linkId));
          break;
        case 'journal': {
          this.sent.push({ id: { fence: this.fence, n: this.nextN }, entry: output.entry, coreN: output.n });
          this.nextN += 1;
          break;
        }
        default:
      }
    }
  }

  wire(linkId: number): number {
    return this.index * 1_000 + linkId;
  }

  /** The store carries out the oldest command. */
  execute(): void {
    const next = this.sent.shift();
    if (next === undefined) return;
    if (this.run.journal.append(next)) {
      this.answers.push(next);
      return;
    }
    // "Equal or smaller".
    this.look();
  }

  answer(): void {
    const next = this.answers.shift();
    if (next === undefined || !this.alive || this.lost) return;
    this.ackedN = next.id.n;
    this.feed({ kind: 'journaled', n: next.coreN });
  }

  /** An answer is missing: asks how far the journal reaches, and goes on from there. */
  look(): void {
    if (!this.alive || this.fenced) return;
    const { last } = this.run.journal;
    if (last !== undefined && last.fence > this.fence) return this.fence_();
    const doubtful = [...this.answers, ...this.sent];
    this.answers = [];
    this.sent = [];
    if (this.lost) return this.back(last);
    const whole = last !== undefined && last.fence === this.fence && last.n >= this.ackedN;
    if (!whole) {
      this.lose();
      return this.back(last);
    }
    this.sent = doubtful.filter(({ id }) => id.n > last.n);
    const written = doubtful.filter(({ id }) => id.n <= last.n).at(-1);
    if (written === undefined) return;
    this.ackedN = written.id.n;
    this.feed({ kind: 'journaled', n: written.coreN });
  }

  /** Too much waits, or what was acknowledged is gone. What is on its way may still arrive. */
  lose(): void {
    if (!this.alive || this.lost || this.fenced) return;
    this.lost = true;
    this.run.late.push(...this.sent);
    this.sent = [];
    this.answers = [];
    this.feed({ kind: 'journalLost' });
  }

  back(last: Id | undefined): void {
    if (!this.lost) return;
    this.lost = false;
    if (last?.fence === this.fence) this.nextN = Math.max(this.nextN, last.n + 1);
    this.ackedN = 0;
    this.feed({ kind: 'journalBack' });
  }

  fence_(): void {
    this.fenced = true;
    const wentBefore = this.session.closed;
    this.feed({ kind: 'fenced' });
    this.sent = [];
    this.answers = [];
    // One that went before says what it has to say to its own stream, which its client has left.
    if (!wentBefore) expect(this.session.pendingEvents).toBe(0);
  }

  kill(): void {
    this.alive = false;
    // What was written to the socket may be carried out all the same.
    this.run.late.push(...this.sent);
    this.sent = [];
    this.answers = [];
    for (const linkId of this.links) this.run.upstream.close(this.wire(linkId));
    this.links.clear();
  }
}

interface Asked {
  readonly id: string;
  readonly lane: string;
  readonly session: number;
  /** A turn whose response the client has heard the end of. */
  readonly parent: 'automatic' | 'new' | Asked;
  readonly input: readonly string[];
  readonly isFull: boolean;
  readonly what: 'answer' | 'compacting' | 'warmUp';
  /** What the model said, raw JSON of each item, as far as the client was told. */
  readonly said: string[];
  /** The last response that the client has heard of. */
  responseId: string | undefined;
  outcome: SessionEvent | undefined;
  heard: boolean;
}

const LANES = ['', 'a', 'b'];
/** As `#start` reads them: forks and histories over the lanes. */
const GOES_ON = [
  [0, 1],
  [1, 12],
  [2, 4],
  [4, 2],
  [5, 3],
] as const;
const FIELDS = {
  answer: {},
  compacting: { context_management: '[{"type":"compaction"}]' },
  warmUp: { generate: 'false' },
} as const;
const NO_LINK = new GatewayError('UPSTREAM_LINK_LOST', 'cut');

class Run {
  now = 1_000_000;
  journal = new ModelJournal();
  readonly upstream = new FakeUpstream();
  readonly owners: Owner[] = [];
  /** Commands of owners that are gone or have given them up. */
  late: Stored[] = [];
  /** The owner that the client's stream is with; undefined: it has none. */
  current: Owner | undefined;
  readonly turns: Asked[] = [];
  /** Turns about which the store has forgotten what it had acknowledged. */
  readonly forgotten = new Set<string>();
  /** Turns that ran for a client that was there, without an answer of the store. */
  readonly unwritten = new Set<string>();
  readonly writtenBy = new Map<string, Owner>();
  readonly steered = new Set<string>();
  sessions = 0;
  lastSeq = 0;
  lastCommit = 0;

  play(steps: readonly Step[]): void {
    this.#open();
    for (const step of steps) this.#step(step);
    this.#rest();
    // Another process goes on with all that was said: forks, whole histories, and what comes next.
    this.#killCurrent();
    this.#connect(0);
    for (const [a, b] of GOES_ON) this.#start(a, b);
    this.#rest();
    this.#check();
  }

  /** A create of this turn goes upstream. */
  wrote(owner: Owner, turnId: string): void {
    expect(owner.fenced).toBe(false);
    if (!owner.session.durable && owner.attached) this.unwritten.add(turnId);
    const before = this.writtenBy.get(turnId);
    if (before !== undefined && before !== owner && !this.mayRepeat(turnId))
      throw new Error(`${turnId} was written by owner ${before.index} and by ${owner.index}`);
    this.writtenBy.set(turnId, owner);
  }

  mayRepeat(turnId: string): boolean {
    return this.forgotten.has(turnId) || this.unwritten.has(turnId);
  }

  #step([kind, a, b]: Step): void {
    const living = this.owners.filter(({ alive }) => alive);
    const owner = living[b % Math.max(1, living.length)];
    if (kind < 12) this.#start(a, b);
    else if (kind < 13) this.#cancel(a);
    else if (kind < 14) this.#steer(a);
    else if (kind < 34) this.#deliver(owner, a);
    else if (kind < 48) for (let n = 0; n <= a % 3; n += 1) owner?.execute();
    else if (kind < 62) for (let n = 0; n <= a % 3; n += 1) owner?.answer();
    else if (kind < 70) this.#read(1 + (a % 8));
    else if (kind < 73) this.#advance(a % 400);
    else if (kind < 76) owner?.look();
    else if (kind < 78) owner?.lose();
    else if (kind < 80) this.#loseSuffix(1 + (a % 4));
    else if (kind < 81) this.#loseAll();
    else if (kind < 85) this.#killCurrent();
    else if (kind < 90) this.#leave(a % 2 === 0);
    else if (kind < 97) this.#connect(a);
    else if (kind < 98) this.#goAway(owner, a);
    else this.#late(a);
  }

  #open(): void {
    this.sessions += 1;
    this.journal = new ModelJournal();
    this.late = [];
    this.#fences = 1;
    this.journal.entries.push({ id: { fence: 1, n: 0 }, entry: { kind: 'take' } });
    for (const old of this.owners) old.alive = false;
    const owner = new Owner(this, this.owners.length, 1, (options) => new Session(options, this.now));
    this.owners.push(owner);
    this.current = owner;
    this.lastSeq = 0;
    this.lastCommit = 0;
    this.#undelivered = new Map();
  }

  #start(a: number, b: number): void {
    const lane = LANES[a % LANES.length] as string;
    const id = `t${this.turns.length + 1}`;
    const ended = this.#completed();
    const from = ended[a % Math.max(1, ended.length)];
    const parent = b % 10 === 0 ? 'new' : b % 10 < 3 && from !== undefined ? from : 'automatic';
    const history = b % 4 === 0 && parent !== 'new' ? this.#historyOf(parent, lane) : undefined;
    const turn: Asked = {
      id,
      lane,
      session: this.sessions,
      parent,
      input: [...(history ?? []), userItem(id)],
      isFull: history !== undefined,
      what: a % 13 === 12 ? 'warmUp' : a % 13 === 11 ? 'compacting' : 'answer',
      said: [],
      responseId: undefined,
      outcome: undefined,
      heard: false,
    };
    this.turns.push(turn);
    this.#send(turn);
  }

  /** Turns of this session that completed, as far as the client has heard. */
  #completed(): readonly Asked[] {
    return this.turns.filter(
      ({ session, outcome }) => session === this.sessions && outcome?.outcome === 'COMPLETED',
    );
  }

  /** The conversation as a client tells it that keeps all of it; undefined: it was not told all of it, or waits for more. */
  #historyOf(parent: Asked | 'automatic', lane: string): readonly string[] | undefined {
    if (this.#open_().some((turn) => turn.lane === lane)) return undefined;
    const path: Asked[] = [];
    let at = parent === 'automatic' ? this.#completed().findLast((turn) => turn.lane === lane) : parent;
    for (; at !== undefined; at = this.#parentOf(at)) path.push(at);
    if (path.some((turn) => !this.#heardAll(turn) || this.steered.has(turn.id))) return undefined;
    return path.toReversed().flatMap(({ input, said }) => [input.at(-1) as string, ...said]);
  }

  /** What was on its way when an owner was killed is not said again: the client has the turn's end, and not all items. */
  #heardAll(turn: Asked): boolean {
    const run = this.#runOf(turn);
    return turn.said.length === (run?.compacts ? 2 : 1) && run?.warmUp === false;
  }

  /** What the turn went on from; undefined: it began a conversation. */
  #parentOf({ id, lane, session, parent }: Asked): Asked | undefined {
    if (parent === 'new') return undefined;
    if (parent !== 'automatic') return parent;
    const at = this.turns.findIndex((turn) => turn.id === id);
    return this.turns
      .slice(0, at)
      .findLast(
        (turn) => turn.lane === lane && turn.session === session && turn.outcome?.outcome === 'COMPLETED',
      );
  }

  #cancel(a: number): void {
    const waiting = this.#open_();
    const turn = waiting[a % Math.max(1, waiting.length)];
    if (turn !== undefined) this.current?.feed({ kind: 'cancelTurn', laneId: turn.lane, turnId: turn.id });
  }

  /** Once for each turn: a client whose process goes cannot know whether it was heard. */
  #steer(a: number): void {
    const waiting = this.#open_().filter(({ id }) => !this.steered.has(id));
    const turn = waiting[a % Math.max(1, waiting.length)];
    if (turn === undefined || this.current === undefined) return;
    this.steered.add(turn.id);
    const input = [userItem(`steer of ${turn.id}`)];
    this.current.feed({ kind: 'steerTurn', laneId: turn.lane, turnId: turn.id, input });
  }

  #send({ id, lane, parent, input, isFull, what }: Asked): void {
    // Half of the turns are stored, by their number.
    const store = Number(id.slice(1)) % 2 === 0;
    const fields = { model: '"m"', store: String(store), ...FIELDS[what] };
    this.current?.feed({
      kind: 'startTurn',
      laneId: lane,
      turnId: id,
      create: {
        fields: new Map(Object.entries(fields)),
        input: [...input],
        previousResponseId: undefined,
        model: 'm',
        store,
        generate: what !== 'warmUp',
        usesConversation: false,
      },
      chain:
        parent === 'automatic'
          ? { kind: 'automatic' }
          : parent === 'new'
            ? { kind: 'newConversation' }
            : { kind: 'from', responseId: this.#runOf(parent)?.responseId ?? '' },
      inputMode: isFull ? 'fullHistory' : 'incremental',
      timeoutMs: undefined,
      waitOnRateLimit: false,
      traceContext: undefined,
    });
  }

  #deliver(owner: Owner | undefined, a: number): void {
    if (owner === undefined) return;
    const dial = owner.dials.shift();
    if (dial !== undefined) {
      owner.links.add(dial);
      this.upstream.open(owner.wire(dial), { ...OPENAI, name: 'main' });
      owner.feed({ kind: 'linkUp', linkId: dial, capabilities: OPENAI, route: ROUTE });
      return;
    }
    const links = [...owner.links];
    const link = links[a % Math.max(1, links.length)];
    if (link === undefined) return;
    if (a % 50 === 0) {
      owner.links.delete(link);
      this.upstream.close(owner.wire(link));
      owner.feed({
        kind: 'linkDown',
        linkId: link,
        down: { during: 'open', error: NO_LINK, permanent: false },
      });
      return;
    }
    for (let n = 0; n <= a % 5; n += 1) {
      const frame = this.upstream.deliver(owner.wire(link), a);
      if (frame !== undefined) owner.feed({ kind: 'frame', linkId: link, frame });
    }
    this.#tick(owner);
  }

  #tick(owner: Owner): void {
    if ((owner.session.nextDeadline() ?? this.now + 1) <= this.now) owner.feed({ kind: 'time' });
  }

  #advance(ms: number): void {
    this.now += ms;
    for (const owner of this.owners) if (owner.alive) this.#tick(owner);
  }

  #read(max: number): void {
    const owner = this.current;
    if (owner === undefined || !owner.alive) return;
    for (const event of owner.session.takeEvents(max, 1e9)) this.#hear(owner, event);
    owner.drain();
    // Its stream ends with the session, behind the last event.
    if (owner.session.closed && owner.session.pendingEvents === 0) this.current = undefined;
  }

  /** The client says what it has, or the process is told to go. */
  #goAway(owner: Owner | undefined, a: number): void {
    if (a % 2 === 0) this.current?.feed({ kind: 'ack', seq: this.lastSeq });
    else if (owner?.fenced === false) owner.feed({ kind: 'drain', deadlineMs: this.now + 300 });
  }

  #hear(owner: Owner, event: SessionEvent): void {
    expect(owner.fenced).toBe(false);
    if (event.seq !== this.lastSeq + 1) throw new Error(`seq ${event.seq} after ${this.lastSeq}`);
    this.lastSeq = event.seq;
    this.lastCommit = Math.max(this.lastCommit, event.commit ?? 0);
    const turn = this.turns.find(({ id, session }) => id === event.turnId && session === this.sessions);
    // A cancel that came too early says nothing of the turn.
    if (turn !== undefined && event.type !== 'gateway.request.rejected') {
      turn.heard = true;
      turn.responseId = responseOf(event)?.id ?? turn.responseId;
      if (event.type === 'response.output_item.done')
        turn.said.push(JSON.stringify(event.frame?.json()['item']));
    }
    const expected = this.#undelivered.get(event.seq);
    if (expected !== undefined && expected !== nameOf(event))
      throw new Error(`${nameOf(event)} where ${expected} was on its way`);
    if (event.outcome === undefined || turn === undefined) return;
    if (turn.outcome !== undefined) throw new Error(`${turn.id} has ended twice`);
    turn.outcome = event;
    // What was never taken needs no record.
    if (event.commit === undefined && event.turnFailed?.phase === 'NOT_SENT') return;
    // A session that is ended by force says what it has to say while its last entries are on their way.
    if (!this.journal.ended.has(turn.id) && owner.session.durable && !owner.session.closed)
      throw new Error(`${turn.id} was told before it was written`);
  }

  #loseSuffix(count: number): void {
    const kept = this.journal.entries.slice(0, Math.max(1, this.journal.entries.length - count));
    for (const { entry } of this.journal.entries.slice(kept.length)) this.#excuse(entry);
    this.journal.entries = kept;
  }

  #loseAll(): void {
    for (const { entry } of this.journal.entries) this.#excuse(entry);
    this.journal.entries = [];
  }

  #excuse(entry: Stored['entry']): void {
    if (entry.kind === 'begin') this.forgotten.add(entry.turnId);
    if (entry.kind === 'snap') for (const { turnId } of entry.state.running) this.forgotten.add(turnId);
    if (entry.kind === 'commit') this.forgotten.add(entry.outcome.turnId);
    // Whoever was told of a takeover has it no more: both may act until one of them looks.
    if (entry.kind === 'take') for (const { id } of this.turns) this.forgotten.add(id);
  }

  #killCurrent(): void {
    this.current?.kill();
    this.current = undefined;
  }

  /** The stream is lost. An owner that does not notice it is a zombie when another one takes over. */
  #leave(noticed: boolean): void {
    if (noticed) this.current?.feed({ kind: 'detach' });
    this.current = undefined;
  }

  /** The client asks for its session at some process: the owner's, or another one, which takes it over. */
  #connect(a: number): void {
    if (this.current?.alive === true && !this.current.fenced && !this.current.session.closed) return;
    // Its token is known to who issued it, and to whoever reads the journal.
    const issuer = this.owners.at(-1);
    if (issuer?.alive === true && !issuer.fenced && !issuer.session.closed && a % 3 !== 0)
      return this.#attach(issuer);
    this.#takeOver();
  }

  #attach(owner: Owner): void {
    this.current = owner;
    owner.feed({ kind: 'attach', lastSeq: this.lastSeq });
    this.#repeat();
  }

  /** What `Durability.recover` does, in one step. */
  #takeOver(): void {
    const before = this.journal.fold();
    const { last } = this.journal;
    if (last === undefined || before.damaged || before.fold.state().commit < this.lastCommit)
      return this.#open();
    // Greater than any other, and never given out again when the store forgets a takeover.
    this.#fences += 1;
    const fence = this.#fences;
    this.journal.append({ id: { fence, n: 0 }, entry: { kind: 'take' } });
    const state = before.fold.state();
    const heard = { lastSeq: this.lastSeq, lastCommit: this.lastCommit };
    this.#undelivered = new Map(
      state.outbox.some(({ seq }) => seq === this.lastSeq + 1)
        ? state.outbox.map((event) => [event.seq, nameOf(event)])
        : [],
    );
    const frameOf = (json: string) => toFrame(JSON.parse(json));
    const owner = new Owner(this, this.owners.length, fence, (options) =>
      Session.restore({ state, heard, fence, frameOf }, options, this.now),
    );
    this.owners.push(owner);
    this.#attach(owner);
    // A client that has heard of a turn does not ask for it again: it is told of its end, whatever happened to it.
    const known = new Set([
      ...state.running.map(({ turnId }) => turnId),
      ...state.ended.map(([turnId]) => turnId),
    ]);
    for (const turn of this.turns) {
      if (turn.session !== this.sessions || !turn.heard || turn.outcome !== undefined || known.has(turn.id))
        continue;
      throw new Error(`${turn.id} was heard of, and the record does not know it`);
    }
  }

  #fences = 1;
  /** What an owner that went has written down for the client, by seq. */
  #undelivered = new Map<number, string>();

  /** What a client library does after a resume: whatever it has no event of, it asks for again. */
  #repeat(): void {
    for (const turn of this.turns)
      if (turn.session === this.sessions && !turn.heard && turn.outcome === undefined) this.#send(turn);
  }

  #late(a: number): void {
    const [stored] = this.late.splice(a % Math.max(1, this.late.length), 1);
    if (stored !== undefined) this.journal.append(stored);
  }

  /** The store answers, the client stays, and everything comes to its end. */
  #rest(): void {
    for (let round = 0; round < 400; round += 1) {
      this.#connect(1);
      for (const owner of this.owners) {
        if (!owner.alive) continue;
        for (let n = 0; n < 20; n += 1) owner.execute();
        for (let n = 0; n < 20; n += 1) owner.answer();
        if (owner.lost) owner.look();
        for (let n = 0; n < 8; n += 1) this.#deliver(owner, 1 + n);
      }
      this.#read(1_000);
      this.#advance(round < 100 ? 1 : 5_000);
      if (this.#open_().length === 0) return;
    }
  }

  #open_(): readonly Asked[] {
    return this.turns.filter(({ session, outcome }) => session === this.sessions && outcome === undefined);
  }

  #check(): void {
    expect(this.upstream.violations).toEqual([]);
    expect(this.#open_().map(({ id }) => id)).toEqual([]);
    for (const { id } of this.turns) {
      const runs = this.upstream.executions.filter(({ input }) => input.at(-1) === id);
      if (runs.length > 1 && !this.mayRepeat(id)) throw new Error(`${id} ran ${runs.length} times`);
      this.#checkContext(id);
    }
  }

  /** Whatever completed before on the lane is what the model saw, and nothing else. */
  #checkContext(id: string): void {
    const turn = this.turns.find((one) => one.id === id) as Asked;
    if (turn.outcome?.outcome !== 'COMPLETED' || this.#mayKeepLess(turn)) return;
    const expected = this.#saidIn(turn).slice(0, -1).flat();
    for (let at = this.#parentOf(turn); at !== undefined; at = this.#parentOf(at))
      expected.unshift(...this.#saidIn(at).flat());
    expect(read(this.#runOf(turn)?.context ?? [])).toEqual(read(expected));
  }

  /** A turn before it lost its steer, and keeps the responses that had ended: which, only its owner knew. */
  #mayKeepLess({ id, session }: Asked): boolean {
    const before = this.turns.slice(
      0,
      this.turns.findIndex((turn) => turn.id === id),
    );
    return before.some((turn) => turn.session === session && turn.outcome?.outcome === 'INCOMPLETE');
  }

  /** What a turn adds to its conversation, in order: input and output of its response, and of the successors of that. */
  #saidIn(turn: Asked): readonly (readonly string[])[] {
    const said: (readonly string[])[] = [];
    for (let run = this.#runOf(turn); run !== undefined; run = this.#executionOf(run.successorOf)) {
      const output = [...(run.compacts ? [COMPACTION] : []), ...(run.warmUp ? [] : [run.output])];
      said.unshift(run.successorOf === undefined ? [turn.id] : run.input, output);
    }
    return said;
  }

  /** The last response of the turn. Its last event may be the answer to a steer, which names none. */
  #runOf({ id, outcome, responseId }: Asked): Execution | undefined {
    const response = outcome === undefined ? undefined : responseOf(outcome);
    if (response !== undefined) return this.#executionOf(response.id);
    const { executions } = this.upstream;
    let run = this.#executionOf(responseId) ?? executions.findLast(({ input }) => input.at(-1) === id);
    for (
      let next = run;
      next !== undefined;
      next = executions.find((one) => one.successorOf === next?.responseId)
    )
      run = next;
    return run;
  }

  #executionOf(id: string | undefined): Execution | undefined {
    return this.upstream.executions.find(({ responseId }) => responseId === id);
  }
}

/** What is left of a conversation for the model. */
function read(texts: readonly string[]): readonly string[] {
  return texts.slice(Math.max(0, texts.lastIndexOf(COMPACTION)));
}

function responseOf({ frame }: SessionEvent): { readonly id: string } | undefined {
  return frame?.json()['response'] as { readonly id: string } | undefined;
}

function nameOf({ type, turnId }: Pick<SessionEvent, 'type' | 'turnId'>): string {
  return `${type} of ${turnId}`;
}
