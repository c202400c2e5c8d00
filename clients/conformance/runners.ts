import { fileURLToPath } from 'node:url';

export const RUNNER_NAMES = ['go', 'python', 'java', 'typescript'] as const;
export type RunnerName = (typeof RUNNER_NAMES)[number];

export interface RunnerCommand {
  readonly command: string;
  readonly args: readonly string[];
  readonly cwd: string;
  readonly env?: Readonly<Record<string, string>>;
}

const ROOT = fileURLToPath(new URL('../..', import.meta.url));

/**
 * How each language's runner is started; what it needs is installed by scripts/test-clients.ts. With CLIENTS_PYTHON,
 * CLIENTS_JAVA, CLIENTS_NODE and CLIENTS_TYPESCRIPT, by another interpreter, or from another folder.
 */
export function runnerCommand(name: RunnerName): RunnerCommand {
  return COMMANDS[name];
}

export function isRunnerName(name: string): name is RunnerName {
  return (RUNNER_NAMES as readonly string[]).includes(name);
}

/** The example that each language has for OpenTelemetry: a tool loop within a span. */
export function tracedCommand(name: RunnerName): RunnerCommand {
  return TRACED[name];
}

const TRACED: Readonly<Record<RunnerName, RunnerCommand>> = {
  go: { command: 'go', args: ['run', './traced'], cwd: `${ROOT}clients/go/examples` },
  python: {
    command: process.env['CLIENTS_PYTHON'] ?? `${ROOT}.cache/python/bin/python`,
    args: ['examples/traced.py'],
    cwd: `${ROOT}clients/python`,
    env: { PYTHONPATH: `${ROOT}clients/python/src` },
  },
  java: { command: 'sh', args: ['run.sh', 'examples/Traced.java'], cwd: `${ROOT}clients/java` },
  typescript: {
    command: process.execPath,
    args: ['examples/traced.ts'],
    cwd: `${ROOT}clients/typescript`,
  },
};

const COMMANDS: Readonly<Record<RunnerName, RunnerCommand>> = {
  go: { command: 'go', args: ['run', './internal/conformance'], cwd: `${ROOT}clients/go` },
  python: {
    command: process.env['CLIENTS_PYTHON'] ?? `${ROOT}.cache/python/bin/python`,
    args: ['-m', 'conformance'],
    cwd: `${ROOT}clients/python`,
    env: { PYTHONPATH: `${ROOT}clients/python/src` },
  },
  java: {
    command: 'sh',
    args: ['conformance.sh'],
    cwd: process.env['CLIENTS_JAVA'] ?? `${ROOT}clients/java`,
  },
  typescript: {
    command: process.env['CLIENTS_NODE'] ?? process.execPath,
    // For the oldest Node, which strips types only if it is told so.
    args: ['--experimental-strip-types', '--disable-warning=ExperimentalWarning', 'conformance/main.ts'],
    cwd: process.env['CLIENTS_TYPESCRIPT'] ?? `${ROOT}clients/typescript`,
  },
};
