import { once } from 'node:events';
import { connect as connectHttp2 } from 'node:http2';
import { connect } from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';
import { connect as connectTls } from 'node:tls';
import { fileURLToPath } from 'node:url';
import { credentials } from '@grpc/grpc-js';
import { afterEach, expect, it, vi } from 'vitest';
import { type RunningGateway, startGateway } from '../../src/app/gateway.ts';
import { configSchema } from '../../src/config/schema.ts';
import { TestClient, userMessage } from '../harness/client.ts';

const file = (name: string) => fileURLToPath(new URL(`../harness/certs/${name}`, import.meta.url));

vi.setConfig({ testTimeout: 120_000 });

let gateway: RunningGateway;
let lines: Record<string, unknown>[];

afterEach(() => gateway.close());

async function start(tls: boolean): Promise<void> {
  lines = [];
  gateway = await startGateway(
    configSchema.parse({
      listen: '127.0.0.1:0',
      admin: { listen: '127.0.0.1:0' },
      ...(tls && { tls: { cert_file: file('server.pem'), key_file: file('server.key') } }),
    }),
    {
      environment: {},
      version: 'test',
      logDestination: {
        write: (text) => {
          for (const line of text.trim().split('\n')) lines.push(JSON.parse(line));
        },
      },
    },
  );
}

const told = () => lines.filter(({ code }) => code === 'wrong_protocol').map(({ port, why }) => [port, why]);

async function raw(port: number, bytes: string, oneByOne = false): Promise<string> {
  const socket = connect(port, '127.0.0.1').setEncoding('latin1');
  let answer = '';
  socket.on('data', (chunk) => {
    answer += chunk;
  });
  socket.on('error', () => {});
  const closed = new Promise((resolve) => socket.once('close', resolve));
  await once(socket, 'connect');
  for (const part of oneByOne ? bytes : [bytes]) {
    socket.write(part, 'latin1');
    if (oneByOne) await sleep(1);
  }
  await closed;
  return answer;
}

async function tlsError(port: number): Promise<string> {
  const socket = connectTls({ port, host: 'localhost', rejectUnauthorized: false });
  const [error] = (await once(socket, 'error')) as [Error];
  return error.message;
}

async function tlsAnswer(port: number, options: object): Promise<string> {
  const socket = connectTls({ port, host: 'localhost', rejectUnauthorized: false, ...options });
  socket.setEncoding('latin1');
  let answer = '';
  socket.on('data', (chunk) => {
    answer += chunk;
  });
  socket.end('GET / HTTP/1.1\r\nHost: x\r\n\r\n');
  await once(socket, 'close');
  return answer;
}

async function grpc(port: number, secure: boolean) {
  const client = new TestClient(`127.0.0.1:${port}`, {
    ...(secure && { credentials: credentials.createSsl(null, null, null, { rejectUnauthorized: false }) }),
  });
  const { ended } = await client.createResponse({
    create: { model: 'gpt-6', input: [userMessage('#say=fine')] },
  }).result;
  client.close();
  return ended;
}

async function overHttp2(url: string, headers: Record<string, string>) {
  const connection = connectHttp2(url, { rejectUnauthorized: false });
  const stream = connection.request(headers);
  let body = '';
  stream.setEncoding('utf8').on('data', (chunk) => {
    body += chunk;
  });
  const closed = new Promise((resolve) => stream.once('close', resolve));
  const [response] = await once(stream, 'response');
  await closed;
  connection.destroy();
  return { status: response[':status'], body };
}

