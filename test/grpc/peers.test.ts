import { createHmac, randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { mkdtempSync, rmSync } from 'node:fs';
import { createServer, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Metadata } from '@grpc/grpc-js';
import { expect, test, vi } from 'vitest';
import type { Principal, SessionLease } from '../../src/access/types.ts';
import { GatewayError } from '../../src/errors.ts';
import { Peers } from '../../src/grpc/peers.ts';
import type { GrpcServerOptions } from '../../src/grpc/server.ts';
import { OpenAccess } from '../harness/fakes.ts';
import { startGateway } from '../harness/gateway.ts';

const secret = randomBytes(32);
const peers = new Peers({ id: '1', addressOf: (id) => `unix:/nowhere/${id}.sock`, secret });
const principal = { tenantId: 'blue', subject: 'key-1' };
const payload = Buffer.from(JSON.stringify(principal)).toString('base64url');

function sign(text: string, key: Uint8Array): string {
  return `${text}.${createHmac('sha256', key).update(text).digest('base64url')}`;
}

function withHop(value: string | undefined): Metadata {
  const metadata = new Metadata();
  if (value !== undefined) metadata.set('x-responses-gateway-hop', value);
  return metadata;
}

test.each([
  ['one of us', sign(payload, secret), principal],
  ['no one', undefined, undefined],
  ['somebody with another secret', sign(payload, randomBytes(32)), undefined],
  ['somebody who changed it', sign(payload, secret).replace(payload, payload.replace(/^./, 'x')), undefined],
  ['somebody who cut the signature', sign(payload, secret).slice(0, -4), undefined],
  ['somebody who sends no signature', `${payload}.`, undefined],
  ['somebody who sends something else', 'Bearer x', undefined],
])('the principal as said by %s', (_who, value, expected) => {
  expect(peers.principalOf(withHop(value))).toEqual(expected);
});

test('a client that leaves while another process has not answered leaves no session behind', async () => {
  const folder = mkdtempSync(join(tmpdir(), 'gateway-peers-'));
  // Takes the connection and says nothing, as a process that stands still.
  const silent = createServer((socket) => socket.on('error', () => {})).listen(join(folder, '2.sock'));
  await once(silent, 'listening');
  const addressOf = (id: string) => `unix:${join(folder, `${id}.sock`)}`;
  await using gateway = await startGateway({ server: { peers: { id: '1', addressOf, secret } } });
  const client = gateway.client();
  const leaving = client.connect({ resume: { token: `2.${randomBytes(32).toString('base64url')}` } });
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
  const addressOf = (id: string) => `unix:${join(folder, `${id}.sock`)}`;
  const start = (id: string) =>
    startGateway({
      access: new KeyAccess(),
      limits: { resumeGraceMs },
      server: { ...server, peers: { id, addressOf, secret } },
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
