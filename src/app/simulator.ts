import { readFileSync } from 'node:fs';
import { parse } from 'yaml';
import { ConfigError } from '../config/problems.ts';
import type { GatewayConfig } from '../config/schema.ts';
import {
  InvalidSimulatorInput,
  type Simulator,
  type SimulatorOptions,
  simulatorOptionsFromFile,
  startSimulator,
} from '../simulator/index.ts';

export function startBuiltInSimulator(config: GatewayConfig['simulator']): Promise<Simulator> {
  return startSimulator(simulatorOptions(config));
}

/** Options of the simulator from our configuration. The options file wins field by field where both speak. */
export function simulatorOptions(config: GatewayConfig['simulator']): SimulatorOptions {
  const file = config.options_file === undefined ? {} : readOptionsFile(config.options_file);
  const timing = {
    handshakeMs: config.handshake,
    timeToFirstTokenMs: config.time_to_first_token,
    tokensPerSecond: config.tokens_per_second,
  };
  return { ...file, timing: { ...timing, ...file.timing } };
}

/** Throws ConfigError when the file is not what the simulator reads. */
function readOptionsFile(path: string): SimulatorOptions {
  try {
    return simulatorOptionsFromFile(parse(readFileSync(path, 'utf8')));
  } catch (error) {
    const problems = error instanceof InvalidSimulatorInput ? error.problems : [(error as Error).message];
    throw new ConfigError(
      problems.map((problem) => ({
        path: 'simulator.options_file',
        // A problem of a field is told as "field: found …; allowed: …".
        found: problem.split('; allowed: ')[0]?.replace(': found ', ': ') ?? path,
        expected: problem.split('; allowed: ')[1] ?? 'what simulate --help lists',
        origin: { kind: 'file', file: path, line: 1, column: 1 },
      })),
    );
  }
}
