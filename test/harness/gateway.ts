import type { AccessControl } from '../../src/access/types.ts';
import { DEFAULT_SESSION_LIMITS } from '../../src/core/limits.ts';
import type { SessionLimits } from '../../src/core/types.ts';
import { createGrpcServer, type GrpcServer, type GrpcServerOptions } from '../../src/grpc/server.ts';
import { type Simulator, type SimulatorOptions, startSimulator } from '../../src/simulator/index.ts';
import type { Telemetry } from '../../src/telemetry/types.ts';
import { createDialer, type DialerOptions } from '../../src/upstream/dialer.ts';
import type { UpstreamOptions } from '../../src/upstream/upstream.ts';
import { TestClient, type TestClientOptions } from './client.ts';
import { OpenAccess, RecordedTelemetry } from './fakes.ts';

export interface GatewayOptions<A extends AccessControl, T extends Telemetry> {
  /** Of the simulator that the gateway dials. */
  readonly simulator?: SimulatorOptions;
  /** Base URL instead of a simulator of our own, e.g. of a chaos proxy before one. */
  readonly upstreamUrl?: string;
  readonly upstream?: Partial<UpstreamOptions>;
  readonly dialer?: Partial<DialerOptions>;
  readonly limits?: Partial<SessionLimits>;
  readonly server?: Partial<Omit<GrpcServerOptions, 'access' | 'telemetry' | 'dialer' | 'limits'>>;
  readonly access?: A;
  readonly telemetry?: T;
}

/** A whole gateway on a free loopback port, with a simulator behind it. */
export interface TestGateway<A extends AccessControl = OpenAccess, T extends Telemetry = RecordedTelemetry> {
  readonly port: number;
  readonly address: string;
  readonly server: GrpcServer;
  /** Undefined when the gateway dials somewhere else. */
  readonly simulator: Simulator;
  readonly access: A;
  readonly telemetry: T;
  /** Bugs that the gateway reported; a test should find none. */
  readonly bugs: unknown[];
  /** A connection of its own; closed with the gateway. */
  client(options?: TestClientOptions): TestClient;
  close(): Promise<void>;
  [Symbol.asyncDispose](): Promise<void>;
}

/** Redials that tests need not wait for. */
const FAST: Partial<SessionLimits> = { redialMinMs: 5, redialMaxMs: 50 };

export async function startGateway<
  A extends AccessControl = OpenAccess,
  T extends Telemetry = RecordedTelemetry,
>(options: GatewayOptions<A, T> = {}): Promise<TestGateway<A, T>> {
  const simulator =
    options.upstreamUrl === undefined ? await startSimulator(options.simulator ?? {}) : undefined;
  const access = options.access ?? (new OpenAccess() as unknown as A);
  const telemetry = options.telemetry ?? (new RecordedTelemetry() as unknown as T);
  const bugs: unknown[] = [];
  const dialer = createDialer({
    upstreams: [
      {
        name: 'simulator',
        provider: 'openai',
        url: options.upstreamUrl ?? simulator?.url ?? '',
        allowPlaintext: true,
        ...options.upstream,
      } as UpstreamOptions,
    ],
    ...options.dialer,
  });
  const server = await createGrpcServer({
    access,
    dialer,
    telemetry,
    limits: { ...DEFAULT_SESSION_LIMITS, ...FAST, ...options.limits },
    onBug: (error) => bugs.push(error),
    ...options.server,
  });
  const port = await server.listen('127.0.0.1:0');
  const clients: TestClient[] = [];
  let closing: Promise<void> | undefined;
  const close = async () => {
    for (const client of clients) client.close();
    await server.close();
    await dialer.close();
    await simulator?.close();
  };
  const closeOnce = () => {
    closing ??= close();
    return closing;
  };
  return {
    port,
    address: `127.0.0.1:${port}`,
    server,
    simulator: simulator as Simulator,
    access,
    telemetry,
    bugs,
    client: (clientOptions) => {
      const client = new TestClient(`127.0.0.1:${port}`, clientOptions);
      clients.push(client);
      return client;
    },
    close: closeOnce,
    [Symbol.asyncDispose]: closeOnce,
  };
}
