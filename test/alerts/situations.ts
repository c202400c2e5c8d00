import { mkdtempSync, writeFileSync } from 'node:fs';
import { createServer, type Server } from 'node:http';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { onTestFinished } from 'vitest';
import { type Simulator, startSimulator } from '../../src/simulator/index.ts';
import { startHostileUpstream } from '../hostile/upstream.ts';
import { type OpenGateway, pause } from './play.ts';
import type { Target } from './prometheus.ts';

/** What goes wrong, and what ends it. */
export interface Situation {
  /** All of these fire in it, and nothing else but `also`. */
  readonly alerts: readonly string[];
  /** What may fire as well: it depends on how fast the machine is. */
  readonly also?: readonly string[];
  readonly settings?: () => Promise<Readonly<Record<string, unknown>>> | Readonly<Record<string, unknown>>;
  readonly environment?: Readonly<Record<string, string>>;
  readonly takes?: Target['takes'];
  /** Goes on until all fire. Called again and again. */
  readonly during: (gateway: OpenGateway) => Promise<unknown> | undefined;
  /** Ends it; afterwards all of them go out. */
  readonly after?: (gateway: OpenGateway) => Promise<unknown> | undefined;
}

const upstreamAt = (url: string) => ({
  upstream: {
    url,
    provider: 'openai',
    api_key_env: null,
    transport: 'websocket',
    allow_plaintext: true,
  },
});

/** Situations as they come about: by callers, upstreams, collectors and the process itself. */
export function situations(): Readonly<Record<string, Situation>> {
  return {
    'a key that the provider refuses': refusedKey(),
    'an upstream that is gone': goneUpstream(),
    'a tenant over its limit': {
      alerts: ['CallersTurnedAway'],
      settings: () => ({ tenants: [{ id: 'default', limits: { turns_per_minute: 1 } }] }),
      during: ({ ask }) => ask(),
    },
    'a drain that does not end': hangingDrain(),
    'resumes that come too late': {
      alerts: ['ResumesLoseEvents'],
      during: async ({ client }) => {
        const stream = client.connect({ resume: { resume_token: 'x'.repeat(43), last_seq: 1 } });
        await Promise.race([stream.opened(), stream.ended()]);
        stream.cancel();
        await pause();
      },
    },
    'a model without a price': modelWithoutPrice(),
    'a collector that is away': lostCollector(),
  };
}

/** Played by promtool alone (deploy/alerts.test.yaml), and why. */
export const BY_PROMTOOL_ALONE: Readonly<Record<string, string>> = {
  ClientsAreSlow: 'a client has to stand still for many times five seconds, which no clock makes faster',
  TurnsWait: 'turns have to wait for seconds, again and again',
  LinksBreak: 'compares with the day before',
  LinksNotRotated: 'an upstream that ends links for their age',
  ConnectionsNearTheirLimit: 'as many connections as file descriptors allow',
  DescriptorsNearTheirLimit: 'as many file descriptors as the system allows',
  MemoryNearMark: 'a process whose memory is nearly used up',
  StoreIsSlow: 'a store and a slow way to it',
  StoreFails: 'a store that goes away',
  LimitsAreNotShared: 'a store that goes away',
  SessionsAreFenced: 'replicas and a network that parts them',
  StoreLostData: 'a store that forgets what it acknowledged',
  ReplicasRefuseEachOther: 'replicas with different secrets',
};

/** Stands alone: it takes the time of everything else here. */
export const FULL_EVENT_LOOP: Situation = {
  alerts: ['EventLoopIsFull'],
  also: ['TurnsWait'],
  takes: 'asked',
  // Whoever scrapes has to get in between.
  during: async () => {
    for (let n = 0; n < 5; n += 1) {
      const until = performance.now() + 60;
      while (performance.now() < until);
      await new Promise((resolve) => setTimeout(resolve, 3));
    }
  },
};

function refusedKey(): Situation {
  return {
    alerts: ['GatewayFailsTurns'],
    also: ['UpstreamDialsFail', 'UpstreamDoesNotAnswer'],
    settings: async () => {
      const upstream = await startHostileUpstream({
        onHandshake: () => 'HTTP/1.1 401 No\r\ncontent-length: 0\r\n\r\n',
      });
      onTestFinished(() => upstream.close());
      return { ...upstreamAt(upstream.url), session: { max_dial_attempts: 1 } };
    },
    during: ({ ask }) => ask(),
  };
}

function goneUpstream(): Situation {
  let simulator: Simulator | undefined;
  let port = 0;
  return {
    alerts: ['UpstreamDoesNotAnswer', 'UpstreamDialsFail', 'UpstreamFailsTurns', 'UpstreamNotTried'],
    settings: async () => {
      onTestFinished(async () => simulator?.close());
      simulator = await startSimulator();
      port = simulator.port;
      await simulator.close();
      simulator = undefined;
      return {
        ...upstreamAt(`ws://127.0.0.1:${port}/v1/responses`),
        session: { max_dial_attempts: 1 },
        dial: { breaker_failures: 2, breaker_open_min: '200ms', breaker_open_max: '500ms' },
      };
    },
    during: async ({ ask, client }) => {
      // Several callers: one that fails again and again opens no circuit.
      await Promise.all([ask(), client.createResponse({ create: { model: 'gpt-6' } }).result]);
    },
    after: async ({ ask }) => {
      simulator = await startSimulator({ port });
      await ask();
      await pause();
    },
  };
}

function hangingDrain(): Situation {
  let stop: Promise<() => Promise<void>> | undefined;
  let drained: Promise<void> | undefined;
  return {
    alerts: ['NotReady', 'DrainHangs'],
    settings: () => ({ drain: { timeout: '10m', last_scrape: '0s' } }),
    during: async ({ hang, gateway }) => {
      stop ??= hang();
      await stop;
      drained ??= gateway.drain();
      await pause();
    },
    after: async ({ gone }) => {
      await (await stop)?.();
      await drained;
      // A process that has ended is no target any more.
      gone();
    },
  };
}

function modelWithoutPrice(): Situation {
  return {
    alerts: ['TurnsWithoutCost'],
    settings: () => {
      const file = join(mkdtempSync(join(tmpdir(), 'prices-')), 'prices.yaml');
      writeFileSync(
        file,
        'currency: EUR\nas_of: "2026-11-30"\nmodels:\n  - model: other\n    tiers:\n      default: { input: "1", output: "1" }\n',
      );
      return { prices_file: file };
    },
    during: async ({ ask }) => {
      await ask();
      await pause();
    },
  };
}

function lostCollector(): Situation {
  let collector: Server | undefined;
  let port = 0;
  return {
    alerts: ['TelemetryIsLost'],
    environment: { OTEL_BSP_SCHEDULE_DELAY: '200', OTEL_BLRP_SCHEDULE_DELAY: '200' },
    settings: async () => {
      collector = createServer((request, response) => {
        request.resume();
        response.statusCode = 400;
        response.end();
      });
      await new Promise<void>((resolve) => collector?.listen(0, '127.0.0.1', resolve));
      port = (collector.address() as { port: number }).port;
      onTestFinished(() => void collector?.close());
      const endpoint = `http://127.0.0.1:${port}`;
      return { telemetry: { traces: { exporter: 'otlp-http', endpoint } } };
    },
    during: async ({ ask }) => {
      await ask();
      await pause();
    },
    after: async () => {
      collector?.removeAllListeners('request');
      collector?.on('request', (request, response) => {
        request.resume();
        response.end();
      });
    },
  };
}
