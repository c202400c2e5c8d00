import { fileURLToPath } from 'node:url';
import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest';
import { type Simulator, startSimulator } from '../../src/simulator/index.ts';
import { TestClient } from '../harness/client.ts';
import { Replicas } from '../harness/replicas.ts';
import { freePort, programOf, StoreServer } from '../harness/store-server.ts';
import { Page } from '../telemetry/prometheus.ts';
import { killAll, run } from './program.ts';

// Every test starts several processes.
vi.setConfig({ testTimeout: 120_000 });

const file = (name: string) => fileURLToPath(new URL(`../harness/certs/${name}`, import.meta.url));

/** Redis that speaks nothing but TLS, and wants a certificate of its clients. */
async function startTlsStore() {
  const port = await freePort();
  const server = await StoreServer.start({
    kind: 'redis',
    config: [
      'port 0',
      `tls-port ${port}`,
      `tls-cert-file ${file('server.pem')}`,
      `tls-key-file ${file('server.key')}`,
      `tls-ca-cert-file ${file('ca.pem')}`,
      'tls-auth-clients yes',
    ],
  });
  return { server, port };
}

const storeTls = (ca: string) =>
  `  tls: { ca_file: ${file(ca)}, cert_file: ${file('client.pem')}, key_file: ${file('client.key')} }`;
const peerTls = (name: string) =>
  `  peer_tls: { cert_file: ${file(`${name}.pem`)}, key_file: ${file(`${name}.key`)}, ca_file: ${file('ca.pem')} }`;

describe.runIf(programOf('redis') !== undefined)('by configuration alone', () => {
  let simulator: Simulator;
  const clients: TestClient[] = [];
  beforeEach(async () => {
    simulator = await startSimulator();
  });
  afterEach(async () => {
    for (const client of clients.splice(0)) client.close();
    killAll();
    await simulator.close();
  });

  const connect = (address: string, open: object = {}) => {
    const client = new TestClient(address);
    clients.push(client);
    return client.connect({ payload: 'PAYLOAD_FORMAT_BOTH', ...open });
  };

  test('sessions are durable in a store that is reached by mutual TLS, whose certificate is checked', async () => {
    const { server, port } = await startTlsStore();
    await using _server = server;
    const upstreamUrl = simulator.url;
    const storeUrl = `valkeys://localhost:${port}`;
    using replicas = new Replicas({ storeUrl, upstreamUrl, durable: true, config: storeTls('ca.pem') });
    expect(await run(['store', 'check'], { env: replicas.environment })).toMatchObject({ code: 0 });
    const first = await replicas.start();
    const stream = connect(first.grpc);
    const opened = await stream.opened();
    expect(opened).toMatchObject({ durable: true });
    stream.startTurn({ turn_id: 't1', create: { store: false } }, 'My name is Ada.');
    await stream.turn('t1');
    first.child.kill('SIGKILL');
    await first.ended;
    const second = await replicas.start();
    const resume = {
      token: opened.resume_token,
      last_seq: stream.events.at(-1)?.seq,
      last_commit: stream.events.at(-1)?.commit,
    };
    const taken = connect(second.grpc, { resume });
    expect(await taken.opened()).toMatchObject({ resume_outcome: 'RESUME_OUTCOME_RECOVERED' });
    taken.startTurn({ turn_id: 't2', create: { store: false } }, 'And?');
    expect(String((await taken.turn('t2')).at(-1)?.json)).toContain('sees 3 items');

    using distrusting = new Replicas({
      storeUrl,
      upstreamUrl,
      durable: true,
      config: storeTls('stranger.pem'),
    });
    expect((await run(['store', 'check'], { env: distrusting.environment })).code).not.toBe(0);
    using plain = new Replicas({ storeUrl: `valkey://localhost:${port}`, upstreamUrl, durable: true });
    expect((await run(['store', 'check'], { env: plain.environment })).code).not.toBe(0);
  });

  test('a resume is carried between replicas by mutual TLS, and by no other certificate', async () => {
    await using store = await StoreServer.start({ kind: 'redis' });
    const world = { storeUrl: store.url, upstreamUrl: simulator.url };
    using replicas = new Replicas({ ...world, config: peerTls('server') });
    using strangers = new Replicas({ ...world, config: peerTls('stranger') });
    using plain = new Replicas(world);
    const [owner, reached, stranger, open] = await Promise.all([
      replicas.start(),
      replicas.start(),
      strangers.start(),
      plain.start(),
    ]);
    const first = connect(owner.grpc);
    const { resume_token: token, session_id: id } = await first.opened();
    const carried = connect(reached.grpc, { resume: { token, last_seq: 0 } });
    const again = await carried.opened();
    expect(again).toMatchObject({ resume_outcome: 'RESUME_OUTCOME_RESUMED', session_id: id });
    carried.startTurn({ turn_id: 't1' }, 'Hello.');
    expect((await carried.turn('t1')).at(-1)).toMatchObject({ outcome: 'TURN_OUTCOME_COMPLETED' });
    const metrics = new Page(await (await fetch(`http://${reached.admin}/metrics`)).text());
    expect(metrics.sum('responses_gateway_forwards_total', { result: 'taken' })).toBe(1);
    for (const { grpc } of [stranger, open]) {
      const refused = connect(grpc, { resume: { token: again.resume_token, last_seq: 0 } });
      expect(await refused.opened()).toMatchObject({ resume_outcome: 'RESUME_OUTCOME_GONE' });
    }
    expect(carried.endedWith).toBeUndefined();
  });
});
