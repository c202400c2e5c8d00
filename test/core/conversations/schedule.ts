import { DEFAULT_SESSION_LIMITS } from '../../../src/core/limits.ts';
import { Session } from '../../../src/core/session.ts';
import type { Input, LinkCapabilities, SessionEvent } from '../../../src/core/types.ts';
import { frameText } from '../../../src/dialect/frames.ts';
import { toFrame } from '../fake-upstream.ts';
import { lost, OPENAI } from '../world.ts';
import { compacted, type Item, keyOf, outputItem, unpaired, userItem } from './items.ts';
import { Random } from './random.ts';
import { type Execution, type Fault, type Kind, Upstream } from './upstream.ts';

const SINGLE = { multiplexed: false, maxInFlight: 1, maxNamedLanes: 0 };
const OVER_HTTP: LinkCapabilities = {
  ...OPENAI,
  transport: 'sse',
  maxNamedLanes: Number.MAX_SAFE_INTEGER,
  keepsUnstored: false,
  steering: false,
  warmUp: false,
  maxAgeMs: Number.POSITIVE_INFINITY,
  rotateAfterMs: undefined,
};
const MAIN: Kind = { upstream: 'main', capabilities: OPENAI };
const KINDS: readonly Kind[] = [
  MAIN,
  { upstream: 'main', capabilities: { ...OPENAI, maxInFlight: 2, maxNamedLanes: 2 } },
  { upstream: 'main', capabilities: { ...OPENAI, lanesUnproven: true } },
  {
    upstream: 'relay',
    capabilities: { ...OPENAI, lanesUnproven: true, steering: false },
    answersUnnamed: true,
  },
  {
    upstream: 'relay',
    capabilities: { ...OPENAI, lanesUnproven: true, steering: false },
    answersByOwnNames: true,
  },
  { upstream: 'main', capabilities: { ...OPENAI, storesResponses: false } },
  { upstream: 'main', capabilities: OVER_HTTP },
  { upstream: 'spare', capabilities: { ...OPENAI, ...SINGLE, steering: false } },
  { upstream: 'spare', capabilities: { ...OPENAI, ...SINGLE } },
];
const LANES = ['', 'a', 'b', 'c', 'tools', 'more-tools'];
const FAULTS: readonly Fault[] = ['rate_limit', 'overloaded', 'bad_request', 'server_error', 'not_reached'];

interface Started {
  readonly id: string;
  readonly lane: string;
  readonly input: readonly Item[];
  readonly chain: 'automatic' | 'new' | { readonly from: string };
  readonly isFull: boolean;
}

/** One random schedule: a client and an upstream that both keep the conversation, and the session core between them. */
export class Schedule {
  readonly #random: Random;
  readonly #upstream: Upstream;
  readonly #kinds: readonly Kind[];
  readonly #session: Session;
  readonly #received: SessionEvent[] = [];
  readonly #started = new Map<string, Started>();
  readonly #steered = new Map<string, string>();
  readonly #dials: number[] = [];
  readonly #paused = new Set<number>();
  readonly #reasons: boolean;
  #now = 1_000_000;
  #attached = true;
  #ended = false;
  #count = 0;

  readonly #trace: ((line: string) => void) | undefined;

