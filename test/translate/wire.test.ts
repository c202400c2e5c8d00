import protobuf from 'protobufjs';
import { describe, expect, test } from 'vitest';
import type { SessionEvent, StartTurn } from '../../src/core/types.ts';
import { GatewayError } from '../../src/errors.ts';
import { createWire, frameFromBytes, loadApi } from '../../src/translate/index.ts';
import { decode, decodeEvent, encode, eventOf, payloadOf, TYPED } from './support.ts';

const wire = createWire();
const json = (text: string) => Buffer.from(text);

function startTurn(turn: object): StartTurn {
  const message = wire.readConnect(encode('ConnectRequest', { start_turn: { turn_id: 't', ...turn } }));
  if (message.kind === 'refused') throw message.error;
  if (message.kind !== 'startTurn') throw new Error(message.kind);
  return message.turn;
}

const create = (body: object) => startTurn({ create: body }).create;

describe('messages of a client', () => {
  test('an Open with nothing set is valid', () => {
    expect(wire.readConnect(encode('ConnectRequest', { open: {} }))).toEqual({
      kind: 'open',
      open: {
        format: { payload: 'typed', schemaRevision: 0 },
        resume: undefined,
        upstream: undefined,
        model: undefined,
        recovery: true,
        labels: new Map(),
        clientName: undefined,
        clientVersion: undefined,
        heartbeatIntervalMs: undefined,
        // gRPC's libraries take so much by default.
        maxMessageBytes: 4 * 1024 * 1024,
      },
    });
  });

  test('an Open with everything set', () => {
    const open = {
      payload: 3,
      schema_revision: 1,
      resume: { token: 'secret', last_seq: '9007199254740991' },
      upstream: 'azure',
      metadata: { job: 'nightly', __proto__x: 'y' },
      model: 'gpt-5.5',
      recovery: false,
      client_name: 'billing',
      client_version: '2',
      heartbeat_interval: { seconds: '15', nanos: 500_000_000 },
      max_message_bytes: '9000000',
      echo: 2,
    };
    expect(wire.readConnect(encode('ConnectRequest', { open }))).toEqual({
      kind: 'open',
      open: {
        format: { payload: 'both', schemaRevision: 1, echo: 'none' },
        resume: { token: 'secret', lastSeq: Number.MAX_SAFE_INTEGER },
        upstream: 'azure',
        model: 'gpt-5.5',
        recovery: false,
        labels: new Map([
          ['job', 'nightly'],
          ['__proto__x', 'y'],
        ]),
        clientName: 'billing',
        clientVersion: '2',
        heartbeatIntervalMs: 15_500,
        maxMessageBytes: 9_000_000,
      },
    });
  });

  test.each([
    [{ ack: { seq: 4 } }, { kind: 'ack', seq: 4 }],
    [{ ack: {} }, { kind: 'ack', seq: 0 }],
    [{ cancel_turn: { lane_id: 'a', turn_id: 't' } }, { kind: 'cancelTurn', laneId: 'a', turnId: 't' }],
    [
      { steer_turn: { lane_id: 'a', input: [{ message: { role: 'user', text: 'Shorter.' } }] } },
      {
        kind: 'steerTurn',
        laneId: 'a',
        turnId: undefined,
        input: ['{"type":"message","role":"user","content":"Shorter."}'],
      },
    ],
  ])('%j', (message, input) => {
    expect(wire.readConnect(encode('ConnectRequest', message))).toEqual({ kind: 'input', input });
  });

  test('a StartTurn with everything set', () => {
    const turn = startTurn({
      lane_id: 'agent_1',
      create: { model: 'gpt-5.5', input: [{ message: { role: 'user', text: 'Hi' } }] },
      previous_response_id: 'resp_1',
      input_mode: 2,
      timeout: { seconds: 90, nanos: 500_000_000 },
      wait_on_rate_limit: true,
      trace_context: { traceparent: '00-1-2-01', baggage: 'a=b' },
    });
    expect(turn).toMatchObject({
      laneId: 'agent_1',
      turnId: 't',
      chain: { kind: 'from', responseId: 'resp_1' },
      inputMode: 'fullHistory',
      timeoutMs: 90_500,
      waitOnRateLimit: true,
      traceContext: { traceparent: '00-1-2-01', baggage: 'a=b' },
    });
  });

  test.each([
    [{}, { kind: 'automatic' }],
    [{ new_conversation: {} }, { kind: 'newConversation' }],
    [{ create: { previous_response_id: 'r' } }, { kind: 'from', responseId: 'r' }],
    [
      { previous_response_id: 'r', create: { previous_response_id: 'r' } },
      { kind: 'from', responseId: 'r' },
    ],
  ])('the chain of %j', (turn, chain) => {
    expect(startTurn(turn).chain).toEqual(chain);
  });

  test('a refused turn is told by its ids, and the session goes on', () => {
    const bytes = encode('ConnectRequest', {
      start_turn: { lane_id: 'l', turn_id: 't', create: { background: true } },
    });
    expect(wire.readConnect(bytes)).toMatchObject({ kind: 'refused', laneId: 'l', turnId: 't' });
  });

  test.each([
    ['no arm', new Uint8Array(0), 'EMPTY_MESSAGE'],
    [
      'two arms',
      Buffer.concat([encode('ConnectRequest', { ack: {} }), encode('ConnectRequest', { open: {} })]),
      'INVALID_FIELD',
    ],
    ['bytes that are no message', Buffer.from([0x0a, 0x7f]), 'MALFORMED_MESSAGE'],
    [
      'an unsafe last_seq',
      encode('ConnectRequest', { open: { resume: { last_seq: '18446744073709551615' } } }),
      'INVALID_FIELD',
    ],
  ])('%s', (_name, bytes, reason) => {
    expect(() => wire.readConnect(bytes)).toThrow(expect.objectContaining({ reason }));
  });
});

