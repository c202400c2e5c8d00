import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import type { SessionEvent } from '../../src/core/types.ts';
import { GatewayError } from '../../src/errors.ts';
import type { Fault } from './fake-upstream.ts';
import { OVER_HTTP, SPARE, World } from './world.ts';

/** 2,000 in the normal run; `CORE_SCHEDULES=100000` for a night. */
const SCHEDULES = Number(process.env['CORE_SCHEDULES'] ?? 2_000);
/** Replays one shrunk failure, with the seed that was printed beside it. */
const PATH = process.env.CORE_PATH;
/** Random unless given; in CI the same schedules judge every change. A failure prints its seed. */
const SEED = process.env.CORE_SEED ?? (process.env.CI === undefined ? undefined : '1');

type Step = readonly [kind: number, a: number, b: number];

const MAX_LINKS = 3;
const LANES = ['', 'a', 'b', 'c', 'd'];
const FAULTS: readonly Fault[] = ['rate_limit', 'server_error', 'not_reached'];
const NOT_ALLOWED = new GatewayError('MODEL_NOT_ALLOWED', 'not for this tenant');

describe('random schedules', () => {
  it(`keep every invariant with both sides failing at any point (${SCHEDULES} schedules)`, {
    timeout: 3_600_000,
  }, () => {
    const step = fc.tuple(fc.nat(99), fc.nat(1_000), fc.nat(1_000));
    fc.assert(
      fc.property(
        fc.array(step, { maxLength: 160, size: 'max' }),
        fc.infiniteStream(fc.double({ min: 0, max: 1, maxExcluded: true, noNaN: true })),
        (steps, chance) => {
          new Run(() => chance.next().value as number).play(steps);
        },
      ),
      {
        numRuns: SCHEDULES,
        interruptAfterTimeLimit: 3_000_000,
        markInterruptAsFailure: true,
        ...(SEED === undefined ? {} : { seed: Number(SEED) }),
        ...(PATH === undefined ? {} : { path: PATH }),
      },
    );
  });
});

