import * as z from 'zod';
import { EXIT } from '../app/exit-codes.ts';
import { readConfig } from '../app/read-config.ts';
import { maskUrl } from '../config/mask.ts';
import { type PathSegment, renderOrigin, renderPath } from '../config/problems.ts';
import { DEFAULT_TENANT_ID, tenantsSchema } from '../config/schema-access.ts';
import type { ConfigFlags } from './flags.ts';

/** Prints every setting that would be used and where it comes from. Throws ConfigError for what `serve` would refuse. */
export async function checkConfigCommand(
  flags: ConfigFlags,
  environment: NodeJS.ProcessEnv,
  json: boolean,
): Promise<number> {
  const loaded = await readConfig({ file: flags.file, flags: flags.settings, environment });
  const effective = { ...loaded.effective() };
  // It holds as well, with limits that somebody may look for.
  if (loaded.config.tenants.length === 0) effective.tenants = implicitTenants();
  const rows = leaves(effective, []).map(({ path, value }) => ({
    path: renderPath(path),
    value: masked(value),
    origin: renderOrigin(loaded.originOf(path)),
  }));
  if (json) {
    process.stdout.write(`${JSON.stringify(rows, null, 2)}\n`);
  } else {
    const settings = rows.map((row) => ({ ...row, text: `${row.path} = ${JSON.stringify(row.value)}` }));
    const width = Math.min(MAX_SETTING_WIDTH, Math.max(...settings.map(({ text }) => text.length)));
    for (const { text, origin } of settings) process.stdout.write(`${text.padEnd(width)}  # ${origin}\n`);
  }
  for (const warning of loaded.warnings) process.stderr.write(`warning: ${warning}\n`);
  process.stderr.write('The configuration is valid.\n');
  return EXIT.ok;
}

function implicitTenants() {
  return z.encode(tenantsSchema, tenantsSchema.parse([{ id: DEFAULT_TENANT_ID }]));
}

const MAX_SETTING_WIDTH = 72;

interface Leaf {
  readonly path: readonly PathSegment[];
  readonly value: unknown;
}

function leaves(value: unknown, path: readonly PathSegment[]): Leaf[] {
  if (value === undefined) return [];
  if (Array.isArray(value) && value.some((entry) => typeof entry === 'object')) {
    return value.flatMap((entry, index) => leaves(entry, [...path, index]));
  }
  if (typeof value !== 'object' || value === null || Array.isArray(value)) return [{ path, value }];
  return Object.entries(value).flatMap(([key, child]) => leaves(child, [...path, key]));
}

function masked(value: unknown): unknown {
  return typeof value === 'string' ? maskUrl(value) : value;
}
