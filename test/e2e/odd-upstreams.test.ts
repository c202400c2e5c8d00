import { describe, expect, it, onTestFinished } from 'vitest';
import type { SimulatorOptions } from '../../src/simulator/index.ts';
import { ODD_SWITCHES } from '../../src/simulator/odd.ts';
import { checkSeq, type TestEvent, type TestStream, textOf } from '../harness/client.ts';
import type { OpenAccess, RecordedTelemetry } from '../harness/fakes.ts';
import { type GatewayOptions, startGateway } from '../harness/gateway.ts';

type Switches = NonNullable<SimulatorOptions['switches']>;

const COMPLETED = 'TURN_OUTCOME_COMPLETED';
const FAILED = 'TURN_OUTCOME_FAILED';
const CANCELLED = 'TURN_OUTCOME_CANCELLED';

/** Three turns of a conversation over such an upstream, and how each ends. */
interface Odd {
  readonly switches: Switches;
  /** Of the second turn; default: it completes like the others. */
  readonly second?: { readonly text: string; readonly ends: string; readonly reason?: string };
  /** Every turn ends so. */
  readonly ends?: string;
  /** Whether the third turn sends only what is new. */
  readonly isContinued?: boolean;
  /** What the turns say. */
  readonly says?: readonly string[];
}

const failing = (ends = FAILED) => ({ text: 'two #fail', ends, reason: 'RESPONSE_FAILED' });

const ODD: Readonly<Record<string, Odd>> = {
  'a failure told twice, the error first': {
    switches: { failureTold: 'error-first' },
    second: { text: 'two #fail', ends: FAILED },
  },
  'a failure told twice, the terminal first': {
    switches: { failureTold: 'failed-first' },
    second: failing(),
  },
  'an error that ends nothing': { switches: { warnings: true } },
  // The first that ends is the answer; what comes behind it goes to no other turn.
  'a relay with two life cycles for a create': {
    switches: { lifeCycles: 2 },
    says: ['', '', ''],
    isContinued: false,
  },
  'a private response.done behind the terminal': { switches: { doneAfterTerminal: true } },
  'terminals called response.done': { switches: { terminals: 'done' }, second: failing() },
  'terminals called response.cancelled': { switches: { terminals: 'cancelled' }, ends: CANCELLED },
  'terminals called response.canceled': { switches: { terminals: 'canceled' }, ends: CANCELLED },
  'an id that only the terminal tells': { switches: { idInTerminal: true } },
  'one output_index for all items': {
    switches: { sharedOutputIndex: true },
    second: { text: 'two #messages=3', ends: COMPLETED },
  },
  'items with empty ids': {
    switches: { emptyItemIds: true },
    second: { text: 'two #messages=3', ends: COMPLETED },
  },
  'errors as {"detail"}': {
    switches: { errorShape: 'detail' },
    second: { text: 'two #error=400', ends: FAILED },
  },
  'errors that are texts': {
    switches: { errorShape: 'text' },
    second: { text: 'two #error=400', ends: FAILED },
  },
  'reasoning in clear': { switches: { plainReasoning: true } },
  'lanes that are not given back': { switches: { echoLanes: false } },
};

const PLAYED = new Set<string>();

async function play(switches: Switches, options: GatewayOptions<OpenAccess, RecordedTelemetry> = {}) {
  for (const name of Object.keys(switches)) if (Object.hasOwn(ODD_SWITCHES, name)) PLAYED.add(name);
  const simulator = { ...options.simulator, switches };
  const gateway = await startGateway({ ...options, simulator });
  onTestFinished(async () => {
    await gateway.close();
    expect(gateway.bugs).toEqual([]);
  });
  const stream = gateway.client().connect();
  return { gateway, stream };
}

async function ask(
  stream: TestStream,
  turn: { readonly turn_id: string; readonly [field: string]: unknown },
  text: string,
): Promise<readonly TestEvent[]> {
  stream.startTurn(turn as never, text);
  return stream.turn(turn.turn_id);
}

