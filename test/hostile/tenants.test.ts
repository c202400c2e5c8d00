import { expect, onTestFinished, test } from 'vitest';
import { createAccessControl } from '../../src/access/access.ts';
import { createApiKey } from '../../src/access/auth/api-keys.ts';
import { type Message, userMessage } from '../harness/client.ts';
import { startGateway } from '../harness/gateway.ts';

test('no path leads to another tenant’s response, and none of the tries reaches the upstream', async () => {
  const { gateway, blue, red } = await open();
  const owner = blue.connect();
  const { resume_token } = await owner.opened();
  owner.startTurn({ turn_id: 't1', create: { store: true } }, 'a secret of blue');
  const created = await owner.event('response.created', 't1');
  const foreign = (created.response_created as { response: { id: string } }).response.id;
  await owner.turn('t1');
  const creates = () => gateway.simulator.journal.entries.length;
  const before = creates();

  const thief = red.connect();
  await thief.opened();
  const input = [userMessage('go on')];
  const reference = Buffer.from(`{"type":"item_reference","id":"msg_1"}`);
  const turns: readonly (readonly [string, Message, string])[] = [
    ['chain', { previous_response_id: foreign, create: { model: 'm', input } }, 'UNKNOWN_RESPONSE'],
    ['create', { create: { model: 'm', input, previous_response_id: foreign } }, 'UNKNOWN_RESPONSE'],
    [
      'history',
      { previous_response_id: foreign, input_mode: 'INPUT_MODE_FULL_HISTORY', create: { model: 'm', input } },
      'UNKNOWN_RESPONSE',
    ],
    ['unknown', { previous_response_id: 'resp_made_up', create: { model: 'm', input } }, 'UNKNOWN_RESPONSE'],
    [
      'conversation',
      { create: { model: 'm', input, extra_json: Buffer.from('{"conversation":"conv_1"}') } },
      'PERMISSION_DENIED',
    ],
    ['reference', { create: { model: 'm', input: [{ json: reference }] } }, 'PERMISSION_DENIED'],
  ];
  const messages = new Map<string, string | undefined>();
  for (const [name, turn, reason] of turns) {
    thief.send({ start_turn: { turn_id: name, ...turn } });
    const last = (await thief.turn(name)).at(-1);
    messages.set(name, last?.turn_failed?.message);
    expect([name, last?.turn_failed?.reason]).toEqual([name, reason]);
  }
  // Foreign and made up look the same.
  expect(messages.get('chain')).toBe(messages.get('unknown'));

  const unary = await red.createResponse({ create: { model: 'm', input, previous_response_id: foreign } })
    .result;
  expect([unary.ended.code, unary.ended.reason]).toEqual([5, 'UNKNOWN_RESPONSE']);
  const compact = await red.compactResponse({
    compact: { model: 'm', input, previous_response_id: foreign },
  });
  expect([compact.ended.code, compact.ended.reason]).toEqual([5, 'UNKNOWN_RESPONSE']);
  for (const method of ['GetResponse', 'DeleteResponse', 'CancelResponse', 'ListInputItems']) {
    const ends = await Promise.all(
      [foreign, 'resp_made_up'].map(
        async (response_id) =>
          (await red.call(method, { response_id, options: { timeout: { seconds: 5 } } })).ended,
      ),
    );
    expect([method, ends[0]?.reason, ends[0]]).toEqual([method, 'UNKNOWN_RESPONSE', ends[1]]);
  }
  const followed = await red.streamResponse({ response_id: foreign }).result;
  expect(followed.ended.reason).toBe('UNKNOWN_RESPONSE');
  const counted = await red.call('CountInputTokens', {
    count: { model: 'm', previous_response_id: foreign },
  });
  expect(counted.ended.reason).toBe('UNKNOWN_RESPONSE');
  const stolen = red.connect({ resume: { token: resume_token } });
  expect((await stolen.opened()).resume_outcome).toBe('RESUME_OUTCOME_GONE');
  expect(creates()).toBe(before);

  // The owner goes on, from another session as well.
  const again = blue.connect();
  await again.opened();
  again.startTurn({ turn_id: 't2', previous_response_id: foreign }, 'go on');
  expect((await again.turn('t2')).at(-1)?.outcome).toBe('TURN_OUTCOME_COMPLETED');
  expect(gateway.bugs).toEqual([]);
});

