import { setTimeout } from 'node:timers/promises';
import { expect, onTestFinished, test, vi } from 'vitest';
import { z } from 'zod';
import { Client, type Session, TurnError, tool } from '../src/index.ts';
import { FakeGateway } from '../src/testing.ts';

async function served(): Promise<{ readonly gateway: FakeGateway; readonly session: Session }> {
  const gateway = await FakeGateway.start();
  const client = new Client({ address: gateway.address });
  const session = await client.connect({ model: 'm' });
  onTestFinished(async () => {
    await session.close();
    client.close();
    await gateway.close();
  });
  return { gateway, session };
}

const weather = tool({
  name: 'weather',
  input: z.object({ city: z.string() }),
  run: ({ city }) => ({ city, celsius: 21 }),
});

test('a tool loop, call by call', async () => {
  const { gateway, session } = await served();
  gateway.call('weather', { city: 'Oslo' }, ['weather', { city: 'Rome' }]);
  gateway.answer('21 ', 'degrees');
  const onCall = vi.fn();
  const result = await session.lane('a').runTools({ input: 'Weather?' }, { functions: [weather], onCall });
  expect([result.text, result.usage.totalTokens]).toEqual(['21 degrees', 30]);
  const outputs = gateway.turns[1]?.input.map(
    ({ kind }) => kind.case === 'functionCallOutput' && kind.value.output,
  );
  expect(outputs).toEqual(['{"city":"Oslo","celsius":21}', '{"city":"Rome","celsius":21}']);
  expect(onCall).toHaveBeenCalledTimes(2);
});

test('a cut stream is resumed, and what was told meanwhile arrives', async () => {
  const { gateway, session } = await served();
  gateway.hang('one ');
  const turn = await session.start({ input: 'hi' });
  for await (const event of turn) if (event.textDelta) break;
  gateway.cut();
  gateway.answer('two');
  expect((await session.lane('b').run({ input: 'hi' })).text).toBe('two');
  turn.cancel();
  const error = await turn.final().catch((problem: unknown) => problem);
  expect(error).toMatchObject({ reason: 'TURN_CANCELLED', result: { text: 'one ' } });
  expect(session.stats.resumes).toBe(1);
});

test('an error tells all of itself as JSON', async () => {
  const { gateway, session } = await served();
  gateway.fail('UPSTREAM_OVERLOADED', { after: 'half', retryAfterMs: 1_500 });
  const turn = await session.start({ input: 'hi' });
  const error = await turn.final().catch((problem: unknown) => problem);
  if (!(error instanceof TurnError)) throw error;
  expect(JSON.parse(JSON.stringify(error))).toMatchObject({
    name: 'TurnError',
    reason: 'UPSTREAM_OVERLOADED',
    code: 'UNAVAILABLE',
    replay: 'safe',
    retryAfterMs: 1_500,
  });
  expect([error.statusCode, error.result?.text]).toEqual([14, 'half']);
});

test('a lane stands where it stood after a turn that failed', async () => {
  const { gateway, session } = await served();
  await session.lane('a').run({ input: 'one' });
  const branch = session.lane('a').fork('b');
  gateway.fail('UPSTREAM_OVERLOADED');
  await expect((await branch.start({ input: 'two' })).final()).rejects.toThrow();
  await (await branch.start({ input: 'two again' })).final();
  const from = gateway.turns.map(({ start: { chain } }) => chain.case && chain.value);
  expect(from).toEqual([undefined, 'resp_1', 'resp_1']);
});

test('structured answers: parsed, refused, unfit', async () => {
  const { gateway, session } = await served();
  const schema = z.object({ city: z.string(), days: z.array(z.int()) });
  gateway.answer('{"city":"Oslo","days":[1,2]}');
  const { parsed } = await session.lane('p').parse({ input: 'Where?' }, schema);
  expect(parsed).toEqual({ city: 'Oslo', days: [1, 2] });
  gateway.refuse('no');
  expect(await session.lane('p').parse({ input: 'Where?' }, schema)).toMatchObject({
    parsed: undefined,
    refusal: 'no',
    result: { responseId: 'resp_2' },
  });
  gateway.answer('{"city":1}');
  expect((await session.lane('p').parse({ input: 'Where?' }, schema)).error).toBeInstanceOf(Error);
});

test('objects of the API instead of generated messages', async () => {
  const { gateway, session } = await served();
  await session.lane('').run({
    input: [{ role: 'user', content: 'hi' }],
    tools: [{ type: 'web_search' }],
    toolChoice: { type: 'web_search' },
    extra: { new_option: 1 },
    effort: 'low',
  });
  const body = gateway.turns[0]?.start.create;
  const text = (bytes: unknown) => new TextDecoder().decode(bytes as Uint8Array);
  expect(text(body?.input[0]?.kind.value)).toBe('{"role":"user","content":"hi"}');
  expect(text(body?.tools[0]?.kind.value)).toBe('{"type":"web_search"}');
  expect([text(body?.extraJson), body?.reasoning?.effort]).toEqual(['{"new_option":1}', 'low']);
});

test('an answer to a lost session and a refused one have their reasons', async () => {
  const { gateway, session } = await served();
  gateway.forget();
  expect(await session.closed).toMatchObject({ reason: 'SESSION_EXPIRED' });
  gateway.refuseOpen('DRAINING');
  using client = new Client({ address: gateway.address });
  await expect(client.connect()).rejects.toMatchObject({ reason: 'DRAINING', inferred: false });
});

// The traced one needs a collector: clients/conformance/traces.ts runs it with one.
test.each(['agent', 'parallel'])('the example %s', async (name) => {
  const { gateway } = await served();
  if (name === 'agent') {
    gateway.call('weather', { city: 'Oslo' });
    gateway.answer('It is warm.');
  }
  vi.stubEnv('RESPONSES_GATEWAY_ADDR', gateway.address);
  const said: string[] = [];
  vi.spyOn(console, 'log').mockImplementation((...words) => void said.push(words.join(' ')));
  vi.spyOn(process.stdout, 'write').mockImplementation((text) => said.push(String(text)) > 0);
  await import(`../examples/${name}.ts`);
  await setTimeout(0);
  vi.restoreAllMocks();
  vi.unstubAllEnvs();
  expect(said.join('\n')).toContain(name === 'agent' ? 'It is warm.' : 'ok');
});