it('a plaintext gRPC port says so to TLS, HTTP/1.1, browsers and PROXY, and goes on serving', async () => {
  await start(false);
  const { grpcPort } = gateway;
  expect(await tlsError(grpcPort)).toMatch(/unexpected message/);
  for (const oneByOne of [false, true]) {
    const answer = await raw(grpcPort, 'GET / HTTP/1.1\r\nHost: x\r\n\r\n', oneByOne);
    expect(answer).toMatch(/^HTTP\/1\.1 400 .*\r\n\r\nThis port speaks gRPC, which needs HTTP\/2/s);
  }
  expect(await raw(grpcPort, 'PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\nPRI * HTTP/2.0\r\n\r\n')).toBe('');
  const url = `http://127.0.0.1:${grpcPort}`;
  expect(await overHttp2(url, { ':path': '/' })).toMatchObject({
    status: 415,
    body: expect.stringContaining('admin.listen'),
  });
  for (const type of ['application/grpc-web+proto', 'application/connect+json', 'application/json']) {
    expect(await overHttp2(url, { ':method': 'POST', ':path': '/', 'content-type': type })).toMatchObject({
      status: 415,
      body: expect.stringContaining('a proxy has to translate'),
    });
  }
  expect(await grpc(grpcPort, false)).toMatchObject({ code: 0 });
  // One line for each kind, however often it comes.
  expect(told()).toEqual([
    ['grpc', 'TLS'],
    ['grpc', 'HTTP/1.1'],
    ['grpc', 'the PROXY protocol'],
    ['grpc', 'an HTTP/2 request without gRPC'],
    ['grpc', 'gRPC-Web or Connect'],
  ]);
});

it('a TLS gRPC port says so to plaintext, and to TLS without HTTP/2', async () => {
  await start(true);
  const { grpcPort } = gateway;
  expect(await grpc(grpcPort, false)).toMatchObject({
    code: 9,
    message: expect.stringContaining('This port speaks gRPC over TLS; found HTTP/2 without TLS'),
  });
  expect(await raw(grpcPort, 'GET / HTTP/1.1\r\nHost: x\r\n\r\n')).toMatch(/^HTTP\/1\.1 400 .*over TLS/s);
  expect(await tlsAnswer(grpcPort, {})).toMatch(/^HTTP\/1\.1 400 .*offer h2 by ALPN/s);
  expect(await grpc(grpcPort, true)).toMatchObject({ code: 0 });
  expect(told()).toEqual([
    ['grpc', 'HTTP/2 without TLS'],
    ['grpc', 'HTTP/1.1'],
    ['grpc', 'TLS without ALPN'],
  ]);
});

it('the admin port says so to gRPC and TLS', async () => {
  await start(false);
  const adminPort = gateway.adminPort ?? 0;
  expect(await grpc(adminPort, false)).toMatchObject({
    code: 9,
    message: expect.stringContaining('This is the admin port'),
  });
  expect(await tlsError(adminPort)).toMatch(/unexpected message/);
  expect(await raw(adminPort, 'GET /healthz HTTP/1.1\r\nConnection: close\r\n\r\n', true)).toMatch(/ 200 OK/);
  expect(told()).toEqual([
    ['admin', 'HTTP/2 without TLS'],
    ['admin', 'TLS'],
  ]);
});

it('a connection is counted once, however many wrong requests it makes', async () => {
  await start(false);
  const connection = connectHttp2(`http://127.0.0.1:${gateway.grpcPort}`);
  const kinds = [{}, { 'content-type': 'application/grpc-web+proto' }, {}];
  const statuses = await Promise.all(
    kinds.map(async (headers) => {
      const stream = connection.request({ ':method': 'POST', ':path': '/', ...headers }).resume();
      const [response] = await once(stream, 'response');
      return response[':status'];
    }),
  );
  connection.destroy();
  await raw(gateway.grpcPort, 'GET / HTTP/1.1\r\nHost: x\r\n\r\n');
  expect(statuses).toEqual([415, 415, 415]);
  const metrics = await (await fetch(`http://127.0.0.1:${gateway.adminPort}/metrics`)).text();
  expect(metrics).toMatch(
    /^responses_gateway_connections_ended_total\{[^}]*reason="wrong_protocol"[^}]*\} 2$/m,
  );
});

it('nothing of what a peer sends is in the log', async () => {
  await start(false);
  await raw(gateway.grpcPort, 'GET /canary?token=canary HTTP/1.1\r\nAuthorization: canary\r\n\r\n');
  expect(told()).toHaveLength(1);
  expect(JSON.stringify(lines)).not.toContain('canary');
});
