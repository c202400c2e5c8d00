import { randomBytes } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { describe, expect, it, vi } from 'vitest';
import type { PeersOptions } from '../../src/grpc/peers.ts';
import { TestClient } from '../harness/client.ts';
import { startGateway, type TestGateway } from '../harness/gateway.ts';
import { AVAILABLE_PROXIES, type ProxyKind, ProxyServer } from '../harness/proxies.ts';

// Each starts a proxy and two gateways.
vi.setConfig({ testTimeout: 60_000 });

const scaling = readFileSync(new URL('../../docs/scaling.md', import.meta.url), 'utf8');

/** A line of the documentation, which is what is tried here. */
const documented = (line: string): string => {
  expect(scaling).toContain(line);
  return line;
};

const configs: Readonly<Record<ProxyKind, (ports: readonly number[]) => string>> = {
  nginx: (ports) => `
pid FOLDER/pid;
error_log stderr warn;
events {}
http {
  access_log off;
  client_body_temp_path FOLDER; proxy_temp_path FOLDER; fastcgi_temp_path FOLDER;
  uwsgi_temp_path FOLDER; scgi_temp_path FOLDER;
  ${documented('map $http_x_responses_session $key { "" $request_id; default $http_x_responses_session; }')}
  upstream gateways {
    ${documented('hash $key consistent;')}
    ${ports.map((port) => `server 127.0.0.1:${port};`).join('\n    ')}
  }
  server { listen 127.0.0.1:PORT http2; location / { grpc_pass grpc://gateways; } }
}`,
  haproxy: (ports) => `
defaults
  mode http
  timeout connect 5s
  timeout client 60s
  timeout server 60s
frontend clients
  bind 127.0.0.1:PORT proto h2
  default_backend gateways
backend gateways
  ${documented('balance hdr(x-responses-session)')}
  ${documented('hash-type consistent')}
  ${ports.map((port, at) => `server g${at} 127.0.0.1:${port} proto h2`).join('\n  ')}
`,
  envoy: (ports) => `
static_resources:
  listeners:
  - address: { socket_address: { address: 127.0.0.1, port_value: PORT } }
    filter_chains:
    - filters:
      - name: http
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: clients
          route_config:
            virtual_hosts:
            - name: all
              domains: ["*"]
              routes:
              - match: { prefix: / }
                route: { cluster: gateways, timeout: 0s, ${documented('hash_policy: [{ header: { header_name: x-responses-session } }]')} }
          http_filters:
          - name: router
            typed_config: { "@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router }
  clusters:
  - name: gateways
    type: STATIC
    ${documented('lb_policy: RING_HASH')}
    typed_extension_protocol_options:
      envoy.extensions.upstreams.http.v3.HttpProtocolOptions:
        "@type": type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions
        explicit_http_config: { http2_protocol_options: {} }
    load_assignment:
      cluster_name: gateways
      endpoints:
      - lb_endpoints:
${ports.map((port) => `        - endpoint: { address: { socket_address: { address: 127.0.0.1, port_value: ${port} } } }`).join('\n')}
`,
};

/** Two gateways that carry streams for each other, and count it. */
async function world() {
  const stack = new AsyncDisposableStack();
  const secret = randomBytes(32);
  const gateways: TestGateway[] = [];
  const carried: string[] = [];
  for (const id of ['g0', 'g1']) {
    const peers: PeersOptions = {
      id,
      find: (other) => ({
        address: `127.0.0.1:${gateways[Number(other.slice(1))]?.server.peerPort}`,
        local: false,
      }),
      listen: ['127.0.0.1:0'],
      secrets: [secret],
      onForward: (answer) => carried.push(answer),
    };
    const upstreamUrl = gateways[0]?.simulator.url;
    gateways.push(
      stack.use(
        await startGateway({ server: { peers }, ...(upstreamUrl === undefined ? {} : { upstreamUrl }) }),
      ),
    );
  }
  return { gateways, carried, [Symbol.asyncDispose]: () => stack.disposeAsync() };
}

const SESSIONS = 12;

describe.each(AVAILABLE_PROXIES)('resumes through %s', (kind) => {
  it('reach the gateway that has the session, by one line of its configuration', async () => {
    await using all = await world();
    await using proxy = await ProxyServer.start({
      kind,
      config: configs[kind](all.gateways.map(({ port }) => port)),
    });
    // Opens through a connection of its own, as after a network change.
    const through = async (session: string, resume?: object) => {
      const client = new TestClient(proxy.address);
      const stream = client.connect(
        resume === undefined ? {} : { resume },
        session === '' ? {} : { 'x-responses-session': session },
      );
      return { client, stream, opened: await stream.opened() };
    };
    const owners = () => all.gateways.map(({ server }) => server.registry.size);
    const resumed = async (headerOf: (at: number) => string, again: (at: number) => string) => {
      for (let at = 0; at < SESSIONS; at += 1) {
        const first = await through(headerOf(at));
        first.stream.startTurn({ turn_id: 't1' }, 'Hello.');
        await first.stream.turn('t1');
        first.client.close();
        const { resume_token: token } = first.opened;
        const second = await through(again(at), { token, last_seq: first.stream.events.at(-1)?.seq ?? 0 });
        expect(second.opened).toMatchObject({
          resume_outcome: 'RESUME_OUTCOME_RESUMED',
          session_id: first.opened.session_id,
        });
        second.stream.startTurn({ turn_id: 't2' }, 'And?');
        expect(String((await second.stream.turn('t2')).at(-1)?.outcome)).toBe('TURN_OUTCOME_COMPLETED');
        second.client.close();
      }
    };
    await resumed(
      (at) => `session-${at}`,
      (at) => `session-${at}`,
    );
    expect(all.carried).toEqual([]);
    // The sessions are shared out: it is no luck.
    for (const size of owners()) expect(size).toBeGreaterThan(0);

    // Clients that do not send the header come everywhere, and are carried.
    await resumed(
      () => '',
      () => '',
    );
    expect(new Set(all.carried)).toEqual(new Set(['taken']));
    for (const { bugs } of all.gateways) expect(bugs).toEqual([]);
  });
});
