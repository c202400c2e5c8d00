import { readFileSync } from 'node:fs';
import type { RunningAccess } from '../access/access.ts';
import { renderPath } from '../config/problems.ts';
import type { GatewayConfig } from '../config/schema.ts';
import { type AccessSurroundings, accessOptions } from './access-options.ts';

/** What another configuration changes. Paths as the configuration has them. */
export interface Reloaded {
  /** Since the configuration was read last. */
  readonly changed: readonly string[];
  /** What differs from the start, and counts after the next one only. */
  readonly needsRestart: readonly string[];
}

/** Who may call, with what, how much, and where it goes. The rest is in parts that are made once. */
const RELOADABLE =
  /^(?:auth|tenants|prices_file|upstreams?(?=[.[]|$)|dial\.|limits\.(?!memory_|owned_ids|items_per_turn))/;

/** Goes by another configuration, as far as that works while it runs. Throws, and nothing has changed then. */
export function reloadAccess(
  access: RunningAccess,
  surroundings: AccessSurroundings,
  next: GatewayConfig,
  names: readonly string[],
): void {
  const { auth, tenants, upstreamNames, processLimits, prices } = accessOptions(next, names, surroundings);
  access.reload({
    auth,
    tenants,
    upstreamNames,
    ...(processLimits === undefined ? {} : { processLimits }),
    ...(prices === undefined ? {} : { prices }),
  });
}

/** Differs when the upstreams have to be opened again: also when an authority's file has another content. */
export function upstreamsFingerprint({ upstream, upstreams, dial }: GatewayConfig): string {
  const all = [...(upstream === undefined ? [] : [upstream]), ...upstreams];
  const authorities = all.map(({ ca_file: file }) => (file === undefined ? '' : readFileSync(file, 'utf8')));
  return JSON.stringify([upstream, upstreams, dial, authorities]);
}

/**
 * `started`: what the parts that are made once were made with. `last`: what was read before `next`. `upstreamsStay`: next
 * has none, and no simulator runs that could take their place.
 */
export function compareConfigs(
  started: GatewayConfig,
  last: GatewayConfig,
  next: GatewayConfig,
  { upstreamsStay }: { readonly upstreamsStay: boolean },
): Reloaded {
  const counts = (path: string) => RELOADABLE.test(path) && !(upstreamsStay && path.startsWith('upstream'));
  return {
    changed: differences(last, next),
    needsRestart: differences(started, next).filter((path) => !counts(path)),
  };
}

/** Leaves that differ. Keys of lists are told by their list and number, never by what is in them. */
function differences(before: unknown, after: unknown, path: readonly (string | number)[] = []): string[] {
  if (JSON.stringify(before) === JSON.stringify(after)) return [];
  if (!isTree(before) || !isTree(after)) return [renderPath(path)];
  const keys = new Set([...Object.keys(before), ...Object.keys(after)]);
  return [...keys].flatMap((key) =>
    differences(before[key], after[key], [...path, Array.isArray(after) ? Number(key) : key]),
  );
}

function isTree(value: unknown): value is Readonly<Record<string, unknown>> {
  return typeof value === 'object' && value !== null;
}