const last = (events: readonly TestEvent[]) => events.at(-1) as TestEvent;

describe.each(['WebSocket', 'HTTP'])('over %s', (road) => {
  const websocket = road === 'WebSocket';

  describe.each(Object.entries(ODD))('%s', (_name, odd) => {
    const { switches, second, ends = COMPLETED, isContinued, says = ['first', 'second', 'third'] } = odd;
    it('ends each turn once and gives each its own answer', async () => {
      const { gateway, stream } = await play({ ...switches, websocket });
      const create = { model: 'gpt-5.5', store: true };
      const texts = ['one #say=first', second?.text ?? 'two #say=second', 'three #say=third'];
      const wanted = [ends, second?.ends ?? ends, ends];
      for (const [n, text] of texts.entries()) {
        const events = await ask(stream, { turn_id: `t${n}`, lane_id: 'lane', create }, text);
        expect(last(events)).toMatchObject({ outcome: wanted[n] });
        expect(events.filter(({ outcome }) => outcome !== 'TURN_OUTCOME_UNSPECIFIED')).toHaveLength(1);
        if (n !== 1 || second === undefined) expect(textOf(events)).toBe(says[n]);
        if (n === 1 && second?.reason !== undefined && last(events).turn_failed != null)
          expect(last(events).turn_failed?.reason).toBe(second.reason);
      }
      if (isContinued ?? (ends === COMPLETED && wanted[1] === COMPLETED))
        expect(gateway.simulator.journal.entries.at(-1)?.request?.input).toHaveLength(1);
      checkSeq(stream.events);
    });
  });

  it.each(['null-code', 'numeric-code', 'other-code', 'words', 'failed'] as const)(
    'a lost parent told as %s is told anew from the transcript',
    async (parentNotFound) => {
      const { gateway, stream } = await play(
        { parentNotFound, websocket },
        {
          simulator: {
            faults: [{ kind: 'previous-response-not-found', totalRequest: 2 }],
          },
        },
      );
      await ask(stream, { turn_id: 't1' }, 'one #say=first');
      const events = await ask(stream, { turn_id: 't2' }, 'two #say=second');
      expect(last(events).outcome).toBe(COMPLETED);
      expect(textOf(events)).toBe('second');
      expect(gateway.simulator.journal.entries.at(-1)?.contextItems).toBe(3);
    },
  );

  it.each(['too_many_requests', 'text-429', 'number-429', 'no-status'] as const)(
    'a rate limit told as %s is waited out',
    async (rateLimits) => {
      const headers = { 'retry-after': '0.05' };
      const fault = {
        kind: 'error',
        atEvent: 0,
        status: 429,
        code: 'rate_limit_exceeded',
        headers,
        times: 1,
      } as const;
      const { stream } = await play(
        { rateLimits, websocket },
        {
          simulator: { faults: [fault] },
        },
      );
      const events = await ask(stream, { turn_id: 't1', wait_on_rate_limit: true }, 'one #say=first');
      expect(last(events).outcome).toBe(COMPLETED);
      expect(textOf(events)).toBe('first');
    },
  );

  it.each([{ requireItemIds: true }, { itemIds: 'all' }] as const)(
    'a history is told as %o wants its ids',
    async (switches) => {
      const { stream } = await play({ ...switches, websocket }, { upstream: { provider: 'compatible' } });
      const create = { store: false };
      for (const [id, word] of [
        ['t1', 'first'],
        ['t2', 'second'],
        ['t3', 'third'],
      ] as const) {
        const events = await ask(stream, { turn_id: id, create }, `${id} #say=${word} #reasoning`);
        expect(last(events).outcome).toBe(COMPLETED);
        expect(textOf(events)).toBe(word);
      }
    },
  );

  it('a call that was cut off is not told again', async () => {
    const { gateway, stream } = await play(
      { truncatedCalls: 'refuse', websocket },
      {
        simulator: {
          script: {
            rules: [
              {
                when: { turn: 1 },
                items: [{ type: 'function_call', name: 'write', arguments: { text: 'word '.repeat(200) } }],
              },
            ],
          },
        },
      },
    );
    const first = { turn_id: 't1', create: { store: false, max_output_tokens: 16 } };
    expect(last(await ask(stream, first, 'one')).outcome).toBe('TURN_OUTCOME_INCOMPLETE');
    const linksDown = () =>
      gateway.telemetry.sessions[0]?.facts.filter(({ kind }) => kind === 'linkDown').length;
    if (gateway.simulator.cutConnections() > 0) await expect.poll(linksDown).toBe(1);
    const events = await ask(stream, { turn_id: 't2', create: { store: false } }, 'two #say=second');
    expect(last(events).outcome).toBe(COMPLETED);
    expect(textOf(events)).toBe('second');
  });
});