describe('the body of a create', () => {
  test('goes upstream field for field, in one order, without what the core adds', () => {
    const body = create({
      model: 'gpt-5.5',
      instructions: 'Be terse.',
      store: false,
      temperature: 0,
      parallel_tool_calls: false,
      include: ['reasoning.encrypted_content'],
      tools: [
        { function: { name: 'f', parameters: json('{"b":1.0,"a":{}}'), strict: true } },
        { web_search: {} },
      ],
      tool_choice: { mode: 'required' },
      reasoning: { effort: 'high' },
      text: { format: { json_schema: { name: 's', schema: json('{"x":1e400}') } } },
      metadata: { k: 'v' },
      conversation_id: 'conv_1',
      max_output_tokens: 16,
      context_management: [{ type: 'compaction', compact_threshold: 200_000 }],
      extra_json: json('{"client_metadata":{"n":1.50},"__proto__":1}'),
    });
    expect([...body.fields]).toEqual([
      ['model', '"gpt-5.5"'],
      ['instructions', '"Be terse."'],
      ['conversation', '"conv_1"'],
      [
        'tools',
        '[{"type":"function","name":"f","parameters":{"b":1.0,"a":{}},"strict":true},{"type":"web_search"}]',
      ],
      ['tool_choice', '"required"'],
      ['parallel_tool_calls', 'false'],
      ['store', 'false'],
      ['context_management', '[{"type":"compaction","compact_threshold":200000}]'],
      ['max_output_tokens', '16'],
      ['reasoning', '{"effort":"high"}'],
      ['text', '{"format":{"type":"json_schema","name":"s","schema":{"x":1e400}}}'],
      ['temperature', '0'],
      ['metadata', '{"k":"v"}'],
      ['include', '["reasoning.encrypted_content"]'],
      ['client_metadata', '{"n":1.50}'],
      ['__proto__', '1'],
    ]);
    expect(body).toMatchObject({
      input: [],
      model: 'gpt-5.5',
      store: false,
      generate: true,
      usesConversation: true,
    });
  });

  test('with nothing set is empty', () => {
    expect(create({})).toEqual({
      fields: new Map(),
      input: [],
      previousResponseId: undefined,
      model: undefined,
      store: true,
      generate: true,
      usesConversation: false,
    });
  });

  test('input items: typed ones with their kind first, raw ones byte for byte', () => {
    const raw = ' {"type":"new_kind", "n":1.0}';
    const { input } = create({
      input: [
        {
          message: {
            role: 'user',
            content: [{ input_text: { text: 'é"\n' } }, { input_image: { image_url: 'data:,' } }],
          },
        },
        { function_call_output: { call_id: 'c', output: '' } },
        { function_call_output: { call_id: 'c', output_parts: [{ input_text: { text: 'x' } }] } },
        { item_reference: { id: 'msg_1' } },
        { json: json(raw) },
      ],
    });
    expect(input).toEqual([
      '{"type":"message","role":"user","content":[{"type":"input_text","text":"é\\"\\n"},{"type":"input_image","image_url":"data:,"}]}',
      '{"type":"function_call_output","call_id":"c","output":""}',
      '{"type":"function_call_output","call_id":"c","output":[{"type":"input_text","text":"x"}]}',
      '{"type":"item_reference","id":"msg_1"}',
      raw,
    ]);
  });

  test.each([
    [{ generate: false }, { generate: false }],
    [{ prompt_cache_options: { prewarm: true } }, { generate: false }],
    [{ extra_json: json('{"store":false,"model":"m"}') }, { store: false, model: 'm' }],
    [{ previous_response_id: 'r' }, { previousResponseId: 'r' }],
    [{ background: false }, {}],
  ])('%j', (body, facts) => {
    expect(create(body)).toMatchObject(facts);
  });

  const message = { role: 'user', text: 'x' };
  const tool = { name: 'f' };
  test.each([
    ['background', { background: true }, 'INVALID_FIELD', 'start_turn.create.background'],
    [
      'background by extra_json',
      { extra_json: json('{"background":true}') },
      'INVALID_FIELD',
      'start_turn.create.background',
    ],
    [
      'conversation and previous_response_id',
      { conversation_id: 'c', previous_response_id: 'r' },
      'INVALID_FIELD',
      'start_turn.create',
    ],
    [
      'both forms of conversation',
      { conversation_id: 'c', conversation: { id: 'd' } },
      'INVALID_FIELD',
      'start_turn.create',
    ],
    ['temperature too high', { temperature: 2.1 }, 'INVALID_FIELD', 'start_turn.create.temperature'],
    [
      'temperature that is no number',
      { temperature: Number.NaN },
      'INVALID_FIELD',
      'start_turn.create.temperature',
    ],
    ['top_p below zero', { top_p: -0.1 }, 'INVALID_FIELD', 'start_turn.create.top_p'],
    ['top_logprobs', { top_logprobs: 21 }, 'INVALID_FIELD', 'start_turn.create.top_logprobs'],
    ['max_output_tokens', { max_output_tokens: 15 }, 'INVALID_FIELD', 'start_turn.create.max_output_tokens'],
    [
      'compact_threshold',
      { context_management: [{ type: 'compaction', compact_threshold: 999 }] },
      'INVALID_FIELD',
      'start_turn.create.context_management[0].compact_threshold',
    ],
    [
      'too many labels',
      { metadata: Object.fromEntries(Array.from({ length: 17 }, (_, i) => [`k${i}`, ''])) },
      'INVALID_FIELD',
      'start_turn.create.metadata',
    ],
    [
      'a label too long',
      { metadata: { ['k'.repeat(65)]: '' } },
      'INVALID_FIELD',
      'start_turn.create.metadata',
    ],
    [
      'a value too long',
      { metadata: { k: 'v'.repeat(513) } },
      'INVALID_FIELD',
      'start_turn.create.metadata["k"]',
    ],
    [
      'a cache key too long',
      { prompt_cache_key: 'k'.repeat(65) },
      'INVALID_FIELD',
      'start_turn.create.prompt_cache_key',
    ],
    ['an item with no arm', { input: [{}] }, 'INVALID_FIELD', 'start_turn.create.input[0]'],
    [
      'text and content',
      { input: [{ message: { ...message, content: [{ input_text: { text: 'y' } }] } }] },
      'INVALID_FIELD',
      'start_turn.create.input[0].message',
    ],
    [
      'a part with no arm',
      { input: [{ message: { role: 'user', content: [{}] } }] },
      'INVALID_FIELD',
      'start_turn.create.input[0].message.content[0]',
    ],
    [
      'an output without call_id',
      { input: [{ custom_tool_call: {} }, { apply_patch_call_output: { status: 'completed' } }] },
      'INVALID_FIELD',
      'start_turn.create.input[1].apply_patch_call_output.call_id',
    ],
    [
      'bad base64',
      {
        input: [
          { message: { role: 'user', content: [{ input_file: { file_data: 'data:x;base64,a*==' } }] } },
        ],
      },
      'INVALID_FIELD',
      'start_turn.create.input[0].message.content[0].input_file.file_data',
    ],
    [
      'base64 cut short',
      { input: [{ message: { role: 'user', content: [{ input_file: { file_data: 'abc' } }] } }] },
      'INVALID_FIELD',
      'start_turn.create.input[0].message.content[0].input_file.file_data',
    ],
    [
      'an item that is no object',
      { input: [{ json: json('[]') }] },
      'INVALID_JSON',
      'start_turn.create.input[0].json',
    ],
    [
      'an item of malformed JSON',
      { input: [{ json: json('{"type":"x"') }] },
      'INVALID_JSON',
      'start_turn.create.input[0].json',
    ],
    [
      'an item of no bytes',
      { input: [{ json: json('') }] },
      'INVALID_JSON',
      'start_turn.create.input[0].json',
    ],
    [
      'an item that closes its object and opens another',
      { input: [{ json: json('{},"x":{}') }] },
      'INVALID_JSON',
      'start_turn.create.input[0].json',
    ],
    [
      'an item that is not UTF-8',
      { input: [{ json: Buffer.from('7b2261223a22ff227d', 'hex') }] },
      'INVALID_JSON',
      'start_turn.create.input[0].json',
    ],
    [
      'an item nested too deep',
      { input: [{ json: json(`{"a":${'['.repeat(300)}${']'.repeat(300)}}`) }] },
      'INVALID_JSON',
      'start_turn.create.input[0].json',
    ],
    [
      'malformed parameters',
      { tools: [{ function: { ...tool, parameters: json('{') } }] },
      'INVALID_JSON',
      'start_turn.create.tools[0].function.parameters',
    ],
    [
      'a tool of another kind',
      { tools: [{ web_search: { type: 'function' } }] },
      'INVALID_FIELD',
      'start_turn.create.tools[0].web_search.type',
    ],
    [
      'extra_json that collides',
      { model: 'a', extra_json: json('{"model":"b"}') },
      'INVALID_JSON',
      'start_turn.create.extra_json.model',
    ],
    [
      'extra_json with a key of the gateway',
      { extra_json: json('{"stream_id":"b"}') },
      'INVALID_FIELD',
      'start_turn.create.extra_json.stream_id',
    ],
    [
      'extra_json with the input',
      { extra_json: json('{"input":[]}') },
      'INVALID_FIELD',
      'start_turn.create.extra_json.input',
    ],
    [
      'extra_json with a key twice',
      { extra_json: json('{"a":1,"\\u0061":2}') },
      'INVALID_JSON',
      'start_turn.create.extra_json.a',
    ],
    [
      'extra_json that is no object',
      { extra_json: json('1') },
      'INVALID_JSON',
      'start_turn.create.extra_json',
    ],
    [
      'extra_json that is malformed',
      { extra_json: json('{"a":}') },
      'INVALID_JSON',
      'start_turn.create.extra_json',
    ],
  ])('%s is refused, with the field', (_name, body, reason, field) => {
    const refusal = (() => {
      try {
        return create(body);
      } catch (error) {
        return error;
      }
    })();
    expect(refusal).toBeInstanceOf(GatewayError);
    expect(refusal).toMatchObject({
      reason,
      metadata: { field },
      message: expect.stringContaining('allowed: '),
    });
  });

  test('two arms of one union on the wire are refused', () => {
    const item = Buffer.concat([
      encode('InputItem', { message }),
      encode('InputItem', { item_reference: { id: 'm' } }),
    ]);
    const length = (bytes: Uint8Array, tag: number) =>
      Buffer.concat([Buffer.from([tag, bytes.length]), bytes]);
    const bytes = length(length(length(item, 0x12), 0x1a), 0x12);
    expect(wire.readConnect(bytes)).toMatchObject({
      kind: 'refused',
      error: { reason: 'INVALID_FIELD', metadata: { field: 'start_turn.create.input[0]' } },
    });
  });

  describe('a request with more than it can need', () => {
    const item = { message: { role: 'user', content: [{ input_text: { text: 'x' } }] } };
    const few = createWire(undefined, { maxItems: 3 });
    const refusalOf = (body: object) => few.readConnect(encode('ConnectRequest', body));
    const excess = (limit: string, field: string) => ({
      kind: 'refused',
      laneId: 'l',
      turnId: 't',
      error: { reason: 'LIMIT_EXCEEDED', metadata: { limit, field, scope: 'message' } },
    });
    const turn = (create: object) => ({ start_turn: { lane_id: 'l', turn_id: 't', create } });
    const times = <T>(count: number, value: T) => Array.from({ length: count }, () => value);

    test('of items is refused, and its turn alone', () => {
      expect(refusalOf(turn({ input: times(3, item) }))).toMatchObject({ kind: 'startTurn' });
      expect(refusalOf(turn({ input: times(4, item) }))).toMatchObject(
        excess('items_per_turn', 'start_turn.create.input'),
      );
      expect(refusalOf({ steer_turn: { lane_id: 'l', turn_id: 't', input: times(4, item) } })).toMatchObject(
        excess('items_per_turn', 'steer_turn.input'),
      );
      const whole = (name: string, body: object) => encode(name, body);
      expect(() =>
        few.readCreateResponse(whole('CreateResponseRequest', { create: { input: times(4, item) } }), 't'),
      ).toThrow(expect.objectContaining({ reason: 'LIMIT_EXCEEDED' }));
      expect(() =>
        few.readCall(
          'CompactResponse',
          whole('CompactResponseRequest', { compact: { input: times(4, item) } }),
        ),
      ).toThrow(expect.objectContaining({ reason: 'LIMIT_EXCEEDED' }));
    });

    test.each([
      [
        'parts',
        { input: [{ message: { role: 'user', content: times(9_000, item.message.content[0]) } }] },
        'start_turn.create.input[0].message.content.input_text',
      ],
      ['tools', { tools: times(9_000, { function: { name: 'f' } }) }, 'start_turn.create'],
      [
        'metadata',
        { metadata: Object.fromEntries(times(26_000, 0).map((_, n) => [`k${n}`, 'v'])) },
        'start_turn.create',
      ],
    ])('of %s is refused, and its turn alone', (_, create, field) => {
      expect(refusalOf(turn(create))).toMatchObject(excess('fields', field));
    });

    test('of JSON values is refused, and megabytes of text are not', () => {
      const raw = (content: string) => ({ input: [{ json: json(`{"role":"user","content":${content}}`) }] });
      expect(refusalOf(turn(raw(`[${'1,'.repeat(250_000)}1]`)))).toMatchObject({
        kind: 'refused',
        error: { reason: 'INVALID_JSON', metadata: { field: 'start_turn.create.input[0].json' } },
      });
      expect(refusalOf(turn(raw(`"${'1,'.repeat(1_000_000)}"`)))).toMatchObject({ kind: 'startTurn' });
    });

    test('anywhere else ends the stream, as any other nonsense', () => {
      const open = { metadata: Object.fromEntries(times(26_000, 0).map((_, n) => [`k${n}`, 'v'])) };
      expect(() => refusalOf({ open })).toThrow(expect.objectContaining({ reason: 'LIMIT_EXCEEDED' }));
    });
  });

  test('a large request is read with a pause after each item', () => {
    const items = Array.from({ length: 50 }, (_, n) => ({ json: json(`{"role":"user","content":"${n}"}`) }));
    const bytes = encode('ConnectRequest', { start_turn: { turn_id: 't', create: { input: items } } });
    const steps = wire.connectSteps(bytes);
    for (let n = 0; n < items.length; n++) expect(steps.next()).toEqual({ done: false, value: undefined });
    expect(steps.next()).toMatchObject({ done: true, value: wire.readConnect(bytes) });
  });

  test('a field of a newer client is refused in the body and passed over in the envelope', () => {
    const unknown = Buffer.from([0xd0, 0x3e, 0x01]); // field 1002, varint 1
    const wrap = (bytes: Uint8Array, tag: number) => Buffer.concat([Buffer.from([tag, bytes.length]), bytes]);
    const inBody = wrap(wrap(Buffer.concat([encode('CreateBody', { model: 'm' }), unknown]), 0x1a), 0x12);
    expect(wire.readConnect(inBody)).toMatchObject({
      kind: 'refused',
      error: { reason: 'INVALID_FIELD', metadata: { field: 'start_turn.create' } },
    });
    const inCount = wrap(Buffer.concat([encode('CountBody', { model: 'm' }), unknown]), 0x0a);
    expect(() => wire.readCall('CountInputTokens', inCount)).toThrow('count: found field 1002');
    const inEnvelope = wrap(Buffer.concat([encode('StartTurn', { create: { model: 'm' } }), unknown]), 0x12);
    expect(wire.readConnect(inEnvelope)).toMatchObject({
      kind: 'startTurn',
      turn: { create: { model: 'm' } },
    });
  });

  test.each([200, 3000])('filters nested %i deep are refused', (depth) => {
    const { root } = loadApi();
    const tagOf = (type: string, field: string) =>
      ((root.lookupType(`responses.gateway.v1.${type}`).fields[field]?.id ?? 0) << 3) | 2;
    const wrap = (bytes: Uint8Array, tag: number) =>
      protobuf.Writer.create().uint32(tag).bytes(bytes).finish();
    let filter = encode('FileFilter', { comparison: { key: 'k', boolean: true } });
    for (let i = 0; i < depth; i++) {
      filter = wrap(wrap(filter, tagOf('Combination', 'filters')), tagOf('FileFilter', 'combination'));
    }
    const tool = wrap(wrap(filter, tagOf('FileSearchTool', 'filters')), tagOf('Tool', 'file_search'));
    const bytes = wrap(wrap(wrap(tool, tagOf('CreateBody', 'tools')), 0x1a), 0x12);
    const outcome = (() => {
      try {
        const message = wire.readConnect(bytes);
        return message.kind === 'refused' ? message.error : message;
      } catch (error) {
        return error;
      }
    })();
    expect(outcome).toBeInstanceOf(GatewayError);
    expect(outcome).toMatchObject({ code: 'INVALID_ARGUMENT' });
  });

  test.each([
    ['a chain that is new and continues', { new_conversation: {}, create: { previous_response_id: 'r' } }],
    ['two chains', { previous_response_id: 'a', create: { previous_response_id: 'b' } }],
    ['a fork of a conversation', { previous_response_id: 'a', create: { conversation_id: 'c' } }],
    ['a timeout of nothing', { timeout: {} }],
    ['a timeout of less than nothing', { timeout: { seconds: -1 } }],
  ])('%s is refused', (_name, turn) => {
    expect(() => startTurn(turn)).toThrow(expect.objectContaining({ reason: 'INVALID_FIELD' }));
  });
});

