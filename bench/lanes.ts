/**
 * What a StartTurn with its cancel, and a turn from its StartTurn to its terminal, cost a session by the number of its
 * lanes that have a turn: CPU of the core alone, without sockets. Most lanes wait, once they are more than the links take.
 */
import { DEFAULT_SESSION_LIMITS } from '../src/core/limits.ts';
import { Session } from '../src/core/session.ts';
import type { Input, LinkCapabilities, StartTurn } from '../src/core/types.ts';
import { frameFromBytes } from '../src/translate/index.ts';
import { OPENAI } from '../test/core/world.ts';
import { median, publish, type Row, round } from './support/report.ts';

const LANES = [8, 512, 2_000, 8_000];
const ROUNDS = 11;
const CALLS_A_ROUND = 2_000;

/** Links that are not replaced in the middle of a round. */
const CAPABILITIES: LinkCapabilities = { ...OPENAI, rotateAfterMs: undefined };
const ROUTE = {
  upstream: 'main',
  provider: 'openai',
  serverAddress: 'localhost',
  serverPort: 1,
  pooled: false,
};

/** A session whose upstream answers when it is told to. */
class Driven {
  readonly #session: Session;
  /** Written and not answered, oldest first. */
  readonly #written: { readonly linkId: number; readonly laneId: string }[] = [];
  readonly #lanes = new Map<string, string>();
  #turns = 0;

  constructor(lanes: number) {
    this.#session = new Session(
      {
        random: () => 0.5,
        transcriptBudget: { tryTake: () => true, give: () => undefined },
        limits: { ...DEFAULT_SESSION_LIMITS, maxLanes: 100_000 },
      },
      1,
    );
    this.#drain();
    for (let n = 0; n < lanes; n += 1) this.start(`lane-${n}`);
  }

  /** On a lane that is new, or on one that waits. */
  startAndCancel(laneId: string): void {
    const turnId = this.start(laneId);
    this.#feed({ kind: 'cancelTurn', laneId, turnId });
  }

  /** The oldest turn that runs is answered, and its lane asks for another. */
  turn(): void {
    const { linkId, laneId } = this.#written.shift() as { linkId: number; laneId: string };
    this.#turns += 1;
    const response = `"response":{"id":"resp_${this.#turns}"`;
    for (const text of [
      `{"type":"response.created","stream_id":"${laneId}",${response},"status":"in_progress"}}`,
      `{"type":"response.output_text.delta","stream_id":"${laneId}","item_id":"m","output_index":0,"content_index":0,"delta":"hi"}`,
      `{"type":"response.completed","stream_id":"${laneId}",${response},"status":"completed","output":[]}}`,
    ])
      this.#feed({ kind: 'frame', linkId, frame: frameFromBytes(Buffer.from(text)) });
    this.#feed({ kind: 'time' });
    this.start(laneId);
  }

  start(laneId: string): string {
    this.#turns += 1;
    const turnId = `t${this.#turns}`;
    this.#lanes.set(turnId, laneId);
    const request: StartTurn = {
      kind: 'startTurn',
      laneId,
      turnId,
      create: {
        fields: new Map([
          ['model', '"m"'],
          ['store', 'false'],
        ]),
        input: ['{"type":"message","role":"user","content":"hi"}'],
        previousResponseId: undefined,
        model: 'm',
        store: false,
        generate: true,
        usesConversation: false,
      },
      chain: { kind: 'newConversation' },
      inputMode: 'incremental',
      timeoutMs: undefined,
      waitOnRateLimit: false,
      traceContext: undefined,
    };
    this.#feed(request);
    return turnId;
  }

  #feed(input: Input): void {
    this.#session.handle(input, 1);
    this.#drain();
  }

  #drain(): void {
    for (const output of this.#session.takeOutputs()) {
      if (output.kind === 'dial')
        this.#feed({ kind: 'linkUp', linkId: output.linkId, capabilities: CAPABILITIES, route: ROUTE });
      else if (output.kind === 'send') {
        const laneId = this.#lanes.get(output.turnId);
        if (laneId !== undefined) this.#written.push({ linkId: output.linkId, laneId });
      }
    }
    for (const { seq } of this.#session.takeEvents(1_000, 1 << 30).slice(-1))
      this.#session.handle({ kind: 'ack', seq }, 1);
  }
}

const ACTS: Readonly<Record<string, (session: Driven) => void>> = {
  'StartTurn and cancel on a free lane µs': (session) => session.startAndCancel('free'),
  'the same on a lane with a turn µs': (session) => session.startAndCancel('lane-7'),
  'a turn of three frames µs': (session) => session.turn(),
};

const sessions = LANES.map((lanes) => ({ lanes, session: new Driven(lanes) }));
const measured = new Map<string, number[]>();
for (let n = 0; n <= ROUNDS; n += 1) {
  for (const [what, act] of Object.entries(ACTS)) {
    // Side by side, so that what else the machine does falls on all of them.
    for (const { lanes, session } of sessions) {
      const before = process.threadCpuUsage();
      for (let call = 0; call < CALLS_A_ROUND; call += 1) act(session);
      const { user, system } = process.threadCpuUsage(before);
      const name = `${lanes} ${what}`;
      // The first round compiles.
      if (n > 0) measured.set(name, [...(measured.get(name) ?? []), (user + system) / CALLS_A_ROUND]);
    }
  }
}
const costOf = (lanes: number, what: string): number => median(measured.get(`${lanes} ${what}`) ?? []);
const rows: Row[] = LANES.map((lanes) => ({
  'lanes with a turn': lanes,
  ...Object.fromEntries(Object.keys(ACTS).map((what) => [what, round(costOf(lanes, what))])),
}));
rows.push({
  'lanes with a turn': `${LANES.at(-1)} over ${LANES[0]}`,
  ...Object.fromEntries(
    Object.keys(ACTS).map((what) => [
      what,
      round(costOf(LANES.at(-1) as number, what) / costOf(LANES[0] as number, what)),
    ]),
  ),
});
publish({
  name: 'lanes',
  title: 'Cost of what a session does, by its lanes with a turn',
  notes: [
    'CPU of the core alone: no sockets, no translation. 16 links of 16 turns each, so that all but 256 lanes wait.',
    `Medians of ${ROUNDS} rounds of ${CALLS_A_ROUND}, all sizes side by side in one process.`,
  ],
  rows,
});
