import { mkdtempSync, writeFileSync } from 'node:fs';
import { createServer, type Server } from 'node:http';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type Simulator, startSimulator } from '../../src/simulator/index.ts';
import { startHostileUpstream } from '../hostile/upstream.ts';
import { clusterSituations } from './cluster-situations.ts';
import type { ProcessLimits } from './limited-gateway.ts';
import { type Defer, type OpenGateway, pause } from './play.ts';
import { pressureSituations } from './pressure-situations.ts';
import type { Target } from './prometheus.ts';

/** What goes wrong, and what ends it. */
export interface Situation {
  /** All of these fire in it, and nothing else but `also`. */
  readonly alerts: readonly string[];
  /** What may fire as well: it depends on how fast the machine is. */
  readonly also?: readonly string[];
  readonly settings?: (
    defer: Defer,
  ) => Promise<Readonly<Record<string, unknown>>> | Readonly<Record<string, unknown>>;
  readonly environment?: Readonly<Record<string, string>>;
  readonly takes?: Target['takes'];
  /** In a process of its own, which has no more than this. */
  readonly limits?: ProcessLimits;
  /** Goes on until all fire. Called again and again. */
  readonly during: (gateway: OpenGateway) => Promise<unknown> | undefined;
  /** Ends it; afterwards all of them go out. */
  readonly after?: (gateway: OpenGateway) => Promise<unknown> | undefined;
}

export const upstreamAt = (url: string) => ({
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
    'hundreds of failures between two scrapes': failuresAtOnce(),
    'turns lost at the deadline of a drain': turnsLostAtDeadline(),
    'upstreams that break links': {
      alerts: ['LinksBreak'],
      // A turn may have been on its way.
      also: ['UpstreamFailsTurns'],
      during: async ({ ask, simulator }) => {
        await ask();
        simulator?.cutConnections();
        await ask();
      },
    },
    'an upstream that ends links for their age': agedLinks(),
    ...pressureSituations(),
    ...clusterSituations(),
  };
}

/** Played by promtool alone (deploy/alerts.test.yaml), and why. */
export const BY_PROMTOOL_ALONE: Readonly<Record<string, string>> = {
  MemoryNearMark: 'to fill a process that gives up what it can takes more minutes than there are',
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
    settings: async (defer) => ({
      ...upstreamAt(await refusingUpstream(defer)),
      session: { max_dial_attempts: 1 },
    }),
    during: ({ ask }) => ask(),
  };
}

/** One that has no use for the key: the gateway's fault. */
async function refusingUpstream(defer: Defer): Promise<string> {
  const upstream = await startHostileUpstream({
    onHandshake: () => 'HTTP/1.1 401 No\r\ncontent-length: 0\r\n\r\n',
  });
  defer(() => upstream.close());
  return upstream.url;
}

/** A series that began with them would never rise. */
function failuresAtOnce(): Situation {
  let failed = false;
  return {
    ...refusedKey(),
    during: async ({ stream, next, betweenScrapes }) => {
      if (!failed) {
        failed = true;
        await betweenScrapes(async () => {
          for (let n = 0; n < 5; n += 1) {
            const turns = Array.from({ length: 100 }, next);
            for (const turn_id of turns) stream.startTurn({ turn_id }, 'x');
            for (const turnId of turns) await stream.turn(turnId);
          }
        });
      }
      await pause();
    },
  };
}

/** They are counted in the last moments of a process, which has to be seen once more. */
function turnsLostAtDeadline(): Situation {
  let drained: Promise<void> | undefined;
  return {
    alerts: ['GatewayFailsTurns'],
    also: ['NotReady', 'DrainHangs'],
    settings: () => ({ drain: { timeout: '500ms', last_scrape: '15s' } }),
    during: async ({ connect, drain, gone }) => {
      drained ??= (async () => {
        const streams = Array.from({ length: 10 }, () => connect().connect());
        for (const stream of streams) {
          stream.startTurn({ turn_id: 'lost' }, '#hang');
          await stream.event('response.created', 'lost');
        }
        await drain();
        gone();
      })();
      await drained;
      await pause();
    },
  };
}

function agedLinks(): Situation {
  let simulator: Simulator | undefined;
  return {
    alerts: ['LinksNotRotated'],
    also: ['LinksBreak', 'UpstreamFailsTurns'],
    settings: async (defer) => {
      simulator = await startSimulator({ switches: { connectionAgeMs: 500, ageLimit: 'finish-then-close' } });
      defer(() => simulator?.close());
      return upstreamAt(simulator.url);
    },
    during: async ({ ask }) => {
      await ask();
      await pause();
    },
    after: async () => simulator?.configure({ switches: { connectionAgeMs: 0 } }),
  };
}

function goneUpstream(): Situation {
  let simulator: Simulator | undefined;
  let port = 0;
  return {
    alerts: ['UpstreamDoesNotAnswer', 'UpstreamDialsFail', 'UpstreamFailsTurns', 'UpstreamNotTried'],
    settings: async (defer) => {
      defer(async () => simulator?.close());
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
    after: async ({ ask, read }) => {
      simulator = await startSimulator({ port });
      // Callers go on; the first that is let through ends it.
      while ((await read('responses_gateway_upstream_breaker')) > 0) {
        await ask();
        await pause();
      }
    },
  };
}

function hangingDrain(): Situation {
  let stop: Promise<() => Promise<void>> | undefined;
  let drained: Promise<void> | undefined;
  return {
    alerts: ['NotReady', 'DrainHangs'],
    settings: () => ({ drain: { timeout: '10m', last_scrape: '0s' } }),
    during: async ({ hang, drain }) => {
      stop ??= hang();
      await stop;
      drained ??= drain();
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
    settings: async (defer) => {
      collector = createServer((request, response) => {
        request.resume();
        response.statusCode = 400;
        response.end();
      });
      await new Promise<void>((resolve) => collector?.listen(0, '127.0.0.1', resolve));
      port = (collector.address() as { port: number }).port;
      defer(() => void collector?.close());
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
