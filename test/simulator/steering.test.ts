import { describe, expect, it } from 'vitest';
import { errorOf, type Frame, functionTool, RawClient, responseOf, simulator } from './support.ts';

const MODEL = 'gpt-6-astra';
const PACE = { timing: { tokensPerSecond: 300 } };
const tools = [functionTool('lookup')];

async function running(client: RawClient, fields: Record<string, unknown>): Promise<string> {
  client.create({ model: MODEL, stream_id: 'main', ...fields });
  return responseOf(await client.type('response.created', 'main')).id;
}

function failure(frame: Frame) {
  return errorOf(frame).code;
}

describe('steering', () => {
  it('commits several steers together, in order, with the settings of the target', async () => {
    const sim = await simulator(PACE);
    const client = await RawClient.open(sim);
    const id = await running(client, {
      input: 'long #deltas=5000',
      instructions: 'Be terse.',
      metadata: { a: 'b' },
    });
    client.steer(id, 'first');
    client.steer(id, [{ role: 'user', content: [{ type: 'input_text', text: 'second #say=ok' }] }]);
    const accepted = [
      await client.type('response.steer.accepted'),
      await client.type('response.steer.accepted'),
    ];
    expect(accepted.every((frame) => frame.stream_id === 'main')).toBe(true);
    expect(accepted[0]).toMatchObject({ steer: { id: expect.stringMatching(/^steer_[0-9a-f]{32}$/) } });
    const cut = await client.type('response.incomplete', 'main');
    const successor = responseOf(await client.type('response.created', 'main'));
    expect(successor).toMatchObject({
      previous_response_id: id,
      instructions: 'Be terse.',
      metadata: { a: 'b' },
    });
    const done = responseOf(await client.type('response.completed', 'main'));
    expect(done.output[0]).toMatchObject({ content: [{ text: 'ok' }] });
    expect(responseOf(cut).incomplete_details?.reason).toBe('steered');
    expect(sim.journal.entries[1]).toMatchObject({ contextItems: 4, successorOf: id });
    // The event count of the target goes over the steer events without a gap.
    const numbers = client.frames
      .slice(0, client.frames.indexOf(cut) + 1)
      .map((frame) => frame.sequence_number);
    expect(numbers).toEqual(numbers.map((_, n) => n));
  });

  it('waits for tool outputs, says so once, and commits with the explicit create', async () => {
    const sim = await simulator({ timing: { timeToFirstTokenMs: 150 } });
    const client = await RawClient.open(sim);
    const id = await running(client, { input: 'look it up', tools });
    client.steer(id, 'and be brief');
    await client.type('response.steer.accepted');
    const target = await client.type('response.completed');
    const pending = await client.type('response.steer.pending');
    const call = responseOf(target).output[0];
    expect(pending).toMatchObject({
      stream_id: 'main',
      sequence_number: Number(target.sequence_number) + 1,
      reason: 'waiting_for_required_input',
      required_input: [{ type: 'function_call_output', call_id: call?.call_id, name: 'lookup' }],
    });
    const input = [{ type: 'function_call_output', call_id: call?.call_id, output: '42' }];
    client.create({ model: MODEL, stream_id: 'main', previous_response_id: id, input, tools });
    await client.type('response.completed', 'main');
    expect(sim.journal.entries[1]).toMatchObject({ contextItems: 4, status: 'completed', successorOf: null });
    client.steer(id, 'Too late.');
    const late = await client.type('response.steer.failed');
    expect(failure(late)).toBe('response_already_completed');
    expect(late).toMatchObject({
      stream_id: 'main',
      steer: { previous_response_id: id, input: 'Too late.' },
    });
    expect(late.steer).not.toHaveProperty('id');
  });

  it('sends no pending when the explicit create is already there', async () => {
    const sim = await simulator({ timing: { timeToFirstTokenMs: 150 }, script: { rules: [CALL_ONCE] } });
    const client = await RawClient.open(sim);
    const id = await running(client, { input: 'look', tools });
    client.steer(id, 'brief');
    await client.type('response.steer.accepted');
    const input = [{ type: 'function_call_output', call_id: 'call_fixed', output: '42' }];
    client.create({ model: MODEL, stream_id: 'main', previous_response_id: id, input, tools });
    await client.type('response.completed');
    await client.type('response.completed');
    expect(client.frames.filter((frame) => frame.type === 'response.steer.pending')).toEqual([]);
    expect(sim.journal.entries[1]?.contextItems).toBe(4);
  });

  it.each([
    ['the lane goes elsewhere', () => ({ input: 'new talk' })],
    ['the parent is lost', (id: string) => ({ input: 'no outputs', previous_response_id: id })],
  ])('hands back waiting steers when %s', async (_name, next) => {
    const client = await RawClient.open(await simulator({ timing: { timeToFirstTokenMs: 150 } }));
    const id = await running(client, { input: 'look it up', tools });
    client.steer(id, 'brief');
    await client.type('response.steer.pending');
    client.create({ model: MODEL, stream_id: 'main', ...next(id) });
    const failed = await client.type('response.steer.failed');
    expect(failed).toMatchObject({
      steer: { id: expect.any(String), input: 'brief', previous_response_id: id },
      error: { code: 'successor_creation_failed' },
    });
  });

  it.each([
    ['another model', { model: 'gpt-5.5' }, 'steering_not_supported'],
    ['a conversation', { conversation: 'conv_1' }, 'steering_not_supported'],
    ['compaction', { context_management: [{ type: 'compaction' }] }, 'steering_not_supported'],
  ])('refuses %s', async (_name, fields, code) => {
    const switches = { steeringModels: [MODEL] };
    const client = await RawClient.open(await simulator({ ...PACE, switches }));
    const id = await running(client, { input: '#deltas=100', ...fields });
    client.steer(id, 'x');
    expect(failure(await client.type('response.steer.failed'))).toBe(code);
  });

  it('refuses bad input, unknown targets, too many, and ended targets', async () => {
    const client = await RawClient.open(await simulator({ ...PACE, switches: { maxPendingSteers: 1 } }));
    const id = await running(client, { input: '#deltas=100' });
    for (const input of [
      undefined,
      7,
      [],
      [{ role: 'assistant', content: 'x' }],
      [{ type: 'function_call_output' }],
    ]) {
      client.steer(id, input);
      expect(failure(await client.type('response.steer.failed'))).toBe('invalid_input');
    }
    client.send({ type: 'response.steer', previous_response_id: id, input: 'x', stream_id: 'main' });
    expect(failure(await client.type('response.steer.failed'))).toBe('invalid_input');
    client.steer('resp_nowhere', 'x');
    const lost = await client.type('response.steer.failed');
    expect(failure(lost)).toBe('response_not_found');
    expect(lost).not.toHaveProperty('stream_id');
    client.steer(id, 'fits');
    client.steer(id, 'does not');
    expect(failure(await client.type('response.steer.failed'))).toBe('too_many_pending_steers');
  });

  it('fails accepted steers with their id when the target fails or the successor cannot start', async () => {
    const sim = await simulator({ ...PACE, faults: [{ kind: 'successor-fails', times: 1 }] });
    const client = await RawClient.open(sim);
    const first = await running(client, { input: '#deltas=100' });
    client.steer(first, 'a');
    expect(failure(await client.type('response.steer.failed'))).toBe('successor_creation_failed');
    sim.configure({ faults: [{ kind: 'failed', atEvent: 80 }], switches: { steerBoundary: 'item' } });
    const second = await running(client, { input: '#deltas=100' });
    client.steer(second, 'b');
    const accepted = await client.type('response.steer.accepted');
    const failed = await client.type('response.steer.failed');
    expect(failure(failed)).toBe('response_not_active');
    expect((failed.steer as { id: string }).id).toBe((accepted.steer as { id: string }).id);
  });

  it('at item boundaries lets the message end and completes normally', async () => {
    const client = await RawClient.open(await simulator({ ...PACE, switches: { steerBoundary: 'item' } }));
    const one = await running(client, { input: '#deltas=60' });
    client.steer(one, 'more');
    await client.type('response.completed', 'main');
    await client.type('response.created', 'main');
    await client.type('response.completed', 'main');
    const two = await running(client, { input: '#deltas=60 #messages=3' });
    client.steer(two, 'stop');
    expect(responseOf(await client.type('response.incomplete', 'main')).output).toHaveLength(1);
  });
});

const CALL_ONCE = {
  when: { calls: 0, input: 'look' },
  items: [
    { type: 'function_call' as const, name: 'lookup', callId: 'call_fixed', arguments: '{"city":"x"}' },
  ],
};
