/**
 * A gateway in a process of its own, so that its memory and its event loop are its own. Started by `world.ts`; all
 * talk is over the IPC channel.
 */
import { existsSync, readdirSync } from 'node:fs';
import { createAccessControl } from '../../src/access/access.ts';
import type { AccessOptions } from '../../src/access/options.ts';
import { DEFAULT_SESSION_LIMITS } from '../../src/core/limits.ts';
import type { SessionLimits } from '../../src/core/types.ts';
import { createGrpcServer } from '../../src/grpc/server.ts';
import { createDialer } from '../../src/upstream/dialer.ts';
import { RecordedTelemetry } from '../harness/fakes.ts';

export interface Setup {
  readonly access: Pick<AccessOptions, 'auth' | 'tenants'>;
  /** Default: the gateway's. */
  readonly maxOwnedIdBytes?: number;
  readonly openTimeoutMs: number;
  readonly limits: Partial<SessionLimits>;
  /** By tenant. */
  readonly upstreamUrls: Readonly<Record<string, string>>;
}

export type Ask =
  | { readonly ask: 'start'; readonly setup: Setup }
  /** `settled`: after the garbage was collected, which stops the process for a moment. */
  | { readonly ask: 'facts'; readonly settled: boolean }
  | { readonly ask: 'stop' };

export interface Facts {
  readonly heapBytes: number;
  readonly rssBytes: number;
  /** ArrayBuffers and other memory outside the heap. */
  readonly externalBytes: number;
  readonly sessions: number;
  /** Open files and sockets; 0 where there is no /proc. */
  readonly descriptors: number;
  readonly timers: number;
  readonly bugs: readonly string[];
  /** Names that appeared on Object.prototype. */
  readonly pollution: readonly string[];
}

export type Answer = { readonly port: number } | { readonly facts: Facts };

/** Counts of calls are not what these tests look at; keeping them would look like a leak. */
class NoTelemetry extends RecordedTelemetry {
  override rpcEnded(): void {}
  override callRefused(): void {}
  override resumeHeldBack(): void {}
  override streamOpened(): void {}
  override streamClosed(): void {}
  override session(): ReturnType<RecordedTelemetry['session']> {
    return {
      fact: () => {},
      outgoing: () => undefined,
      batch: () => {},
      resumed: () => {},
      steered: () => {},
      end: () => {},
    };
  }
}

const inherited = new Set(Object.getOwnPropertyNames(Object.prototype));
const bugs: string[] = [];
process.on('uncaughtException', (error) => bugs.push(`uncaught: ${error.stack}`));
process.on('unhandledRejection', (error) => bugs.push(`unhandled: ${String(error)}`));
process.on('disconnect', () => process.exit(0));

let gateway: Awaited<ReturnType<typeof start>> | undefined;

process.on('message', (ask: Ask) => {
  void answer(ask);
});

async function answer(ask: Ask): Promise<void> {
  if (ask.ask === 'start') {
    gateway = await start(ask.setup);
    send({ port: gateway.port });
  } else if (ask.ask === 'facts') {
    // Also the pages that V8 would keep for a while: what a process may take again is not what it holds.
    if (ask.settled) globalThis.gc?.({ type: 'major', execution: 'sync', flavor: 'last-resort' });
    send({ facts: facts() });
  } else {
    await gateway?.close();
    process.disconnect();
  }
}

async function start(setup: Setup) {
  const dialer = createDialer({
    upstreams: Object.entries(setup.upstreamUrls).map(([name, url]) => ({
      name,
      provider: 'openai' as const,
      url,
      allowPlaintext: true,
    })),
  });
  const access = createAccessControl({
    ...setup.access,
    ...(setup.maxOwnedIdBytes === undefined ? {} : { maxOwnedIdBytes: setup.maxOwnedIdBytes }),
    upstreamNames: Object.keys(setup.upstreamUrls),
    loopbackOnly: true,
  });
  const server = await createGrpcServer({
    access,
    dialer,
    telemetry: new NoTelemetry(),
    limits: { ...DEFAULT_SESSION_LIMITS, ...setup.limits },
    openTimeoutMs: setup.openTimeoutMs,
    maxConnections: 200,
    onBug: (error) => bugs.push(error instanceof Error ? String(error.stack) : String(error)),
  });
  const port = await server.listen('127.0.0.1:0');
  return {
    port,
    access,
    server,
    close: async () => {
      await server.close();
      await dialer.close();
      await access.close();
    },
  };
}

function facts(): Facts {
  const { heapUsed, rss, external } = process.memoryUsage();
  return {
    heapBytes: heapUsed,
    rssBytes: rss,
    externalBytes: external,
    sessions: gateway?.server.registry.size ?? 0,
    descriptors: existsSync('/proc/self/fd') ? readdirSync('/proc/self/fd').length : 0,
    timers: process.getActiveResourcesInfo().filter((name) => name === 'Timeout').length,
    bugs,
    pollution: Object.getOwnPropertyNames(Object.prototype).filter((name) => !inherited.has(name)),
  };
}

function send(message: Answer): void {
  process.send?.(message);
}
