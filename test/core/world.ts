import { type JournalEntry, JournalFold } from '../../src/core/journal.ts';
import { DEFAULT_SESSION_LIMITS } from '../../src/core/limits.ts';
import { type Restored, Session } from '../../src/core/session.ts';
import type {
  Chain,
  Input,
  JournalOptions,
  LinkCapabilities,
  LinkDown,
  LinkRoute,
  Output,
  SessionEvent,
  SessionLimits,
} from '../../src/core/types.ts';
import { frameText } from '../../src/dialect/frames.ts';
import { GatewayError } from '../../src/errors.ts';
import { FakeUpstream, type Fault, toFrame, userItem } from './fake-upstream.ts';

export const OPENAI: LinkCapabilities = {
  transport: 'websocket',
  multiplexed: true,
  maxInFlight: 16,
  maxNamedLanes: 32,
  keepsUnstored: true,
  storesResponses: true,
  steering: true,
  warmUp: true,
  maxAgeMs: 3_600_000,
  rotateAfterMs: 3_000_000,
  maxFrameBytes: 16 * 1024 * 1024,
};

export const ROUTE = {
  upstream: 'main',
  provider: 'openai',
  serverAddress: 'localhost',
  serverPort: 1,
  pooled: false,
};

/** Another upstream that serves one lane a link, as Azure's does. */
export const SPARE: Destination = {
  capabilities: { ...OPENAI, multiplexed: false, maxInFlight: 1, maxNamedLanes: 0, steering: false },
  route: { ...ROUTE, upstream: 'spare', provider: 'azure' },
};

/** The one upstream over HTTP: nothing is remembered that was not stored. */
export const OVER_HTTP: Destination = {
  capabilities: {
    ...OPENAI,
    transport: 'sse',
    maxNamedLanes: Number.MAX_SAFE_INTEGER,
    keepsUnstored: false,
    steering: false,
    warmUp: false,
    maxAgeMs: Number.POSITIVE_INFINITY,
    rotateAfterMs: undefined,
  },
  route: ROUTE,
};

/** Who answers a dial. */
export interface Destination {
  readonly capabilities: LinkCapabilities;
  readonly route: LinkRoute;
}

export interface StartOptions {
  readonly lane?: string;
  readonly turn?: string;
  readonly text?: string;
  readonly input?: readonly string[];
  readonly chain?: Chain;
  readonly store?: boolean;
  readonly generate?: boolean;
  readonly timeoutMs?: number;
  readonly wait?: boolean;
  readonly mode?: 'incremental' | 'fullHistory';
  readonly fields?: Readonly<Record<string, string>>;
}

/** A session between a scripted client and a fake upstream, on a clock that only moves when told. */
export class World {
  readonly upstream = new FakeUpstream();
  readonly session: Session;
  readonly outputs: Output[] = [];
  /** The session's record, with that of the processes before. */
  readonly entries: JournalEntry[] = [];
  /** What the client has received, in order of arrival; over reconnects too. */
  readonly received: SessionEvent[] = [];
  /** Links that were asked for and not answered. */
  readonly dials: number[] = [];
  readonly paused = new Set<number>();
  now = 1_000_000;
  attached = true;
  ended = false;
  nextFault: Fault | undefined;
  capabilities: LinkCapabilities = OPENAI;
  #turns = 0;
  #fence = 1;

  constructor(
    limits: Partial<SessionLimits> = {},
    random: () => number = () => 0.5,
    journal: JournalOptions | undefined = undefined,
    restored: Restored | undefined = undefined,
  ) {
    this.session = new Session(
      {
        random,
        transcriptBudget: { tryTake: () => true, give: () => undefined },
        limits: { ...DEFAULT_SESSION_LIMITS, ...limits },
        journal,
      },
      this.now,
      restored,
    );
    this.#drain();
  }

  feed(input: Input): void {
    this.session.handle(input, this.now);
    this.#drain();
  }

