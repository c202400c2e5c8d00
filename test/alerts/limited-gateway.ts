import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';

/** What the process may have. */
export interface ProcessLimits {
  readonly descriptors: number;
}

const MAIN = fileURLToPath(new URL('../../src/main.ts', import.meta.url));

/** The whole program with its built-in simulator, under limits that only a process of its own can have. */
export async function startLimitedGateway(
  settings: Readonly<Record<string, unknown>>,
  { descriptors }: ProcessLimits,
) {
  const folder = mkdtempSync(join(tmpdir(), 'limited-gateway-'));
  const config = join(folder, 'gateway.yaml');
  writeFileSync(
    config,
    JSON.stringify({ listen: '127.0.0.1:0', admin: { listen: '127.0.0.1:0' }, ...settings }),
  );
  const child = spawn(
    'sh',
    [
      '-c',
      'ulimit -n "$0" && exec "$@"',
      String(descriptors),
      process.execPath,
      MAIN,
      'serve',
      '--config',
      config,
    ],
    { env: { PATH: process.env['PATH'] }, stdio: ['ignore', 'pipe', 'ignore'] },
  );
  const { promise, resolve, reject } = Promise.withResolvers<RegExpExecArray>();
  let output = '';
  child.stdout.on('data', (chunk: Buffer) => {
    output += chunk.toString();
    const found = /gRPC\s+\S+:(\d+)[\s\S]*Admin\s+(http:\/\/[^\s/]+:\d+)/.exec(output);
    if (found !== null) resolve(found);
  });
  child.once('exit', (code) => reject(new Error(`the gateway ended with ${code}: ${output}`)));
  const [, grpcPort, admin] = await promise;
  const end = async (signal: 'SIGTERM' | 'SIGKILL') => {
    if (child.exitCode !== null || child.signalCode !== null) return;
    const ended = once(child, 'exit');
    child.kill(signal);
    await ended;
  };
  return {
    grpcPort: Number(grpcPort),
    simulator: undefined,
    metricsText: async () => (await fetch(`${admin}/metrics`)).text(),
    drain: () => end('SIGTERM'),
    close: async () => {
      await end('SIGKILL');
      rmSync(folder, { recursive: true, force: true });
    },
  };
}
