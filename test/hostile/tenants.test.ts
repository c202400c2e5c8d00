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

async function open() {
  const keys = { blue: createApiKey(), red: createApiKey() };
  const access = createAccessControl({
    auth: [
      { kind: 'apiKeys', keys: Object.entries(keys).map(([tenant, { id, hash }]) => ({ id, hash, tenant })) },
    ],
    tenants: [{ id: 'blue' }, { id: 'red' }],
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