  start(options: StartOptions = {}): string {
    this.#turns += 1;
    const turnId = options.turn ?? `t${this.#turns}`;
    const store = options.store ?? false;
    const fields = { model: '"m"', store: String(store), ...options.fields };
    if (options.generate === false) Object.assign(fields, { generate: 'false' });
    this.feed({
      kind: 'startTurn',
      laneId: options.lane ?? '',
      turnId,
      create: {
        fields: new Map(Object.entries(fields)),
        input: options.input ?? [userItem(options.text ?? turnId)],
        previousResponseId: undefined,
        model: 'm',
        store,
        generate: options.generate ?? true,
        usesConversation: false,
      },
      chain: options.chain ?? { kind: 'automatic' },
      inputMode: options.mode ?? 'incremental',
      timeoutMs: options.timeoutMs,
      waitOnRateLimit: options.wait ?? false,
      traceContext: undefined,
    });
    return turnId;
  }

  steer(lane: string, text: string): void {
    this.feed({ kind: 'steerTurn', laneId: lane, turnId: undefined, input: [userItem(text)] });
  }

  inject(lane: string, ...input: readonly string[]): void {
    this.feed({ kind: 'injectTurn', laneId: lane, turnId: undefined, input });
  }

  cancel(lane: string, turnId: string): void {
    this.feed({ kind: 'cancelTurn', laneId: lane, turnId });
  }

  answerDial(
    linkId: number | undefined = this.dials[0],
    { capabilities, route }: Destination = { capabilities: this.capabilities, route: ROUTE },
  ): void {
    if (linkId === undefined) return;
    this.dials.splice(this.dials.indexOf(linkId), 1);
    this.upstream.open(linkId, { ...capabilities, name: route.upstream });
    this.feed({ kind: 'linkUp', linkId, capabilities, route });
  }

  failDial(linkId: number | undefined = this.dials[0], permanent = false): void {
    if (linkId === undefined) return;
    this.dials.splice(this.dials.indexOf(linkId), 1);
    this.feed({ kind: 'linkDown', linkId, down: lost('dial', 'UPSTREAM_UNAVAILABLE', permanent) });
  }

  /** A frame that the test writes itself, alone. */
  say(json: Readonly<Record<string, unknown>>, linkId = 1): void {
    this.burst([json], linkId);
  }

  /** Frames that are read from the socket in one piece. */
  burst(frames: readonly Readonly<Record<string, unknown>>[], linkId = 1): void {
    for (const json of frames) this.feed({ kind: 'frame', linkId, frame: toFrame(json) });
    this.#endOfTick();
  }

  cut(linkId: number): void {
    this.upstream.close(linkId);
    this.feed({ kind: 'linkDown', linkId, down: lost('open', 'UPSTREAM_LINK_LOST', false) });
  }

  /** One frame of one lane of the link. */
  deliver(linkId: number, pick = 0): void {
    if (this.paused.has(linkId)) return;
    const frame = this.upstream.deliver(linkId, pick);
    if (frame === undefined) return;
    this.feed({ kind: 'frame', linkId, frame });
    this.#endOfTick();
  }

