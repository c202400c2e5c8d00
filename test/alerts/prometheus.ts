import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { createServer, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { createServer as createSocketServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

/** An hour of an operator's day takes a minute here. */
const CLOCK = 60;
const SCRAPE_MS = 200;

export interface Target {
  readonly job: string;
  /** Prometheus text, of which only what the alerts ask for is taken; undefined: it cannot be reached. */
  text(): Promise<string | undefined>;
  /** `all` series, or only those that alerts ask for; without those of the event loop, which is that of all tests here. */
  readonly takes?: 'all' | 'asked' | 'askedWithoutLoop';
}

export const ALERTS = readFileSync(new URL('../../deploy/alerts.yaml', import.meta.url), 'utf8');
const ASKED_FOR = new Set(ALERTS.match(/\b(?:responses_gateway|nodejs)_\w+/g));

/** A thousand series five times a second are more than several of these can bear side by side. */
function asked(page: string, withLoop: boolean): string {
  return page
    .split('\n')
    .filter((line) => ASKED_FOR.has(/^(?:# \w+ )?(\w+)/.exec(line)?.[1] ?? ''))
    .filter((line) => withLoop || !line.includes('nodejs_eventloop'))
    .map((line) => `${line}\n`)
    .join('');
}

/** A real Prometheus with the shipped alerts, whose durations are a sixtieth of theirs. */
export class TestPrometheus {
  readonly #process: ChildProcess;
  readonly #url: string;
  readonly #folder: string;
  readonly #servers: readonly Server[];

  private constructor(process: ChildProcess, url: string, folder: string, servers: readonly Server[]) {
    this.#process = process;
    this.#url = url;
    this.#folder = folder;
    this.#servers = servers;
  }

  static async start(targets: readonly Target[]): Promise<TestPrometheus> {
    const folder = mkdtempSync(join(tmpdir(), 'alerts-'));
    const rules = ALERTS;
    writeFileSync(join(folder, 'alerts.yaml'), atFastClock(rules));
    const servers = await Promise.all(targets.map(serve));
    const ports = servers.map((server) => (server.address() as AddressInfo).port);
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
          static_configs: [{ targets: [`127.0.0.1:${ports[at]}`] }],
        })),
      }),
    );
    const port = await freePort();
    const process = spawn(
      'prometheus',
      [
        `--config.file=${join(folder, 'prometheus.yaml')}`,
        `--storage.tsdb.path=${join(folder, 'data')}`,
        `--web.listen-address=127.0.0.1:${port}`,
        '--query.lookback-delta=5s',
        '--log.level=error',
      ],
      { stdio: ['ignore', 'inherit', 'inherit'] },
    );
    const prometheus = new TestPrometheus(process, `http://127.0.0.1:${port}`, folder, servers);
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
    for (const server of this.#servers) server.close();
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

/** `5m` becomes `5s`, `10s` stays at least two scrapes. */
function atFastClock(rules: string): string {
  const seconds: Readonly<Record<string, number>> = { s: 1, m: 60, h: 3_600, d: 86_400 };
  return rules.replaceAll(/\b(\d+)([smhd])\b/g, (_, count: string, unit: string) => {
    const ms = (Number(count) * (seconds[unit] ?? 1) * 1_000) / CLOCK;
    return `${Math.max(2 * SCRAPE_MS, Math.round(ms))}ms`;
  });
}

async function serve({ text, takes = 'askedWithoutLoop' }: Target): Promise<Server> {
  const server = createServer((_request, response) => {
    void text().then(
      (page) =>
        page === undefined
          ? response.destroy()
          : response.end(takes === 'all' ? page : asked(page, takes === 'asked')),
      () => response.destroy(),
    );
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  return server;
}

async function freePort(): Promise<number> {
  const server = createSocketServer().listen(0, '127.0.0.1');
  await once(server, 'listening');
  const { port } = server.address() as AddressInfo;
  server.close();
  await once(server, 'close');
  return port;
}
