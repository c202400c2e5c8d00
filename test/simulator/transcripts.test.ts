import { ResponsesWebSocketSession } from 'openai/lib/responses/responses-websocket-session';
import type { ResponsesServerEvent } from 'openai/resources/responses/responses';
import { describe, expect, it } from 'vitest';
import { contextDigest } from '../../src/simulator/index.ts';
import { functionTool, sdk, sdkSocket, simulator } from './support.ts';

const LIMITS = { maxLanes: 64, maxBufferedEvents: 100_000, maxBufferedBytes: 64 * 1024 * 1024 };
const weather = functionTool('weather');

describe('transcripts of the protocol, driven by the official SDK over WebSocket', () => {
  it('(a) a simple turn on the default lane has the whole event sequence', async () => {
    const running = await simulator();
    const socket = await sdkSocket(running);
    const seen: ResponsesServerEvent[] = [];
    socket.on('event', (event) => seen.push(event));
    const lane = new ResponsesWebSocketSession(socket, LIMITS).lane();
    lane.create({
      model: 'gpt-5.5',
      store: false,
      input: [{ type: 'message', role: 'user', content: 'Say hello. #say=Hello!' }],
    });
    const response = await lane.finalResponse();
    expect(response.output_text).toBe('Hello!');
    expect(response.status).toBe('completed');
    expect(seen.map((event) => event.type)).toEqual([
      'response.created',
      'response.in_progress',
      'response.output_item.added',
      'response.content_part.added',
      'response.output_text.delta',
      'response.output_text.done',
      'response.content_part.done',
      'response.output_item.done',
      'response.completed',
    ]);
    expect(seen.map((event) => (event as { sequence_number: number }).sequence_number)).toEqual([
      0, 1, 2, 3, 4, 5, 6, 7, 8,
    ]);
    expect(seen.every((event) => !('stream_id' in event))).toBe(true);
    expect(response.usage?.output_tokens).toBe(1);
  });

  it('(b) a function call is continued with only its output', async () => {
    const running = await simulator();
    const lane = new ResponsesWebSocketSession(await sdkSocket(running), LIMITS).lane();
    const tools = [weather as never];
    lane.create({ model: 'gpt-5.5', store: false, input: 'Weather in Oslo?', tools });
    const first = await lane.finalResponse();
    const call = first.output[0];
    if (call?.type !== 'function_call') throw new Error('expected a call');
    expect(JSON.parse(call.arguments)).toEqual({ city: 'city 1' });
    const output = { type: 'function_call_output' as const, call_id: call.call_id, output: '4 C, rain' };
    lane.create({ model: 'gpt-5.5', store: false, previous_response_id: first.id, input: [output], tools });
    const second = await lane.finalResponse();
    expect(second.previous_response_id).toBe(first.id);
    const seen = [
      { type: 'message', role: 'user', content: 'Weather in Oslo?' },
      { type: 'function_call', call_id: call.call_id, name: 'weather', arguments: call.arguments },
      { ...output },
    ];
    expect(second.output_text).toContain(`context ${contextDigest(seen)}`);
    expect(second.output_text).toContain('sees 3 items');
    expect(second.usage?.input_tokens_details.cached_tokens).toBeGreaterThan(0);
  });

  it('(c) two lanes interleave and number their events per response', async () => {
    const running = await simulator({ timing: { tokensPerSecond: 500 } });
    const socket = await sdkSocket(running);
    const order: string[] = [];
    socket.on('event', (event) => order.push(`${(event as { stream_id?: string }).stream_id}:${event.type}`));
    const session = new ResponsesWebSocketSession(socket, LIMITS);
    const one = session.lane('agent_1');
    const two = session.lane('agent_2');
    one.create({ model: 'gpt-5.5', store: false, input: 'Plan. #deltas=40' });
    two.create({ model: 'gpt-5.5', store: false, input: 'Review. #deltas=10' });
    const reviewed = await two.finalResponse();
    two.create({ model: 'gpt-5.5', store: false, previous_response_id: reviewed.id, input: 'Go on.' });
    const [planned, next] = await Promise.all([one.finalResponse(), two.finalResponse()]);
    expect(next.previous_response_id).toBe(reviewed.id);
    expect(planned.status).toBe('completed');
    const created = order.filter((line) => line.endsWith('response.created'));
    expect(created).toEqual([
      'agent_1:response.created',
      'agent_2:response.created',
      'agent_2:response.created',
    ]);
    expect(order.indexOf('agent_2:response.completed')).toBeLessThan(
      order.indexOf('agent_1:response.completed'),
    );
  });

  it('(d) a steer is accepted, ends its target and starts the successor', async () => {
    const running = await simulator({ timing: { tokensPerSecond: 400 } });
    const socket = await sdkSocket(running);
    const session = new ResponsesWebSocketSession(socket, LIMITS);
    const lane = session.lane('main');
    lane.create({ model: 'gpt-6-astra', store: false, input: 'Write a long report on tides. #deltas=2000' });
    const created = await lane.receive();
    if (created.type !== 'response.created') throw new Error(String(created.type));
    const id = (created as { response: { id: string } }).response.id;
    socket.send({
      type: 'response.steer',
      previous_response_id: id,
      input: 'Keep it to one paragraph.',
    } as never);
    const types: string[] = [];
    let successor: { id: string; previous_response_id?: string | null } | undefined;
    for (;;) {
      const event = await lane.receive();
      if (event.type === 'response.output_text.delta') continue;
      types.push(event.type);
      if (event.type === 'response.incomplete') {
        const { response } = event as { response: { incomplete_details: { reason: string } } };
        expect(response.incomplete_details.reason).toBe('steered');
      }
      if (event.type === 'response.created') successor = (event as unknown as { response: never }).response;
      if (event.type === 'response.completed') break;
    }
    expect(types.indexOf('response.steer.accepted')).toBeGreaterThanOrEqual(0);
    expect(types.indexOf('response.incomplete')).toBeGreaterThan(types.indexOf('response.steer.accepted'));
    expect(successor?.previous_response_id).toBe(id);
    const [, entry] = running.journal.entries;
    expect(entry).toMatchObject({ successorOf: id, status: 'completed', contextItems: 3 });
  });

  it('(e) an unknown previous response fails alone and the full input goes on', async () => {
    const running = await simulator();
    const socket = await sdkSocket(running);
    const errors: unknown[] = [];
    socket.on('error', (error) => errors.push(error.error));
    const lane = new ResponsesWebSocketSession(socket, LIMITS).lane();
    lane.create({
      model: 'gpt-5.5',
      store: false,
      previous_response_id: 'resp_abc',
      input: [{ type: 'message', role: 'user', content: 'And then?' }],
    });
    await expect(lane.finalResponse()).rejects.toThrow();
    expect(errors).toEqual([
      {
        type: 'error',
        status: 400,
        error: {
          type: 'invalid_request_error',
          code: 'previous_response_not_found',
          message: "Previous response with id 'resp_abc' not found.",
          param: 'previous_response_id',
        },
      },
    ]);
    lane.create({
      model: 'gpt-5.5',
      store: false,
      input: [
        { type: 'message', role: 'user', content: 'Tell a story.' },
        {
          type: 'message',
          id: 'msg_e0',
          role: 'assistant',
          status: 'completed',
          content: [{ type: 'output_text', text: 'Once.', annotations: [], logprobs: [] }],
        },
        { type: 'message', role: 'user', content: 'And then?' },
      ],
    });
    expect((await lane.finalResponse()).output_text).toContain('sees 3 items');
  });

  it('(f) lane names, the lane limit and the connection limit reach the SDK as its errors', async () => {
    const running = await simulator({ switches: { maxLanes: 1 } });
    const socket = await sdkSocket(running);
    const session = new ResponsesWebSocketSession(socket, LIMITS);
    const one = session.lane('agent_1');
    one.create({ model: 'gpt-5.5', store: false, input: 'x' });
    await one.finalResponse();
    const two = session.lane('agent_2');
    two.create({ model: 'gpt-5.5', store: false, input: 'x' });
    await expect(two.finalResponse()).rejects.toMatchObject({
      error: { stream_id: 'agent_2', error: { code: 'websocket_stream_limit_reached', param: 'stream_id' } },
    });
    const main = session.lane();
    socket.send({ type: 'response.create', stream_id: 'not a name', input: 'x' });
    await expect(main.finalResponse()).rejects.toMatchObject({
      error: { error: { code: 'invalid_stream_id' } },
    });
    one.create({ model: 'gpt-5.5', store: false, input: 'still served' });
    expect((await one.finalResponse()).status).toBe('completed');
    running.configure({ faults: [{ kind: 'connection-limit', atEvent: 0 }] });
    const messages: string[] = [];
    socket.on('error', (error) => messages.push(error.message));
    const closed = new Promise((resolve) => socket.socket.once('close', resolve));
    one.create({ model: 'gpt-5.5', store: false, input: 'x' });
    await closed;
    expect(messages).toEqual([
      'Responses websocket connection limit reached (60 minutes). Create a new websocket connection to continue.',
    ]);
  });

  it('takes a flat error frame too', async () => {
    const running = await simulator({
      faults: [{ kind: 'error', atEvent: 7, shape: 'flat', code: 'server_error' }],
    });
    const lane = new ResponsesWebSocketSession(await sdkSocket(running), LIMITS).lane('agent_1');
    lane.create({ model: 'gpt-5.5', store: false, input: 'x' });
    await expect(lane.finalResponse()).rejects.toMatchObject({
      error: { code: 'server_error', stream_id: 'agent_1', sequence_number: 7 },
    });
  });

  it('(g) a warm-up gives an id that the first turn continues', async () => {
    const running = await simulator();
    const lane = new ResponsesWebSocketSession(await sdkSocket(running), LIMITS).lane();
    const shared = { model: 'gpt-5.5', store: false, instructions: 'Be terse.', tools: [] };
    lane.create({ ...shared, generate: false, input: [] });
    const warm = await lane.finalResponse();
    expect(warm).toMatchObject({ status: 'completed', output: [] });
    lane.create({
      ...shared,
      previous_response_id: warm.id,
      input: [{ type: 'message', role: 'user', content: 'Hi' }],
    });
    const first = await lane.finalResponse();
    expect(first.previous_response_id).toBe(warm.id);
    expect(running.journal.entries.map((entry) => entry.warmUp)).toEqual([true, false]);
  });
});

