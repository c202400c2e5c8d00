import { describe, expect, it } from 'vitest';
import { schemaProblem } from './schema.ts';
import { type Frame, functionTool, RawClient, responseOf, simulator } from './support.ts';

/** Events that the published schema does not have yet; the SDK's types do. */
const NEWER = /^response\.(steer|compaction)\./;

function schemaProblems(frames: readonly Frame[]): string[] {
  return frames
    .filter((frame) => !NEWER.test(frame.type))
    .map((frame) => schemaProblem(withoutNulls(frame), 'ResponsesServerEvent'))
    .filter((problem) => problem !== null);
}

/** Live responses say null for a user, and for usage before the terminal event, which the schema does not allow. */
function withoutNulls(frame: Frame): unknown {
  const response = frame.response as Record<string, unknown> | undefined;
  if (response === undefined) return frame;
  const { usage, user, ...rest } = response;
  return {
    ...frame,
    response: { ...rest, ...(usage !== null && { usage }), ...(user !== null && { user }) },
  };
}

describe('events', () => {
  it.each([
    'hello',
    '#reasoning',
    '#image=300',
    '#refuse',
    '#fail',
    '#incomplete',
    '#filtered',
    '#messages=3',
    '#sparse',
    '#error=429',
  ])('of %s fit the published schema', async (input) => {
    const client = await RawClient.open(await simulator());
    client.create({ stream_id: 'a', input, include: ['reasoning.encrypted_content'], service_tier: 'auto' });
    await client.terminal('a');
    expect(schemaProblems(client.frames)).toEqual([]);
    expect(client.frames.length).toBeGreaterThan(0);
  });

  it('of tool calls fit it, function and custom', async () => {
    const client = await RawClient.open(await simulator());
    const tools = [functionTool('f'), { type: 'custom', name: 'c' }];
    const turn = await client.turn({ input: '#tools=2 #parallel=2', tools });
    expect(turn.output.map((item) => item.type)).toEqual(['function_call', 'custom_tool_call']);
    expect(schemaProblems(client.frames)).toEqual([]);
    expect(turn.tools).toMatchObject(tools);
  });

  it('add up: deltas make the text, items make the output, numbers have no gap', async () => {
    const client = await RawClient.open(await simulator());
    const response = await client.turn({ input: '#reasoning #messages=2 tell me' });
    const text = (name: string, itemId: unknown) =>
      client.frames
        .filter((f) => f.type === name && f.item_id === itemId)
        .map((f) => f.delta)
        .join('');
    for (const item of response.output.slice(1)) {
      expect(item.content).toMatchObject([{ text: text('response.output_text.delta', item.id) }]);
    }
    const done = client.frames.filter((frame) => frame.type === 'response.output_item.done');
    expect(done.map((frame) => frame.item)).toEqual(response.output);
    expect(done.map((frame) => frame.output_index)).toEqual([0, 1, 2]);
    expect(client.frames.map((frame) => frame.sequence_number)).toEqual(client.frames.map((_, n) => n));
  });

  it('tell of a compaction when the context outgrows its threshold, once', async () => {
    const client = await RawClient.open(await simulator());
    const context_management = [{ type: 'compaction', compact_threshold: 1000 }];
    const long = await client.turn({ input: 'word '.repeat(1200), context_management });
    expect(long.output.map((item) => item.type)).toEqual(['compaction', 'message']);
    expect(client.frames.map((frame) => frame.type)).toContain('response.compaction.compacting');
    expect(schemaProblems(client.frames)).toEqual([]);
    const next = await client.turn({ input: 'on', previous_response_id: long.id, context_management });
    expect(next.output.map((item) => item.type)).toEqual(['message']);
    expect(next.usage.input_tokens).toBeLessThan(200);
  });

  it('are few in sparse mode, and the terminal has no output', async () => {
    const client = await RawClient.open(await simulator({ switches: { sparse: true } }));
    const response = await client.turn({ input: '#say=x' });
    expect(client.frames.map((frame) => frame.type)).toEqual([
      'response.created',
      'response.in_progress',
      'response.output_text.delta',
      'response.output_item.done',
      'response.completed',
    ]);
    expect(response.output).toEqual([]);
    await client.turn({ input: 'go on', previous_response_id: response.id });
  });

  it('of 1 MB and 20 MB arrive whole', async () => {
    const client = await RawClient.open(await simulator());
    for (const bytes of [1_000_000, 20_000_000]) {
      client.create({ input: `#bytes=${bytes}` });
      const delta = await client.type('response.output_text.delta');
      expect(String(delta.delta)).toHaveLength(bytes);
      expect(responseOf(await client.terminal()).status).toBe('completed');
    }
  });

  it('wait for a slow reader instead of piling up, while another connection is served', async () => {
    const running = await simulator({ switches: { pingIntervalMs: 0 } });
    const slow = await RawClient.open(running);
    slow.create({ input: '#deltas=3000000' });
    await slow.type('response.output_text.delta');
    slow.socket.pause();
    const other = await RawClient.open(running);
    for (let n = 0; n < 50; n += 1) await other.turn({ input: 'x' });
    const { bytesSent } = running.journal.counters;
    for (let n = 0; n < 50; n += 1) await other.turn({ input: 'x' });
    // 3 M deltas are about 600 MB; what has left by now is bounded by the buffers of the simulator and the kernel.
    expect(bytesSent).toBeLessThan(40_000_000);
    slow.socket.terminate();
    await running.journal.until((journal) => journal.entries[0]?.status === 'aborted');
  });

  it('keep the configured pace', async () => {
    const timing = { timeToFirstTokenMs: 40, tokensPerSecond: 200, costPerInputTokenUs: 1000 };
    const client = await RawClient.open(await simulator({ timing }));
    const start = performance.now();
    client.create({ input: `${'word '.repeat(80)} #deltas=20` });
    await client.type('response.output_text.delta');
    // At least 100 tokens at 1 ms each, and the time to first token.
    expect(performance.now() - start).toBeGreaterThanOrEqual(139);
    await client.terminal();
    // 20 tokens at 5 ms; measured from the start, because the first may have arrived late.
    expect(performance.now() - start).toBeGreaterThanOrEqual(139 + 94);
  });
});
