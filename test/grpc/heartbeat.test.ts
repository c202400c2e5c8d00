import { setTimeout as sleep } from 'node:timers/promises';
import { expect, it } from 'vitest';
import { startGateway } from '../harness/gateway.ts';

const OFFER = { seconds: 15, nanos: 0 };

const heartbeat = { heartbeat: {} };

it('a client that offers heartbeats is told the interval, and each is answered', async () => {
  await using gateway = await startGateway({ server: { heartbeatIntervalMs: 500 } });
  const stream = gateway.client().connect({ heartbeat_interval: OFFER });
  expect(await stream.opened()).toMatchObject({ heartbeat_interval: { seconds: 0, nanos: 500_000_000 } });
  // Longer than the three intervals that end a silent stream.
  for (let n = 1; n <= 7; n++) {
    stream.send(heartbeat);
    await stream.until(() => stream.heartbeats >= n);
    await sleep(300);
  }
  stream.halfClose();
  expect(await stream.ended()).toMatchObject({ code: 0 });
});

it('three silent intervals end the stream, and the session is resumed without loss', async () => {
  await using gateway = await startGateway({ server: { heartbeatIntervalMs: 50 } });
  const client = gateway.client();
  const silent = client.connect({ heartbeat_interval: OFFER });
  const { resume_token, session_id } = await silent.opened();
  expect(await silent.ended()).toMatchObject({ code: 14, reason: 'CLIENT_SILENT' });
  const again = client.connect({ resume: { token: resume_token, last_seq: 0 } });
  expect(await again.opened()).toMatchObject({ session_id, resume_outcome: 'RESUME_OUTCOME_RESUMED' });
  // It offered none this time.
  expect((await again.opened()).heartbeat_interval).toBeNull();
  await sleep(300);
  again.startTurn({ turn_id: 't1' }, '#say=fine');
  await again.turn('t1');
});

it.each([
  [{}, { seconds: 10, nanos: 0 }, 10],
  [{}, { seconds: 15, nanos: 0 }, 10],
  [{}, { seconds: 4, nanos: 0 }, 4],
  [{}, { seconds: 0, nanos: 1_000 }, 1],
  [{}, { seconds: -5, nanos: 0 }, undefined],
  [{}, undefined, undefined],
  [{ heartbeatIntervalMs: 0 }, OFFER, undefined],
])('with %j, an offer of %j is granted as %s s', async (server, offer, granted) => {
  await using gateway = await startGateway({ server });
  const opened = await gateway
    .client()
    .connect({ heartbeat_interval: offer ?? null })
    .opened();
  const interval = opened.heartbeat_interval as { seconds: number } | null;
  expect(interval?.seconds).toBe(granted);
});

it('more heartbeats than agreed are not answered, and a stream that is sent events needs none', async () => {
  await using gateway = await startGateway({ server: { heartbeatIntervalMs: 60_000 } });
  const stream = gateway.client().connect({ heartbeat_interval: { seconds: 60, nanos: 0 } });
  await stream.opened();
  for (let n = 0; n < 300; n++) stream.send(heartbeat);
  stream.startTurn({ turn_id: 't1' }, '#say=fine');
  await stream.turn('t1');
  expect(stream.heartbeats).toBe(1);
});

it('a heartbeat that nobody agreed on does nothing', async () => {
  await using gateway = await startGateway();
  const stream = gateway.client().connect();
  await stream.opened();
  stream.send(heartbeat);
  stream.startTurn({ turn_id: 't1' }, '#say=fine');
  await stream.turn('t1');
  expect(stream.heartbeats).toBe(0);
});

it('a CreateResponse gets its headers at once, and an empty batch while the model is silent', async () => {
  await using gateway = await startGateway({ server: { heartbeatIntervalMs: 30 } });
  const { call, result } = gateway.client().createResponse({
    create: { model: 'gpt-6', input: [{ message: { role: 'user', text: '#hang' } }] },
  });
  const headers = new Promise((resolve) => call.once('metadata', resolve));
  await headers;
  let empty = 0;
  await new Promise<void>((resolve) => {
    call.on('data', ({ events }: { events: unknown[] }) => {
      if (events.length === 0) empty += 1;
      if (empty === 3) resolve();
    });
  });
  call.cancel();
  expect((await result).ended).toMatchObject({ code: 1 });
});
