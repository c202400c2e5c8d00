import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { get } from 'node:http';
import { connect as connectTcp } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, expect, onTestFinished, test, vi } from 'vitest';
import { parse, stringify } from 'yaml';
import { checkSeq, TestClient, type TestStream } from '../harness/client.ts';
import { Page } from '../telemetry/prometheus.ts';
import { killAll, run, start, startGateway } from './program.ts';

// Every test starts several processes.
vi.setConfig({ testTimeout: 300_000 });

const clients: TestClient[] = [];
afterEach(() => {
  for (const client of clients.splice(0)) client.close();
  killAll();
});

/** A connection of its own; the primary deals connections out in turn. */
function connect(address: string): TestClient {
  const client = new TestClient(address);
  clients.push(client);
  return client;
}

function fetchText(address: string, path: string): Promise<string> {
  return new Promise((resolve, reject) => {
    get(`http://${address}${path}`, { agent: false }, (response) => {
      let body = '';
      response.on('data', (chunk: Buffer) => {
        body += chunk.toString();
      });
      response.on('end', () => resolve(body));
    }).on('error', reject);
  });
}

interface Session {
  readonly id: string;
  readonly pid: number;
}

async function sessions(admin: string): Promise<readonly Session[]> {
  return (JSON.parse(await fetchText(admin, '/sessions')) as { sessions: Session[] }).sessions;
}

async function open(address: string): Promise<TestStream> {
  const stream = connect(address).connect();
  await stream.opened();
  return stream;
}

test('two workers share one port, and the admin port adds them up', async () => {
  const { grpc, admin } = await startGateway('--workers', '2');
  const streams = await Promise.all([open(grpc), open(grpc), open(grpc), open(grpc)]);
  streams.forEach((stream, index) => {
    stream.startTurn({ turn_id: `t${index}` }, 'Hi');
  });
  await Promise.all(streams.map((stream, index) => stream.turn(`t${index}`)));

  const all = await sessions(admin);
  expect(all.length).toBe(4);
  expect(new Set(all.map(({ pid }) => pid)).size).toBe(2);
  const page = new Page(await fetchText(admin, '/metrics'));
  expect(page.sum('responses_gateway_turns_total')).toBe(4);
  expect(page.sum('responses_gateway_sessions_active')).toBe(4);
});

test('a session resumes through whichever worker the new connection reaches', async () => {
  const { grpc, admin } = await startGateway('--workers', '2');
  let stream = await open(grpc);
  const { session_id: id, resume_token: first } = await stream.opened();
  let token = first;
  let lastSeq = 0;
  // The connections alternate between the workers, so some of these reach the wrong one.
  for (let round = 1; round <= 4; round += 1) {
    const turnId = `turn-${round}`;
    stream.startTurn({ turn_id: turnId }, `Round ${round} #deltas=300`);
    const events = await stream.turn(turnId);
    checkSeq(stream.events, lastSeq + 1);
    // Some of them were not processed when the client died.
    lastSeq = (events[40]?.seq ?? 0) as number;
    stream.cancel();
    stream = connect(grpc).connect({ resume: { token, last_seq: lastSeq } });
    const opened = await stream.opened();
    expect([opened.session_id, opened.resume_outcome]).toEqual([id, 'RESUME_OUTCOME_RESUMED']);
    token = opened.resume_token;
    await stream.turn(turnId);
    checkSeq(stream.events, lastSeq + 1);
    lastSeq = stream.events.at(-1)?.seq ?? 0;
    stream.events.length = 0;
  }
  expect((await sessions(admin)).map((session) => session.id)).toEqual([id]);
  stream.halfClose();
  expect((await stream.ended()).code).toBe(0);
});

test('a crashed worker is replaced and takes only its own sessions along', async () => {
  const gateway = await startGateway('--workers', '2');
  const { grpc, admin } = gateway;
  const one = await open(grpc);
  const other = await open(grpc);
  const { session_id: oneId, resume_token: token } = await one.opened();
  const victim = (await sessions(admin)).find(({ id }) => id === oneId);
  process.kill(victim?.pid ?? 0, 'SIGKILL');
  expect((await one.ended()).code).toBe(14);
  await gateway.until('stderr', /"worker_died"/);

  other.startTurn({ turn_id: 'still-there' }, 'Hi');
  expect((await other.turn('still-there')).at(-1)?.outcome).toBe('TURN_OUTCOME_COMPLETED');
  expect(await run(['health', '--admin-listen', admin])).toMatchObject({ code: 0 });
  // Its session is gone, and the client is told so by a new one.
  const resumed = connect(grpc).connect({ resume: { token, last_seq: 0 } });
  expect((await resumed.opened()).resume_outcome).toBe('RESUME_OUTCOME_GONE');
  await vi.waitFor(
    async () => {
      const stream = await open(grpc);
      await stream.opened();
      expect(new Set((await sessions(admin)).map(({ pid }) => pid)).size).toBe(2);
    },
    { timeout: 120_000, interval: 200 },
  );
});

