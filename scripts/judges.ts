/**
 * Other people's clients and servers judge ours: `npm run check -- judges`. Each is installed at a fixed version from its
 * registry into a temporary folder, of which nothing is kept. The light ones run with every check; JUDGES=all adds
 * those that take minutes to install, JUDGES=NAME,NAME picks some.
 */
import { type ChildProcess, execFileSync, spawn } from 'node:child_process';
import { once } from 'node:events';
import { copyFileSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import { type Simulator, startSimulator } from '../src/simulator/index.ts';
import { freePort } from '../test/harness/store-server.ts';
import { judgeLiteLlm, type Serve } from '../test/judges/litellm.ts';
import { judgeUpstream, type UpstreamJudge } from '../test/judges/upstream.ts';
import { findDrift } from './schema-drift.ts';

const JUDGES = fileURLToPath(new URL('../test/judges/', import.meta.url));
const ROOT = fileURLToPath(new URL('../', import.meta.url));
const FIXTURE = `${ROOT}test/simulator/fixtures/open-responses.schema.json`;

interface Judge {
  readonly name: string;
  /** Takes minutes to install, or hundreds of megabytes. */
  readonly isHeavy?: boolean;
  readonly npm?: readonly string[];
  readonly pip?: readonly string[];
  /** Its Python packages do not go with those of the others: they are in an environment of its name. */
  readonly isApart?: boolean;
  judge(place: Place): Promise<void>;
}

/** Where a judge works: its packages, and a simulator. */
interface Place {
  readonly folder: string;
  readonly simulator: Simulator;
}

const ZOD = 'zod@4.6.7';
const AGENTS = ['@openai/agents@0.20.0', ZOD];
const AI = ['ai@7.0.173', '@ai-sdk/openai@4.0.118', ZOD];
const LANES = Object.fromEntries(
  ['a', 'b', 'c', 'd'].map((lane) => [lane, { ask: `say ${lane}`, answer: new RegExp(`answer of ${lane}`) }]),
);

/** What a server in between is asked when the simulator answers behind it. */
const SIMULATED = {
  model: 'gpt-5.5',
  lanes: Object.fromEntries(
    ['a', 'b', 'c', 'd'].map((lane) => [
      lane,
      { ask: `#say=answer-of-${lane}`, answer: new RegExp(`answer-of-${lane}`) },
    ]),
  ),
  refused: '#error=400',
  long: '#deltas=20000 #tps=100',
};

const ALL: readonly Judge[] = [
  { name: 'openai', npm: ['openai@7.59.0'], judge: (place) => node(place, 'openai.mjs') },
  { name: 'agents', npm: AGENTS, judge: (place) => node(place, 'agents.mjs') },
  { name: 'ai-sdk', npm: AI, judge: (place) => node(place, 'ai-sdk.mjs') },
  { name: 'openai-python', pip: ['openai==3.57.0'], judge: (place) => python(place, 'openai_client.py') },
  { name: 'open-responses', pip: ['openresponses-types==2.4.0'], judge: openResponses },
  { name: 'drift-python', pip: ['openai==3.57.0'], judge: driftPython },
  { name: 'aimock', npm: ['@copilotkit/aimock@1.43.0'], judge: aimock },
  { name: 'agentic-api', pip: ['agentic-api==0.9.0'], judge: agenticApi },
  {
    name: 'openai-agents-python',
    isHeavy: true,
    pip: ['openai-agents==0.24.0'],
    judge: (place) => python(place, 'openai_agents.py'),
  },
  { name: 'litellm', isHeavy: true, isApart: true, pip: ['litellm[proxy]==1.106.4'], judge: litellm },
  { name: 'codex', isHeavy: true, npm: ['@openai/codex@0.171.0'], judge: codex },
];

process.exitCode = await main((process.env['JUDGES'] ?? '').split(',').filter((word) => word !== ''));

async function main(words: readonly string[]): Promise<number> {
  const unknown = words.filter((word) => word !== 'all' && !ALL.some(({ name }) => name === word));
  if (unknown.length > 0) {
    console.error(
      `judges: JUDGES: found ${unknown.join(', ')}; allowed: all, ${ALL.map(({ name }) => name).join(', ')}`,
    );
    return 2;
  }
  const chosen = ALL.filter(({ name, isHeavy }) =>
    words.length === 0 ? isHeavy !== true : words.includes('all') || words.includes(name),
  );
  const folder = mkdtempSync(join(tmpdir(), 'judges-'));
  const failed: string[] = [];
  try {
    try {
      install(folder, chosen);
    } catch (error) {
      // A registry that does not have them is no verdict; whoever names judges wants theirs.
      if (words.length > 0) throw error;
      console.log('SKIPPED judges: they cannot be installed from this registry');
      return 0;
    }
    for (const { name, judge } of chosen) {
      const simulator = await startSimulator();
      const startedAtMs = performance.now();
      const problem = await judge({ folder, simulator }).then(
        () => undefined,
        (error: unknown) => (error instanceof Error ? error.message : String(error)),
      );
      await simulator.close();
      const seconds = ((performance.now() - startedAtMs) / 1000).toFixed(1);
      console.log(problem === undefined ? `ok      ${name} (${seconds} s)` : `FAILED  ${name}: ${problem}`);
      if (problem !== undefined) failed.push(name);
    }
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
  return failed.length > 0 ? 1 : 0;
}

function install(folder: string, chosen: readonly Judge[]): void {
  const run = (command: string, ...args: readonly string[]): void => {
    execFileSync(command, args, { cwd: folder, stdio: ['ignore', 'ignore', 'inherit'] });
  };
  writeFileSync(join(folder, 'package.json'), '{"private":true,"type":"module"}');
  const npm = new Set(chosen.flatMap((judge) => judge.npm ?? []));
  if (npm.size > 0) run('npm', 'install', '--no-audit', '--no-fund', '--silent', ...npm);
  const environments = Map.groupBy(
    chosen.filter(({ pip = [] }) => pip.length > 0),
    ({ name, isApart }) => (isApart === true ? name : 'python'),
  );
  for (const [environment, judges] of environments) {
    run('python3', '-m', 'venv', environment);
    const pip = new Set(judges.flatMap((judge) => judge.pip ?? []));
    run(`${environment}/bin/pip`, 'install', '--quiet', '--disable-pip-version-check', ...pip);
  }
}

async function node(place: Place, file: string): Promise<void> {
  copyFileSync(`${JUDGES}${file}`, join(place.folder, file));
  await finished(place, process.execPath, [file]);
}

async function python(place: Place, file: string): Promise<void> {
  await finished(place, 'python/bin/python', [`${JUDGES}${file}`]);
}

async function openResponses({ folder }: Place): Promise<void> {
  const made = printed(folder, 'python/bin/python', `${JUDGES}open_responses.py`, 'schema');
  const { $comment: _comment, ...kept } = JSON.parse(readFileSync(FIXTURE, 'utf8')) as Record<
    string,
    unknown
  >;
  if (JSON.stringify(JSON.parse(made)) !== JSON.stringify(kept))
    throw new Error('test/simulator/fixtures/open-responses.schema.json is not what the package says');
}

async function driftPython({ folder }: Place): Promise<void> {
  const pythonFile = join(folder, 'openai.json');
  writeFileSync(pythonFile, printed(folder, 'python/bin/python', `${JUDGES}openai_python.py`));
  const gaps = findDrift({ pythonFile, only: ['python'] });
  if (gaps.length > 0) throw new Error(`the proto lacks ${JSON.stringify(gaps)}`);
}

async function aimock(place: Place): Promise<void> {
  copyFileSync(`${JUDGES}aimock.mjs`, join(place.folder, 'aimock.mjs'));
  const server = await serving(place.folder, process.execPath, ['aimock.mjs'], /^(http\S+)$/);
  await judgeUpstream({
    ...server,
    model: 'gpt-5.5',
    lanes: LANES,
    refused: 'be refused',
    long: 'at length',
  });
}

/** Before the simulator, as it is before vLLM: over WebSocket with lanes, and over HTTP. */
async function agenticApi({ folder, simulator }: Place): Promise<void> {
  const capabilities = { storesResponses: true };
  const lanes = { multiplexed: true, maxNamedLanes: 32, maxInFlight: 16, keepsUnstored: true };
  for (const [transport, more] of [['websocket', lanes] as const, ['sse', {}] as const]) {
    const port = await freePort();
    const args = ['--llm-api-base', simulator.httpUrl.replace(/\/v1.*$/, ''), '--skip-llm-ready-check'];
    const listen = ['--gateway-host', '127.0.0.1', '--gateway-port', String(port)];
    const server = await serving(
      folder,
      'python/bin/agentic-server',
      [...args, ...listen, '--db-url', 'sqlite::memory:'],
      /listening on (\S+)/,
      { HOME: folder, NO_COLOR: '1', OPENAI_API_KEY: 'sk-judge' },
    );
    await judgeUpstream({
      ...server,
      url: `http://${server.url}/v1`,
      upstream: { transport, capabilities: { ...capabilities, ...more } },
      ...SIMULATED,
    });
  }
}

async function litellm({ folder }: Place): Promise<void> {
  const serve: Serve = (args, env) =>
    serving(folder, 'litellm/bin/litellm', args, /running on (http\S+)/, {
      HOME: folder,
      NO_COLOR: '1',
      ...env,
    });
  await judgeLiteLlm(folder, await freePort(), serve, SIMULATED);
}

/** Codex with a tool of its own: `#tools=1` makes the simulator call the first one that it offers, in a sandbox. */
async function codex(place: Place): Promise<void> {
  const provider = `{name="judge",base_url="${place.simulator.httpUrl}",wire_api="responses",env_key="CODEX_JUDGE_KEY"}`;
  const said = await finished(
    place,
    'node_modules/.bin/codex',
    [
      'exec',
      '--skip-git-repo-check',
      '--sandbox',
      'read-only',
      '-c',
      'model_provider="judge"',
      '-c',
      `model_providers.judge=${provider}`,
      '-m',
      'gpt-5.5',
      '#tools=1 Weather?',
    ],
    { CODEX_JUDGE_KEY: 'sk-judge', CODEX_HOME: place.folder },
  );
  if (!said.includes('called tools 1 times')) throw new Error(`codex ended with: ${said.slice(-300)}`);
}

function printed(folder: string, command: string, ...args: readonly string[]): string {
  return execFileSync(command, args, {
    cwd: folder,
    encoding: 'utf8',
    stdio: ['ignore', 'pipe', 'inherit'],
    maxBuffer: 64 * 1024 * 1024,
  });
}

/** Runs a judge's program to its end; what it said if it went well. */
async function finished(
  { folder, simulator }: Place,
  command: string,
  args: readonly string[],
  env: Readonly<Record<string, string>> = {},
): Promise<string> {
  const child = spawn(command, args, {
    cwd: folder,
    env: { ...process.env, ...env, SIMULATOR_URL: simulator.httpUrl },
    stdio: ['ignore', 'pipe', 'pipe'],
    timeout: 120_000,
  });
  let output = '';
  for (const stream of [child.stdout, child.stderr])
    stream.on('data', (chunk: Buffer) => (output += String(chunk)));
  const [code] = (await once(child, 'close')) as [number | null];
  if (code !== 0) throw new Error(`it ended with ${code}: ${output.slice(-1500)}`);
  return output;
}

/** Starts a server, and waits until it says that it serves; the first group of the pattern is its URL. */
async function serving(
  folder: string,
  command: string,
  args: readonly string[],
  ready: RegExp,
  env: Readonly<Record<string, string>> = {},
): Promise<Pick<UpstreamJudge, 'url' | 'stop'>> {
  // A server that never says so must not hold the check.
  const child = spawn(command, args, {
    cwd: folder,
    env: { ...process.env, ...env },
    stdio: ['pipe', 'pipe', 'pipe'],
    timeout: 300_000,
  });
  const ended = once(child, 'close');
  const url = await firstMatch(child, ready);
  return {
    url,
    stop: async () => {
      child.kill('SIGKILL');
      await ended;
    },
  };
}

async function firstMatch(child: ChildProcess, ready: RegExp): Promise<string> {
  const { promise, resolve, reject } = Promise.withResolvers<string>();
  let output = '';
  for (const stream of [child.stdout, child.stderr]) {
    if (stream === null) continue;
    createInterface({ input: stream }).on('line', (line) => {
      output += `${line}\n`;
      const found = ready.exec(line)?.[1];
      if (found !== undefined) resolve(found);
    });
  }
  child.once('close', (code) => reject(new Error(`the server ended with ${code}: ${output.slice(-1000)}`)));
  return promise;
}