describe('calls without a session', () => {
  test('CreateResponse starts a conversation or continues a stored response', () => {
    const read = (body: object) => wire.readCreateResponse(encode('CreateResponseRequest', body), 't');
    expect(read({ payload: 2, create: { model: 'm' } })).toMatchObject({
      format: { payload: 'json', schemaRevision: 0 },
      turn: { turnId: 't', laneId: '', chain: { kind: 'newConversation' }, create: { model: 'm' } },
    });
    expect(read({ create: { previous_response_id: 'r' } }).turn.chain).toEqual({
      kind: 'from',
      responseId: 'r',
    });
    expect(read({ create: { background: true } }).turn.create.fields.get('background')).toBe('true');
  });

  test('CompactResponse carries its body', () => {
    const compact = {
      model: 'gpt-5.5',
      previous_response_id: 'r',
      input: [{ message: { role: 'user', text: 'x' } }],
      extra_json: json('{"new":1.0}'),
    };
    const bytes = encode('CompactResponseRequest', { compact, upstream: 'u', timeout: { seconds: 1 } });
    const { resource, ...rest } = wire.readCall('CompactResponse', bytes);
    expect(resource).toMatchObject({ method: 'POST', path: ['responses', 'compact'] });
    expect(resource.body).toBe(
      '{"model":"gpt-5.5","previous_response_id":"r","new":1.0,"input":[{"type":"message","role":"user","content":"x"}]}',
    );
    expect(rest).toMatchObject({ model: 'gpt-5.5', responseIds: ['r'], upstream: 'u', timeoutMs: 1000 });
  });

  test('a compact without a model is refused', () => {
    expect(() => wire.readCall('CompactResponse', encode('CompactResponseRequest', { compact: {} }))).toThrow(
      expect.objectContaining({ metadata: { field: 'compact.model' } }),
    );
  });

  test('the compacted window comes typed, and with its JSON where it says more', () => {
    const item = '{"id":"cmp_1","type":"compaction","encrypted_content":"abc"}';
    const window = (extra: string) =>
      `{"id":"resp_1","object":"response.compaction","created_at":1764000000,"output":[${item}],"usage":null${extra}}`;
    const typed = decode('CompactResponseResponse', wire.answer('CompactResponse', json(window('')), TYPED));
    expect(typed).toMatchObject({
      response: {
        id: 'resp_1',
        created_at: 1764000000,
        output: [{ compaction: { encrypted_content: 'abc' } }],
      },
    });
    expect(typed['json']).toHaveLength(0);
    const more = decode(
      'CompactResponseResponse',
      wire.answer('CompactResponse', json(window(',"new":1')), TYPED),
    );
    expect(Buffer.from(more['json'] as Uint8Array).toString()).toBe(window(',"new":1'));
  });
});