  #endOfTick(): void {
    if ((this.session.nextDeadline() ?? this.now + 1) <= this.now) this.feed({ kind: 'time' });
  }

  /** Answers dials, delivers frames and lets the client read until nothing moves. */
  settle(): void {
    for (let round = 0; round < 100_000; round += 1) {
      this.read();
      const busy = this.upstream.openLinks.find((id) => this.upstream.pending(id) && !this.paused.has(id));
      if (this.dials.length > 0) this.answerDial();
      else if (busy !== undefined) this.deliver(busy, round);
      else if (this.upstream.limited.size > 0) for (const id of [...this.upstream.limited]) this.cut(id);
      else if (this.session.pendingEvents === 0 || !this.attached) return;
    }
    throw new Error('the world does not settle');
  }

  read(maxEvents = 1_000): void {
    if (!this.attached) return;
    this.received.push(...this.session.takeEvents(maxEvents, 1 << 30));
    this.#drain();
  }

  detach(): void {
    this.attached = false;
    this.feed({ kind: 'detach' });
  }

  attach(lastSeq = this.received.at(-1)?.seq ?? 0): void {
    this.attached = true;
    this.feed({ kind: 'attach', lastSeq });
  }

  advance(ms: number): void {
    const until = this.now + ms;
    for (
      let next = this.session.nextDeadline();
      next !== undefined && next <= until;
      next = this.session.nextDeadline()
    ) {
      this.now = Math.max(this.now, next);
      this.feed({ kind: 'time' });
    }
    this.now = until;
  }

  /** The session at another process, from what it has written down; its client has heard everything. */
  takenOver(): World {
    const fold = new JournalFold();
    for (const entry of this.entries) fold.apply(entry);
    this.read();
    const lastSeq = this.received.at(-1)?.seq ?? 0;
    const lastCommit = Math.max(0, ...this.received.map(({ commit = 0 }) => commit));
    const frameOf = (json: string) => toFrame(JSON.parse(json));
    const fence = this.#fence + 1;
    const restored = { state: fold.state(), heard: { lastSeq, lastCommit }, fence, frameOf };
    const next = new World({}, undefined, { keepsContent: true, open: true }, restored);
    next.#fence = fence;
    next.#turns = this.#turns;
    next.entries.unshift(...this.entries);
    next.received.push(...this.received);
    next.feed({ kind: 'attach', lastSeq });
    return next;
  }

  outcomes(turnId: string): readonly SessionEvent[] {
    return this.received.filter((event) => event.turnId === turnId && event.outcome !== undefined);
  }

  notices(): readonly string[] {
    return this.received.flatMap(({ notice }) =>
      notice === undefined ? [] : [`${notice.kind}:${notice.reason}`],
    );
  }

  #drain(): void {
    const outputs = this.session.takeOutputs();
    this.outputs.push(...outputs);
    for (const output of outputs) {
      switch (output.kind) {
        case 'journal':
          this.entries.push(output.entry);
          this.feed({ kind: 'journaled', n: output.n });
          break;
        case 'dial':
          this.dials.push(output.linkId);
          break;
        case 'send': {
          const fault = this.nextFault;
          this.nextFault = undefined;
          this.upstream.receive(output.linkId, frameText(output.frame), fault);
          break;
        }
        case 'closeLink':
          if (this.dials.includes(output.linkId)) this.dials.splice(this.dials.indexOf(output.linkId), 1);
          this.upstream.close(output.linkId);
          break;
        case 'abort':
          this.upstream.abort(output.linkId, output.streamId);
          break;
        case 'pauseLink':
          this.paused.add(output.linkId);
          break;
        case 'resumeLink':
          this.paused.delete(output.linkId);
          break;
        case 'endStream':
          if (output.resumable) this.detach();
          else this.ended = true;
          break;
        default:
          break;
      }
    }
  }
}

/** With its first link up. With `journal` every entry is written at once. */
export function ready(limits: Partial<SessionLimits> = {}, journal?: JournalOptions): World {
  const world = new World(limits, undefined, journal);
  world.answerDial();
  return world;
}

/** The frames that the gateway wrote, parsed. */
export function sent(world: World): Record<string, unknown>[] {
  return world.outputs.flatMap((output) =>
    output.kind === 'send' ? [JSON.parse(frameText(output.frame)) as Record<string, unknown>] : [],
  );
}

/** What the frame brings as input: texts, and types of what is no text. */
export function inputOf(frame: Record<string, unknown> | undefined): readonly string[] {
  return ((frame?.['input'] ?? []) as Record<string, string>[]).map(
    ({ content, call_id, output, type }) => content ?? output ?? call_id ?? type ?? '',
  );
}

export function lost(
  during: 'dial' | 'open',
  reason: 'UPSTREAM_UNAVAILABLE' | 'UPSTREAM_LINK_LOST' | 'UPSTREAM_PROTOCOL',
  permanent: boolean,
): LinkDown {
  return { during, error: new GatewayError(reason, 'lost'), permanent };
}
