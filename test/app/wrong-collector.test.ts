import { once } from 'node:events';
import { createServer } from 'node:http';
import { createServer as createHttp2Server } from 'node:http2';
import type { AddressInfo, Server } from 'node:net';
import { expect, it, vi } from 'vitest';
import { startGateway } from '../../src/app/gateway.ts';
import { configSchema } from '../../src/config/schema.ts';
import { exportComplaint } from '../../src/telemetry/otlp-endpoint.ts';
import { TestClient, userMessage } from '../harness/client.ts';

it('a collector that speaks gRPC where HTTP is sent is told in a sentence', {
  timeout: 120_000,
}, async () => {
  const collector: Server = createHttp2Server()
    .on('sessionError', () => {})
    .listen(0, '127.0.0.1');
  await once(collector, 'listening');
  const { port } = collector.address() as AddressInfo;
  let log = '';
  const gateway = await startGateway(
    configSchema.parse({
      listen: '127.0.0.1:0',
      admin: { listen: '127.0.0.1:0' },
      telemetry: { traces: { exporter: 'otlp-http', endpoint: `http://127.0.0.1:${port}/v1/traces` } },
    }),
    {
      environment: { OTEL_BSP_SCHEDULE_DELAY: '50' },
      version: 'test',
      logDestination: {
        write: (line) => {
          log += line;
        },
      },
    },
  );
  const client = new TestClient(`127.0.0.1:${gateway.grpcPort}`);
  await client.createResponse({ create: { model: 'gpt-6', input: [userMessage('#say=fine')] } }).result;
  client.close();
  const told = () =>
    log
      .split('\n')
      .filter((line) => line.includes('telemetry_export'))
      .map((line) => (JSON.parse(line) as { readonly msg: string }).msg);
  await vi.waitUntil(() => told().length > 0, { timeout: 100_000 });
  expect(told()[0]).toMatch(/OTEL_EXPORTER_OTLP_PROTOCOL=grpc$/);
  await gateway.close();
  collector.close();
});

it('one that speaks HTTP where gRPC is sent, by what grpc-js says of it', { timeout: 60_000 }, async () => {
  const collector = createServer((_, response) => response.writeHead(404).end()).listen(0, '127.0.0.1');
  await once(collector, 'listening');
  const { port } = collector.address() as AddressInfo;
  const client = new TestClient(`127.0.0.1:${port}`);
  const { ended } = await client.createResponse({ create: { model: 'gpt-6' } }).result;
  client.close();
  expect(exportComplaint(JSON.stringify({ message: ended.message, stack: 'any' }))).toMatch(
    /OTEL_EXPORTER_OTLP_PROTOCOL=http\/protobuf$/,
  );
  collector.close();
});
