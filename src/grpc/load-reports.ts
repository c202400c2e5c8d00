import { Metadata, type Server, type ServerWritableStream } from '@grpc/grpc-js';
import type { ServerInterceptingCallInterface } from '@grpc/grpc-js/build/src/server-interceptors.js';
import { serviceDefinition } from './service-definition.ts';

/** How full the process is; shares are 0 to 1, rates are for a second. */
export interface Load {
  readonly eventLoopShare: number;
  readonly memoryShare: number;
  /** The nearest to its limit of what a new session would need; 1: it would be refused. */
  readonly applicationShare: number;
  readonly turnsPerSecond: number;
  readonly failuresPerSecond: number;
  readonly sessions: number;
  readonly turnsRunning: number;
}

interface Request {
  readonly report_interval: { readonly seconds: string; readonly nanos: number } | null;
}

type Reports = ServerWritableStream<Request, object>;

const SERVICE = 'xds.service.orca.v3.OpenRcaService';
/** Of a call's own report, with its status. */
const TRAILER = 'endpoint-load-metrics-bin';
/** What gRPC's own balancers ask for where nobody says otherwise. */
const DEFAULT_INTERVAL_MS = 10_000;
/** Callers choose the interval; the history behind the numbers has one sample a second. */
const MIN_INTERVAL_MS = 1_000;
const MAX_INTERVAL_MS = 3_600_000;

/**
 * ORCA's out-of-band reports (`xds.service.orca.v3.OpenRcaService`). grpc-js 1.14 has the service: it takes any interval,
 * down to a report each millisecond, tells the first one after the first interval only, and writes on while nobody
 * reads.
 */
export function addLoadReports(server: Server, load: () => Load): void {
  server.addService(serviceDefinition(SERVICE), {
    StreamCoreMetrics: (call: Reports) => {
      const tell = (): void => {
        if (!call.writableNeedDrain) call.write(report(load()));
      };
      const timer = setInterval(tell, intervalMs(call.request));
      for (const end of ['cancelled', 'close', 'finish', 'error']) call.once(end, () => clearInterval(timer));
      tell();
    },
  });
}

/** A report is as old as the samples behind it, and is encoded once. */
export function reportOnEnd(
  load: () => Load,
  nowMs: () => number,
): (call: ServerInterceptingCallInterface) => void {
  const { StreamCoreMetrics: method } = serviceDefinition(SERVICE);
  let bytes: Buffer | undefined;
  let madeAtMs = Number.NEGATIVE_INFINITY;
  const encoded = (): Buffer => {
    if (bytes === undefined || nowMs() - madeAtMs >= MIN_INTERVAL_MS) {
      bytes = method?.responseSerialize(report(load())) as Buffer;
      madeAtMs = nowMs();
    }
    return bytes;
  };
  return (call) => {
    const send = call.sendStatus.bind(call);
    call.sendStatus = (status) => {
      const metadata = status.metadata?.clone() ?? new Metadata();
      metadata.set(TRAILER, encoded());
      send({ ...status, metadata });
    };
  };
}

function intervalMs({ report_interval: asked }: Request): number {
  const ms = asked === null ? 0 : Number(asked.seconds) * 1_000 + asked.nanos / 1e6;
  if (!(ms > 0)) return DEFAULT_INTERVAL_MS;
  return Math.min(MAX_INTERVAL_MS, Math.max(MIN_INTERVAL_MS, ms));
}

function report(load: Load): object {
  return {
    cpu_utilization: load.eventLoopShare,
    mem_utilization: Math.min(1, load.memoryShare),
    application_utilization: load.applicationShare,
    rps_fractional: load.turnsPerSecond,
    eps: load.failuresPerSecond,
    named_metrics: { sessions: load.sessions, turns_running: load.turnsRunning },
  };
}
