import { expect, it } from 'vitest';
import { checkSeq, type TestEvent, userMessage } from '../harness/client.ts';
import { startGateway } from '../harness/gateway.ts';

/** What gRPC's libraries take when nobody says otherwise. */
const DEFAULTS = { channel: { 'grpc.max_receive_message_length': 4 * 1024 * 1024 } };
const MANY = 6_000_000;

const omitted = (events: readonly TestEvent[]) => events.filter((event) => Number(event.omitted_bytes) > 0);

it('a client with default limits survives events above 4 MiB, and can go on', async () => {
  await using gateway = await startGateway({ limits: { maxBufferedBytes: 64 * 1024 * 1024 } });
  const stream = gateway.client(DEFAULTS).connect();
  stream.startTurn({ turn_id: 't1' }, `much #bytes=${MANY}`);
  const events = await stream.turn('t1');
  checkSeq(stream.events);
  expect(omitted(events).length).toBeGreaterThan(0);
  for (const event of omitted(events)) {
    expect(Number(event.omitted_bytes)).toBeGreaterThan(4 * 1024 * 1024);
    expect(event.json).toHaveLength(0);
  }
  // What a client needs to continue is there: the response's id and usage.
  const last = events.at(-1);
  expect(last).toMatchObject({
    type: 'response.completed',
    outcome: 'TURN_OUTCOME_COMPLETED',
    response_completed: {
      response: { id: expect.stringMatching(/^resp_/), output: [], usage: expect.anything() },
    },
  });
  stream.startTurn({ turn_id: 't2' }, '#say=again');
  expect((await stream.turn('t2')).at(-1)?.outcome).toBe('TURN_OUTCOME_COMPLETED');
  expect(stream.endedWith).toBeUndefined();
});

it('a client that says it takes more gets all of it', async () => {
  await using gateway = await startGateway({ limits: { maxBufferedBytes: 64 * 1024 * 1024 } });
  const stream = gateway.client().connect({ max_message_bytes: 64 * 1024 * 1024 });
  stream.startTurn({ turn_id: 't1' }, `much #bytes=${MANY}`);
  const events = await stream.turn('t1');
  expect(omitted(events)).toEqual([]);
  expect(events.at(-1)).toMatchObject({ response_completed: { response: { output: [expect.anything()] } } });
});

it('a batch of small events is cut to what its client takes', async () => {
  await using gateway = await startGateway();
  const largest = { channel: { 'grpc.max_receive_message_length': 64 * 1024 } };
  const stream = gateway
    .client(largest)
    .connect({ max_message_bytes: 64 * 1024, payload: 'PAYLOAD_FORMAT_BOTH' });
  stream.startTurn({ turn_id: 't1' }, '#deltas=5000');
  const events = await stream.turn('t1');
  checkSeq(stream.events);
  expect(events.filter(({ type }) => type === 'response.output_text.delta')).toHaveLength(5_000);
});

it('CreateResponse is bounded as well', async () => {
  await using gateway = await startGateway({ limits: { maxBufferedBytes: 64 * 1024 * 1024 } });
  const { result } = gateway.client(DEFAULTS).createResponse({
    create: { model: 'gpt-6', input: [userMessage(`#bytes=${MANY}`)] },
  });
  const { events, ended } = await result;
  expect(ended).toMatchObject({ code: 0 });
  expect(omitted(events).length).toBeGreaterThan(0);
  expect(events.at(-1)?.outcome).toBe('TURN_OUTCOME_COMPLETED');
});

it('StreamResponse is bounded as well, and a client that says it takes more gets all of it', async () => {
  await using gateway = await startGateway({ limits: { maxBufferedBytes: 64 * 1024 * 1024 } });
  const create = { model: 'gpt-6', background: true, input: [userMessage(`#bytes=${MANY}`)] };
  const made = await gateway.client().createResponse({ create, max_message_bytes: 64 * 1024 * 1024 }).result;
  const created = made.events[0]?.['response_created'] as { response: { id: string } } | undefined;
  const response_id = created?.response.id ?? '';
  const { events, ended } = await gateway.client(DEFAULTS).streamResponse({ response_id }).result;
  expect(ended).toMatchObject({ code: 0 });
  expect(omitted(events).length).toBeGreaterThan(0);
  expect(events.at(-1)?.outcome).toBe('TURN_OUTCOME_COMPLETED');
  const all = await gateway
    .client()
    .streamResponse({ response_id, options: { max_message_bytes: 64 * 1024 * 1024 } }).result;
  expect(omitted(all.events)).toEqual([]);
});
