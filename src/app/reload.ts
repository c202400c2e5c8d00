import type { RunningAccess } from '../access/access.ts';
import { renderPath } from '../config/problems.ts';
import type { GatewayConfig } from '../config/schema.ts';
import { type AccessSurroundings, accessOptions } from './access-options.ts';

/** What another configuration changes. Paths as the configuration has them. */
export interface Reloaded {
  readonly changed: readonly string[];
  /** Of these, what counts after the next start only. */
  readonly needsRestart: readonly string[];
}

/** Who may call, with what and how much. The rest is in parts that are made once. */
const RELOADABLE = /^(?:auth|tenants|prices_file|limits\.(?!memory_|owned_ids|items_per_turn))/;

/** Goes by another configuration, as far as that works while it runs. Throws AccessOptionsError; nothing has changed then. */
export function reloadAccess(
  access: RunningAccess,
  surroundings: AccessSurroundings,
  running: GatewayConfig,
  next: GatewayConfig,
): Reloaded {
  const { auth, tenants, processLimits, prices } = accessOptions(
    { ...next, listen: running.listen },
    surroundings,
  );
  access.reload({
    auth,
    tenants,
    ...(processLimits === undefined ? {} : { processLimits }),
    ...(prices === undefined ? {} : { prices }),
  });
  return compareConfigs(running, next);
}

export function compareConfigs(running: GatewayConfig, next: GatewayConfig): Reloaded {
  const changed = differences(running, next);
  const shares = next.cluster !== undefined || next.workers > 1;
  const counts = (path: string) => RELOADABLE.test(path) && !(shares && SHARED_LIMITS.test(path));
  return { changed, needsRestart: changed.filter((path) => !counts(path)) };
}

/** What several processes count together is agreed on at their start. */
const SHARED_LIMITS = /^tenants\[\d+\]\.limits\.(?!message)/;

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