describe("the gateway's own messages", () => {
  const base: SessionEvent = {
    seq: Number.MAX_SAFE_INTEGER,
    laneId: 'läne',
    turnId: 't'.repeat(200),
    type: 'gateway.turn.failed',
    outcome: 'FAILED',
    frame: undefined,
    turnFailed: undefined,
    notice: undefined,
    commit: undefined,
    byteLength: 0,
  };

  test('TurnFailed', () => {
    const error = new GatewayError('UPSTREAM_RATE_LIMITED', 'slow down', {
      retryAfterMs: 1500,
      metadata: { limit: 'tokens' },
      upstream: { status: 429, code: 'rate_limit_exceeded', message: 'slow down', json: json('{}') },
    });
    const event = decodeEvent(
      wire.event({ ...base, turnFailed: { error, replay: 'SAFE', phase: 'SENT' } }, TYPED),
    );
    expect(event).toMatchObject({
      seq: base.seq,
      laneId: base.laneId,
      turnId: base.turnId,
      type: base.type,
      outcome: 3,
    });
    expect(event.payload?.[0]).toBe('turn_failed');
    expect(payloadOf(event)).toMatchObject({
      code: 8,
      reason: 'UPSTREAM_RATE_LIMITED',
      message: 'slow down',
      replay: 1,
      phase: 2,
      retry_after: { nanos: 500_000_000 },
      upstream_error: { status: 429, code: 'rate_limit_exceeded', json: json('{}') },
      metadata: { limit: 'tokens' },
    });
  });

  test('a failure that the upstream told carries its frame too', () => {
    const frame = frameFromBytes(
      json('{"type":"error","status":400,"error":{"type":"t","code":null,"message":"m","param":null}}'),
    );
    const error = new GatewayError('UPSTREAM_INVALID_REQUEST', 'm');
    const event = { ...eventOf(frame), turnFailed: { error, replay: 'SAFE', phase: 'SENT' } } as const;
    expect(decodeEvent(wire.event(event, TYPED))).toMatchObject({
      type: 'error',
      payload: ['turn_failed', {}],
    });
    expect(decodeEvent(wire.event(event, TYPED)).json.equals(frame.bytes)).toBe(true);
  });

  test.each([
    [999.7, 1, 0],
    [1_999.6, 2, 0],
    [999.4, 0, 999_000_000],
    [-1, 0, 0],
  ])('a time of %d ms is a valid Duration in whole milliseconds', (timeLeftMs, seconds, nanos) => {
    const { go_away } = decode(
      'ConnectResponse',
      wire.goAway({ reason: 'draining', timeLeftMs, resumeToken: 'token', movable: false }),
    );
    const { time_left } = go_away as { readonly time_left: { readonly seconds: object; nanos: number } };
    expect([Number(time_left.seconds), time_left.nanos]).toEqual([seconds, nanos]);
  });

  test('an outcome says how far the record reaches', () => {
    const event = { ...base, type: 'gateway.notice', outcome: 'COMPLETED', commit: 2 ** 33 } as const;
    const decoded = loadApi().type('Event').decode(wire.event(event, TYPED)) as unknown as { commit: object };
    expect(Number(decoded.commit)).toBe(2 ** 33);
  });

  test.each([[undefined], [0], [7]])('a resume after commit %s', (lastCommit) => {
    const resume = { token: 't', last_seq: 3, ...(lastCommit !== undefined && { last_commit: lastCommit }) };
    expect(wire.readConnect(encode('ConnectRequest', { open: { resume } }))).toMatchObject({
      open: { resume: { token: 't', lastSeq: 3, lastCommit } },
    });
  });

  test('Notice, also for a client that wants JSON', () => {
    const notice = { kind: 'replayed', reason: 'link_lost', replayedBytes: 1024, elapsedMs: 40 } as const;
    const event = { ...base, type: 'gateway.notice', outcome: undefined, notice };
    const decoded = decodeEvent(wire.event(event, { payload: 'json', schemaRevision: 0 }));
    expect(decoded).toMatchObject({
      outcome: 0,
      payload: ['notice', { kind: 'replayed', reason: 'link_lost' }],
    });
  });

  test('GoAway and Opened', () => {
    expect(
      decode(
        'ConnectResponse',
        wire.goAway({ reason: 'draining', timeLeftMs: 30_000, resumeToken: 'token', movable: true }),
      ),
    ).toMatchObject({
      go_away: { reason: 1, resume_token: 'token', movable: true },
    });
    const opened = wire.opened({
      sessionId: 's',
      resumeToken: 'token',
      resumeOutcome: 'PARTIAL',
      oldestSeq: 10,
      nextSeq: 20,
      maxMessageBytes: 1000,
      maxTurnsInFlight: 16,
      limits: LIMITS,
      activeTurns: [{ laneId: 'a', turnId: 't', phase: 'CREATED' }],
      durable: true,
      goneReason: undefined,
      heartbeatIntervalMs: undefined,
    });
    expect(decode('ConnectResponse', opened)).toMatchObject({
      opened: {
        session_id: 's',
        resume_token: 'token',
        resume_outcome: 3,
        schema_revision: 3,
        durable: true,
        limits: { max_lanes: 4, max_turns_in_flight: 16 },
        active_turns: [{ lane_id: 'a', turn_id: 't', phase: 3 }],
      },
    });
  });
});

const LIMITS = {
  maxBufferedBytes: 1,
  maxResumeBytes: 2,
  maxTranscriptBytes: 3,
  maxQueuedTurnsPerLane: 8,
  maxLanes: 4,
  maxLinks: 5,
  maxFrameBytes: 6,
  resumeGraceMs: 60_000,
  slowClientTimeoutMs: 7,
  steerSettleMs: 8,
  redialMinMs: 9,
  redialMaxMs: 10,
  maxDialAttempts: 11,
  defaultTurnTimeoutMs: undefined,
  silentTurnTimeoutMs: undefined,
};
