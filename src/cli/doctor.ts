import { styleText } from 'node:util';
import { EXIT } from '../app/exit-codes.ts';
import { readConfig } from '../app/read-config.ts';
import { ConfigError } from '../config/problems.ts';
import type { GatewayConfig } from '../config/schema.ts';
import { checkClock } from './doctor-clock.ts';
import { checkCollectors, checkStoreServer } from './doctor-peers.ts';
import { checkCertificates, checkDescriptors, checkPorts, checkRuntime } from './doctor-process.ts';
import { checkUpstreams } from './doctor-upstreams.ts';
import type { ConfigFlags } from './flags.ts';
import { packageVersion } from './version.ts';

export interface Finding {
  /** What was looked at, with dots: `upstream.main.tls`. */
  readonly check: string;
  /** `skipped`: it does not apply, or could not be looked at. */
  readonly status: 'ok' | 'warning' | 'error' | 'skipped';
  /** What was found. */
  readonly found: string;
  /** What to do about it; only with a warning or an error. */
  readonly advice?: string;
}

/** What the checks look at. */
export interface DoctorCase {
  readonly config: GatewayConfig;
  readonly environment: NodeJS.ProcessEnv;
}

/**
 * Looks for what keeps the gateway of this configuration from working, and says what to do. 0: nothing that has to be
 * changed; 1: something has.
 */
export async function doctorCommand(
  flags: ConfigFlags,
  environment: NodeJS.ProcessEnv,
  json: boolean,
): Promise<number> {
  const findings = await examine(flags, environment);
  const worst = findings.some(({ status }) => status === 'error') ? 'error' : 'ok';
  if (json) {
    const report = { version: packageVersion(), node: process.versions.node, status: worst, findings };
    process.stdout.write(`${JSON.stringify(report, null, 2)}\n`);
  } else {
    for (const line of render(findings)) process.stdout.write(`${line}\n`);
  }
  return worst === 'error' ? EXIT.failure : EXIT.ok;
}

async function examine(flags: ConfigFlags, environment: NodeJS.ProcessEnv): Promise<readonly Finding[]> {
  let config: GatewayConfig;
  try {
    config = (await readConfig({ file: flags.file, flags: flags.settings, environment })).config;
  } catch (error) {
    if (!(error instanceof ConfigError)) throw error;
    const problems = error.problems.map(
      ({ path, found, expected, help }): Finding => ({
        check: 'configuration',
        status: 'error',
        found: `${path || 'the file'}: ${found ?? 'nothing'}`,
        advice: [`Allowed: ${expected}.`, help].filter(Boolean).join(' '),
      }),
    );
    return [checkRuntime(), ...problems];
  }
  const all: DoctorCase = { config, environment };
  const remote = await Promise.all([
    checkUpstreams(all),
    checkCollectors(all),
    checkStoreServer(all),
    checkClock(all),
    checkPorts(all),
  ]);
  return [
    checkRuntime(),
    { check: 'configuration', status: 'ok', found: 'valid' },
    ...checkDescriptors(all),
    ...checkCertificates(all),
    ...remote.flat(),
  ];
}

const SIGNS = {
  ok: ['green', '✓'],
  warning: ['yellow', '!'],
  error: ['red', '✗'],
  skipped: ['dim', '–'],
} as const;

function render(findings: readonly Finding[]): readonly string[] {
  const colors = process.stdout.isTTY === true && process.env['NO_COLOR'] === undefined;
  const paint = (style: Parameters<typeof styleText>[0], text: string) =>
    colors ? styleText(style, text) : text;
  const width = Math.max(...findings.map(({ check }) => check.length));
  const lines = findings.flatMap(({ check, status, found, advice }) => {
    const [style, sign] = SIGNS[status];
    return [
      `${paint(style, sign)} ${check.padEnd(width)}  ${found}`,
      ...(advice === undefined ? [] : [`  ${' '.repeat(width)}  ${paint('bold', '→')} ${advice}`]),
    ];
  });
  const count = (wanted: Finding['status']) => findings.filter(({ status }) => status === wanted).length;
  return [...lines, '', `${count('error')} errors, ${count('warning')} warnings, ${count('ok')} ok`];
}
