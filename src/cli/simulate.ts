import { performance } from 'node:perf_hooks';
import { EXIT } from '../app/exit-codes.ts';
import { firstSignal } from '../app/shutdown.ts';
import { simulatorOptions } from '../app/simulator.ts';
import { explainListenError } from '../app/start-failure.ts';
import { loadConfig } from '../config/load.ts';
import { ConfigError } from '../config/problems.ts';
import type { Setting } from '../config/sources.ts';
import { parseHostPort } from '../config/units.ts';
import { type ReferenceSection, simulatorReference, startSimulator } from '../simulator/index.ts';
import { packageVersion } from './version.ts';

const DEFAULT_ADDRESS = '127.0.0.1:8765';

/** Runs the simulator until a signal comes. */
export async function simulateCommand(flags: Readonly<Record<string, unknown>>): Promise<number> {
  const { config } = loadConfig({ file: undefined, environment: {}, flags: settingsOf(flags) });
  const address = String(flags.listen ?? DEFAULT_ADDRESS);
  const listen = parseHostPort(address);
  if (listen === undefined) {
    const origin = { kind: 'flag', name: '--listen' } as const;
    throw new ConfigError([{ path: 'listen', found: address, expected: 'HOST:PORT', origin }]);
  }
  const options = simulatorOptions(config.simulator);
  const stopped = firstSignal();
  let simulator: Awaited<ReturnType<typeof startSimulator>>;
  try {
    simulator = await startSimulator({ ...options, ...listen });
  } catch (error) {
    process.stderr.write(`${explainListenError(error, listen)}\n`);
    return EXIT.failure;
  }
  process.stdout.write(
    [
      '',
      `  responses-gateway simulator ${packageVersion()}  ready in ${Math.round(performance.now())} ms`,
      '',
      `  WebSocket  ${simulator.url}/responses`,
      `  HTTP       ${simulator.httpUrl}/responses`,
      '',
      `  try  npm start -- --upstream-url ${simulator.url}`,
      '',
    ].join('\n'),
  );
  await stopped;
  await simulator.close();
  return EXIT.ok;
}

/** The flags, then everything that can be asked of the simulator: in messages, and in its options file. */
export function simulateHelp(flags: string, width: number): string {
  return `${flags}\n${simulatorReference()
    .map((section) => sectionText(section, width))
    .join('\n')}`;
}

function sectionText({ title, rows }: ReferenceSection, width: number): string {
  const lines = rows.flatMap(({ name, value, text }) => {
    const set = value === '' ? '' : ` (${value})`;
    return [`  ${name}${set}`, ...wrapped(text, width - 6).map((line) => `      ${line}`)];
  });
  return `${title[0]?.toUpperCase()}${title.slice(1)}:\n${lines.join('\n')}\n`;
}

function wrapped(text: string, width: number): readonly string[] {
  const lines: string[] = [];
  for (const word of text.split(' ')) {
    const line = lines.at(-1);
    if (line === undefined || line.length + word.length + 1 > width) lines.push(word);
    else lines[lines.length - 1] = `${line} ${word}`;
  }
  return lines;
}

function settingsOf(flags: Readonly<Record<string, unknown>>): Setting[] {
  const fields = [
    ['options', 'options_file', '--options'],
    ['timeToFirstToken', 'time_to_first_token', '--time-to-first-token'],
    ['tokensPerSecond', 'tokens_per_second', '--tokens-per-second'],
  ] as const;
  return fields.flatMap(([flag, field, name]) => {
    const text = flags[flag];
    if (typeof text !== 'string') return [];
    const value = field === 'tokens_per_second' ? Number(text) : text;
    return [{ path: ['simulator', field], value, origin: { kind: 'flag', name } }];
  });
}
