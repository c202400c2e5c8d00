import { afterEach, describe, expect, it } from 'vitest';
import type { UpstreamFrame } from '../../src/core/types.ts';
import { type SettingsChange, type SimulatorOptions, startSimulator } from '../../src/simulator/index.ts';
import { createDialer, type DialerOptions } from '../../src/upstream/dialer.ts';
import type { UpstreamOptions } from '../../src/upstream/upstream.ts';
import { startChaosProxy, type ToxicSet } from '../harness/chaos-proxy.ts';
import { Cleanup, dialRequest, Observed, outgoing, Recorder } from './harness.ts';

const cleanup = new Cleanup();
afterEach(() => cleanup.run());

async function simulated(
  simulatorOptions: SimulatorOptions = {},
  upstream: Partial<UpstreamOptions> = {},
  options: Partial<DialerOptions> & { readonly toxics?: ToxicSet } = {},
) {
  const simulator = cleanup.add(await startSimulator(simulatorOptions));
  const proxy = cleanup.add(
    await startChaosProxy({ target: { host: '127.0.0.1', port: simulator.port }, ...options.toxics }),
  );
  const observed = new Observed();
  const dialer = cleanup.add(
    createDialer({
      upstreams: [{ name: 'sim', provider: 'openai', url: `ws://127.0.0.1:${proxy.port}/v1`, ...upstream }],
      pool: { size: 0 },
      observe: observed.observe,
      ...options,
    }),
  );
  const recorder = new Recorder();
  const link = dialer.dial(dialRequest(), recorder);
  return { simulator, proxy, dialer, observed, recorder, link };
}

const create = (lane: string, input: string, previous?: string) =>
  JSON.stringify({
    type: 'response.create',
    stream_id: lane,
    model: 'gpt-5.5',
    input,
    ...(previous === undefined ? {} : { previous_response_id: previous }),
  });

const TERMINAL = /^(response\.(completed|failed|incomplete)|error)$/;

async function turn(recorder: Recorder, lane: string) {
  const before = recorder.frames.length;
  const ended = () =>
    recorder.frames.slice(before).find(({ type, streamId }) => streamId === lane && TERMINAL.test(type));
  await recorder.until(() => ended() !== undefined || recorder.downs.length > 0);
  return ended();
}

function responseOf(frame: UpstreamFrame | undefined) {
  return frame?.json()['response'] as
    | { readonly id: string; readonly previous_response_id: string }
    | undefined;
}

describe.each(['websocket', 'sse'] as const)('a conversation over %s', (transport) => {
  it('has the same events, lane by lane', async () => {
    const { recorder, link } = await simulated({}, { transport });
    await recorder.up();
    link.send(outgoing(create('a', '#say=one')), undefined);
    link.send(outgoing(create('b', '#say=two #deltas=50')), undefined);
    const [a, b] = await Promise.all([turn(recorder, 'a'), turn(recorder, 'b')]);
    expect([a?.type, b?.type]).toEqual(['response.completed', 'response.completed']);
    link.send(outgoing(create('a', '#say=three', responseOf(a)?.id)), undefined);
    const next = await turn(recorder, 'a');
    expect(next?.type).toBe('response.completed');
    expect(responseOf(next)?.previous_response_id).toBe(responseOf(a)?.id);
    for (const lane of ['a', 'b']) {
      const numbers = recorder.frames
        .filter(({ streamId }) => streamId === lane)
        .map((frame) => frame.json()['sequence_number'] as number);
      const restarts = numbers.filter((number, at) => at > 0 && number <= (numbers[at - 1] as number));
      expect(restarts.length).toBe(lane === 'a' ? 1 : 0);
    }
  });

  it('carries a large answer through a slow, delayed and sliced connection', async () => {
    const { recorder, link } = await simulated(
      {},
      { transport },
      { toxics: { up: { latencyMs: 5 }, down: { latencyMs: 5, jitterMs: 5, slice: { bytes: 30_011 } } } },
    );
    await recorder.up();
    link.send(outgoing(create('a', '#bytes=2000000')), undefined);
    const done = await turn(recorder, 'a');
    expect(done?.type).toBe('response.completed');
    expect(done?.bytes.length).toBeGreaterThan(2_000_000);
  });

  it('loses what was cut, and says so', async () => {
    const { recorder, link, proxy } = await simulated({}, { transport });
    await recorder.up();
    link.send(outgoing(create('a', '#hang')), undefined);
    await recorder.frame();
    proxy.cutAll();
    if (transport === 'websocket') {
      const down = await recorder.down();
      expect([down.closeCode, down.error.reason]).toEqual([1006, 'UPSTREAM_LINK_LOST']);
    } else {
      expect((await turn(recorder, 'a'))?.json()['error']).toMatchObject({ code: 'upstream_stream_lost' });
      link.send(outgoing(create('a', '#say=again')), undefined);
      expect((await turn(recorder, 'a'))?.type).toBe('response.completed');
    }
  });
});

