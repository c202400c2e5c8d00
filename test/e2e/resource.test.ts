import { type EventEmitter, once } from 'node:events';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { GatewayError } from '../../src/errors.ts';
import { checkSeq, textOf, userMessage } from '../harness/client.ts';
import { startGateway, type TestGateway } from '../harness/gateway.ts';

let gateway: TestGateway;

beforeEach(async () => {
  gateway = await startGateway();
});

afterEach(async () => {
  await gateway.close();
  expect(gateway.bugs).toEqual([]);
  expect(gateway.access.openSessions).toBe(0);
});

/** A stored response of one turn. */
async function stored(text = 'hello', more: object = {}): Promise<string> {
  const create = { model: 'gpt-6', input: [userMessage(text)], ...more };
  const { events } = await gateway.client().createResponse({ create }).result;
  return idOf(events[0]);
}

function idOf(event: Readonly<Record<string, unknown>> | undefined): string {
  const created = event?.['response_created'] as { response: { id: string } } | undefined;
  return created?.response.id ?? '';
}

describe('calls about stored responses', () => {
  it('reads, lists, deletes, and then knows it no more', async () => {
    const client = gateway.client();
    const id = await stored();
    const got = await client.call('GetResponse', { response_id: id });
    expect(got.ended.code).toBe(0);
    expect(got.reply).toMatchObject({ response: { id, status: 'completed', frequency_penalty: 0 } });
    expect(got.reply?.['json']).toHaveLength(0);
    const listed = await client.call('ListInputItems', { response_id: id, order: 'asc', limit: 1 });
    expect(listed.reply).toMatchObject({ page: { has_more: false, data: [{ message: { role: 'user' } }] } });
    const gone = await client.call('DeleteResponse', { response_id: id });
    expect(gone.reply).toMatchObject({ deleted: { id, deleted: true } });
    const again = await client.call('GetResponse', { response_id: id });
    expect(again.ended).toMatchObject({ code: 5, metadata: { http_status: '404' } });
  });

  it('gives pages in both orders', async () => {
    const client = gateway.client();
    const create = { model: 'gpt-6', input: [userMessage('a'), userMessage('b'), userMessage('c')] };
    const { events } = await client.createResponse({ create }).result;
    const response_id = idOf(events[0]);
    const page = async (more: object) =>
      (await client.call('ListInputItems', { response_id, ...more })).reply?.['page'] as {
        last_id: string;
        has_more: boolean;
        data: unknown[];
      };
    const first = await page({ limit: 2 });
    expect([first.data.length, first.has_more]).toEqual([2, true]);
    const rest = await page({ limit: 2, after: first.last_id });
    expect([rest.data.length, rest.has_more]).toEqual([1, false]);
  });

  it('counts tokens without running anything, and lists models', async () => {
    const client = gateway.client();
    const counted = await client.call('CountInputTokens', {
      count: { model: 'gpt-6', input: [userMessage('hello there')] },
    });
    expect(counted.reply).toMatchObject({ count: { object: 'response.input_tokens' } });
    const { count } = counted.reply as unknown as { count: { input_tokens: number } };
    expect(count.input_tokens).toBeGreaterThan(0);
    expect(gateway.simulator.journal.entries).toHaveLength(0);
    gateway.simulator.configure({ switches: { models: ['gpt-6', 'gpt-7'] } });
    gateway.access.allowsModel = (model) => model === 'gpt-7';
    const { reply } = await client.call('ListModels', {});
    expect(reply).toMatchObject({ models: { data: [{ id: 'gpt-7', object: 'model' }] } });
  });

  it('refuses to cancel what does not run in the background, in the upstream’s words', async () => {
    const { ended } = await gateway.client().call('CancelResponse', { response_id: await stored() });
    expect(ended).toMatchObject({ code: 3, reason: 'UPSTREAM_INVALID_REQUEST' });
  });

  it('asks access control for the id first, names no model, and costs no tokens', async () => {
    const id = await stored();
    await gateway.client().call('GetResponse', { response_id: id });
    expect(gateway.access.admitted.at(-1)).toMatchObject({
      responseIds: [id],
      modelless: true,
      maxOutputTokens: 0,
    });
    expect(gateway.access.settled.at(-1)?.usage).toMatchObject({ inputTokens: 0, outputTokens: 0 });
    gateway.access.onTurn = () => {
      throw new GatewayError('UNKNOWN_RESPONSE', 'no such response');
    };
    for (const method of ['GetResponse', 'DeleteResponse', 'CancelResponse', 'ListInputItems'])
      expect((await gateway.client().call(method, { response_id: id })).ended).toMatchObject({
        code: 5,
        reason: 'UNKNOWN_RESPONSE',
      });
    const { ended } = await gateway.client().streamResponse({ response_id: id }).result;
    expect(ended.reason).toBe('UNKNOWN_RESPONSE');
  });

  it.each([
    ['GetResponse', {}, 'response_id'],
    ['GetResponse', { response_id: '..' }, 'response_id'],
    ['DeleteResponse', { response_id: 'a/b' }, 'response_id'],
    ['ListInputItems', { response_id: 'r', limit: 0 }, 'limit'],
    ['ListInputItems', { response_id: 'r', limit: 101 }, 'limit'],
    ['ListInputItems', { response_id: 'r', order: 'up' }, 'order'],
    ['ListInputItems', { response_id: 'r', after: '../x' }, 'after'],
    ['GetResponse', { response_id: 'r', include: ['a', ''] }, 'include[1]'],
    ['CountInputTokens', { count: { previous_response_id: 'r', conversation_id: 'c' } }, 'count'],
    ['CountInputTokens', { count: { input: [{ json: Buffer.from('{') }] } }, 'count.input[0].json'],
    ['GetResponse', { response_id: 'r', options: { timeout: { seconds: -1 } } }, 'options.timeout'],
  ])('%s refuses %j and names %s', async (method, request, field) => {
    const { ended } = await gateway.client().call(method, request);
    expect(ended).toMatchObject({ code: 3, metadata: { field } });
    expect(gateway.simulator.journal.counters.requestsHttp).toBe(0);
  });
});