test('limits of tenants hold over all workers, and a dead worker frees its places', async () => {
  const tenants = '[{ id: default, limits: { turns_per_minute: 30, sessions: 3 } }]';
  const { grpc, admin } = await startGateway('--workers', '2', '--set', `tenants=${tenants}`);
  const streams = [await open(grpc), await open(grpc)];
  expect(new Set((await sessions(admin)).map(({ pid }) => pid)).size).toBe(2);
  const turns = Array.from({ length: 60 }, async (_, at) => {
    const stream = streams[at % 2] as TestStream;
    stream.startTurn({ turn_id: `t${at}`, lane_id: `l${at % 8}` }, 'Hi #deltas=1');
    return (await stream.turn(`t${at}`)).at(-1);
  });
  const last = await Promise.all(turns);
  expect(last.filter((event) => event?.outcome === 'TURN_OUTCOME_COMPLETED')).toHaveLength(30);
  const refused = last.flatMap((event) => event?.turn_failed ?? []);
  expect(new Set(refused.map(({ reason }) => reason))).toEqual(new Set(['LIMIT_EXCEEDED']));

  await open(grpc);
  for (const _ of [1, 2]) {
    expect(await connect(grpc).connect().ended()).toMatchObject({ reason: 'LIMIT_EXCEEDED' });
  }
  const [victim] = await sessions(admin);
  process.kill(victim?.pid ?? 0, 'SIGKILL');
  await vi.waitFor(() => open(grpc), { timeout: 120_000, interval: 200 });
});

test('a response id of one worker is known to the other', async () => {
  const { grpc } = await startGateway('--workers', '2');
  const streams = [await open(grpc), await open(grpc)] as [TestStream, TestStream];
  streams[0].startTurn({ turn_id: 't1', create: { store: true } }, 'Hi');
  await streams[0].turn('t1');
  const created = (await streams[0].event('response.created')).response_created as {
    response: { id: string };
  };
  const next = { turn_id: 't2', previous_response_id: created.response.id };
  streams[1].startTurn(next, 'And?');
  expect((await streams[1].turn('t2')).at(-1)?.outcome).toBe('TURN_OUTCOME_COMPLETED');
});

test('workers drain together and finish their turns', async () => {
  const gateway = await startGateway('--workers', '2');
  const streams = await Promise.all([open(gateway.grpc), open(gateway.grpc)]);
  for (const stream of streams) {
    stream.startTurn({ turn_id: 'long' }, 'Go #deltas=80 #tps=100');
    await stream.event('response.output_text.delta');
  }
  gateway.child.kill('SIGTERM');
  for (const stream of streams) {
    expect((await stream.turn('long')).at(-1)?.outcome).toBe('TURN_OUTCOME_COMPLETED');
    expect((await stream.ended()).code).toBe(0);
    expect(stream.goAways.length).toBe(1);
  }
  expect((await gateway.ended).code).toBe(0);
});

test('a drain waits for a turn whose stream is carried over from another worker', async () => {
  const gateway = await startGateway('--workers', '2');
  let stream = await open(gateway.grpc);
  const { resume_token: token } = await stream.opened();
  stream.cancel();
  // The next connection goes to the other worker.
  stream = connect(gateway.grpc).connect({ resume: { token, last_seq: 0 } });
  expect((await stream.opened()).resume_outcome).toBe('RESUME_OUTCOME_RESUMED');
  // Longer than a server gives its streams to leave.
  stream.startTurn({ turn_id: 'long' }, 'Go #deltas=400 #tps=100');
  await stream.event('response.output_text.delta');
  gateway.child.kill('SIGTERM');
  expect((await stream.turn('long')).at(-1)?.outcome).toBe('TURN_OUTCOME_COMPLETED');
  expect((await stream.ended()).code).toBe(0);
  expect((await gateway.ended).code).toBe(0);
});

test('a folder too long for sockets is told, and the workers serve without', async () => {
  const folder = mkdtempSync(join(tmpdir(), 'gateway-workers-'));
  const long = join(folder, 'x'.repeat(90));
  mkdirSync(long);
  const flags = ['--listen', '127.0.0.1:0', '--admin-listen', '127.0.0.1:0', '--workers', '2'];
  const gateway = start(['serve', ...flags], { env: { TMPDIR: long } });
  await gateway.until('stderr', /"ready"/);
  expect(gateway.output.stderr).toContain('"no_socket_folder"');
  const [, grpc = ''] = await gateway.until('stdout', /gRPC\s+(\S+:\d+)/);
  await open(grpc);
  rmSync(folder, { recursive: true });
});

test('a port in use is told once, and nothing stays behind', async () => {
  const gateway = await startGateway();
  const { code, stderr } = await run([
    'serve',
    '--workers',
    '2',
    '--log-level',
    'silent',
    '--listen',
    gateway.grpc,
  ]);
  expect([code, stderr]).toEqual([1, expect.stringMatching(/^error: \S+ is in use by another process.*\n$/)]);
});

