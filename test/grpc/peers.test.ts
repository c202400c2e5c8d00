import { randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { type AddressInfo, createServer, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { credentials, Metadata, Server, ServerCredentials } from '@grpc/grpc-js';
import { expect, test, vi } from 'vitest';
import type { Principal, SessionLease } from '../../src/access/types.ts';
import { GatewayError } from '../../src/errors.ts';
import { type Hop, readHop, writeHop } from '../../src/grpc/hop.ts';
import type { PeersOptions, PeerTlsOptions } from '../../src/grpc/peers.ts';
import type { GrpcServerOptions } from '../../src/grpc/server.ts';
import { TestClient } from '../harness/client.ts';
import { OpenAccess } from '../harness/fakes.ts';
import { startGateway, type TestGateway } from '../harness/gateway.ts';

const secret = randomBytes(32);
const hop: Hop = { principal: { tenantId: 'blue', subject: 'key-1' }, to: '2' };
const open = randomBytes(40);

function hopHeader(said: Hop, of: Uint8Array, key: Uint8Array): string {
  const metadata = new Metadata();
  writeHop(metadata, said, of, [key]);
  return String(metadata.get('x-responses-gateway-hop')[0]);
}

const said = hopHeader(hop, open, secret);

test.each([
  ['one of us', said, { hop, signed: true }],
  ['no one', undefined, undefined],
  ['somebody with another secret', hopHeader(hop, open, randomBytes(32)), { hop, signed: false }],
  [
    'somebody who took it from another stream',
    hopHeader(hop, randomBytes(40), secret),
    { hop, signed: false },
  ],
  ['somebody who cut the signature', said.slice(0, -4), { hop, signed: false }],
  ['somebody who changed it', said.replace(/^./, 'x'), undefined],
  ['somebody who sends no signature', said.replace(/\..*/, '.'), undefined],
  ['somebody who sends something else', 'Bearer x', undefined],
  ['a process with a path for a name', hopHeader({ ...hop, to: '../2' }, open, secret), undefined],
])('what is carried as said by %s', (_who, value, expected) => {
  const metadata = new Metadata();
  if (value !== undefined) metadata.set('x-responses-gateway-hop', value);
  expect(readHop(metadata, open, [randomBytes(32), secret])).toEqual(expected);
});

/** How processes of one machine find each other. */
function bySockets(folder: string, id: string): PeersOptions {
  const addressOf = (peer: string) => `unix:${join(folder, `${peer}.sock`)}`;
  return {
    id,
    find: (peer) => ({ address: addressOf(peer), local: true }),
    listen: [addressOf(id)],
    secrets: [secret],
  };
}

test('a client that leaves while another process has not answered leaves no session behind', async () => {
  const folder = mkdtempSync(join(tmpdir(), 'gateway-peers-'));
  // Takes the connection and says nothing, as a process that stands still.
  const silent = createServer((socket) => socket.on('error', () => {})).listen(join(folder, '2.sock'));
  await once(silent, 'listening');
  await using gateway = await startGateway({ server: { peers: bySockets(folder, '1') } });
  const client = gateway.client();
  const leaving = client.connect({ resume: { token: `2.ses_1.${randomBytes(32).toString('base64url')}` } });
  const [socket] = (await once(silent, 'connection')) as [Socket];
  leaving.cancel();
  await vi.waitFor(() => expect(gateway.telemetry.rpcs).toHaveLength(1));
  await client.connect().opened();
  expect(gateway.server.registry.size).toBe(1);
  expect(gateway.bugs).toEqual([]);
  socket.destroy();
  silent.close();
  rmSync(folder, { recursive: true });
});

test('of many clients of a process that says nothing one asks it, and the others wait for that', async () => {
  const folder = mkdtempSync(join(tmpdir(), 'gateway-peers-'));
  const silent = createServer((socket) => socket.on('error', () => {})).listen(join(folder, '2.sock'));
  await once(silent, 'listening');
  const asked: string[] = [];
  const options = bySockets(folder, '1');
  const peers: PeersOptions = {
    ...options,
    find: (id) => {
      asked.push(id);
      return options.find(id);
    },
    openedTimeoutMs: 2_000,
    unreachableMs: 1_000,
  };
  await using gateway = await startGateway({ server: { peers } });
  const token = `2.ses_1.${randomBytes(32).toString('base64url')}`;
  const client = gateway.client();
  const streams = Array.from({ length: 10 }, () => client.connect({ resume: { token } }));
  const opened = await Promise.all(streams.map((stream) => stream.opened()));
  expect(opened.map((one) => one.resume_outcome)).toEqual(Array(10).fill('RESUME_OUTCOME_GONE'));
  expect(asked).toEqual(['2']);
  silent.close();
  rmSync(folder, { recursive: true });
});

/** Keeps what a caller brought along for the upstream. */
class KeyAccess extends OpenAccess {
  readonly upstreamKeys: (string | undefined)[] = [];

  override admitSession(
    principal: Principal,
    request: { readonly upstream: string | undefined; readonly upstreamKey: string | undefined },
  ): SessionLease {
    this.upstreamKeys.push(request.upstreamKey);
    return super.admitSession(principal, request);
  }
}

/** Two processes, as far as they can tell. */
async function startTwo(server: Partial<GrpcServerOptions> = {}, resumeGraceMs = 60_000) {
  const folder = mkdtempSync(join(tmpdir(), 'gateway-peers-'));
  const start = (id: string) =>
    startGateway({
      access: new KeyAccess(),
      limits: { resumeGraceMs },
      server: { ...server, peers: bySockets(folder, id) },
    });
  const [reached, owner] = await Promise.all([start('1'), start('2')]);
  return {
    reached,
    owner,
    [Symbol.asyncDispose]: async () => {
      await Promise.all([reached.close(), owner.close()]);
      rmSync(folder, { recursive: true });
      expect([...reached.bugs, ...owner.bugs]).toEqual([]);
    },
  };
}

test('a session that another process no longer has is opened anew as its caller asks', async () => {
  await using both = await startTwo({}, 20);
  const { reached, owner } = both;
  const traceparent = `00-${'a'.repeat(32)}-${'b'.repeat(16)}-01`;
  const metadata = { 'x-upstream-api-key': 'sk-mine', traceparent };
  const first = owner.client().connect({}, metadata);
  const { resume_token: token } = await first.opened();
  first.cancel();
  await vi.waitFor(() => expect(owner.server.registry.size).toBe(0));

  const again = reached.client().connect({ resume: { token } }, metadata);
  expect((await again.opened()).resume_outcome).toBe('RESUME_OUTCOME_GONE');
  expect([reached.server.registry.size, owner.server.registry.size]).toEqual([1, 0]);
  expect(reached.access.upstreamKeys).toEqual(['sk-mine']);
  const [{ start } = { start: undefined }] = reached.telemetry.sessions;
  expect([start?.traceContext?.traceparent, start?.serverAddress]).toEqual([traceparent, reached.address]);
});

test('a session whose process refuses the resume for the moment is not given up', async () => {
  await using both = await startTwo();
  const { reached, owner } = both;
  const first = owner.client().connect();
  const { resume_token: token, session_id: id } = await first.opened();
  first.cancel();
  owner.access.overloadError = new GatewayError('OVERLOADED', 'short of memory', { retryAfterMs: 100 });
  expect(await reached.client().connect({ resume: { token } }).ended()).toMatchObject({
    code: 8,
    reason: 'OVERLOADED',
    details: ['ErrorInfo', 'RetryInfo'],
  });
  owner.access.overloadError = undefined;
  const opened = await reached.client().connect({ resume: { token } }).opened();
  expect([opened.session_id, opened.resume_outcome]).toEqual([id, 'RESUME_OUTCOME_RESUMED']);
});

test('more sessions are carried than one client may have', async () => {
  await using both = await startTwo({ maxStreamsPerConnection: 2 });
  const { reached, owner } = both;
  const left = Array.from({ length: 4 }, () => owner.client().connect());
  const tokens = (await Promise.all(left.map((stream) => stream.opened()))).map(
    (opened) => opened.resume_token,
  );
  for (const stream of left) stream.cancel();
  const resumed = tokens.map((token) => reached.client().connect({ resume: { token } }).opened());
  for (const opened of await Promise.all(resumed)) {
    expect(opened.resume_outcome).toBe('RESUME_OUTCOME_RESUMED');
  }
});

const certificate = (name: string) => fileURLToPath(new URL(`../harness/certs/${name}`, import.meta.url));

const tls: PeerTlsOptions = {
  certificateFile: certificate('server.pem'),
  privateKeyFile: certificate('server.key'),
  clientCaFile: certificate('ca.pem'),
  withoutSecret: true,
};

type ByTcp = Partial<Pick<PeersOptions, 'secrets' | 'tls' | 'openedTimeoutMs' | 'onForward'>>;

/** Processes on different machines, as far as they can tell. */
async function startReplicas(...each: readonly ByTcp[]) {
  const ports = new Map<string, number | undefined>();
  const gateways: TestGateway[] = [];
  for (const [index, options] of each.entries()) {
    const id = `replica-${index}`;
    const peers: PeersOptions = {
      id,
      find: (peer) => {
        const port = ports.get(peer);
        return port === undefined ? undefined : { address: `127.0.0.1:${port}`, local: false };
      },
      listen: ['127.0.0.1:0'],
      secrets: [secret],
      ...options,
    };
    const gateway = await startGateway({ server: { peers } });
    ports.set(id, gateway.server.peerPort);
    gateways.push(gateway);
  }
  const [reached, owner] = gateways as [TestGateway, TestGateway];
  return {
    reached,
    owner,
    [Symbol.asyncDispose]: async () => {
      await Promise.all(gateways.map((gateway) => gateway.close()));
      expect(gateways.flatMap(({ bugs }) => bugs)).toEqual([]);
    },
  };
}

/** Opens at the owner and resumes at the other; what the resume found there. */
async function resumeElsewhere({ owner, reached }: { owner: TestGateway; reached: TestGateway }) {
  const first = owner.client().connect();
  const { resume_token: token } = await first.opened();
  first.startTurn({ turn_id: 't1' }, 'Hi');
  const events = await first.turn('t1');
  first.cancel();
  const again = reached.client().connect({ resume: { token, last_seq: events.at(-1)?.seq ?? 0 } });
  const { resume_outcome: outcome } = await again.opened();
  again.startTurn({ turn_id: 't2' }, 'Go on');
  expect((await again.turn('t2')).at(-1)?.outcome).toBe('TURN_OUTCOME_COMPLETED');
  return outcome;
}

test.each<[string, ByTcp, ByTcp, string]>([
  ['a secret', {}, {}, 'RESUMED'],
  ['another secret', {}, { secrets: [randomBytes(32)] }, 'GONE'],
  ['certificates', { tls, secrets: [randomBytes(32)] }, { tls, secrets: [randomBytes(32)] }, 'RESUMED'],
  [
    'certificates and a secret',
    { tls: { ...tls, withoutSecret: false } },
    { tls: { ...tls, withoutSecret: false } },
    'RESUMED',
  ],
  [
    'certificates and another secret',
    { tls: { ...tls, withoutSecret: false } },
    { tls: { ...tls, withoutSecret: false }, secrets: [randomBytes(32)] },
    'GONE',
  ],
  [
    'a certificate of another service',
    { tls },
    {
      tls: { ...tls, certificateFile: certificate('client.pem'), privateKeyFile: certificate('client.key') },
    },
    'GONE',
  ],
])('replicas with %s', async (_what, here, there, expected) => {
  await using both = await startReplicas(here, there);
  expect(await resumeElsewhere(both)).toBe(`RESUME_OUTCOME_${expected}`);
});

test('nobody but a replica can say who calls', async () => {
  await using both = await startReplicas({}, { tls });
  const { owner } = both;
  const stranger = new TestClient(`127.0.0.1:${owner.server.peerPort}`, {
    credentials: credentials.createSsl(
      readFileSync(certificate('ca.pem')),
      readFileSync(certificate('client.key')),
      readFileSync(certificate('client.pem')),
    ),
  });
  const header = { 'x-responses-gateway-hop': hopHeader({ ...hop, to: 'replica-1' }, open, randomBytes(32)) };
  expect(await stranger.connect({}, header).ended()).toMatchObject({ reason: 'UNAUTHENTICATED' });
  stranger.close();
  // A caller's own port does not know the header at all.
  const caller = owner.client().connect({}, header);
  await caller.opened();
  expect(owner.telemetry.sessions.map(({ start }) => start.tenantId)).toEqual(['anonymous']);
});

test('an owner that does not answer in time is given up', async () => {
  const silent = createServer((socket) => socket.on('error', () => {})).listen(0, '127.0.0.1');
  await once(silent, 'listening');
  const answers: string[] = [];
  const { port } = silent.address() as AddressInfo;
  const peers: PeersOptions = {
    id: 'replica-0',
    find: () => ({ address: `127.0.0.1:${port}`, local: false }),
    listen: ['127.0.0.1:0'],
    secrets: [secret],
    openedTimeoutMs: 200,
    onForward: (answer) => answers.push(answer),
  };
  await using gateway = await startGateway({ server: { peers } });
  const stream = gateway
    .client()
    .connect({ resume: { token: `replica-9.ses_1.${randomBytes(32).toString('base64url')}` } });
  expect((await stream.opened()).resume_outcome).toBe('RESUME_OUTCOME_GONE');
  expect(answers).toEqual(['silent']);
  silent.close();
});

test('an owner that is not there is not tried again for a while, where another process can go on', async () => {
  const gone = createServer().listen(0, '127.0.0.1');
  await once(gone, 'listening');
  const { port } = gone.address() as AddressInfo;
  gone.close();
  await once(gone, 'close');
  for (const [unreachableMs, tries] of [
    [0, 2],
    [60_000, 1],
  ] as const) {
    const answers: string[] = [];
    const looked: string[] = [];
    const peers: PeersOptions = {
      id: 'replica-0',
      find: (id) => {
        looked.push(id);
        return { address: `127.0.0.1:${port}`, local: false };
      },
      listen: ['127.0.0.1:0'],
      secrets: [secret],
      unreachableMs,
      onForward: (answer) => answers.push(answer),
    };
    await using gateway = await startGateway({ server: { peers } });
    for (let n = 0; n < 2; n += 1) {
      const token = `replica-9.ses_${n}.${randomBytes(32).toString('base64url')}`;
      const stream = gateway.client().connect({ resume: { token } });
      expect((await stream.opened()).resume_outcome).toBe('RESUME_OUTCOME_GONE');
    }
    expect(answers).toEqual(Array(tries).fill('unreachable'));
    expect(looked).toEqual(Array(tries).fill('replica-9'));
  }
});

test('a server of another kind at the owner’s address is no owner, whatever it answers', async () => {
  const other = new Server();
  const port = await new Promise<number>((resolve, reject) => {
    other.bindAsync('127.0.0.1:0', ServerCredentials.createInsecure(), (error, bound) =>
      error === null ? resolve(bound) : reject(error),
    );
  });
  const answers: string[] = [];
  const peers: PeersOptions = {
    id: 'replica-0',
    find: () => ({ address: `127.0.0.1:${port}`, local: false }),
    listen: ['127.0.0.1:0'],
    secrets: [secret],
    onForward: (answer) => answers.push(answer),
  };
  await using gateway = await startGateway({ server: { peers } });
  const token = `replica-9.ses_1.${randomBytes(32).toString('base64url')}`;
  const stream = gateway.client().connect({ resume: { token } });
  expect((await stream.opened()).resume_outcome).toBe('RESUME_OUTCOME_GONE');
  expect(answers).toEqual(['unreachable']);
  other.forceShutdown();
});

test('a process that drains sends the clients away whose sessions are elsewhere', async () => {
  await using both = await startReplicas({}, {});
  const { owner, reached } = both;
  const first = owner.client().connect();
  const { resume_token: token, session_id: id } = await first.opened();
  first.cancel();
  const carried = reached.client().connect({ resume: { token } });
  const { resume_token: next } = await carried.opened();
  const drained = reached.server.drain(60_000);
  await carried.until(() => carried.goAways.length > 0);
  expect(carried.goAways).toMatchObject([{ reason: 'GO_AWAY_REASON_MAX_AGE', resume_token: '' }]);
  const moved = owner.client().connect({ resume: { token: next } });
  expect(await moved.opened()).toMatchObject({
    session_id: id,
    resume_outcome: 'RESUME_OUTCOME_RESUMED',
  });
  expect((await carried.ended()).reason).toBe('SESSION_SUPERSEDED');
  await drained;
});
