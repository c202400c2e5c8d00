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
  expect(gateway.server.registry.size).toBe(0);
});

const ask = (text: string, more: object = {}) => ({
  create: { model: 'gpt-6', input: [userMessage(text)], ...more },
});

describe('CreateResponse', () => {
  it('streams one turn and ends with OK', async () => {
    const { result } = gateway.client().createResponse(ask('hello'));
    const { events, ended } = await result;
    expect(ended).toMatchObject({ code: 0 });
    checkSeq(events);
    expect(events.at(-1)?.outcome).toBe('TURN_OUTCOME_COMPLETED');
    expect(textOf(events)).toBe(gateway.simulator.journal.entries[0]?.finalText);
    expect(gateway.access.settled).toHaveLength(1);
  });

  it('uses ready links', async () => {
    const client = gateway.client();
    await client.createResponse(ask('one')).result;
    await client.createResponse(ask('two')).result;
    const ups = gateway.telemetry.sessions.map(
      ({ facts }) => facts.find((fact) => fact.kind === 'linkUp')?.route.pooled,
    );
    expect(ups).toEqual([false, true]);
  });

  it('tells a failure as an event and as the status', async () => {
    const { events, ended } = await gateway.client().createResponse(ask('oops #error=429')).result;
    expect(events.at(-1)?.turn_failed).toMatchObject({ reason: 'UPSTREAM_RATE_LIMITED' });
    expect(ended).toMatchObject({ code: 8, reason: 'UPSTREAM_RATE_LIMITED' });
  });

  it('refuses bad requests by status, and names the field', async () => {
    const client = gateway.client();
    expect((await client.createResponse(ask('x', { temperature: 9 })).result).ended).toMatchObject({
      code: 3,
      reason: 'INVALID_FIELD',
      details: ['ErrorInfo', 'BadRequest'],
    });
    const bad = { create: { input: [{ json: Buffer.from('{') }] } };
    expect((await client.createResponse(bad).result).ended).toMatchObject({
      code: 3,
      reason: 'INVALID_JSON',
    });
    gateway.access.onTurn = () => {
      throw new GatewayError('LIMIT_EXCEEDED', 'turns', { metadata: { limit: 'turns' }, retryAfterMs: 10 });
    };
    expect((await client.createResponse(ask('x')).result).ended).toMatchObject({
      code: 8,
      reason: 'LIMIT_EXCEEDED',
      details: ['ErrorInfo', 'RetryInfo', 'QuotaFailure'],
    });
    gateway.access.onSession = () => {
      throw new GatewayError('LIMIT_EXCEEDED', 'sessions', { metadata: { limit: 'sessions' } });
    };
    expect((await client.createResponse(ask('x')).result).ended).toMatchObject({ reason: 'LIMIT_EXCEEDED' });
    expect(gateway.simulator.journal.entries).toHaveLength(0);
  });

  it('gives the turn up when its caller leaves', async () => {
    const { call, result } = gateway.client().createResponse(ask('for ever #hang'));
    await new Promise((resolve) => call.once('data', resolve));
    call.cancel();
    expect((await result).ended.code).toBe(1);
    while (gateway.access.settled.length === 0) await new Promise((resolve) => setImmediate(resolve));
    expect(gateway.access.settled[0]).toMatchObject({ outcome: 'FAILED' });
    await gateway.simulator.journal.until(({ entries }) => entries[0]?.status === 'aborted');
  });

  it("keeps to the turn's own timeout", async () => {
    const request = { ...ask('for ever #hang'), timeout: { seconds: 0, nanos: 50_000_000 } };
    const { events, ended } = await gateway.client().createResponse(request).result;
    expect(events.at(-1)?.outcome).toBe('TURN_OUTCOME_DEADLINE_EXCEEDED');
    expect(ended).toMatchObject({ code: 4, reason: 'TURN_TIMEOUT' });
  });
});