describe('the same over HTTP', () => {
  it('answers, stores, continues, retrieves, deletes and compacts', async () => {
    const running = await simulator();
    const client = sdk(running);
    const first = await client.responses.create({ model: 'gpt-5.5', input: 'Hello #say=Hi.' });
    expect(first.output_text).toBe('Hi.');
    const second = await client.responses.create({
      model: 'gpt-5.5',
      input: 'More',
      previous_response_id: first.id,
    });
    expect(second.output_text).toContain('sees 3 items');
    expect(await client.responses.retrieve(second.id)).toEqual(second);
    expect((await client.responses.inputItems.list(second.id)).data).toHaveLength(1);
    const compacted = await client.responses.compact({ model: 'gpt-5.5', input: 'A long talk' });
    expect(compacted.object).toBe('response.compaction');
    expect(compacted.output.map((item) => item.type)).toEqual(['message', 'compaction']);
    const resumed = await client.responses.create({
      model: 'gpt-5.5',
      input: [...compacted.output, { role: 'user', content: 'Go on' }] as never,
    });
    expect(resumed.output_text).toContain('sees 3 items');
    await client.responses.delete(first.id);
    await expect(client.responses.retrieve(first.id)).rejects.toMatchObject({ status: 404 });
    await expect(
      client.responses.create({ model: 'gpt-5.5', input: 'x', previous_response_id: first.id }),
    ).rejects.toMatchObject({ status: 400, code: 'previous_response_not_found' });
  });

  it('streams the event sequence that the socket has', async () => {
    const running = await simulator();
    const client = sdk(running);
    const types: string[] = [];
    const stream = await client.responses.create({
      model: 'gpt-5.5',
      input: '#say=Hi. #reasoning',
      stream: true,
      include: ['reasoning.encrypted_content'],
    });
    for await (const event of stream) types.push(event.type);
    expect(types).toEqual([
      'response.created',
      'response.in_progress',
      'response.output_item.added',
      'response.reasoning_summary_part.added',
      ...Array.from({ length: 5 }, () => 'response.reasoning_summary_text.delta'),
      'response.reasoning_summary_text.done',
      'response.reasoning_summary_part.done',
      'response.output_item.done',
      'response.output_item.added',
      'response.content_part.added',
      'response.output_text.delta',
      'response.output_text.done',
      'response.content_part.done',
      'response.output_item.done',
      'response.completed',
    ]);
    const final = await client.responses
      .stream({ model: 'gpt-5.5', input: 'Weather?', tools: [weather as never] })
      .finalResponse();
    expect(final.output[0]).toMatchObject({ type: 'function_call', name: 'weather' });
  });

  it('refuses with the right statuses', async () => {
    const running = await simulator({ apiKeys: ['sk-good'], switches: { models: ['gpt-*'] } });
    await expect(
      sdk(running, 'sk-bad').responses.create({ model: 'gpt-5.5', input: 'x' }),
    ).rejects.toMatchObject({ status: 401, code: 'invalid_api_key' });
    const client = sdk(running, 'sk-good');
    await expect(client.responses.create({ model: 'nope', input: 'x' })).rejects.toMatchObject({
      status: 404,
      code: 'model_not_found',
    });
    await expect(
      client.responses.create({ model: 'gpt-5.5', input: 'x', background: true, store: false }),
    ).rejects.toMatchObject({ status: 400 });
    await expect(client.responses.create({ model: 'gpt-5.5', input: '#error=429' })).rejects.toMatchObject({
      status: 429,
    });
    await expect(
      client.responses.create({ model: 'gpt-5.5', input: 'x', generate: true } as never),
    ).rejects.toMatchObject({ status: 400, param: 'generate' });
  });
});