describe('an upstream that fails', () => {
  it('ends the link at its close frame', async () => {
    for (const code of [1001, 1009, 1011, 1012]) {
      const { recorder, link } = await simulated({ faults: [{ kind: 'close', code, atEvent: 2 }] });
      await recorder.up();
      link.send(outgoing(create('a', 'hi')), undefined);
      expect((await recorder.down()).closeCode).toBe(code);
      expect(recorder.frames.length).toBe(2);
    }
  });

  it('ends the link at a malformed or binary frame', async () => {
    const faults: NonNullable<SettingsChange['faults']> = [{ kind: 'malformed' }, { kind: 'binary' }];
    for (const fault of faults) {
      const { recorder, link } = await simulated({ faults: [fault] });
      await recorder.up();
      link.send(outgoing(create('a', 'hi')), undefined);
      expect((await recorder.down()).error.reason).toBe('UPSTREAM_PROTOCOL');
      expect(recorder.frames.length).toBe(1);
    }
  });

  it('passes on what it does not know', async () => {
    const { recorder, link } = await simulated({
      faults: [{ kind: 'unknown-event' }, { kind: 'stray-lane' }],
    });
    await recorder.up();
    link.send(outgoing(create('a', 'hi')), undefined);
    expect((await turn(recorder, 'a'))?.type).toBe('response.completed');
    expect(recorder.frames.map(({ type }) => type)).toContain('response.from_the_future');
    expect(recorder.frames.map(({ streamId }) => streamId)).toContain('no_such_lane');
  });

  it('is left for HTTP when it refuses the upgrade, and turns work there', async () => {
    for (const status of [426, 404, 405, 501]) {
      const { recorder, link } = await simulated({
        switches: { websocket: false, websocketRefusalStatus: status },
      });
      expect((await recorder.up()).capabilities.transport).toBe('sse');
      link.send(outgoing(create('a', '#say=hello')), undefined);
      expect((await turn(recorder, 'a'))?.type).toBe('response.completed');
    }
  });

  it('is told apart by how it refuses', async () => {
    const cases = [
      [401, 'UPSTREAM_AUTH'],
      [429, 'UPSTREAM_RATE_LIMITED'],
      [503, 'UPSTREAM_UNAVAILABLE'],
    ] as const;
    for (const [status, reason] of cases) {
      const { recorder } = await simulated({ faults: [{ kind: 'refuse', status, retryAfterSeconds: 2 }] });
      const down = await recorder.down();
      expect([down.httpStatus, down.error.reason, down.retryAfterMs]).toEqual([status, reason, 2_000]);
    }
  });

  it('compresses where both sides want it, many fragments too, and carries the same', async () => {
    const input = Array.from({ length: 100_000 }, (_, n) => `${n}`).join(' ');
    const seen: object[] = [];
    for (const [offered, accepted] of [
      [true, true],
      [true, false],
      [false, true],
    ] as const) {
      const { recorder, link, proxy, simulator } = await simulated(
        { switches: { compression: accepted } },
        { limits: { compression: offered } },
      );
      await recorder.up();
      link.send(outgoing(create('a', input)), undefined);
      const first = await turn(recorder, 'a');
      link.send(outgoing(create('a', '#deltas=300', responseOf(first)?.id)), undefined);
      expect((await turn(recorder, 'a'))?.type).toBe('response.completed');
      seen.push({
        events: recorder.frames.map((frame) => [frame.type, frame.json()['sequence_number']]),
        contexts: simulator.journal.entries.map(({ contextHash }) => contextHash),
        small: (proxy.connections[0]?.bytesUp ?? 0) < input.length / 2,
      });
    }
    const plain = { ...seen[1], small: false };
    expect(seen).toEqual([{ ...plain, small: true }, plain, plain]);
  });

  it('is given up when the network swallows everything', async () => {
    const { recorder, proxy } = await simulated({}, { limits: { pingIntervalMs: 20, pongTimeoutMs: 80 } });
    await recorder.up();
    proxy.set({ up: { swallow: true }, down: { swallow: true } });
    expect((await recorder.down()).error.metadata['cause']).toBe('heartbeat');
  });

  it('outlives its pings on a paused link', async () => {
    const { recorder, link, simulator } = await simulated(
      { switches: { pingIntervalMs: 50, pingTimeoutMs: 800 } },
      { limits: { pausedReadIntervalMs: 50, pingIntervalMs: 100, pongTimeoutMs: 1_000 } },
    );
    await recorder.up();
    link.pause();
    await new Promise((resolve) => setTimeout(resolve, 1_500));
    expect(simulator.connections()).toBe(1);
    expect(recorder.downs).toEqual([]);
    link.resume();
    link.send(outgoing(create('a', '#say=ok')), undefined);
    expect((await turn(recorder, 'a'))?.type).toBe('response.completed');
  });

  it('leaves nothing behind over many links', async () => {
    const { dialer, simulator, recorder } = await simulated();
    await recorder.up();
    const timersBefore = process.getActiveResourcesInfo().filter((name) => name === 'Timeout').length;
    for (let round = 0; round < 100; round += 1) {
      const each = new Recorder();
      const link = dialer.dial(dialRequest(), each);
      await each.up();
      link.close(1000, '');
    }
    while (simulator.connections() > 1) await new Promise((resolve) => setTimeout(resolve, 5));
    const timersAfter = process.getActiveResourcesInfo().filter((name) => name === 'Timeout').length;
    expect(timersAfter - timersBefore).toBeLessThan(10);
  });
});