test('a connection that a dying worker was handed is served or closed, never left hanging', async () => {
  const { grpc, admin } = await startGateway('--workers', '2', '--set', 'session.resume_grace=1s');
  const [port = ''] = grpc.split(':').slice(-1);
  const probe = await open(grpc);
  const [{ pid }] = (await sessions(admin)) as [Session];
  // Stopped, it takes what it is handed and does nothing with it.
  process.kill(pid, 'SIGSTOP');
  const sockets = Array.from({ length: 8 }, () => connectTcp(Number(port), '127.0.0.1'));
  const settled = sockets.map(
    (socket) =>
      new Promise<string>((resolve) => {
        socket.on('error', () => resolve('closed'));
        socket.on('close', () => resolve('closed'));
        // The server's settings.
        socket.on('data', () => resolve('served'));
        socket.write('PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0');
      }),
  );
  // Those of the other worker are served; one of the stopped one's at least is still on its way.
  await vi.waitUntil(async () => {
    const states = await Promise.all(settled.map((each) => Promise.race([each, Promise.resolve('waits')])));
    return states.includes('served');
  });
  process.kill(pid, 'SIGKILL');
  const ends = await Promise.all(settled);
  expect(ends.filter((end) => end !== 'served' && end !== 'closed')).toEqual([]);
  for (const socket of sockets) socket.destroy();
  probe.cancel();
});

test('the admin port finds a session in whichever worker has it, and acts there', async () => {
  const gateway = await startGateway('--workers', '2');
  const { grpc, admin } = gateway;
  const streams = await Promise.all([open(grpc), open(grpc)]);
  for (const stream of streams) {
    const { session_id: id } = await stream.opened();
    stream.startTurn({ turn_id: 'endless' }, 'Hi #hang #deltas=20');
    await stream.event('response.output_text.delta', 'endless');
    const { turns } = JSON.parse(await fetchText(admin, `/sessions/${id}/turns`)) as {
      turns: { turnId: string; state: string }[];
    };
    expect(turns).toMatchObject([{ turnId: 'endless', state: 'running' }]);
    const answer = await fetch(`http://${admin}/sessions/${id}/turns/endless/cancel`, {
      method: 'POST',
      headers: { 'content-type': 'application/json' },
      body: JSON.stringify({ confirm: 'endless' }),
    });
    expect(answer.status).toBe(202);
    expect((await stream.turn('endless')).at(-1)?.outcome).toBe('TURN_OUTCOME_CANCELLED');
  }
  await gateway.until('stderr', /"action":"cancel_turn".*"result":"done"/);
  const unknown = await fetch(`http://${admin}/sessions/ses_none/turns`);
  expect([unknown.status, await unknown.json()]).toMatchObject([404, { field: 'id' }]);
});

test('a reload with workers is all or nothing, and says what is wrong', async () => {
  const folder = mkdtempSync(join(tmpdir(), 'reload-'));
  onTestFinished(() => rmSync(folder, { recursive: true }));
  const file = join(folder, 'gateway.yaml');
  const write = (config: object) => writeFileSync(file, stringify(config));
  const callers = async () => {
    const { stdout, stderr } = await run(['keys', 'create', '--tenant', 'team']);
    const keys = parse(stderr.slice(stderr.indexOf('auth:'))) as { readonly auth: readonly unknown[] };
    return { key: stdout.trim(), config: { ...keys, tenants: [{ id: 'team' }] } };
  };
  const [old, fresh] = [await callers(), await callers()];
  const hello = async (address: string, key: string) => {
    const client = new TestClient(address, { metadata: { authorization: `Bearer ${key}` } });
    clients.push(client);
    const stream = client.connect();
    const refused = async () => (await stream.ended()).reason;
    return stream.opened().then(() => 'open', refused);
  };
  write(old.config);
  const gateway = await startGateway('--workers', '2', '--config', file);
  const { grpc, child } = gateway;

  // Who may use which upstream is checked where calls come in: only a worker notices.
  write({ ...fresh.config, tenants: [{ id: 'team', upstreams: ['nowhere'] }] });
  child.kill('SIGHUP');
  const [line] = await gateway.until('stderr', /.*"config_reload_failed".*/);
  expect(line).toContain('fit no configured upstream');
  expect(gateway.output.stderr).not.toContain('config_reloaded');
  for (const _ of [1, 2]) expect(await hello(grpc, old.key)).toBe('open');
  expect(await hello(grpc, fresh.key)).toBe('UNAUTHENTICATED');

  write(fresh.config);
  child.kill('SIGHUP');
  await gateway.until('stderr', /"config_reloaded"/);
  // Connections alternate between the workers.
  for (const _ of [1, 2]) {
    expect(await hello(grpc, fresh.key)).toBe('open');
    expect(await hello(grpc, old.key)).toBe('UNAUTHENTICATED');
  }
});
