/**
 * Runs the conformance cases with one client's runner: `node clients/conformance/run.ts NAME [FILTER…]`. README.md has
 * the format. Exits with 1 if a case failed, with 2 if the runner could not be run.
 */
import { spawn } from 'node:child_process';
import { createHash } from 'node:crypto';
import { readdirSync, readFileSync } from 'node:fs';
import { createServer, type IncomingMessage } from 'node:http';
import type { AddressInfo } from 'node:net';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import { parse } from 'yaml';
import { CaseServer } from './case-server.ts';
import type { Case } from './format.ts';
import { PENDING } from './pending.ts';
import { isRunnerName, RUNNER_NAMES, type RunnerName, runnerCommand } from './runners.ts';

interface Outcome {
  readonly case: string;
  readonly ok: boolean;
  readonly error?: string;
  readonly ms?: number;
}

/** Longer than any case may take: 30 s a step, and a runner that hangs is a failure, not a wait. */
const RUNNER_TIMEOUT_MS = 600_000;

const [name = '', ...filters] = process.argv.slice(2);
// A gateway that would not close must not keep the suite from ending.
process.exit(await main(name, filters));

async function main(runner: string, words: readonly string[]): Promise<number> {
  if (!isRunnerName(runner)) {
    console.error(
      `usage: node clients/conformance/run.ts ${RUNNER_NAMES.join('|')} [part of a case's name …]`,
    );
    return 2;
  }
  const all = readCases();
  const pending = pendingOf(runner, all);
  const cases = all.filter(({ name: each }) =>
    words.length === 0 ? !pending.includes(each) : words.some((word) => each.includes(word)),
  );
  const server = new CaseServer(cases);
  const http = createServer((request, response) => {
    answer(server, cases, request).then(
      (body) => response.writeHead(200, { 'content-type': 'application/json' }).end(JSON.stringify(body)),
      (error: unknown) => response.writeHead(500).end(error instanceof Error ? error.message : String(error)),
    );
  });
  // A runner that asks again in the moment in which an idle connection ends would fail.
  http.keepAliveTimeout = RUNNER_TIMEOUT_MS;
  await new Promise<void>((resolve) => http.listen(0, '127.0.0.1', resolve));
  try {
    const url = `http://127.0.0.1:${(http.address() as AddressInfo).port}`;
    const exit = report(runner, cases, await runRunner(runner, url));
    if (words.length === 0) for (const each of pending) console.log(`PENDING  ${each}`);
    return exit;
  } finally {
    await server.close();
    http.close();
    http.closeAllConnections();
  }
}

function pendingOf(runner: RunnerName, cases: readonly Case[]): readonly string[] {
  const pending = PENDING[runner] ?? [];
  const unknown = pending.filter((each) => !cases.some(({ name: known }) => known === each));
  if (unknown.length > 0) throw new Error(`pending, but no case: ${unknown.join(', ')}`);
  return pending;
}

function readCases(): readonly Case[] {
  const folder = fileURLToPath(new URL('.', import.meta.url));
  const files = readdirSync(folder).filter((file) => file.endsWith('.yaml'));
  const cases = files.sort().flatMap((file) => {
    // A hash of a secret, so that the file need not hold one that nobody can check.
    const text = readFileSync(`${folder}${file}`, 'utf8').replace(
      /\{\{sha256:([^}]*)\}\}/g,
      (_, secret: string) => createHash('sha256').update(secret).digest('hex'),
    );
    return (parse(text) as { cases: Case[] }).cases.map((each) => ({
      ...each,
      steps: writtenOut(each.steps),
    }));
  });
  const names = new Set(cases.map((each) => each.name));
  if (names.size < cases.length) throw new Error('two cases have the same name');
  return cases;
}

/** Replaces each `repeat` by its steps, as often as it says. */
function writtenOut(steps: readonly unknown[]): readonly unknown[] {
  return steps.flatMap((step) => {
    const { repeat } = step as { repeat?: { readonly times: number; readonly steps: readonly unknown[] } };
    if (repeat === undefined) return [step];
    return Array.from({ length: repeat.times }, (_, n) =>
      JSON.parse(JSON.stringify(repeat.steps).replaceAll('{n}', String(n))),
    ).flat();
  });
}

async function answer(
  server: CaseServer,
  cases: readonly Case[],
  request: IncomingMessage,
): Promise<unknown> {
  if (request.method === 'GET' && request.url === '/cases') return cases;
  const chunks: Buffer[] = [];
  for await (const chunk of request) chunks.push(chunk as Buffer);
  const body = JSON.parse(Buffer.concat(chunks).toString('utf8')) as { case: string; action?: unknown };
  switch (request.url) {
    case '/start':
      return server.start(body.case);
    case '/control':
      return server.control(body.case, body.action);
    case '/finish':
      return server.finish(body.case);
    default:
      throw new Error(`no such path: ${request.url}`);
  }
}

async function runRunner(runner: RunnerName, url: string): Promise<readonly Outcome[]> {
  const { command, args, cwd, env } = runnerCommand(runner);
  const child = spawn(command, args, {
    cwd,
    env: { ...process.env, ...env, CONFORMANCE_CONTROL_URL: url },
    stdio: ['ignore', 'pipe', 'inherit'],
    // A group of its own: `go run` and `sh` have children that must end with them.
    detached: true,
  });
  const timer = setTimeout(() => process.kill(-(child.pid ?? process.pid), 'SIGKILL'), RUNNER_TIMEOUT_MS);
  const outcomes: Outcome[] = [];
  const failed = new Promise<void>((_, reject) => child.once('error', reject));
  const ended = new Promise<void>((resolve) => child.once('close', () => resolve()));
  const lines = (async () => {
    for await (const line of createInterface({ input: child.stdout })) {
      const outcome = readOutcome(line);
      if (outcome === undefined) {
        console.log(line);
        continue;
      }
      outcomes.push(outcome);
      const time = outcome.ms === undefined ? '' : ` (${Math.round(outcome.ms)} ms)`;
      console.log(
        outcome.ok ? `ok    ${outcome.case}${time}` : `FAIL  ${outcome.case}: ${outcome.error}${time}`,
      );
    }
  })();
  await Promise.race([Promise.all([lines, ended]), failed]);
  clearTimeout(timer);
  if (child.exitCode !== 0) console.error(`the runner ended with ${child.exitCode ?? child.signalCode}`);
  return outcomes;
}

function readOutcome(line: string): Outcome | undefined {
  if (!line.startsWith('{')) return undefined;
  try {
    const value = JSON.parse(line) as Partial<Outcome>;
    return typeof value.case === 'string' && typeof value.ok === 'boolean' ? (value as Outcome) : undefined;
  } catch {
    return undefined;
  }
}

function report(runner: string, cases: readonly Case[], outcomes: readonly Outcome[]): number {
  const passed = new Set(outcomes.filter(({ ok }) => ok).map((outcome) => outcome.case));
  const missing = cases.filter(({ name }) => !outcomes.some((outcome) => outcome.case === name));
  for (const { name } of missing) console.log(`FAIL  ${name}: the runner did not report it`);
  console.log(`conformance ${runner}: ${passed.size} passed, ${cases.length - passed.size} failed`);
  return cases.length > 0 && passed.size === cases.length ? 0 : 1;
}
