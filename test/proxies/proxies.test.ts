/**
 * Real proxies with the configurations of deploy/proxies: docs/proxies.md names these tests. The short form takes what
 * PROXIES names, nginx and haproxy by default; `npm run test:proxies` takes all, and waits longer.
 */
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { streamError } from '../../clients/typescript/src/errors.ts';
import { Client, type Session, type SessionOptions } from '../../clients/typescript/src/index.ts';
import { TestClient, userMessage } from '../harness/client.ts';
import { startGateway, type TestGateway } from '../harness/gateway.ts';
import { DEFAULTS } from './defaults.ts';
import { findProxies, Machine, PROXIES, type ProxyName, startProxy } from './proxy.ts';

const found = await findProxies();
const all = process.env['PROXIES'] === 'all';
const wanted = all ? PROXIES : PROXIES.filter((name) => name === 'nginx' || name === 'haproxy');
const inLong = it.skipIf(!all);
/** Limits of the configurations that count silence, for these tests. */
const LIMIT_S = 3;
const HEARTBEAT_MS = 1_000;

let gateways: readonly [TestGateway, TestGateway];
/** Heartbeats as shipped. */
let standard: readonly [TestGateway, TestGateway];
let ready: { readonly port: number; close(): void };

beforeAll(async () => {
  const options = {
    limits: { maxBufferedBytes: 64 * 1024 * 1024 },
    server: { heartbeatIntervalMs: HEARTBEAT_MS, maxMessageBytes: 20 * 1024 * 1024 },
  };
  gateways = [await startGateway(options), await startGateway(options)];
  standard = [await startGateway(), await startGateway()];
  const server = createServer((_, response) => response.end('ok')).listen(0, '127.0.0.1');
  await new Promise((resolve) => server.once('listening', resolve));
  ready = { port: (server.address() as AddressInfo).port, close: () => void server.close() };
});

afterAll(async () => {
  await Promise.all([...gateways, ...standard].map((gateway) => gateway.close()));
  ready.close();
});

const [first, second] = [0, 1] as const;

const ports = (pair = gateways) => ({
  gateways: [pair[first].port, pair[second].port] as const,
  readyPorts: [ready.port, ready.port] as const,
});

/** Every time-out that counts silence, as short as a test can wait for. */
const shortened = (config: string) =>
  config
    .replace(/(grpc_read_timeout|grpc_send_timeout|client_body_timeout) 60s/g, `$1 ${LIMIT_S}s`)
    .replace(/timeout (client|server) \S+/g, `timeout $1 ${LIMIT_S}s`)
    .replace(/stream_idle_timeout: 60s/, `stream_idle_timeout: ${LIMIT_S}s`);

async function withSession<T>(
  address: string,
  work: (session: Session) => Promise<T>,
  options: SessionOptions = {},
): Promise<T> {
  const client = new Client({ address, logger: () => {} });
  try {
    const session = await client.connect({ model: 'gpt-6', ...options });
    const result = await work(session);
    await session.close();
    return result;
  } finally {
    client.close();
  }
}

const answer = async (session: Session, input: string) =>
  (await (await session.start({ input })).final()).text;