test('no field, spelled in whatever way, names another tenant’s things or a model that is not allowed', async () => {
  const { gateway, blue, red } = await open({ models: ['gpt-6*'] });
  const owner = blue.connect();
  await owner.opened();
  owner.startTurn({ turn_id: 't1', create: { store: true } }, '#reasoning a secret of blue');
  const events = await owner.turn('t1');
  const created = events.find(({ type }) => type === 'response.created') as unknown as {
    response_created: { response: { id: string } };
  };
  const response = created.response_created.response.id;
  const [thought = ''] = /rs_\w+/.exec(JSON.stringify(events)) ?? [];
  expect(thought).not.toBe('');
  const before = gateway.simulator.journal.entries.length;

  const thief = red.connect();
  await thief.opened();
  const say = [userMessage('go on')];
  const raw = (json: string) => ({ input: [{ json: Buffer.from(json) }, ...say] });
  const extra = (json: string) => ({ input: say, extra_json: Buffer.from(json) });
  const creates: readonly (readonly [Message, RegExp])[] = [
    [raw(`{"type":"reasoning","id":"${thought}","summary":[]}`), /PERMISSION_DENIED/],
    [{ input: [{ reasoning: { id: thought } }, ...say] }, /PERMISSION_DENIED/],
    [raw(`{"Type":"item_reference","id":"${thought}"}`), /INVALID_JSON/],
    [raw(`{"type":"message","role":"user","content":"x","ID":"${thought}"}`), /INVALID_JSON/],
    [raw(`{"type":"message","role":"user","content":"x","Type":"item_reference","id":"a"}`), /INVALID_JSON/],
    [raw(`{"type":"message","role":"user","content":"x","type":"item_reference","id":"a"}`), /INVALID_JSON/],
    [raw(`{"t\\u0079pe":"item_reference","i\\u0064":"${thought}"}`), /PERMISSION_DENIED/],
    [
      raw(`{"type":"reasoning","id":"${thought}","encrypted_content":"x","Encrypted_Content":""}`),
      /INVALID_JSON/,
    ],
    [extra(`{"Previous_Response_Id":"${response}"}`), /INVALID_FIELD/],
    [extra(`{"PREVIOUS\\u005fRESPONSE_ID":"${response}"}`), /INVALID_FIELD/],
    [extra('{"Conver\u017fation":"conv_1"}'), /INVALID_JSON/],
    [extra('{"CONVERSATION":"conv_1"}'), /INVALID_JSON/],
    [extra('{"conversation":{"id":"conv_1"}}'), /PERMISSION_DENIED/],
    [extra('{"Stream_Id":"x"}'), /INVALID_FIELD/],
    [extra('{"Input":[]}'), /INVALID_FIELD/],
    [extra('{"top_k":1,"Top_K":2}'), /INVALID_JSON/],
    [extra(`{"prompt_cache_options":{"comparison_response_id":"${response}"}}`), /UNKNOWN_RESPONSE/],
    [extra(`{"prompt_cache_options":{"Comparison_Response_ID":"${response}"}}`), /UNKNOWN_RESPONSE/],
    [
      extra(
        `{"prompt_cache_options":{"comparison_response_id":"${response}","comparison_response_id":null}}`,
      ),
      /UNKNOWN_RESPONSE/,
    ],
    [{ input: say, prompt_cache_options: { comparison_response_id: response } }, /UNKNOWN_RESPONSE/],
    [{ input: say, tools: [{ image_generation: {} }] }, /MODEL_NOT_ALLOWED/],
    [
      { input: say, tools: [{ json: Buffer.from('{"type":"image_generation","MODEL":"o3"}') }] },
      /INVALID_JSON/,
    ],
    [{ input: say, moderation: { model: 'omni-moderation-latest' } }, /MODEL_NOT_ALLOWED/],
    [extra('{"MODEL":"o3"}'), /INVALID_JSON/],
    [extra('{"models":["o3"]}'), /MODEL_NOT_ALLOWED/],
  ];
  for (const [at, [create, reason]] of creates.entries()) {
    const turn_id = `t${at}`;
    thief.send({ start_turn: { turn_id, lane_id: turn_id, create: { model: 'gpt-6', ...create } } });
    const failed = (await thief.turn(turn_id)).at(-1)?.turn_failed;
    expect([turn_id, failed?.reason]).toEqual([turn_id, expect.stringMatching(reason)]);
  }
  for (const [at, model] of ['["gpt-6","o3"]', '{"id":"gpt-6"}', '7', 'null', '""'].entries()) {
    const turn_id = `m${at}`;
    const create = extra(`{"model":${model}}`);
    thief.send({ start_turn: { turn_id, lane_id: turn_id, create } });
    const failed = (await thief.turn(turn_id)).at(-1)?.turn_failed;
    expect([model, failed?.reason]).toEqual([
      model,
      expect.stringMatching(/INVALID_FIELD|MODEL_NOT_ALLOWED/),
    ]);
  }
  const compacted = async (compact: Message) =>
    (await red.compactResponse({ compact: { model: 'gpt-6', ...compact } })).ended.reason;
  expect(await compacted(raw(`{"type":"reasoning","id":"${thought}","summary":[]}`))).toBe(
    'PERMISSION_DENIED',
  );
  expect(await compacted(extra('{"conversation":"conv_1"}'))).toBe('PERMISSION_DENIED');
  expect(await compacted(extra('{"Previous_response_id":"x"}'))).toBe('INVALID_FIELD');
  expect(await compacted({ input: say, prompt_cache_options: { comparison_response_id: response } })).toBe(
    'UNKNOWN_RESPONSE',
  );
  expect(gateway.simulator.journal.entries.length).toBe(before);

  // To its owner it is just the conversation.
  const again = blue.connect();
  await again.opened();
  const history = {
    input: [{ reasoning: { id: thought } }, ...say],
    prompt_cache_options: { comparison_response_id: response },
  };
  again.startTurn({ turn_id: 't2', create: history });
  expect((await again.turn('t2')).at(-1)?.outcome).toBe('TURN_OUTCOME_COMPLETED');
  expect(gateway.bugs).toEqual([]);
});

