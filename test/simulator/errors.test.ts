import { describe, expect, it } from 'vitest';
import { errorOf, functionTool, RawClient, sdk, simulator } from './support.ts';

describe('bad requests get one error frame and leave the connection as it is', () => {
  it.each([
    ['not JSON', '{"type":', { code: 'invalid_json' }],
    ['not an object', '[1]', { code: 'invalid_type' }],
    ['no type', '{}', { param: 'type' }],
    ['an unknown type', '{"type":"response.cancel"}', { param: 'type', code: 'invalid_value' }],
    ['no model', { input: 'x', model: undefined }, { param: 'model', code: 'missing_required_parameter' }],
    ['a model that is a number', { input: 'x', model: 5 }, { param: 'model', code: 'invalid_type' }],
    ['no input at all', {}, { code: 'missing_required_parameter' }],
    ['input of a wrong type', { input: 5 }, { param: 'input', code: 'invalid_type' }],
    ['an item that is no object', { input: ['x'] }, { param: 'input[0]' }],
    ['an item without type', { input: [{}] }, { param: 'input[0].type' }],
    [
      'a bad role',
      { input: [{ role: 'robot', content: 'x' }] },
      { param: 'input[0].role', code: 'invalid_value' },
    ],
    [
      'output text of a user',
      { input: [{ role: 'user', content: [{ type: 'output_text', text: 'x' }] }] },
      { param: 'input[0].content[0].type' },
    ],
    [
      'a conversation and a parent',
      { input: 'x', previous_response_id: 'r', conversation: 'c' },
      { code: 'mutually_exclusive_parameters' },
    ],
    [
      'background mode',
      { input: 'x', background: true },
      { code: 'unsupported_parameter', param: 'background' },
    ],
    ['a hot temperature', { input: 'x', temperature: 3 }, { param: 'temperature' }],
    ['few output tokens', { input: 'x', max_output_tokens: 3 }, { code: 'integer_below_min_value' }],
    [
      'an unknown kind of item',
      { input: [{ type: 'telepathy' }] },
      { param: 'input[0].type', code: 'invalid_value' },
    ],
    ['an unknown kind of tool', { input: 'x', tools: [{ type: 'telepathy' }] }, { param: 'tools[0].type' }],
    [
      'a call without arguments',
      { input: [{ type: 'function_call', call_id: 'c', name: 'f' }] },
      { param: 'input[0].arguments', code: 'missing_required_parameter' },
    ],
    [
      'a part without its text',
      { input: [{ role: 'user', content: [{ type: 'input_text' }] }] },
      { param: 'input[0].content[0].text', code: 'missing_required_parameter' },
    ],
    [
      'an effort that no model knows',
      { input: 'x', reasoning: { effort: 'heroic' } },
      { param: 'reasoning.effort', code: 'invalid_value' },
    ],
    [
      'a schema of an answer that has no name',
      { input: 'x', text: { format: { type: 'json_schema', schema: {} } } },
      { param: 'text.format.name', code: 'missing_required_parameter' },
    ],
    ['an unknown include', { input: 'x', include: ['everything'] }, { param: 'include[0]' }],
    ['a nameless tool', { input: 'x', tools: [{ type: 'function' }] }, { param: 'tools[0].name' }],
    [
      'much metadata',
      { input: 'x', metadata: Object.fromEntries(Array.from({ length: 17 }, (_, n) => [n, 'x'])) },
      { param: 'metadata' },
    ],
    [
      'an output without its call',
      { input: [{ type: 'function_call_output', call_id: 'call_0', output: 'x' }] },
      { message: 'No tool call found for function call output with call_id call_0.' },
    ],
    [
      'a call without its output',
      { input: [{ type: 'function_call', call_id: 'call_1', name: 'f', arguments: '{}' }] },
      { message: 'No tool output found for function call call_1.' },
    ],
    [
      'foreign reasoning',
      { input: [{ type: 'reasoning', summary: [], encrypted_content: 'gAAAAB' }] },
      { code: 'invalid_encrypted_content' },
    ],
  ])('%s', async (_name, frame, expected) => {
    const client = await RawClient.open(await simulator());
    if (typeof frame === 'string') client.send(frame);
    else client.create(frame);
    const error = await client.type('error');
    expect(error.status).toBe(400);
    expect(errorOf(error)).toMatchObject({ type: 'invalid_request_error', ...expected });
    await client.turn({ input: 'fine' });
  });

  it.each([
    ['an output of Codex, which names no call', { type: 'function_call_output', output: 'x', name: 'f' }],
    [
      'an answer without id, status and annotations',
      { type: 'message', role: 'assistant', content: [{ type: 'output_text', text: 'x' }] },
    ],
    ['an answer as text', { role: 'assistant', content: 'x' }],
    ['an image without a detail', { role: 'user', content: [{ type: 'input_image', image_url: 'data:,' }] }],
    ['an item with nulls for what it lacks', { role: 'user', content: 'x', id: null, phase: null }],
    [
      'a hosted call without an id',
      { type: 'web_search_call', status: 'completed', action: { type: 'search', query: 'x' } },
    ],
  ])('takes %s', async (_name, item) => {
    const client = await RawClient.open(await simulator({ switches: { unknownFields: 'reject' } }));
    await client.turn({ input: [item, { role: 'user', content: 'go on' }] });
  });

  it('refuses continuing without the tool output, and evicts the parent', async () => {
    const client = await RawClient.open(await simulator());
    const parent = await client.turn({ input: 'x', tools: [functionTool('f')] });
    client.create({ input: 'skip it', previous_response_id: parent.id });
    expect(errorOf(await client.type('error')).message).toBe(
      `No tool output found for function call ${parent.output[0]?.call_id}.`,
    );
    client.create({ input: 'x', previous_response_id: parent.id });
    expect(errorOf(await client.type('error')).code).toBe('previous_response_not_found');
  });

  it('does not find the items of a turn that was not stored', async () => {
    const running = await simulator();
    const client = await RawClient.open(running);
    const turn = await client.turn({ input: 'x #reasoning' });
    client.create({ input: [...turn.output, { role: 'user', content: 'y' }] });
    const error = await client.type('error');
    expect(error.status).toBe(404);
    expect(errorOf(error).message).toContain(`Item with id '${turn.output[0]?.id}' not found.`);
    running.configure({ switches: { itemIds: 'all' } });
    client.create({ input: turn.output.slice(1) });
    expect((await client.type('error')).status).toBe(404);
    const stored = await client.turn({ input: 'x', store: true });
    await client.turn({ input: [{ type: 'item_reference', id: stored.output[0]?.id }] });
  });

  it('accepts its own encrypted reasoning from the same key only', async () => {
    const running = await simulator();
    const headers = { authorization: 'Bearer sk-one' };
    const mine = await RawClient.open(running, { headers });
    const turn = await mine.turn({ input: 'x #reasoning', include: ['reasoning.encrypted_content'] });
    const input = turn.output.map(({ id: _id, ...item }) => item);
    await (await RawClient.open(running, { headers })).turn({ input });
    const theirs = await RawClient.open(running, { headers: { authorization: 'Bearer sk-two' } });
    theirs.create({ input });
    expect(errorOf(await theirs.type('error')).code).toBe('invalid_encrypted_content');
  });

  it('takes fields that nobody documented, unless told to reject them', async () => {
    const running = await simulator();
    const client = await RawClient.open(running);
    await client.turn({ input: 'x', stream: true, client_metadata: { a: 'b' }, brand_new: 1 });
    running.configure({ switches: { unknownFields: 'reject' } });
    client.create({ input: 'x', brand_new: 1 });
    expect(errorOf(await client.type('error'))).toMatchObject({
      code: 'unknown_parameter',
      param: 'brand_new',
    });
  });

  it('has both frame shapes and all places for headers', async () => {
    const fault = {
      kind: 'error' as const,
      status: 429,
      code: 'rate_limit_exceeded',
      headers: { 'retry-after': '2' },
    };
    const running = await simulator({ faults: [fault] });
    const client = await RawClient.open(running);
    const error = async () => {
      client.create({ stream_id: 'a', input: 'x' });
      return await client.type('error');
    };
    expect(await error()).toMatchObject({
      status: 429,
      stream_id: 'a',
      error: { headers: { 'retry-after': '2' } },
    });
    running.configure({ switches: { errorHeaders: 'outside' } });
    const outside = await error();
    expect(outside).toMatchObject({ headers: { 'retry-after': '2' } });
    expect(outside.error).not.toHaveProperty('headers');
    running.configure({ switches: { errorShape: 'flat' } });
    expect(await error()).toEqual({
      type: 'error',
      code: 'rate_limit_exceeded',
      message: expect.any(String),
      param: null,
      sequence_number: 0,
      stream_id: 'a',
    });
  });

  it('refuses upgrades with the HTTP error body', async () => {
    const running = await simulator({ apiKeys: ['sk-good'] });
    await expect(RawClient.open(running)).rejects.toThrow('401');
    await RawClient.open(running, { headers: { authorization: 'Bearer sk-good' } });
    for (const status of [426, 404, 405, 501]) {
      running.configure({ switches: { websocket: false, websocketRefusalStatus: status } });
      await expect(RawClient.open(running, { headers: { authorization: 'Bearer sk-good' } })).rejects.toThrow(
        String(status),
      );
    }
    expect((await sdk(running, 'sk-good').responses.create({ model: 'm', input: 'x' })).status).toBe(
      'completed',
    );
  });

  it('closes with 1009 on a message over the limit', async () => {
    const client = await RawClient.open(await simulator({ switches: { maxMessageBytes: 2048 } }));
    await client.turn({ input: 'small' });
    client.create({ input: 'x'.repeat(4096) });
    expect((await client.closed).code).toBe(1009);
  });
});