for (const name of PROXIES) {
  const program = found.get(name);
  const skipped = program === undefined || !(wanted as readonly ProxyName[]).includes(name);
  describe.skipIf(skipped)(`${name}, as shipped`, () => {
    const start = (change?: (config: string) => string) =>
      startProxy(name, program as string, { ...ports(), ...(change && { change }) });

    it('a session at rest for three times the limit stays', { timeout: 240_000 }, async () => {
      await using proxy = await start(shortened);
      await withSession(proxy.address, async (session) => {
        expect(await answer(session, '#say=before')).toBe('before');
        await sleep(3 * LIMIT_S * 1_000);
        expect(session.stats.resumes).toBe(0);
        expect(await answer(session, '#say=after')).toBe('after');
      });
    });

    it('a message of 6 MB arrives, and an event of 6 MB', { timeout: 240_000 }, async () => {
      await using proxy = await start();
      await withSession(
        proxy.address,
        async (session) => {
          const text = await answer(session, `#bytes=6000000 ${'x'.repeat(6_000_000)}`);
          expect(text).toHaveLength(6_000_000);
          expect(session.stats.resumes).toBe(0);
          // Large messages keep a busy machine silent for longer than these tests' heartbeats.
        },
        { heartbeatMs: 0 },
      );
    });

    inLong('200 sessions of one client are served', { timeout: 240_000 }, async () => {
      await using proxy = await start();
      const client = new Client({ address: proxy.address, logger: () => {} });
      const sessions: Session[] = [];
      // Some at a time: nginx makes a connection for each.
      while (sessions.length < 200) {
        const some = Array.from({ length: 20 }, () =>
          client.connect({ model: 'gpt-6', timeoutMs: 60_000, heartbeatMs: 0 }),
        );
        sessions.push(...(await Promise.all(some)));
      }
      const answers = await Promise.all(sessions.map((session) => answer(session, '#say=here')));
      expect(new Set(answers)).toEqual(new Set(['here']));
      await Promise.all(sessions.map((session) => session.close()));
      client.close();
    });

    it('error details arrive whole', { timeout: 240_000 }, async () => {
      await using proxy = await start();
      const client = new TestClient(proxy.address);
      const { ended } = await client.createResponse({
        create: { model: 'gpt-6', input: [userMessage('x')], temperature: 9 },
      }).result;
      expect(ended).toMatchObject({
        code: 3,
        reason: 'INVALID_FIELD',
        metadata: { field: 'create.temperature' },
      });
      client.close();
    });

    inLong(
      'a CreateResponse that is silent for longer than the limit ends well',
      {
        timeout: 240_000,
      },
      async () => {
        await using proxy = await start(shortened);
        const client = new TestClient(proxy.address);
        // The answer begins after three times the limit.
        const { events, ended } = await client.createResponse({
          create: { model: 'gpt-6', input: [userMessage('#ttft=9000 #say=late')] },
        }).result;
        expect(ended).toMatchObject({ code: 0 });
        expect(events.at(-1)?.outcome).toBe('TURN_OUTCOME_COMPLETED');
        client.close();
      },
    );

    it.skipIf(name === 'envoy')(
      'what streams over a reload arrives whole',
      { timeout: 240_000 },
      async () => {
        await using proxy = await start();
        await withSession(proxy.address, async (session) => {
          const turn = await session.start({ input: `#deltas=${all ? 300 : 80} #tps=20` });
          let deltas = 0;
          for await (const event of turn.events()) {
            if (event.type !== 'response.output_text.delta') continue;
            deltas += 1;
            if (deltas === 10) await proxy.reload();
          }
          expect(deltas).toBe(all ? 300 : 80);
          expect(await answer(session, '#say=after')).toBe('after');
        });
      },
    );

    inLong(
      'a gateway without power is noticed in three heartbeats, and the other one serves',
      {
        timeout: 240_000,
      },
      async () => {
        const machines = await Promise.all(gateways.map(({ port }) => Machine.start(port)));
        const checks = await Promise.all(gateways.map(() => Machine.start(ready.port)));
        const [one, other] = machines as [Machine, Machine];
        await using proxy = await startProxy(name, program as string, {
          gateways: [one.port, other.port],
          readyPorts: [checks[first]?.port ?? 0, checks[second]?.port ?? 0],
        });
        const client = new Client({ address: proxy.address, logger: () => {} });
        const session = await client.connect({ model: 'gpt-6', timeoutMs: 30_000 });
        const turn = await session.start({ input: '#hang' });
        for await (const event of turn.events()) if (event.type === 'response.output_text.delta') break;
        const isOnFirst = [...gateways[first].server.registry.sessions()].some(({ id }) => id === session.id);
        const [dead, alive] = isOnFirst ? [first, second] : [second, first];
        const cutAt = performance.now();
        machines[dead]?.losePower();
        checks[dead]?.losePower();
        // Without a store the other gateway does not know the session, and says so.
        const error = await session.closed;
        const noticedMs = performance.now() - cutAt;
        expect(['SESSION_EXPIRED', 'STREAM_LOST']).toContain(error?.reason);
        // Caddy goes on using the dead connection.
        expect(noticedMs).toBeLessThan(name === 'caddy' ? 60_000 : 30_000);
        const next = await client.connect({ model: 'gpt-6', timeoutMs: 30_000 });
        expect(await answer(next, '#say=fine')).toBe('fine');
        expect([...gateways[alive].server.registry.sessions()].length).toBeGreaterThan(0);
        client.close();
        for (const machine of [...machines, ...checks]) machine.close();
      },
    );
  });
}

/** Longer than each time-out that the proxies bring along, but Envoy's five minutes of silence. */
const PATIENCE_MS = 75_000;

/** By itself a proxy says nothing that a client could not explain. */
function named(ended: {
  readonly code: number;
  readonly message: string;
  readonly reason?: string | undefined;
}) {
  if (ended.code === 0) return 'served';
  if (ended.reason !== undefined) return ended.reason;
  return streamError({ code: ended.code, details: ended.message }, 'STREAM_LOST').metadata['path'];
}

