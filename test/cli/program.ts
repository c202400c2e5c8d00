import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { stripVTControlCharacters } from 'node:util';

const MAIN = new URL('../../src/main.ts', import.meta.url).pathname;
const children: ChildProcess[] = [];

export function killAll(): void {
  for (const child of children.splice(0)) child.kill('SIGKILL');
}

interface Options {
  readonly env?: Readonly<Record<string, string>>;
  readonly input?: string;
}

/** Runs the program as a user does. */
export function start(args: readonly string[], { env = {}, input }: Options = {}) {
  const child = spawn(process.execPath, [MAIN, ...args], {
    env: { PATH: process.env['PATH'], ...env },
    stdio: ['pipe', 'pipe', 'pipe'],
  });
  children.push(child);
  const output = { stdout: '', stderr: '' };
  const seen = new Set<() => void>();
  for (const name of ['stdout', 'stderr'] as const) {
    child[name].setEncoding('utf8');
    child[name].on('data', (chunk: string) => {
      output[name] += chunk;
      for (const look of seen) look();
    });
  }
  const ended = once(child, 'close').then(([code]) => ({ code: code as number | null, ...output }));
  // It may end before it has read all of it.
  child.stdin.on('error', () => {});
  if (input !== undefined) child.stdin.end(input);
  return {
    child,
    output,
    ended,
    /** Resolves with the match when it has appeared; rejects when the process ends before. */
    until: (name: 'stdout' | 'stderr', pattern: RegExp) =>
      new Promise<RegExpExecArray>((resolve, reject) => {
        const look = () => {
          const match = pattern.exec(output[name]);
          if (match === null) return;
          seen.delete(look);
          resolve(match);
        };
        seen.add(look);
        look();
        void ended.then(({ code }) => reject(new Error(`exited with ${code}: ${output.stderr}`)));
      }),
  };
}

/** Runs it to its end, with nothing on standard input unless given. */
export const run = (args: readonly string[], options: Options = {}) =>
  start(args, { input: '', ...options }).ended;

/** A gateway on free ports, once it is ready. */
export async function startGateway(...args: string[]) {
  const gateway = start(['serve', '--listen', '127.0.0.1:0', '--admin-listen', '127.0.0.1:0', ...args]);
  const [, grpc = ''] = await gateway.until('stdout', /gRPC\s+(\S+:\d+)/);
  const [, admin = ''] = await gateway.until('stdout', /Admin\s+http:\/\/(\S+:\d+)/);
  await gateway.until('stderr', /"ready"/);
  return { ...gateway, grpc, admin };
}

/** Runs the program in a pseudo-terminal of 120 by 40. */
export function inTerminal(args: readonly string[]) {
  const command = [process.execPath, MAIN, ...args].map((part) => `'${part.replaceAll("'", "'\\''")}'`);
  const child = spawn('script', ['-qfec', `stty rows 40 cols 120; exec ${command.join(' ')}`, '/dev/null'], {
    env: { PATH: process.env['PATH'], TERM: 'xterm' },
    stdio: ['pipe', 'pipe', 'inherit'],
  });
  children.push(child);
  let written = '';
  const seen = new Set<() => void>();
  child.stdout.setEncoding('utf8');
  child.stdout.on('data', (chunk: string) => {
    written += chunk;
    for (const look of seen) look();
  });
  const ended = once(child, 'close').then(([code]) => code as number | null);
  return {
    ended,
    output: () => written,
    press: (keys: string) => void child.stdin.write(keys),
    /** Resolves once what was drawn last matches; each frame begins at the screen's first corner. */
    screen: (pattern: RegExp) =>
      new Promise<void>((resolve, reject) => {
        const look = () => {
          const frame = stripVTControlCharacters(written.slice(written.lastIndexOf('\x1b[H')));
          if (!pattern.test(frame)) return;
          seen.delete(look);
          resolve();
        };
        seen.add(look);
        look();
        void ended.then((code) => reject(new Error(`exited with ${code}: ${written.slice(-2_000)}`)));
      }),
  };
}