/** One schedule: plays it, lets everything come to rest, and checks what client and upstream saw. */
class Run {
  readonly #world: World;
  readonly #started: {
    readonly id: string;
    readonly lane: string;
    readonly parent: 'automatic' | 'new' | { readonly from: string };
  }[] = [];
  readonly #refused = new Set<string>();
  readonly #buffer: number;
  #steers = 0;

  constructor(random: () => number) {
    this.#buffer = random() < 0.5 ? 4_000 : 4_000_000;
    this.#world = new World(
      { maxBufferedBytes: this.#buffer, maxLinks: MAX_LINKS, maxDialAttempts: 3 },
      random,
    );
  }

  play(steps: readonly Step[]): void {
    for (const step of steps) {
      this.#step(step);
      this.#checkBounds();
      if (this.#world.session.closed) break;
    }
    this.#rest();
    this.#check();
  }

  #step([kind, a, b]: Step): void {
    const world = this.#world;
    const links = world.upstream.openLinks;
    const link = links[b % Math.max(1, links.length)];
    if (kind < 22) this.#start(a, b);
    else if (kind < 60) {
      if (link !== undefined) for (let n = 0; n <= a % 6; n += 1) world.deliver(link, a);
    } else if (kind < 68) world.read(1 + (a % 20));
    else if (kind < 74) this.#answerDial(a, b);
    else if (kind < 76) world.failDial(world.dials[a % Math.max(1, world.dials.length)]);
    else if (kind < 79) {
      if (link !== undefined) world.cut(link);
    } else if (kind < 82) this.#cancel(a, b);
    else if (kind < 85) {
      this.#steers += 1;
      world.steer(LANES[a % LANES.length] as string, `steer${this.#steers}`);
    } else if (kind < 87) {
      if (link !== undefined) world.upstream.evictAll(link);
    } else if (kind < 89) {
      const frame = link === undefined ? undefined : world.upstream.announceLimit(link);
      if (frame !== undefined && link !== undefined) world.feed({ kind: 'frame', linkId: link, frame });
    } else if (kind < 91) world.nextFault = FAULTS[a % FAULTS.length];
    else if (kind < 93) {
      if (world.attached) world.detach();
      else world.attach();
    } else if (kind < 96) world.advance(a * 3);
    else if (kind < 98) world.advance(a * 4_000);
    else if (world.received.length > 0)
      world.feed({ kind: 'ack', seq: (world.received.at(-1) as SessionEvent).seq });
    if (!world.attached && world.now > 0 && kind < 96 && kind >= 93) world.attach();
  }

  /** Whoever is configured to stand in may answer; most dials reach the upstream they were meant for. */
  #answerDial(a: number, b: number): void {
    const { dials } = this.#world;
    const destination = b % 8 === 0 ? SPARE : b % 8 === 1 ? OVER_HTTP : undefined;
    this.#world.answerDial(dials[a % Math.max(1, dials.length)], destination);
  }

  #start(a: number, b: number): void {
    const world = this.#world;
    const lane = LANES[a % LANES.length] as string;
    // The first turn tells the model, which may be another upstream's than the one that was dialled.
    if (this.#started.length === 0 && b % 3 === 0) world.feed({ kind: 'reroute' });
    if (a % 23 === 0) return this.#refuse(lane);
    const known = [...new Set(world.received.flatMap((event) => responseIdOf(event) ?? []))];
    const from = known[b % Math.max(1, known.length)];
    const mode = b % 10;
    const chain =
      mode === 0
        ? ({ kind: 'newConversation' } as const)
        : mode < 3 && from !== undefined
          ? ({ kind: 'from', responseId: from } as const)
          : ({ kind: 'automatic' } as const);
    const id = `t${this.#started.length + 1}`;
    this.#started.push({
      id,
      lane,
      parent:
        chain.kind === 'from'
          ? { from: chain.responseId }
          : chain.kind === 'newConversation'
            ? 'new'
            : 'automatic',
    });
    world.start({
      turn: id,
      lane,
      chain,
      store: a % 4 === 0,
      wait: b % 2 === 0,
      generate: b % 17 !== 0,
      ...(b % 7 === 0 ? { timeoutMs: 1 + a * 10 } : {}),
    });
  }

  #cancel(a: number, b: number): void {
    const turn = this.#started[a % Math.max(1, this.#started.length)];
    if (turn === undefined) return;
    if (b % 5 > 0) return this.#world.cancel(turn.lane, turn.id);
    this.#world.feed({ kind: 'reject', laneId: turn.lane, turnId: turn.id, error: NOT_ALLOWED });
  }

  /** A turn that its tenant may not run. */
  #refuse(laneId: string): void {
    const turnId = `t${this.#started.length + 1}`;
    this.#refused.add(turnId);
    this.#started.push({ id: turnId, lane: laneId, parent: 'automatic' });
    this.#world.feed({ kind: 'refuse', laneId, turnId, error: NOT_ALLOWED });
  }

  /** Both sides come back and nothing fails any more. */
  #rest(): void {
    const world = this.#world;
    for (let round = 0; round < 400 && !world.session.closed; round += 1) {
      if (!world.attached) world.attach();
      world.settle();
      if (this.#started.every(({ id }) => world.outcomes(id).length > 0)) return;
      world.advance(2_000);
    }
    while (world.session.pendingEvents > 0) world.received.push(...world.session.takeEvents(1_000, 1 << 30));
  }

  #checkBounds(): void {
    const { bufferedBytes, links } = this.#world.session.inspect();
    // Above the mark the links are paused; what the fake upstream still had in hand is at most a frame each. Events of
    // our own count a kilobyte, and every turn that ends while nobody listens is one.
    expect(bufferedBytes).toBeLessThan(this.#buffer + 50_000 + 1_024 * this.#started.length);
    for (const { inFlight } of links) expect(inFlight).toBeLessThanOrEqual(16);
    // Each may have a successor on its way.
    expect(links.filter(({ state }) => state !== 'retiring').length).toBeLessThanOrEqual(2 * MAX_LINKS);
  }

  #check(): void {
    const { received, upstream } = this.#world;
    expect(upstream.violations).toEqual([]);
    received.forEach((event, index) => {
      expect(event.seq).toBe(index + 1);
    });
    expect(
      received
        .filter(({ turnFailed }) => turnFailed?.error.reason === 'INTERNAL')
        .map(({ turnFailed }) => turnFailed?.error.cause),
    ).toEqual([]);
    for (const { id } of this.#started) {
      const outcomes = this.#world.outcomes(id);
      expect([id, outcomes.length]).toEqual([id, 1]);
      const last = received.findLast(
        ({ turnId, type }) => turnId === id && type !== 'gateway.request.rejected',
      );
      expect(last).toBe(outcomes[0]);
    }
    this.#checkExecutions();
    this.#checkContexts();
  }

  /** Nothing runs twice: what a turn newly says appears as new input of one execution at most. */
  #checkExecutions(): void {
    const runs = new Map<string, number>();
    for (const { input, warmUp } of this.#world.upstream.executions) {
      const said = input.at(-1) ?? '';
      // Warm-ups generate nothing, and the gateway's own carry old input as their last item.
      if (/^t\d+$/.test(said) && !warmUp) runs.set(said, (runs.get(said) ?? 0) + 1);
    }
    for (const [id, count] of runs) expect([id, count]).toEqual([id, this.#refused.has(id) ? 0 : 1]);
    const ids = this.#world.upstream.executions.flatMap(({ context }) =>
      context.filter((text) => text.startsWith('HAS_ID')),
    );
    expect(ids).toEqual([]);
  }

  /** What the model read is what the conversation says, whatever was lost and rebuilt in between. */
  #checkContexts(): void {
    const { received, upstream } = this.#world;
    const after = new Map(
      upstream.executions.map((run) => [
        run.responseId,
        [...run.context, ...(run.warmUp ? [] : [run.output])],
      ]),
    );
    const head = new Map<string, readonly string[]>();
    for (const event of received) {
      const turn = this.#started.find(({ id }) => id === event.turnId);
      if (turn === undefined || (event.outcome !== 'COMPLETED' && event.outcome !== 'INCOMPLETE')) continue;
      const mine = upstream.executions.filter(({ responseId }) =>
        this.#responsesOf(turn.id).includes(responseId),
      );
      const first = mine[0];
      const last = mine.at(-1);
      if (first === undefined || last === undefined) throw new Error(`no execution for ${turn.id}`);
      const base =
        turn.parent === 'automatic'
          ? (head.get(turn.lane) ?? [])
          : turn.parent === 'new'
            ? []
            : after.get(turn.parent.from);
      expect([turn.id, first.context]).toEqual([turn.id, [...(base ?? ['?']), turn.id]]);
      head.set(turn.lane, after.get(last.responseId) as readonly string[]);
    }
  }

  #responsesOf(turnId: string): readonly string[] {
    return this.#world.received.flatMap((event) =>
      event.turnId === turnId && event.type === 'response.created' ? (responseIdOf(event) ?? []) : [],
    );
  }
}

function responseIdOf(event: SessionEvent): string | undefined {
  if (event.type !== 'response.created' && event.type !== 'response.completed') return undefined;
  return (event.frame?.json()['response'] as { id?: string } | undefined)?.id;
}
