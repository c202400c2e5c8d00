import { connect } from 'node:net';
import { telemetryOptions } from '../app/options.ts';
import { openClusterClient } from '../app/replicas.ts';
import { checkStore } from '../store/check.ts';
import { whenReady } from '../store/client.ts';
import { StoreError } from '../store/store-error.ts';
import { parseTelemetryOptions } from '../telemetry/options.ts';
import { probeCollector } from '../telemetry/otlp/probe.ts';
import type { DoctorCase, Finding } from './doctor.ts';
import { packageVersion } from './version.ts';

const TIMEOUT_MS = 3_000;
const STORE_TIMEOUT_MS = 5_000;
/** A collector answers an empty export at once; a busy machine does not. */
const EXPORT_TIMEOUT_MS = 10_000;
const DEFAULT_PORTS = { 'otlp-grpc': '4317', 'otlp-http': '4318' } as const;

/** Whether what listens where telemetry goes takes it. */
export async function checkCollectors({ config, environment }: DoctorCase): Promise<readonly Finding[]> {
  const settings = parseTelemetryOptions(
    telemetryOptions(config, { environment, version: packageVersion() }),
  );
  const complaints = settings.complaints.map(
    (complaint): Finding => ({
      check: 'collector',
      status: 'warning',
      found: complaint,
      advice: 'Correct the setting or variable that it names.',
    }),
  );
  const signals = await Promise.all(
    (['traces', 'metrics', 'logs'] as const).map(async (signal): Promise<Finding[]> => {
      const { exporter, endpoint } = settings[signal];
      if (exporter !== 'otlp-grpc' && exporter !== 'otlp-http') return [];
      const url =
        endpoint ??
        environment[`OTEL_EXPORTER_OTLP_${signal.toUpperCase()}_ENDPOINT`] ??
        environment['OTEL_EXPORTER_OTLP_ENDPOINT'] ??
        `http://localhost:${DEFAULT_PORTS[exporter]}`;
      const found = await reach(`collector.${signal}`, url, DEFAULT_PORTS[exporter]);
      return [found.status === 'ok' ? await takesExports(found, settings, signal) : found];
    }),
  );
  const findings = [...complaints, ...signals.flat()];
  return findings.length > 0
    ? findings
    : [{ check: 'collector', status: 'skipped', found: 'no OTLP exporter is set' }];
}

/** Who listens may be something else, or want a token. */
async function takesExports(
  { check, found }: Finding,
  settings: ReturnType<typeof parseTelemetryOptions>,
  signal: 'traces' | 'metrics' | 'logs',
): Promise<Finding> {
  const trouble = await probeCollector(settings, signal, EXPORT_TIMEOUT_MS);
  if (trouble === undefined) return { check, status: 'ok', found: `${found}, and took an empty export` };
  return {
    check,
    status: 'error',
    found: `${found}, and refused an empty export of ${signal}: ${trouble}`,
    advice:
      'Check the protocol (4317 is gRPC, 4318 HTTP), the path, OTEL_EXPORTER_OTLP_HEADERS, and what the collector receives.',
  };
}

function reach(check: string, url: string, defaultPort: string): Promise<Finding> {
  // Exporters over gRPC take a host and port as well.
  const parsed = URL.parse(/^\w+:\/\//.test(url) ? url : `http://${url}`);
  if (parsed === null)
    return Promise.resolve({
      check,
      status: 'error',
      found: 'the endpoint is no URL',
      advice: 'Begin it with http:// or https://.',
    });
  const port = Number(parsed.port || (parsed.protocol === 'https:' ? 443 : defaultPort));
  const host = parsed.hostname.replaceAll(/^\[|\]$/g, '');
  return new Promise((resolve) => {
    const socket = connect(port, host, () => {
      socket.destroy();
      resolve({ check, status: 'ok', found: `${host}:${port} answers` });
    });
    socket.setTimeout(TIMEOUT_MS, () =>
      socket.destroy(Object.assign(new Error('timeout'), { code: 'ETIMEDOUT' })),
    );
    socket.on('error', (error: NodeJS.ErrnoException) =>
      resolve({
        check,
        status: 'error',
        found: `${host}:${port}: ${error.code ?? error.message}`,
        advice: 'Start the collector, or correct the endpoint. Turns are not affected; telemetry is lost.',
      }),
    );
  });
}

export async function checkStoreServer({ config }: DoctorCase): Promise<readonly Finding[]> {
  const { cluster } = config;
  if (cluster === undefined) return [{ check: 'store', status: 'skipped', found: 'cluster.url is not set' }];
  let trouble = 'no answer';
  const client = await openClusterClient(cluster, {
    commandTimeoutMs: STORE_TIMEOUT_MS,
    onError: (error) => {
      trouble = error.message;
    },
  });
  const advice = 'Check cluster.url, its user and password, and the network.';
  try {
    if (!(await whenReady(client, STORE_TIMEOUT_MS)))
      return [{ check: 'store', status: 'error', found: trouble, advice }];
    const found = await checkStore(client);
    if (found.length === 0)
      return [{ check: 'store', status: 'ok', found: 'reached, and fit for durable sessions' }];
    return found.map(({ severity, message }) => ({
      check: 'store',
      status: severity,
      found: message,
      advice: 'docs/scaling.md says how the server should be set up.',
    }));
  } catch (error) {
    if (!(error instanceof StoreError)) throw error;
    return [{ check: 'store', status: 'error', found: error.message, advice }];
  } finally {
    await client.close();
  }
}
