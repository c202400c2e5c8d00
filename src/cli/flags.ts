import { type Command, InvalidArgumentError } from 'commander';
import type { Setting } from '../config/sources.ts';
import { environmentName, parseText } from '../config/sources.ts';

interface Flag {
  readonly name: string;
  readonly argument: string;
  readonly path: readonly string[];
  readonly description: string;
}

/** Flags for what is set most often; `--set` reaches the rest. */
const FLAGS: readonly Flag[] = [
  { name: 'listen', argument: 'HOST:PORT', path: ['listen'], description: 'gRPC address (127.0.0.1:50051)' },
  {
    name: 'admin-listen',
    argument: 'HOST:PORT',
    path: ['admin', 'listen'],
    description: 'admin HTTP address (127.0.0.1:9464)',
  },
  {
    name: 'upstream-url',
    argument: 'URL',
    path: ['upstream', 'url'],
    description: 'wss://, ws://, https:// or http:// …/v1',
  },
  {
    name: 'upstream-api-key-env',
    argument: 'NAME',
    path: ['upstream', 'api_key_env'],
    description: 'variable with the provider key (OPENAI_API_KEY for openai; none for compatible)',
  },
  {
    name: 'upstream-provider',
    argument: 'NAME',
    path: ['upstream', 'provider'],
    description: 'openai, azure, xai or compatible',
  },
  { name: 'workers', argument: 'N', path: ['workers'], description: 'processes that share the port (1)' },
  {
    name: 'log-level',
    argument: 'LEVEL',
    path: ['telemetry', 'logs', 'level'],
    description: 'trace … fatal, silent (info)',
  },
  {
    name: 'log-format',
    argument: 'FORMAT',
    path: ['telemetry', 'logs', 'format'],
    description: 'auto, json or pretty (auto)',
  },
];

export interface ConfigFlags {
  readonly file: string | undefined;
  readonly settings: readonly Setting[];
}

export function addConfigFlags(command: Command): Command {
  command.option('--config <FILE>', 'YAML file with the configuration [RESPONSES_GATEWAY_CONFIG]');
  for (const { name, argument, description } of FLAGS) command.option(`--${name} <${argument}>`, description);
  return command.option(
    '--set <PATH=VALUE>',
    'any other field, e.g. --set session.resume_grace=2m',
    parseAssignment,
  );
}

/** What the flags of `addConfigFlags` said. */
export function readConfigFlags(
  values: Readonly<Record<string, unknown>>,
  environment: Readonly<Record<string, string | undefined>>,
): ConfigFlags {
  const settings: Setting[] = [];
  for (const { name, path } of FLAGS) {
    const value = values[camelCase(name)];
    if (typeof value !== 'string') continue;
    settings.push({
      path,
      value: path[0] === 'workers' ? parseText(value) : value,
      origin: flagOrigin(`--${name}`),
    });
  }
  for (const { path, text } of (values.set ?? []) as readonly Assignment[]) {
    settings.push({ path, value: parseText(text), origin: flagOrigin(`--set ${path.join('.')}`) });
  }
  const file = values.config ?? (environment[environmentName(['config'])] || undefined);
  return { file: typeof file === 'string' ? file : undefined, settings };
}

interface Assignment {
  readonly path: readonly string[];
  readonly text: string;
}

function parseAssignment(text: string, earlier: readonly Assignment[] = []): readonly Assignment[] {
  const [, path, value] = /^([a-z0-9_]+(?:\.[a-z0-9_]+)*)=(.*)$/s.exec(text) ?? [];
  if (path === undefined || value === undefined) throw new InvalidArgumentError('It is PATH=VALUE.');
  return [...earlier, { path: path.split('.'), text: value }];
}

function flagOrigin(name: string): Setting['origin'] {
  return { kind: 'flag', name };
}

function camelCase(name: string): string {
  return name.replace(/-(\w)/g, (_, letter: string) => letter.toUpperCase());
}
