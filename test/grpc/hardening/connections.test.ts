import { once } from 'node:events';
import { readFileSync } from 'node:fs';
import { type ClientHttp2Session, connect as connectHttp2 } from 'node:http2';
import { connect, type Socket } from 'node:net';
import { connect as connectTls } from 'node:tls';
import { fileURLToPath } from 'node:url';
import { afterEach, describe, expect, it, vi } from 'vitest';
import type { ConnectionEnd } from '../../../src/grpc/hardening/fair-http2.ts';
import type { GrpcServerOptions } from '../../../src/grpc/server.ts';
import { startGateway, type TestGateway } from '../../harness/gateway.ts';
import { grpcFrame, openCall, openHttp2, outcomeOf } from '../../hostile/raw.ts';

const OPEN = Buffer.of(0x0a, 0x00);
const WAIT = { timeout: 30_000 };
const certificate = (name: string) => fileURLToPath(new URL(`../../harness/certs/${name}`, import.meta.url));

let gateway: TestGateway;
const sockets: Socket[] = [];

async function start(options: Partial<GrpcServerOptions>): Promise<ConnectionEnd[]> {
  const ended: ConnectionEnd[] = [];
  gateway = await startGateway({ server: { onConnectionEnd: (reason) => ended.push(reason), ...options } });
  return ended;
}

afterEach(async () => {
  for (const socket of sockets.splice(0)) socket.destroy();
  await gateway.close();
  expect(gateway.bugs).toEqual([]);
});

/** Says nothing. */
async function idle(): Promise<Socket> {
  const socket = connect(gateway.port, '127.0.0.1');
  socket.on('error', () => {});
  socket.resume();
  sockets.push(socket);
  await once(socket, 'connect');
  return socket;
}

async function busy(): Promise<{ connection: ClientHttp2Session; end(): Promise<void> }> {
  const connection = await openHttp2(gateway.port);
  const stream = openCall(connection, {});
  stream.write(grpcFrame(OPEN));
  await once(stream, 'response');
  const end = async () => {
    stream.end();
    await outcomeOf(stream);
  };
  return { connection, end };
}

const closed = (connection: ClientHttp2Session | Socket) => vi.waitUntil(() => connection.destroyed, WAIT);

describe('client connections', () => {
  it('are refused when there are as many as there may be, each with a stream', async () => {
    const ended = await start({ maxConnections: 2 });
    const first = await busy();
    const second = await busy();
    expect(gateway.server.connections).toMatchObject({ open: 2, max: 2, full: true });
    const refused = await openHttp2(gateway.port);
    await closed(refused);
    expect(ended).toEqual(['limit']);
    // With its stream over, the first is idle, and the next one takes its place.
    await first.end();
    await vi.waitUntil(() => !gateway.server.connections.full, WAIT);
    const third = await busy();
    await closed(first.connection);
    expect(ended).toEqual(['limit', 'idle']);
    second.connection.destroy();
    third.connection.destroy();
    await vi.waitUntil(() => gateway.server.connections.open === 0, WAIT);
  });

  it('that say nothing keep nobody out', async () => {
    const ended = await start({ maxConnections: 5 });
    const first = await busy();
    const silent: Socket[] = [];
    for (let n = 0; n < 20; n++) silent.push(await idle());
    const second = await busy();
    expect(gateway.server.connections.open).toBeLessThanOrEqual(5);
    await vi.waitUntil(() => silent.filter(({ destroyed }) => !destroyed).length <= 4, WAIT);
    expect(new Set(ended)).toEqual(new Set(['idle']));
    expect(first.connection.destroyed).toBe(false);
    first.connection.destroy();
    second.connection.destroy();
  });

  it('without a stream end after a while, whether they speak HTTP/2 or not', async () => {
    await start({ maxConnectionIdleMs: 100 });
    const kept = await busy();
    const silent = await idle();
    const spoke = await openHttp2(gateway.port);
    // Open to everybody, for as long as they like.
    const open = [
      '/grpc.health.v1.Health/Watch',
      '/xds.service.orca.v3.OpenRcaService/StreamCoreMetrics',
      '/grpc.reflection.v1.ServerReflection/ServerReflectionInfo',
    ];
    const watching = await Promise.all(open.map(() => openHttp2(gateway.port)));
    for (const [n, path] of open.entries()) {
      openCall(watching[n] as (typeof watching)[number], { ':path': path }).write(grpcFrame(Buffer.alloc(0)));
    }
    for (const connection of [silent, spoke, ...watching]) await closed(connection);
    expect(kept.connection.destroyed).toBe(false);
    await kept.end();
    await closed(kept.connection);
  });

  it('over TLS that never shake hands, or have no stream, end as well', async () => {
    await start({
      maxConnectionIdleMs: 100,
      tls: { certificateFile: certificate('server.pem'), privateKeyFile: certificate('server.key') },
    });
    const ca = readFileSync(certificate('ca.pem'));
    const silent = await idle();
    const shaken = connectTls({ port: gateway.port, host: 'localhost', ca, ALPNProtocols: ['h2'] });
    shaken.on('error', () => {});
    shaken.resume();
    const spoke = connectHttp2(`https://localhost:${gateway.port}`, { ca });
    spoke.on('error', () => {});
    for (const connection of [silent, shaken, spoke]) await closed(connection);
    await vi.waitUntil(() => gateway.server.connections.open === 0, WAIT);
  });
});
