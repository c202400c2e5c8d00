import { createServer, type Server } from 'node:http';
import { afterEach, describe, expect, it } from 'vitest';
import { createTelemetry } from '../../src/telemetry/telemetry.ts';
import { startCollector } from './collector.ts';
import { accepted, record, start } from './facts.ts';

/** As long as a container takes to come back. */
const ABSENCE_MS = 3_000;

const opened: (() => unknown)[] = [];
afterEach(async () => {
  for (const close of opened.splice(0)) await close();
});

async function runTurn(exporter: 'otlp-grpc' | 'otlp-http', endpoint: string) {
  const t = await createTelemetry({
    env: { OTEL_BSP_SCHEDULE_DELAY: '50' },
    logs: { level: 'silent' },
    traces: { exporter, endpoint },
  });
  opened.push(() => t.shutdown());
  const session = t.session(start());
  const at = Date.now();
  session.fact(accepted({ turnId: 'lost?', atMs: at }));
  session.fact({ kind: 'turnEnded', record: record({ turnId: 'lost?', acceptedAtMs: at }) });
  session.end('OK');
}

/** Not what is waited for: how long the collector is away. */
const away = (): Promise<void> => new Promise((resolve) => setTimeout(resolve, ABSENCE_MS));

describe('a collector that is away for three seconds', () => {
  it('misses no span over gRPC', async () => {
    const first = await startCollector();
    const { endpoint } = first;
    await first.close();
    await runTurn('otlp-grpc', endpoint);
    await away();
    const second = await startCollector(Number(new URL(endpoint).port));
    opened.push(second.close);
    await second.waitForSpan(({ name }) => name === 'chat gpt-5.2');
  }, 30_000);

  it('misses no span over HTTP', async () => {
    const first = await listen(0, () => {});
    const { port } = first.address() as { port: number };
    first.close();
    await runTurn('otlp-http', `http://127.0.0.1:${port}`);
    await away();
    const { promise: came, resolve } = Promise.withResolvers<string | undefined>();
    const second = await listen(port, resolve);
    opened.push(() => second.close());
    expect(await came).toBe('/v1/traces');
  }, 30_000);
});

async function listen(port: number, onRequest: (url: string | undefined) => void): Promise<Server> {
  const server = createServer((request, response) => {
    onRequest(request.url);
    request.resume();
    response.end();
  });
  await new Promise<void>((resolve) => server.listen(port, '127.0.0.1', resolve));
  return server;
}
