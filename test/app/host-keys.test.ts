import { expect, it } from 'vitest';
import { HostKeys, type KeysCall, workerKeys } from '../../src/app/host-keys.ts';
import { startGateway } from '../harness/gateway.ts';

const DAY_MS = 86_400_000;

function host() {
  const clock = { nowMs: 0 };
  const keys = new HostKeys(() => clock.nowMs);
  /** As the channel between processes does. */
  const tell = (worker: number, call: KeysCall): unknown => {
    const answer = keys.answer(worker, JSON.parse(JSON.stringify(call)));
    return answer === undefined ? undefined : JSON.parse(JSON.stringify(answer));
  };
  const worker = (id: number) =>
    workerKeys({ ask: async (call) => tell(id, call), say: (call) => void tell(id, call) });
  return { keys, clock, worker };
}

const request = (text: string) => ({
  create: { model: 'gpt-5.5', input: [{ message: { role: 'user', content: [{ input_text: { text } }] } }] },
  payload: 'PAYLOAD_FORMAT_BOTH',
  idempotency_key: 'once',
});

it('a key runs one call, whichever worker it reaches, and none again when its worker has died', async () => {
  const { keys, worker } = host();
  await using one = await startGateway({ server: { keyedCalls: worker(1) } });
  const upstreamUrl = one.simulator.url;
  await using two = await startGateway({ upstreamUrl, server: { keyedCalls: worker(2) } });
  const slow = request('slow #deltas=40 #tps=80');
  const asked = () => one.simulator.journal.entries.filter((entry) => entry.request?.['input']).length;
  const answers = await Promise.all([one, two].map((each) => each.client().createResponse(slow).result));
  expect(answers.map(({ events }) => events.at(-1)?.outcome)).toEqual(
    Array(2).fill('TURN_OUTCOME_COMPLETED'),
  );
  expect(answers[1]?.events.at(-1)?.json).toEqual(answers[0]?.events.at(-1)?.json);
  expect(asked()).toBe(1);
  expect((await two.client().createResponse(request('other')).result).ended.reason).toBe('TURN_ID_REUSED');

  const hangs = { ...request('hangs #deltas=100000 #tps=10'), idempotency_key: 'lost' };
  const first = one.client().createResponse(hangs);
  first.result.catch(() => {});
  await expect.poll(asked, { timeout: 15_000 }).toBe(2);
  keys.forget(1);
  const lost = await two.client().createResponse(hangs).result;
  expect(lost.events.at(-1)?.turn_failed).toMatchObject({
    reason: 'UPSTREAM_LINK_LOST',
    replay: 'REPLAY_VERDICT_UNKNOWN',
  });
  expect(asked()).toBe(2);
  first.call.cancel();
});

it('is free again after a day, and when nothing ran', async () => {
  const { worker, clock } = host();
  const [one, two] = [worker(1), worker(2)];
  expect(await one.claim('t', 'k', 'f')).toBe('ours');
  expect(await two.claim('t', 'k', 'f')).toMatchObject({ process: 'other', outcome: undefined });
  expect(await two.claim('other tenant', 'k', 'f')).toBe('ours');
  // Whose key it is not gives it back to nobody.
  two.release('t', 'k');
  expect(await two.look('t', 'k')).toMatchObject({ request: 'f' });
  one.release('t', 'k');
  expect(await two.claim('t', 'k', 'g')).toBe('ours');
  clock.nowMs = DAY_MS;
  expect(await one.claim('t', 'k', 'h')).toBe('ours');
});

it('keeps the ends of answers within a bound, and outcomes beyond it', async () => {
  const { worker } = host();
  const [one, two] = [worker(1), worker(2)];
  const message = new Uint8Array(200 * 1024).fill(1);
  for (let n = 0; n < 300; n += 1) {
    await one.claim('t', `k${n}`, 'f');
    one.finish('t', `k${n}`, 'f', { message, failure: undefined });
  }
  expect(await two.look('t', 'k0')).toMatchObject({ outcome: { message: undefined } });
  expect((await two.look('t', 'k299'))?.outcome?.message?.length).toBe(message.length);
});
