/** Other gateways, installed with pip into a cache folder outside the tree and started on a free loopback port. */
import { type ChildProcess, execFileSync, spawn } from 'node:child_process';
import { existsSync, mkdirSync, mkdtempSync, openSync, readFileSync, writeFileSync } from 'node:fs';
import { type AddressInfo, createServer } from 'node:net';
import { homedir, tmpdir } from 'node:os';
import { join } from 'node:path';
import type { Service } from './processes.ts';
import { CA_FILE } from './tls.ts';

export interface Peer {
  readonly name: string;
  readonly version: string;
  readonly service: Service;
}

const CACHE =
  process.env.BENCH_CACHE ?? join(process.env.XDG_CACHE_HOME ?? join(homedir(), '.cache'), 'rgw-bench');
const START_TIMEOUT_MS = 120_000;

/** Its Responses WebSocket, before an OpenAI-compatible upstream. */
export async function startLiteLlm(upstream: string): Promise<Peer> {
  const bin = install('litellm', 'litellm[proxy]', 'python3');
  const folder = mkdtempSync(join(tmpdir(), 'bench-litellm-'));
  const config = join(folder, 'config.yaml');
  writeFileSync(
    config,
    JSON.stringify({
      model_list: [
        {
          model_name: 'gpt-5.5',
          litellm_params: { model: 'openai/gpt-5.5', api_base: `https://${upstream}/v1`, api_key: 'bench' },
        },
      ],
      general_settings: { master_key: 'sk-bench' },
    }),
  );
  const port = await freePort();
  const service = await start(
    join(bin, 'litellm'),
    ['--config', config, '--host', '127.0.0.1', '--port', String(port)],
    // Otherwise it fetches a price list at the start.
    {
      LITELLM_LOCAL_MODEL_COST_MAP: 'True',
      LITELLM_MODE: 'PRODUCTION',
      SSL_CERT_FILE: CA_FILE,
      NO_PROXY: '127.0.0.1',
    },
    port,
    '/health/liveliness',
    join(folder, 'log'),
  );
  return { name: 'LiteLLM proxy', version: versionOf(bin, 'litellm'), service };
}

/** A balancer over ChatGPT accounts; without one it answers nothing, so only its start and memory can be seen. */
export async function startCodexLb(upstream: string): Promise<Peer> {
  const bin = install('codexlb', 'codex-lb', process.env.BENCH_PYTHON_313 ?? 'python3.13');
  const folder = mkdtempSync(join(tmpdir(), 'bench-codexlb-'));
  const port = await freePort();
  const service = await start(
    join(bin, 'codex-lb'),
    ['--host', '127.0.0.1', '--port', String(port)],
    {
      HOME: folder,
      CODEX_LB_UPSTREAM_BASE_URL: `https://${upstream}`,
      CODEX_LB_DATABASE_URL: `sqlite+aiosqlite:///${join(folder, 'store.db')}`,
      CODEX_LB_ENCRYPTION_KEY_FILE: join(folder, 'key'),
      NO_PROXY: '127.0.0.1',
    },
    port,
    '/health',
    join(folder, 'log'),
  );
  return { name: 'codex-lb', version: versionOf(bin, 'codex-lb'), service };
}

/** The folder with the programs of a virtual environment of its own. */
function install(name: string, requirement: string, python: string): string {
  const folder = join(CACHE, name);
  const bin = join(folder, 'bin');
  if (existsSync(join(bin, requirement.replace(/\[.*/, '')))) return bin;
  mkdirSync(CACHE, { recursive: true });
  execFileSync(python, ['-m', 'venv', folder], { stdio: 'ignore' });
  execFileSync(join(bin, 'pip'), ['install', '-q', requirement], { stdio: 'ignore' });
  return bin;
}

function versionOf(bin: string, distribution: string): string {
  const script = `import importlib.metadata as m; print(m.version('${distribution}'))`;
  return execFileSync(join(bin, 'python'), ['-c', script], { encoding: 'utf8' }).trim();
}

async function start(
  program: string,
  args: readonly string[],
  env: Readonly<Record<string, string>>,
  port: number,
  healthPath: string,
  log: string,
): Promise<Service> {
  const startedMs = performance.now();
  const output = openSync(log, 'w');
  const child = spawn(program, args, { stdio: ['ignore', output, output], env: { ...process.env, ...env } });
  const deadline = performance.now() + START_TIMEOUT_MS;
  while (!(await answers(port, healthPath))) {
    if (child.exitCode !== null || performance.now() > deadline) {
      child.kill('SIGKILL');
      throw new Error(`did not start: ${readFileSync(log, 'utf8').trim().split('\n').at(-1) ?? ''}`);
    }
    await new Promise((resolve) => setTimeout(resolve, 500));
  }
  return {
    address: `127.0.0.1:${port}`,
    pid: child.pid as number,
    readyMs: performance.now() - startedMs,
    stop: () => stop(child),
  };
}

async function answers(port: number, path: string): Promise<boolean> {
  try {
    return (await fetch(`http://127.0.0.1:${port}${path}`)).ok;
  } catch {
    return false;
  }
}

function stop(child: ChildProcess): Promise<void> {
  return new Promise((resolve) => {
    if (child.exitCode !== null) return resolve();
    child.once('exit', () => resolve());
    child.kill('SIGTERM');
    setTimeout(() => child.kill('SIGKILL'), 5_000).unref();
  });
}

function freePort(): Promise<number> {
  return new Promise((resolve) => {
    const server = createServer();
    server.listen(0, '127.0.0.1', () => {
      const { port } = server.address() as AddressInfo;
      server.close(() => resolve(port));
    });
  });
}
