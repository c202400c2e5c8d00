import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { createServer as createSocketServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { Worker } from 'node:worker_threads';

/** An hour of an operator's day takes three minutes here: a busy machine has to answer each scrape in time. */
const CLOCK = 20;
const SCRAPE_MS = 1_000;

export interface Target {
  readonly job: string;
  /** Prometheus text, of which only what the alerts ask for is taken; undefined: it cannot be reached. */
  text(): Promise<string | undefined>;
  /** `all` series, or only those that alerts ask for; without those of the event loop, which is that of all tests here. */
  readonly takes?: 'all' | 'asked' | 'askedWithoutLoop';
}

export const ALERTS = readFileSync(new URL('../../deploy/alerts.yaml', import.meta.url), 'utf8');
const ASKED_FOR = new Set(ALERTS.match(/\b(?:responses_gateway|nodejs)_\w+/g));

/** A thousand series a second are more than several of these can bear side by side. */
function asked(page: string, withLoop: boolean): string {
  return page
    .split('\n')
    .filter((line) => ASKED_FOR.has(/^(?:# \w+ )?(\w+)/.exec(line)?.[1] ?? ''))
    .filter((line) => withLoop || !line.includes('nodejs_eventloop'))
    .map((line) => `${line}\n`)
    .join('');
}

/** A real Prometheus with the shipped alerts, whose durations are a twentieth of theirs. */
export class TestPrometheus {
  readonly #process: ChildProcess;
  readonly #url: string;
  readonly #folder: string;
  readonly #targets: readonly Served[];

  private constructor(child: ChildProcess, url: string, folder: string, targets: readonly Served[]) {
    this.#process = child;
    this.#url = url;
    this.#folder = folder;
    this.#targets = targets;
  }

  static async start(targets: readonly Target[]): Promise<TestPrometheus> {
    const folder = mkdtempSync(join(tmpdir(), 'alerts-'));
    const rules = ALERTS;
    writeFileSync(join(folder, 'alerts.yaml'), atFastClock(rules));
    const served = await Promise.all(targets.map(serve));
    writeFileSync(
      join(folder, 'prometheus.yaml'),
      JSON.stringify({
        global: {
          scrape_interval: `${SCRAPE_MS}ms`,
          scrape_timeout: `${SCRAPE_MS}ms`,
          evaluation_interval: `${SCRAPE_MS}ms`,
        },
        rule_files: ['alerts.yaml'],
        scrape_configs: targets.map(({ job }, at) => ({
          job_name: job,
          static_configs: [{ targets: [`127.0.0.1:${served[at]?.port}`] }],
        })),
      }),
    );
    const port = await freePort();
    const child = spawn(
      'prometheus',
      [
        `--config.file=${join(folder, 'prometheus.yaml')}`,
        `--storage.tsdb.path=${join(folder, 'data')}`,
        `--web.listen-address=127.0.0.1:${port}`,
        '--query.lookback-delta=15s',
        '--log.level=error',
      ],
      { stdio: ['ignore', 'inherit', 'inherit'] },
    );
    const prometheus = new TestPrometheus(child, `http://127.0.0.1:${port}`, folder, served);
    while (!(await prometheus.#ready())) await pause();
    return prometheus;
  }

  /** Names of alerts that fire, with their labels. */
  async firing(): Promise<readonly string[]> {
    const { data } = await this.#get<{ alerts: { state: string; labels: Record<string, string> }[] }>(
      'alerts',
    );
    const names = data.alerts
      .filter(({ state }) => state === 'firing')
      .map(({ labels }) => labels['alertname'] ?? '');
    return [...new Set(names)].toSorted();
  }

  /** Number of series that an expression gives; throws for one that Prometheus does not take. */
  async seriesOf(expression: string): Promise<number> {
    const { data } = await this.#get<{ result: unknown[] }>(`query?query=${encodeURIComponent(expression)}`);
    return data.result.length;
  }

  async close(): Promise<void> {
    const ended = once(this.#process, 'exit');
    this.#process.kill('SIGTERM');
    await ended;
    for (const target of this.#targets) await target.close();
    rmSync(this.#folder, { recursive: true, force: true });
  }

  async #ready(): Promise<boolean> {
    if (this.#process.exitCode !== null) throw new Error('prometheus has ended');
    return fetch(`${this.#url}/-/ready`).then(
      ({ ok }) => ok,
      () => false,
    );
  }

  async #get<T>(path: string): Promise<{ readonly data: T }> {
    const response = await fetch(`${this.#url}/api/v1/${path}`);
    if (!response.ok) throw new Error(`${path}: ${await response.text()}`);
    return (await response.json()) as { data: T };
  }
}

export const pause = (): Promise<void> => new Promise((resolve) => setTimeout(resolve, SCRAPE_MS));

/** `5m` becomes `15s`, and nothing is shorter than two scrapes. */
function atFastClock(rules: string): string {
  const seconds: Readonly<Record<string, number>> = { s: 1, m: 60, h: 3_600, d: 86_400 };
  return rules.replaceAll(/\b(\d+)([smhd])\b/g, (_, count: string, unit: string) => {
    const ms = (Number(count) * (seconds[unit] ?? 1) * 1_000) / CLOCK;
    return `${Math.max(2 * SCRAPE_MS, Math.round(ms))}ms`;
  });
}

interface Served {
  readonly port: number;
  close(): Promise<void>;
}

/** What the target says, read again and again, and answered by another thread. */
async function serve({ text, takes = 'askedWithoutLoop' }: Target): Promise<Served> {
  const worker = new Worker(new URL('./target.ts', import.meta.url));
  const [port] = (await once(worker, 'message')) as [number];
  let over = false;
  const refresh = async (): Promise<void> => {
    while (!over) {
      const page = await text().catch(() => undefined);
      worker.postMessage(page === undefined || takes === 'all' ? page : asked(page, takes === 'asked'));
      await delay(SCRAPE_MS / 2);
    }
  };
  const refreshing = refresh();
  return {
    port,
    close: async () => {
      over = true;
      await refreshing;
      await worker.terminate();
    },
  };
}

/** Below those that the system gives out: one of them might be taken before Prometheus has it. */
const FIRST_PORT = 20_000;
const LAST_PORT = 32_000;
let nextPort = FIRST_PORT + ((process.pid * 64) % (LAST_PORT - FIRST_PORT));

async function freePort(): Promise<number> {
  for (;;) {
    const port = nextPort;
    nextPort = port >= LAST_PORT ? FIRST_PORT : port + 1;
    const server = createSocketServer();
    const free = await new Promise<boolean>((resolve) => {
      server.once('error', () => resolve(false));
      server.listen(port, '127.0.0.1', () => resolve(true));
    });
    if (!free) continue;
    server.close();
    await once(server, 'close');
    return port;
  }
}