  /** `trace` hears what goes in and out, to see what a seed does. */
  constructor(seed: number, trace?: (line: string) => void) {
    this.#trace = trace;
    const random = new Random(seed);
    this.#random = random;
    const odd = () => random.chance(0.15);
    this.#upstream = new Upstream(random, {
      repeatsTerminals: odd(),
      tellsFailuresTwice: odd(),
      repeatsCreated: odd(),
      endsPrivately: odd(),
      livesTwice: odd(),
      renamesTerminals: odd(),
      renamesResponses: odd(),
      warns: odd(),
      saysLate: odd(),
      echoesParents: random.chance(0.6),
      refusesWithoutLane: odd(),
      compacts: random.chance(0.3),
      listsNoOutput: random.chance(0.3),
      endsByStatus: odd(),
      interrupts: odd(),
      announcesAgain: odd(),
      namesNoSteers: odd(),
    });
    const kinds = random.chance(0.4)
      ? [MAIN]
      : Array.from({ length: 1 + random.below(3) }, () => random.pick(KINDS));
    // A response that nobody asked for and the successor of a steered one look the same.
    const { livesTwice, interrupts, announcesAgain } = this.#upstream.oddities;
    this.#kinds = livesTwice || interrupts || announcesAgain ? kinds.map(withoutSteering) : kinds;
    this.#reasons = random.chance(0.4);
    this.#session = new Session(
      {
        random: () => random.next(),
        transcriptBudget: { tryTake: () => true, give: () => undefined },
        limits: {
          ...DEFAULT_SESSION_LIMITS,
          maxBufferedBytes: random.chance(0.3) ? 8_000 : 1_000_000,
          maxLinks: 1 + random.below(4),
          maxDialAttempts: 3,
        },
      },
      this.#now,
    );
    this.#drain();
  }

  /** Throws what was violated. */
  play(): void {
    const steps = 20 + this.#random.below(140);
    for (let n = 0; n < steps && !this.#session.closed; n += 1) this.#step();
    this.#rest();
    this.#check();
  }

  #step(): void {
    const random = this.#random;
    const links = this.#upstream.openLinks;
    const link = links.length === 0 ? undefined : random.pick(links);
    const dice = random.below(1_000);
    if (dice < 180) this.#start();
    else if (dice < 640) {
      for (let n = random.below(6); n >= 0 && link !== undefined; n -= 1) this.#deliver(link);
    } else if (dice < 720) this.#read(1 + random.below(20));
    else if (dice < 770) this.#answerDial();
    else if (dice < 785) this.#failDial();
    else if (dice < 800) {
      if (link !== undefined) this.#cut(link);
    } else if (dice < 835) this.#cancel();
    else if (dice < 870) this.#steer();
    else if (dice < 880) {
      if (link !== undefined) this.#upstream.forgetCaches(link);
    } else if (dice < 884) this.#upstream.forgetStored();
    else if (dice < 892) {
      if (link !== undefined) this.#burst(link, this.#upstream.announceLimit(link));
    } else if (dice < 910) this.#upstream.fault = random.pick(FAULTS);
    else if (dice < 925) this.#reconnect();
    else if (dice < 960) this.#advance(random.below(3_000));
    else if (dice < 968) this.#advance(random.below(4_000_000));
    else if (dice < 980) {
      if (link !== undefined)
        this.#feed({ kind: random.chance(0.5) ? 'linkBlocked' : 'linkWritable', linkId: link });
    } else {
      const last = this.#received.at(-1)?.seq;
      if (last !== undefined) this.#feed({ kind: 'ack', seq: last });
    }
    if (!this.#attached && random.chance(0.3)) this.#reconnect();
  }

  #start(): void {
    const random = this.#random;
    const lane = random.pick(LANES);
    const usesTools = lane.endsWith('tools');
    const open = this.#open(lane);
    // What a tool says can be sent only when the call is known.
    if (usesTools && open.length > 0) return;
    const head = this.#headOf(lane);
    const known = this.#finished();
    const chain: Started['chain'] = random.chance(0.08)
      ? 'new'
      : random.chance(0.12) && known.length > 0
        ? { from: random.pick(known).id }
        : 'automatic';
    const parent =
      chain === 'automatic' ? head : chain === 'new' ? undefined : this.#upstream.executions.get(chain.from);
    this.#count += 1;
    const id = `t${this.#count}`;
    const outputs =
      open.length > 0 && chain === 'automatic' ? [] : this.#outputsFor(lane, parent, chain === 'automatic');
    const input = [...outputs, userItem(`${id}${usesTools ? ' with tools' : ''}`)];
    const isFull = open.length === 0 && chain === 'automatic' && random.chance(0.2);
    this.#started.set(id, { id, lane, input, chain, isFull });
    if (this.#count === 1 && random.chance(0.3)) this.#feed({ kind: 'reroute' });
    const store = random.chance(0.25);
    const generate = !random.chance(0.05);
    const fields = new Map([
      ['model', '"m"'],
      ['store', String(store)],
      ...(this.#reasons ? [['reasoning', '{"effort":"low"}'] as const] : []),
      ...(generate ? [] : [['generate', 'false'] as const]),
    ]);
    const request: Input = {
      kind: 'startTurn',
      laneId: lane,
      turnId: id,
      create: {
        fields,
        input: [...(isFull ? this.#history(head) : []), ...input].map((item) => JSON.stringify(item)),
        previousResponseId: undefined,
        model: 'm',
        store,
        generate,
        usesConversation: false,
      },
      chain:
        chain === 'automatic'
          ? { kind: 'automatic' }
          : chain === 'new'
            ? { kind: 'newConversation' }
            : { kind: 'from', responseId: chain.from },
      inputMode: isFull ? 'fullHistory' : 'incremental',
      timeoutMs: random.chance(0.1) ? 1 + random.below(20_000) : undefined,
      waitOnRateLimit: random.chance(0.5),
      traceContext: undefined,
    };
    this.#feed(request);
    if (random.chance(0.05)) this.#feed(request);
  }

  /** The client sends what its tools said, unless a turn of it that was given up has brought it already. */
  #outputsFor(lane: string, parent: Execution | undefined, continues: boolean): readonly Item[] {
    if (parent === undefined) return [];
    const calls = parent.output
      .filter(({ type }) => type === 'function_call')
      .map(({ call_id }) => String(call_id));
    const brought = [...this.#started.values()].filter(({ id, lane: of }) => {
      const outcome = this.#outcomeOf(id)?.outcome;
      return of === lane && (outcome === 'CANCELLED' || outcome === 'DEADLINE_EXCEEDED');
    });
    const kept = new Set(brought.flatMap(({ input }) => input.map(keyOf)));
    // What the lane keeps goes with the next create; whoever forks once more brings it.
    if (!continues) return calls.map(outputItem);
    return calls.map(outputItem).filter((item) => !kept.has(keyOf(item)) || this.#random.chance(0.2));
  }

  #history(head: Execution | undefined): readonly Item[] {
    if (head === undefined) return [];
    return [...head.context, ...head.output.map(keyOf)].map(itemOf);
  }

  #steer(): void {
    const lane = this.#random.pick(LANES);
    const open = this.#open(lane);
    const turn = open.length === 0 ? undefined : this.#random.pick(open);
    this.#count += 1;
    const text = `steer${this.#count}`;
    if (turn !== undefined) this.#steered.set(text, turn);
    this.#feed({ kind: 'steerTurn', laneId: lane, turnId: turn, input: [JSON.stringify(userItem(text))] });
  }

  #cancel(): void {
    const all = [...this.#started.values()];
    if (all.length === 0) return;
    const turn = all[Math.max(0, all.length - 1 - this.#random.below(6))] as Started;
    this.#feed({ kind: 'cancelTurn', laneId: turn.lane, turnId: turn.id });
  }

  #reconnect(): void {
    this.#attached = !this.#attached;
    if (this.#attached) this.#feed({ kind: 'attach', lastSeq: this.#received.at(-1)?.seq ?? 0 });
    else this.#feed({ kind: 'detach' });
  }

  #answerDial(): void {
    const linkId = this.#takeDial();
    if (linkId === undefined) return;
    const kind = this.#random.pick(this.#kinds);
    this.#upstream.open(linkId, kind);
    this.#feed({
      kind: 'linkUp',
      linkId,
      capabilities: kind.capabilities,
      route: {
        upstream: kind.upstream,
        provider: 'openai',
        serverAddress: 'localhost',
        serverPort: 1,
        pooled: false,
      },
    });
  }

  #failDial(): void {
    const linkId = this.#takeDial();
    if (linkId !== undefined)
      this.#feed({
        kind: 'linkDown',
        linkId,
        down: lost('dial', 'UPSTREAM_UNAVAILABLE', this.#random.chance(0.05)),
      });
  }

  #takeDial(): number | undefined {
    return this.#dials.splice(this.#random.below(Math.max(1, this.#dials.length)), 1)[0];
  }

  #cut(linkId: number): void {
    this.#upstream.close(linkId);
    this.#paused.delete(linkId);
    this.#feed({ kind: 'linkDown', linkId, down: lost('open', 'UPSTREAM_LINK_LOST', false) });
  }

  #deliver(linkId: number): void {
    if (!this.#paused.has(linkId)) this.#burst(linkId, this.#upstream.deliver(linkId));
  }

  #burst(linkId: number, frames: readonly Readonly<Record<string, unknown>>[]): void {
    for (const frame of frames) this.#feed({ kind: 'frame', linkId, frame: toFrame(frame) });
    if ((this.#session.nextDeadline() ?? this.#now + 1) <= this.#now) this.#feed({ kind: 'time' });
  }

  #advance(ms: number): void {
    const until = this.#now + ms;
    for (
      let at = this.#session.nextDeadline();
      at !== undefined && at <= until;
      at = this.#session.nextDeadline()
    ) {
      this.#now = Math.max(this.#now, at);
      this.#feed({ kind: 'time' });
    }
    this.#now = until;
  }

  #read(maxEvents = 1_000): void {
    if (!this.#attached) return;
    this.#received.push(...this.#session.takeEvents(maxEvents, 1 << 30));
    this.#drain();
  }

  #feed(input: Input): void {
    this.#trace?.(
      `> ${JSON.stringify(input.kind === 'frame' ? { linkId: input.linkId, ...input.frame.json() } : input)}`,
    );
    this.#session.handle(input, this.#now);
    this.#drain();
  }

  #drain(): void {
    for (const output of this.#session.takeOutputs()) {
      this.#trace?.(`< ${JSON.stringify(output)}`);
      switch (output.kind) {
        case 'dial':
          this.#dials.push(output.linkId);
          break;
        case 'send':
          this.#upstream.receive(output.linkId, frameText(output.frame));
          break;
        case 'closeLink': {
          const at = this.#dials.indexOf(output.linkId);
          if (at >= 0) this.#dials.splice(at, 1);
          this.#upstream.close(output.linkId);
          break;
        }
        case 'abort':
          this.#upstream.abort(output.linkId, output.streamId);
          break;
        case 'pauseLink':
          this.#paused.add(output.linkId);
          break;
        case 'resumeLink':
          this.#paused.delete(output.linkId);
          break;
        case 'endStream':
          if (output.resumable && this.#attached) this.#reconnect();
          else this.#ended = true;
          break;
        default:
      }
    }
  }

  /** Both sides are well again: whatever was accepted has to end. */
  #rest(): void {
    this.#upstream.healthy = true;
    this.#upstream.fault = undefined;
    for (const linkId of this.#upstream.openLinks) this.#feed({ kind: 'linkWritable', linkId });
    for (let round = 0; round < 1_200 && !this.#session.closed; round += 1) {
      if (!this.#attached) this.#reconnect();
      this.#settle();
      if ([...this.#started.keys()].every((id) => this.#outcomeOf(id) !== undefined)) return;
      this.#advance(2_000);
    }
    this.#received.push(...this.#session.takeEvents(1_000_000, 1 << 30));
  }

  #settle(): void {
    for (let n = 0; n < 100_000; n += 1) {
      this.#read();
      const busy = this.#upstream.openLinks.find((id) => this.#upstream.pending(id) && !this.#paused.has(id));
      const limited = this.#upstream.openLinks.find((id) => this.#upstream.isLimited(id));
      if (this.#dials.length > 0) this.#answerDial();
      else if (busy !== undefined) this.#deliver(busy);
      else if (limited !== undefined) this.#cut(limited);
      else if (this.#session.pendingEvents === 0 || !this.#attached) return;
    }
    throw new Error('does not come to rest');
  }

  #check(): void {
    const { violations, executions } = this.#upstream;
    if (violations.length > 0) throw new Error(`the upstream was told what it may not: ${violations[0]}`);
    this.#received.forEach((event, index) => {
      if (event.seq !== index + 1) throw new Error(`seq ${event.seq} is event ${index + 1}`);
      if (event.turnFailed?.error.reason === 'INTERNAL') throw event.turnFailed.error.cause;
    });
    for (const id of this.#started.keys()) {
      const ends = this.#received.filter(({ turnId, outcome }) => turnId === id && outcome !== undefined);
      if (ends.length !== 1)
        throw new Error(`turn ${id} has ${ends.length} outcomes${this.#ended ? ', session ended' : ''}`);
    }
    this.#checkRunsOnce([...executions.values()]);
    this.#checkAnswers();
    this.#checkSteers();
  }

  #checkRunsOnce(executions: readonly Execution[]): void {
    const runs = new Map<string, number>();
    for (const { input, warmUp } of executions) {
      const said = input.at(-1) ?? '';
      if (!warmUp && /^user:t\d+/.test(said)) runs.set(said, (runs.get(said) ?? 0) + 1);
    }
    for (const [said, count] of runs) if (count > 1) throw new Error(`${said} ran ${count} times`);
  }

  /** Each turn got its own answer, and the model had read just the conversation before it. */
  #checkAnswers(): void {
    const whole = new Map<string | undefined, readonly string[]>();
    for (const { turn, last, runs } of this.#conversation()) {
      const said = this.#received
        .filter(({ turnId, type }) => turnId === turn.id && type === 'response.output_item.done')
        .map((event) => keyOf(event.frame?.json()['item'] as Item));
      const own = runs.flatMap(({ output }) => output.map(keyOf));
      if (said.join() !== own.join())
        throw new Error(`${turn.id} was answered ${said.join()} instead of ${own.join()}`);
      const parentId =
        turn.chain === 'automatic' ? last?.id : turn.chain === 'new' ? undefined : turn.chain.from;
      let before = whole.get(parentId) ?? [];
      for (const [index, run] of runs.entries()) {
        const asked = index === 0 ? turn.input.map(keyOf) : run.input;
        before = this.#checkRead(turn.id, run, before, asked);
        before = [...before, ...run.output.map(keyOf)];
        whole.set(run.id, before);
      }
    }
  }

  /** What the model should have read, which is what it did read but for what is left out on purpose. */
  #checkRead(
    turnId: string,
    { context }: Execution,
    before: readonly string[],
    asked: readonly string[],
  ): readonly string[] {
    const read = plain(context);
    const tail = context.slice(Math.max(0, context.length - asked.length - MAX_CARRIED));
    // Steers that waited and outputs of turns that were given up come along.
    const carried = tail.filter(
      (key) =>
        (key.startsWith('user:steer') || key.startsWith('out:')) &&
        !asked.includes(key) &&
        !before.includes(key),
    );
    const steers = carried.filter((key) => key.startsWith('user:steer'));
    const outputs = carried.filter((key) => key.startsWith('out:'));
    const expected = [...before, ...steers, ...outputs, ...asked];
    const compaction = context.findLast((key) => key.startsWith('compact:'));
    const from = compaction === undefined ? 0 : expected.lastIndexOf(compaction);
    // What stands before a compaction is not read: whether a client tells it as well is all the same.
    const isRead = [plain(expected.slice(from)).join(), plain(expected).join()].includes(read.join());
    if (from < 0 || !isRead)
      throw new Error(`${turnId} read ${read.join()} instead of ${plain(expected).join()}`);
    const broken = unpaired(compacted(context));
    if (broken.length > 0) throw new Error(`${turnId}: ${broken[0]}`);
    return expected;
  }

  /** The turns that ended well, in the order in which their ends were heard, with the head of their lane before them. */
  *#conversation(): Iterable<{ turn: Started; last: Execution | undefined; runs: readonly Execution[] }> {
    const heads = new Map<string, Execution>();
    for (const { turnId, outcome } of this.#received) {
      const turn = this.#started.get(turnId);
      if (turn === undefined || (outcome !== 'COMPLETED' && outcome !== 'INCOMPLETE')) continue;
      const runs = this.#responsesOf(turnId).flatMap((id) => this.#upstream.executions.get(id) ?? []);
      const [first] = runs;
      if (first === undefined)
        throw new Error(`${turnId} ended ${outcome} without a response of the upstream`);
      if (!first.input.includes(keyOf(turn.input.at(-1) as Item)))
        throw new Error(`${turnId} got the answer to ${first.input.join()}`);
      yield { turn, last: heads.get(turn.lane), runs };
      heads.set(turn.lane, runs.at(-1) as Execution);
    }
  }

  /** A steer is read once, or the client hears that it was not. */
  #checkSteers(): void {
    for (const [text, turnId] of this.#steered) {
      const key = `user:${text}`;
      for (const { context } of this.#upstream.executions.values())
        if (context.filter((each) => each === key).length > 1) throw new Error(`${text} was read twice`);
      const outcome = this.#outcomeOf(turnId)?.outcome;
      if (outcome !== 'COMPLETED' && outcome !== 'INCOMPLETE') continue;
      const steers = [...this.#steered.values()].filter((of) => of === turnId).length;
      const read = [...this.#steered].filter(
        ([other, of]) => of === turnId && this.#wasRead(`user:${other}`),
      ).length;
      const told = this.#received.filter(
        (event) =>
          event.turnId === turnId &&
          (event.type === 'gateway.request.rejected' ||
            event.type === 'response.steer.failed' ||
            event.type === 'response.steer.pending'),
      ).length;
      const isLost = this.#received.some(
        ({ turnId: of, notice }) => of === turnId && notice?.kind === 'steer_lost',
      );
      if (!isLost && read + told < steers) throw new Error(`a steer of ${turnId} was lost in silence`);
    }
  }

  #wasRead(key: string): boolean {
    return [...this.#upstream.executions.values()].some(({ context }) => context.includes(key));
  }

  #open(lane: string): readonly string[] {
    return [...this.#started.values()]
      .filter((turn) => turn.lane === lane && this.#outcomeOf(turn.id) === undefined)
      .map(({ id }) => id);
  }

  #headOf(lane: string): Execution | undefined {
    let head: Execution | undefined;
    for (const { turn, runs } of this.#conversation()) if (turn.lane === lane) head = runs.at(-1);
    return head;
  }

  #finished(): readonly Execution[] {
    return [...this.#conversation()].flatMap(({ runs }) => runs.at(-1) ?? []);
  }

  #outcomeOf(turnId: string): SessionEvent | undefined {
    return this.#received.find((event) => event.turnId === turnId && event.outcome !== undefined);
  }

  #responsesOf(turnId: string): readonly string[] {
    const ids = this.#received
      .filter((event) => event.turnId === turnId && event.type.startsWith('response.'))
      .flatMap((event) => (event.frame?.json()['response'] as { id?: string } | undefined)?.id ?? []);
    return [...new Set(ids)];
  }
}

/** Reasoning and compaction of another upstream or account mean nothing here and stay away. */
function plain(keys: readonly string[]): readonly string[] {
  return keys.filter((key) => !key.startsWith('think:') && !key.startsWith('compact:'));
}

/** More than a turn of these schedules can bring along. */
const MAX_CARRIED = 12;

function withoutSteering(kind: Kind): Kind {
  return { ...kind, capabilities: { ...kind.capabilities, steering: false } };
}

/** An item as a client keeps it: without ids. */
function itemOf(key: string): Item {
  const [kind = '', ...rest] = key.split(':');
  const text = rest.join(':');
  switch (kind) {
    case 'call':
      return { type: 'function_call', call_id: text, name: 'f', arguments: '{}' };
    case 'out':
      return outputItem(text);
    case 'think':
      return { type: 'reasoning', summary: [], encrypted_content: text };
    case 'compact':
      return { type: 'compaction', encrypted_content: text };
    case 'assistant':
      return { type: 'message', role: 'assistant', content: [{ type: 'output_text', text }] };
    default:
      return userItem(text);
  }
}
