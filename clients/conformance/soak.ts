/**
 * Lets each client's own program run turns while its connections are cut at random: `node clients/conformance/soak.ts
 * [NAME …]`. SOAK_TURNS (1000) and SOAK_SEED are handed on. Exits with 1 if a program hangs, leaks or ends badly.
 *
 * The program reads RESPONSES_GATEWAY_ADDR, runs turns on some lanes (read to the end, read slowly, cancelled, left,
 * dropped, tool loops that raise or reach a limit), closes everything, and prints
 * `{"turns": n, "outcomes": {…}, "resumes": n, "left": [what is still there: threads, tasks, handles]}` as its last line.
 */
import { spawn } from 'node:child_process';
import { existsSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { python } from '../../scripts/client-tools.ts';
import { CaseServer } from './case-server.ts';

const ROOT = fileURLToPath(new URL('../..', import.meta.url));
const TURNS = Number(process.env['SOAK_TURNS'] ?? 1_000);
const SEED = Number(process.env['SOAK_SEED'] ?? Date.now() % 100_000);
const CUT_EVERY_MS = 400;
const TIMEOUT_MS = 300_000;

interface Program {
  readonly name: string;
  readonly folder: string;
  command(): { readonly file: string; readonly args: readonly string[] };
}

const pythonSoak = (twin: string) => ({
  file: python() as string,
  args: ['-B', '-X', 'dev', '-W', 'error::ResourceWarning', '-m', 'conformance.soak', twin],
});
const PROGRAMS: readonly Program[] = [
  {
    name: 'go',
    folder: 'clients/go',
    command: () => ({ file: 'go', args: ['run', '-race', './internal/soak'] }),
  },
  { name: 'python', folder: 'clients/python', command: () => pythonSoak('sync') },
  { name: 'python asyncio', folder: 'clients/python', command: () => pythonSoak('asyncio') },
  { name: 'java', folder: 'clients/java', command: () => ({ file: 'sh', args: ['soak.sh'] }) },
  {
    name: 'typescript',
    folder: 'clients/typescript',
    command: () => ({ file: process.execPath, args: ['conformance/soak.ts'] }),
  },
];

process.exit(await main(process.argv.slice(2)));

async function main(names: readonly string[]): Promise<number> {
  let failed = 0;
  console.log(`seed ${SEED}, ${TURNS} turns`);
  for (const program of PROGRAMS) {
    if (names.length > 0 && !names.some((each) => program.name.startsWith(each))) continue;
    if (!existsSync(`${ROOT}${program.folder}`)) continue;
    const server = new CaseServer([
      { name: 'soak', steps: [], simulator: { timing: { tokensPerSecond: 5_000 } } },
    ]);
    const { address } = await server.start('soak');
    let next = SEED;
    // A generator of its own, so that a seed gives the same cuts.
    const random = () => {
      next = (next * 48_271) % 2_147_483_647;
      return next / 2_147_483_647;
    };
    let timer: NodeJS.Timeout | undefined;
    const cut = (): void => {
      timer = setTimeout(
        () => {
          void server.control('soak', { cut_clients: true });
          cut();
        },
        CUT_EVERY_MS * (0.5 + random()),
      );
    };
    const ended = run(program, address);
    // Connecting for the first time is not tried again by a client.
    while (!(await hasBegun(server, ended))) {}
    cut();
    const outcome = await ended;
    clearTimeout(timer);
    await server.close();
    console.log(
      `${outcome.problem === undefined ? 'ok    ' : 'FAIL  '} ${program.name}: ${outcome.problem ?? outcome.said}`,
    );
    if (outcome.problem !== undefined) failed += 1;
  }
  return failed > 0 ? 1 : 0;
}

/** Whether the first turn has come, or the program has ended. */
function hasBegun(server: CaseServer, ended: Promise<unknown>): Promise<boolean> {
  const first = server.control('soak', { wait_requests: { count: 1 } });
  return Promise.race([first, ended]).then(
    () => true,
    () => false,
  );
}

function run(
  program: Program,
  address: string,
): Promise<{ readonly said: string; readonly problem?: string }> {
  const { file, args } = program.command();
  const child = spawn(file, args, {
    cwd: `${ROOT}${program.folder}`,
    env: {
      ...process.env,
      RESPONSES_GATEWAY_ADDR: address,
      SOAK_TURNS: String(TURNS),
      SOAK_SEED: String(SEED),
      PYTHONPATH: 'src',
    },
    stdio: ['ignore', 'pipe', 'inherit'],
    // A group of its own: `go run` and `sh` have children that must end with them.
    detached: true,
  });
  const timer = setTimeout(() => process.kill(-(child.pid ?? process.pid), 'SIGKILL'), TIMEOUT_MS);
  let text = '';
  child.stdout.on('data', (chunk: Buffer) => {
    text += chunk.toString();
  });
  return new Promise((resolve) => {
    child.once('close', (code, signal) => {
      clearTimeout(timer);
      const said = text.trim().split('\n').at(-1) ?? '';
      resolve({ said, ...problemOf(said, code, signal) });
    });
  });
}

interface Said {
  readonly turns: number;
  readonly outcomes: Readonly<Record<string, number>>;
  readonly left: readonly unknown[];
}

function problemOf(said: string, code: number | null, signal: string | null): { readonly problem?: string } {
  if (signal !== null) return { problem: `it was still running after ${TIMEOUT_MS / 1_000} s: ${said}` };
  if (code !== 0) return { problem: `it ended with ${code}: ${said}` };
  const { turns, left, outcomes } = JSON.parse(said) as Said;
  // A call without an output: a loop left a lane unusable.
  if ('UPSTREAM_INVALID_REQUEST' in outcomes) return { problem: `a lane was poisoned: ${said}` };
  if (turns < TURNS) return { problem: `${turns} turns instead of ${TURNS}: ${said}` };
  return left.length > 0 ? { problem: `something is left: ${said}` } : {};
}