describe('a call that fails says whether it may be sent again', () => {
  const compact = { compact: { model: 'gpt-6', input: [userMessage('one')] } };

  it.each([
    ['CompactResponse', compact, { status: 429, headers: { 'retry-after-ms': '20' } }, 'safe'],
    ['CompactResponse', compact, { status: 503 }, 'safe'],
    ['CompactResponse', compact, { status: 400 }, 'safe'],
    ['CompactResponse', compact, { status: 500 }, 'unknown'],
    ['CompactResponse', compact, { cut: true }, 'unknown'],
    ['DeleteResponse', { response_id: 'r' }, { cut: true }, 'unknown'],
    ['CancelResponse', { response_id: 'r' }, { status: 500 }, 'unknown'],
    // What changes nothing may always be asked again.
    ['GetResponse', { response_id: 'r' }, { cut: true }, 'safe'],
    ['ListModels', {}, { status: 500 }, 'safe'],
  ] as const)('%s %j after %j: %s', async (method, request, fault, replay) => {
    gateway.simulator.configure({ faults: [{ kind: 'call-fails', ...fault }] });
    const { ended } = await gateway.client().call(method, request);
    expect(ended).toMatchObject({ metadata: { replay } });
  });

  it('before it was sent', async () => {
    gateway.access.onTurn = () => {
      throw new GatewayError('LIMIT_EXCEEDED', 'enough', { metadata: { limit: 'turns_per_minute' } });
    };
    const { ended } = await gateway.client().call('CompactResponse', compact);
    expect(ended).toMatchObject({ metadata: { replay: 'safe', limit: 'turns_per_minute' } });
    const wrong = await gateway.client().call('CompactResponse', {});
    expect(wrong.ended).toMatchObject({ metadata: { replay: 'safe' } });
  });
});

describe('an upstream that nobody configured', () => {
  const upstream = 'nowhere';
  it.each([
    ['GetResponse', { response_id: 'resp_1' }],
    ['DeleteResponse', { response_id: 'resp_1' }],
    ['CancelResponse', { response_id: 'resp_1' }],
    ['ListInputItems', { response_id: 'resp_1' }],
    ['CountInputTokens', { count: { model: 'gpt-6' } }],
    ['ListModels', {}],
  ])('is named by its path in %s', async (method, request) => {
    const { ended } = await gateway.client().call(method, { ...request, options: { upstream } });
    const message = 'options.upstream: found "nowhere"; allowed: the name of a configured upstream';
    expect(ended).toMatchObject({
      reason: 'INVALID_FIELD',
      message,
      metadata: { field: 'options.upstream' },
    });
  });

  it('is named by its path in calls that have it at the top, and in streams', async () => {
    const client = gateway.client();
    const compact = { compact: { model: 'gpt-6', input: [userMessage('x')] }, upstream };
    const compacted = await client.call('CompactResponse', compact);
    expect(compacted.ended).toMatchObject({ metadata: { field: 'upstream' } });
    const followed = await client.streamResponse({ response_id: 'resp_1', options: { upstream } }).result;
    expect(followed.ended).toMatchObject({ metadata: { field: 'options.upstream' } });
  });
});