test('tenants do not share connections, also with one provider key', async () => {
  const { gateway, blue, red } = await open();
  for (const client of [blue, red, blue, red]) {
    const stream = client.connect();
    await stream.opened();
    stream.startTurn({ turn_id: 't' }, 'hello');
    await stream.turn('t');
    stream.halfClose();
    await stream.ended();
  }
  const used = gateway.simulator.journal.entries.map(({ connection }) => connection);
  const [first, second, third, fourth] = used;
  expect(first).toBeDefined();
  expect([first, third]).not.toContain(second);
  expect([first, third]).not.toContain(fourth);
});

test('a steer cannot name items either', async () => {
  const { red } = await open();
  const stream = red.connect();
  await stream.opened();
  stream.startTurn({ turn_id: 't', create: { model: 'gpt-6-astra' } }, '#hang');
  await stream.event('response.created', 't');
  stream.send({
    steer_turn: { turn_id: 't', input: [{ json: Buffer.from('{"type":"item_reference","id":"msg_1"}') }] },
  });
  await stream.until(() =>
    stream.events.some(({ turn_failed }) => turn_failed !== undefined && turn_failed !== null),
  );
  stream.send({ cancel_turn: { turn_id: 't' } });
  expect((await stream.turn('t')).at(-1)?.outcome).toBe('TURN_OUTCOME_CANCELLED');
});

test('a proof that runs out starts nothing more; what runs goes on to its end', async () => {
  let nowMs = 1_900_000_000_000;
  const key = createApiKey();
  const notAfterMs = nowMs + 60_000;
  const access = createAccessControl({
    auth: [
      {
        kind: 'apiKeys',
        keys: [{ id: key.id, hash: key.hash, tenant: 'blue', subject: 'service', notAfterMs }],
      },
    ],
    tenants: [{ id: 'blue' }],
    upstreamNames: ['simulator'],
    loopbackOnly: true,
    now: () => nowMs,
  });
  const gateway = await startGateway({ access });
  onTestFinished(async () => {
    await gateway.close();
    await access.close();
  });
  const client = gateway.client({ metadata: { authorization: `Bearer ${key.key}` } });
  const stream = client.connect();
  const { resume_token } = await stream.opened();
  stream.startTurn({ turn_id: 'long', create: { model: 'gpt-6-astra' } }, 'x #deltas=400 #tps=400');
  await stream.event('response.output_text.delta', 'long');
  nowMs = notAfterMs;
  const reasonOf = async (turnId: string) => (await stream.turn(turnId)).at(-1)?.turn_failed?.reason;
  stream.startTurn({ turn_id: 'late', lane_id: 'b' }, 'x');
  expect(await reasonOf('late')).toBe('UNAUTHENTICATED');
  stream.send({ steer_turn: { turn_id: 'long', input: [userMessage('more')] } });
  const rejected = await stream.event('gateway.request.rejected');
  expect(rejected.turn_failed?.reason).toBe('UNAUTHENTICATED');
  expect((await stream.turn('long')).at(-1)?.outcome).toBe('TURN_OUTCOME_COMPLETED');
  const resumed = client.connect({ resume: { token: resume_token } });
  expect((await resumed.ended()).reason).toBe('UNAUTHENTICATED');
});

async function open(limited: { readonly models?: readonly string[] } = {}) {
  const keys = { blue: createApiKey(), red: createApiKey() };
  const access = createAccessControl({
    auth: [
      { kind: 'apiKeys', keys: Object.entries(keys).map(([tenant, { id, hash }]) => ({ id, hash, tenant })) },
    ],
    tenants: [{ id: 'blue' }, { id: 'red', ...limited }],
    upstreamNames: ['simulator'],
    loopbackOnly: true,
  });
  const gateway = await startGateway({ access });
  onTestFinished(async () => {
    await gateway.close();
    await access.close();
  });
  const client = (name: keyof typeof keys) =>
    gateway.client({ metadata: { authorization: `Bearer ${keys[name].key}` } });
  return { gateway, blue: client('blue'), red: client('red') };
}