/** What becomes of a session, and of calls without one: silent for longer than a minute, and with 2 MB. */
const BY_DEFAULT: Readonly<Record<ProxyName, { session: RegExp; silent: RegExp; large: RegExp }>> = {
  nginx: { session: /^after$/, silent: /^served$/, large: /^request_too_large$/ },
  haproxy: { session: /^after$/, silent: /^served$/, large: /^served$/ },
  envoy: { session: /^after$/, silent: /^(?:timeout|reset)$/, large: /^served$/ },
  caddy: { session: /^after$/, silent: /^served$/, large: /^served$/ },
  // It cuts the stream, and the resume may come to the gateway that does not have the session.
  traefik: { session: /^(?:after|SESSION_EXPIRED)$/, silent: /^served$/, large: /^served$/ },
};

for (const name of PROXIES) {
  const program = found.get(name);
  describe.skipIf(!all || program === undefined).concurrent(`${name}, by its defaults`, () => {
    const start = () => startProxy(name, program as string, { ...ports(standard), instead: DEFAULTS[name] });

    it('a session outlives every time-out, and a call without one ends with its cause', {
      timeout: 240_000,
    }, async () => {
      await using proxy = await start();
      const client = new TestClient(proxy.address);
      const silent = client.createResponse({
        create: { model: 'gpt-6', input: [userMessage(`#ttft=${PATIENCE_MS} #say=late`)] },
      }).result;
      const large = client.createResponse({
        create: { model: 'gpt-6', input: [userMessage(`#say=large ${'x'.repeat(2_000_000)}`)] },
      }).result;
      const sessions = new Client({ address: proxy.address, logger: () => {} });
      const session = await sessions.connect({ model: 'gpt-6', timeoutMs: 60_000 });
      expect(await answer(session, '#say=before')).toBe('before');
      await sleep(PATIENCE_MS);
      const after = await answer(session, '#say=after').catch(
        ({ reason }: { readonly reason: string }) => reason,
      );
      sessions.close();
      expect(after).toMatch(BY_DEFAULT[name].session);
      expect(named((await large).ended)).toMatch(BY_DEFAULT[name].large);
      expect(named((await silent).ended)).toMatch(BY_DEFAULT[name].silent);
      client.close();
    });
  });
}

/** As docs/proxies.md has it. */
const forBrowsers = (config: string) =>
  config.replace('codec_type: HTTP2', 'codec_type: AUTO').replace(
    '                http_filters:\n',
    `                http_filters:
                  - name: envoy.filters.http.cors
                    typed_config: { "@type": type.googleapis.com/envoy.extensions.filters.http.cors.v3.Cors }
                  - name: envoy.filters.http.grpc_web
                    typed_config: { "@type": type.googleapis.com/envoy.extensions.filters.http.grpc_web.v3.GrpcWeb }
`,
  );

it.skipIf(!all || found.get('envoy') === undefined)(
  'envoy lets a browser call CreateResponse by gRPC-Web, over HTTP/1.1',
  { timeout: 240_000 },
  async () => {
    await using proxy = await startProxy('envoy', found.get('envoy') as string, {
      ...ports(),
      change: forBrowsers,
    });
    const frame = (message: Buffer) => Buffer.concat([Buffer.from([0, 0, 0, 0, message.length]), message]);
    // CreateResponseRequest { create { model: "gpt-6", input [{ message { role: "user", text: "#say=web" } }] } }
    const field = (tag: number, bytes: Buffer) => Buffer.concat([Buffer.from([tag, bytes.length]), bytes]);
    const message = Buffer.concat([field(0x12, Buffer.from('user')), field(0x1a, Buffer.from('#say=web'))]);
    const create = Buffer.concat([field(0x0a, Buffer.from('gpt-6')), field(0x12, field(0x12, message))]);
    const response = await fetch(
      `http://${proxy.address}/responses.gateway.v1.ResponsesService/CreateResponse`,
      {
        method: 'POST',
        headers: { 'content-type': 'application/grpc-web+proto', 'x-grpc-web': '1' },
        body: frame(field(0x0a, create)),
      },
    );
    const body = Buffer.from(await response.arrayBuffer()).toString('latin1');
    expect(response.status).toBe(200);
    expect(body).toContain('response.completed');
    // The trailers are the last frame.
    expect(body).toMatch(/grpc-status: ?0/);
  },
);