describe('an idempotency key', () => {
  const keyed = (text: string, key = 'k-1') => ({ ...ask(text), idempotency_key: key });

  it('gives the same answer again and runs nothing twice, side by side and afterwards', async () => {
    const client = gateway.client();
    const both = await Promise.all([
      client.createResponse(keyed('hello')).result,
      client.createResponse(keyed('hello')).result,
    ]);
    const later = await client.createResponse(keyed('hello')).result;
    for (const { events, ended } of [...both, later]) {
      expect(ended.code).toBe(0);
      expect(textOf(events)).toBe(gateway.simulator.journal.entries[0]?.finalText);
    }
    expect(gateway.simulator.journal.entries).toHaveLength(1);
  });

  it('refuses another request under it, and names the field', async () => {
    const client = gateway.client();
    await client.createResponse(keyed('hello')).result;
    const { ended } = await client.createResponse(keyed('something else')).result;
    expect(ended).toMatchObject({ reason: 'TURN_ID_REUSED', metadata: { field: 'idempotency_key' } });
    const bad = await client.createResponse(keyed('x', 'two words')).result;
    expect(bad.ended).toMatchObject({ code: 3, metadata: { field: 'idempotency_key' } });
  });

  it('gives nothing to the same request with another provider key', async () => {
    const client = gateway.client();
    await client.createResponse(keyed('hello'), { 'x-upstream-api-key': 'sk-of-one-caller' }).result;
    const other = await client.createResponse(keyed('hello'), { 'x-upstream-api-key': 'sk-of-another' })
      .result;
    expect(other.ended).toMatchObject({ reason: 'TURN_ID_REUSED', metadata: { field: 'idempotency_key' } });
    expect(other.events).toEqual([]);
  });

  it('goes on when its caller leaves, who then gets the answer', async () => {
    gateway.simulator.configure({ timing: { tokensPerSecond: 200 } });
    const client = gateway.client();
    const first = client.createResponse(keyed('a story #deltas=30'));
    await new Promise((resolve) => first.call.once('data', resolve));
    first.call.cancel();
    await first.result;
    const { events, ended } = await client.createResponse(keyed('a story #deltas=30')).result;
    expect(ended.code).toBe(0);
    checkSeq(events);
    expect(textOf(events)).toBe(gateway.simulator.journal.entries[0]?.finalText);
    expect(gateway.simulator.journal.entries).toHaveLength(1);
  });

  it('tells whoever waits for a first call whose caller left before it ran to come again', async () => {
    const held = Promise.withResolvers<void>();
    let asked = 0;
    Object.assign(gateway.access, {
      reserveSession: async () => {
        asked += 1;
        await held.promise;
      },
    });
    const client = gateway.client();
    const first = client.createResponse(keyed('hello'));
    await expect.poll(() => asked).toBe(1);
    const second = client.createResponse(keyed('hello')).result;
    await expect.poll(() => gateway.access.callers.length).toBe(2);
    // It has come to the first call.
    await new Promise((resolve) => setTimeout(resolve, 100));
    first.call.cancel();
    await expect.poll(() => gateway.telemetry.rpcs.map(({ status }) => status)).toEqual(['CANCELLED']);
    held.resolve();
    expect((await second).ended).toMatchObject({
      reason: 'UPSTREAM_UNAVAILABLE',
      message: 'the first call with the key failed before it ran',
    });
    expect((await client.createResponse(keyed('hello')).result).ended.code).toBe(0);
  });

  it('is free again when nothing ran', async () => {
    const client = gateway.client();
    expect((await client.createResponse(keyed('oops #error=429')).result).ended.code).toBe(8);
    expect((await client.createResponse(keyed('oops #error=429')).result).ended.code).toBe(8);
    expect(gateway.simulator.journal.entries.length).toBeGreaterThan(1);
  });
});

describe('CompactResponse', () => {
  it('shrinks a conversation, from which a session can go on', async () => {
    const client = gateway.client();
    const { reply, ended } = await client.compactResponse({
      compact: { model: 'gpt-6', input: [userMessage('one'), userMessage('two')] },
      payload: 'PAYLOAD_FORMAT_BOTH',
    });
    expect(ended.code).toBe(0);
    const json = JSON.parse(String(reply?.json));
    expect(json.output.at(-1)).toMatchObject({ type: 'compaction' });
    expect(gateway.access.settled[0]).toMatchObject({ usage: { inputTokens: json.usage.input_tokens } });
    const input = json.output.map((item: unknown) => ({ json: Buffer.from(JSON.stringify(item)) }));
    const { events } = await client.createResponse({ create: { model: 'gpt-6', input } }).result;
    expect(events.at(-1)?.outcome).toBe('TURN_OUTCOME_COMPLETED');
  });

  it.each([
    ['a fraction of a millisecond', { seconds: 5, nanos: 20_000 }],
    ['longer than a timer of Node', { seconds: 30 * 86_400, nanos: 0 }],
    ['longer than 32 bits of milliseconds', { seconds: 60 * 86_400, nanos: 0 }],
  ])('takes a timeout of %s', async (_what, timeout) => {
    const compact = { model: 'gpt-6', input: [userMessage('one'), userMessage('two')] };
    expect((await gateway.client().compactResponse({ compact, timeout })).ended).toMatchObject({ code: 0 });
  });

  it('tells what the upstream refused', async () => {
    const { ended } = await gateway.client().compactResponse({
      compact: { model: 'gpt-6', previous_response_id: 'resp_unknown' },
    });
    expect(ended).toMatchObject({ code: 3, reason: 'UPSTREAM_INVALID_REQUEST' });
  });

  it('asks access control first', async () => {
    gateway.access.onTurn = () => {
      throw new GatewayError('UNKNOWN_RESPONSE', 'no such response');
    };
    const { ended } = await gateway.client().compactResponse({
      compact: { model: 'gpt-6', previous_response_id: 'resp_foreign' },
    });
    expect(ended).toMatchObject({ code: 5, reason: 'UNKNOWN_RESPONSE' });
    expect(gateway.simulator.journal.entries).toHaveLength(0);
  });
});

describe('every call', () => {
  it('is counted with its method and its status', async () => {
    const client = gateway.client();
    await client.createResponse(ask('hello')).result;
    await client.compactResponse({ compact: { model: 'gpt-6', input: [userMessage('x')] } });
    const stream = client.connect(null);
    stream.send({});
    await stream.ended();
    expect(gateway.telemetry.rpcs).toEqual([
      { method: 'responses.gateway.v1.ResponsesService/CreateResponse', status: 'OK' },
      { method: 'responses.gateway.v1.ResponsesService/CompactResponse', status: 'OK' },
      { method: 'responses.gateway.v1.ResponsesService/Connect', status: 'INVALID_ARGUMENT' },
    ]);
  });
});
