import { describe, expect, it } from 'vitest';
import type { FaultInput } from '../../src/simulator/index.ts';
import { errorOf, type Frame, RawClient, responseOf, sdk, simulator } from './support.ts';

async function withFault(...faults: FaultInput[]) {
  const running = await simulator({ faults });
  return { running, client: await RawClient.open(running) };
}

describe('faults', () => {
  it('cuts the connection at event n, after sending what came before', async () => {
    const { running, client } = await withFault({ kind: 'cut', atEvent: 5 });
    client.create({ input: '#deltas=100' });
    expect((await client.closed).code).toBe(1006);
    expect(client.frames).toHaveLength(5);
    await running.journal.until(({ entries }) => entries[0]?.status === 'aborted');
    expect(running.journal.entries[0]?.eventsSent).toBe(5);
    expect(running.connections()).toBe(0);
  });

  it.each([1000, 1001, 1009, 1011, 1012])('closes with %i', async (code) => {
    const { client } = await withFault({ kind: 'close', atEvent: 3, code, reason: 'why' });
    client.create({ input: 'x' });
    expect(await client.closed).toEqual({ code, reason: 'why' });
    expect(client.frames).toHaveLength(3);
  });

  it('sends error frames anywhere, attributed as told, then goes on', async () => {
    const { running, client } = await withFault({ kind: 'error', atEvent: 4, streamId: 'none', times: 1 });
    client.create({ stream_id: 'a', input: 'x' });
    const error = await client.type('error');
    expect(error).toMatchObject({ status: 500, sequence_number: 4 });
    expect(error).not.toHaveProperty('stream_id');
    await client.turn({ stream_id: 'a', input: 'x' });
    running.configure({ faults: [{ kind: 'error', streamId: { name: 'ghost' }, times: 1 }] });
    client.create({ input: 'x' });
    expect((await client.type('error')).stream_id).toBe('ghost');
  });

  it('mixes in frames that are not of the protocol', async () => {
    const { client } = await withFault(
      { kind: 'malformed' },
      { kind: 'binary' },
      { kind: 'unknown-event', streamId: 'none' },
      { kind: 'stray-lane' },
      { kind: 'giant', bytes: 2_000_000 },
    );
    const response = await client.turn({ stream_id: 'a', input: 'x' });
    expect(response.status).toBe('completed');
    const odd = client.frames.slice(1, 6).map((frame) => frame.type);
    expect(odd).toEqual([
      'test.malformed',
      'response.output_text.delta',
      'response.from_the_future',
      'response.output_text.delta',
      'response.giant',
    ]);
    expect(client.texts[2]).toMatch(/^binary:/);
    expect(client.frames[4]?.stream_id).toBe('no_such_lane');
    expect(client.texts[5]?.length).toBeGreaterThan(2_000_000);
  });

  it('breaks the numbering, repeats and drops events', async () => {
    const { client } = await withFault(
      { kind: 'sequence', atEvent: 1, add: 7 },
      { kind: 'repeat-event', atEvent: 2 },
      { kind: 'drop-event', atEvent: 3 },
    );
    await client.turn({ input: '#say=x' });
    const numbers = client.frames.map((frame: Frame) => frame.sequence_number);
    expect(numbers).toEqual([0, 8, 9, 9, 11, 12, 13, 14, 15]);
  });

  it('hangs one lane and serves the others; stalls for a time', async () => {
    const { client } = await withFault(
      { kind: 'hang', lane: 'mute', atEvent: 2 },
      { kind: 'stall', lane: 'slow', ms: 30 },
    );
    client.create({ stream_id: 'mute', input: 'x' });
    const before = performance.now();
    await client.turn({ stream_id: 'slow', input: 'x' });
    expect(performance.now() - before).toBeGreaterThanOrEqual(29);
    expect(client.frames.filter((frame) => frame.stream_id === 'mute')).toHaveLength(2);
  });

  it('forces previous_response_not_found with and without the code', async () => {
    const { client } = await withFault(
      { kind: 'previous-response-not-found', times: 1 },
      { kind: 'previous-response-not-found', codeless: true, request: 4, times: 1 },
    );
    const parent = await client.turn({ stream_id: 'a', input: 'x' });
    client.create({ stream_id: 'b', input: 'y', previous_response_id: parent.id });
    expect(errorOf(await client.type('error')).code).toBe('previous_response_not_found');
    await client.turn({ stream_id: 'b', input: 'y', previous_response_id: parent.id });
    client.create({ stream_id: 'c', input: 'y', previous_response_id: parent.id });
    const codeless = errorOf(await client.type('error'));
    expect(codeless).toEqual({ type: 'invalid_request_error', message: 'Invalid `previous_response_id`.' });
  });

  it('is scoped by connection, request and lane, and repeatable by seed', async () => {
    const { running, client } = await withFault({ kind: 'error', connection: 2, request: 2, lane: 'b' });
    const second = await RawClient.open(running);
    for (const raw of [client, second]) await raw.turn({ input: 'x' });
    await client.turn({ stream_id: 'b', input: 'x' });
    second.create({ stream_id: 'b', input: 'x' });
    await second.type('error');
    const draw = async () => {
      const seeded = await RawClient.open(
        await simulator({ seed: 7, faults: [{ kind: 'error', probability: 0.5 }] }),
      );
      const types: string[] = [];
      for (let n = 0; n < 20; n += 1) {
        seeded.create({ input: 'x' });
        types.push((await seeded.terminal()).type);
      }
      return types;
    };
    const first = await draw();
    expect(await draw()).toEqual(first);
    expect(new Set(first).size).toBe(2);
  });

  it('refuses and delays handshakes', async () => {
    const running = await simulator({
      faults: [
        { kind: 'refuse', status: 429, retryAfterSeconds: 3, connection: 1 },
        { kind: 'refuse', status: 503, connection: 2 },
        { kind: 'delay-handshake', ms: 40, connection: 3 },
      ],
    });
    await expect(RawClient.open(running)).rejects.toThrow('429');
    await expect(RawClient.open(running)).rejects.toThrow('503');
    const before = performance.now();
    await RawClient.open(running);
    expect(performance.now() - before).toBeGreaterThanOrEqual(39);
    expect(running.journal.counters).toMatchObject({ connectionsRefused: 2, connectionsAccepted: 1 });
  });

  it('works over HTTP as far as it means something there', async () => {
    const running = await simulator({
      faults: [{ kind: 'error', status: 503, code: 'slow_down', times: 1 }],
    });
    const client = sdk(running);
    const ask = () => client.responses.create({ model: 'm', input: 'x' });
    await expect(ask()).rejects.toMatchObject({ status: 503, code: 'slow_down' });
    expect((await ask()).status).toBe('completed');
    running.configure({ faults: [{ kind: 'cut', atEvent: 4, times: 2 }] });
    await expect(ask()).rejects.toThrow();
    const stream = await client.responses.create({ model: 'm', input: 'x', stream: true });
    const drain = async () => {
      for await (const _ of stream);
    };
    await expect(drain()).rejects.toThrow();
    expect(running.journal.entries.map((entry) => entry.status)).toEqual([
      'error',
      'completed',
      'aborted',
      'aborted',
    ]);
  });

  it('ends a response as failed', async () => {
    const { client } = await withFault({
      kind: 'failed',
      atEvent: 6,
      code: 'rate_limit_exceeded',
      message: 'try again in 1.2s',
    });
    client.create({ input: '#deltas=9' });
    const failed = responseOf(await client.type('response.failed'));
    expect(failed).toMatchObject({
      status: 'failed',
      error: { code: 'rate_limit_exceeded', message: 'try again in 1.2s' },
    });
  });
});