describe('over HTTP', () => {
  it('a refusal with status 200 and a JSON error fails its turn in its own words, and no other', async () => {
    const { stream } = await play({ websocket: false, refusalStatus: 'ok' });
    const failed = last(await ask(stream, { turn_id: 't1' }, 'one #error=400'));
    expect(failed.outcome).toBe(FAILED);
    expect(failed.turn_failed?.message).toContain('The server had an error while processing your request.');
    expect(textOf(await ask(stream, { turn_id: 't2' }, 'two #say=second'))).toBe('second');
  });
});

describe('over WebSocket', () => {
  it('a refusal that names no lane ends the turn that it means while others wait', async () => {
    const { stream } = await play({ refusalsNameLane: false });
    const lanes = ['a', 'b', 'c'];
    for (const lane of lanes)
      stream.startTurn(
        { lane_id: lane, turn_id: lane },
        lane === 'b' ? 'no #error=400' : `#say=${lane} #ttft=50`,
      );
    const [a, b, c] = await Promise.all(lanes.map((lane) => stream.turn(lane)));
    expect([a, b, c].map((events) => last(events ?? []).outcome)).toEqual([COMPLETED, FAILED, COMPLETED]);
    expect([a, c].map((events) => textOf(events ?? []))).toEqual(['a', 'c']);
  });

  it('lanes that are not given back run one after the other, each with its own answer', async () => {
    const { stream } = await play({ echoLanes: false });
    const lanes = ['a', 'b', 'c', 'd'];
    for (const lane of lanes) stream.startTurn({ lane_id: lane, turn_id: lane }, `#say=${lane} #deltas=3`);
    const turns = await Promise.all(lanes.map((lane) => stream.turn(lane)));
    expect(turns.map((events) => last(events).outcome)).toEqual(lanes.map(() => COMPLETED));
  });

  it('outputs are injected into a response of several agents', async () => {
    const beta = { 'openai-beta': 'responses_multi_agent=v1' };
    const { gateway, stream } = await play(
      { injectWaitMs: 60_000 },
      {
        upstream: { capabilities: { injecting: true }, headers: beta },
      },
    );
    const tools = [
      { function: { name: 'look', parameters: Buffer.from('{"type":"object","properties":{}}') } },
    ];
    stream.startTurn(
      { turn_id: 't1', create: { tools, multi_agent: { enabled: true } } } as never,
      'go #say=done',
    );
    const done = await stream.event('response.output_item.done', 't1');
    const { item } = done.output_item_done as { item: { function_call: { call_id: string } } };
    const input = [{ function_call_output: { call_id: item.function_call.call_id, output: '42' } }];
    stream.send({ inject_turn: { turn_id: 't1', input } });
    const events = await stream.turn('t1');
    expect(events.map(({ type }) => type)).toContain('response.inject.created');
    expect(last(events).outcome).toBe(COMPLETED);
    expect(textOf(events)).toContain('done');
    expect(gateway.simulator.journal.counters.injects).toBe(1);
  });
});

it('every odd switch is played here', () => {
  const played = [...PLAYED].sort();
  expect(played).toEqual(Object.keys(ODD_SWITCHES).sort());
});