it('does not make an endless URL of a request', async () => {
  const include = Array.from({ length: 65 }, (_, n) => `name_${n}`);
  for (const more of [{ include }, { include: ['x'.repeat(1_000)] }]) {
    const { ended } = await gateway.client().call('GetResponse', { response_id: 'r', ...more });
    expect(ended).toMatchObject({ code: 3, reason: 'INVALID_FIELD' });
  }
  expect(gateway.simulator.journal.counters.requestsHttp).toBe(0);
});

describe('background responses', () => {
  const background = { background: true, model: 'gpt-6', input: [userMessage('a long story #deltas=40')] };

  it('run over HTTP, and end as others do', async () => {
    const { events, ended } = await gateway.client().createResponse({ create: background }).result;
    expect(ended.code).toBe(0);
    checkSeq(events);
    expect(events.map(({ type }) => type).slice(0, 3)).toEqual([
      'response.created',
      'response.queued',
      'response.in_progress',
    ]);
    expect(events.at(-1)?.outcome).toBe('TURN_OUTCOME_COMPLETED');
    expect(gateway.simulator.journal.entries[0]).toMatchObject({ transport: 'http' });
  });

  it('lose their stream and lose nothing', async () => {
    gateway.simulator.configure({
      timing: { tokensPerSecond: 300 },
      faults: [{ kind: 'cut', atEvent: 20, request: 1 }],
    });
    const { events, ended } = await gateway.client().createResponse({ create: background }).result;
    expect(ended.code).toBe(0);
    checkSeq(events);
    expect(textOf(events)).toBe(gateway.simulator.journal.entries[0]?.finalText);
    expect(gateway.simulator.journal.entries).toHaveLength(1);
  });

  it('are followed from an event on by whoever comes back', async () => {
    gateway.simulator.configure({ timing: { tokensPerSecond: 200 } });
    const client = gateway.client();
    const running = client.createResponse({ create: background });
    const id = await new Promise<string>((resolve) => {
      running.call.once('data', (message: { events: Readonly<Record<string, unknown>>[] }) =>
        resolve(idOf(message.events[0])),
      );
    });
    running.call.cancel();
    await running.result;
    const { events, ended } = await client.streamResponse({ response_id: id, starting_after: 4 }).result;
    expect(ended.code).toBe(0);
    expect(events[0]).toMatchObject({ seq: 1 });
    expect(events.at(-1)?.outcome).toBe('TURN_OUTCOME_COMPLETED');
    expect(events.some(({ type }) => type === 'response.created')).toBe(false);
    const again = await client.streamResponse({ response_id: id }).result;
    expect(textOf(again.events)).toBe(gateway.simulator.journal.entries[0]?.finalText);
  });

  it('stop when they are cancelled', async () => {
    gateway.simulator.configure({ timing: { tokensPerSecond: 20 } });
    const client = gateway.client();
    const running = client.createResponse({ create: background });
    const id = await new Promise<string>((resolve) => {
      running.call.once('data', (message: { events: Readonly<Record<string, unknown>>[] }) =>
        resolve(idOf(message.events[0])),
      );
    });
    const { reply } = await client.call('CancelResponse', { response_id: id });
    expect(reply).toMatchObject({ response: { id, status: 'cancelled' } });
    const { events } = await running.result;
    expect(events.at(-1)?.outcome).toBe('TURN_OUTCOME_CANCELLED');
  });

  it.each([
    [{ background_options: { completion_window: '2h' } }, 'create.background_options.completion_window'],
    [{ background: false, background_options: {} }, 'create.background_options'],
  ])('%j is refused, and named', async (more, field) => {
    const { ended } = await gateway.client().createResponse({ create: { ...background, ...more } }).result;
    expect(ended).toMatchObject({ code: 3, metadata: { field } });
  });
});

it('a call whose upstream thinks for long has its headers before its answer', async () => {
  const answered = Promise.withResolvers<void>();
  const upstream = createServer((_, response) => {
    void answered.promise.then(() => {
      response.setHeader('content-type', 'application/json');
      response.end(JSON.stringify({ id: 'resp_1', object: 'response', status: 'completed' }));
    });
  }).listen(0, '127.0.0.1');
  await once(upstream, 'listening');
  const { port } = upstream.address() as AddressInfo;
  await using slow = await startGateway({
    upstreamUrl: `http://127.0.0.1:${port}/v1`,
    server: { heartbeatIntervalMs: 50 },
  });
  const { api } = slow.client() as unknown as { readonly api: Record<string, StartCall> };
  const reply = Promise.withResolvers<unknown>();
  const call = api['GetResponse']?.({ response_id: 'resp_1' }, (_error, answer) => reply.resolve(answer));
  await once(call as EventEmitter, 'metadata');
  answered.resolve();
  expect(await reply.promise).toMatchObject({ response: { id: 'resp_1' } });
  upstream.close();
});

type StartCall = (request: object, done: (error: Error | null, reply: unknown) => void) => EventEmitter;
