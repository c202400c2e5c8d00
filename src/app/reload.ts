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

/** Who may call, with what and how much. The rest is in parts that are made once. */
const RELOADABLE = /^(?:auth|tenants|prices_file|limits\.(?!memory_|owned_ids|items_per_turn))/;

/** Goes by another configuration, as far as that works while it runs. Throws, and nothing has changed then. */
export function reloadAccess(
  access: RunningAccess,
  surroundings: AccessSurroundings,
  next: GatewayConfig,
): void {
  const { auth, tenants, processLimits, prices } = accessOptions(next, surroundings);
  access.reload({
    auth,
    tenants,
    ...(processLimits === undefined ? {} : { processLimits }),
    ...(prices === undefined ? {} : { prices }),
  });
}

/** `started`: what the parts that are made once were made with. `last`: what was read before `next`. */
export function compareConfigs(started: GatewayConfig, last: GatewayConfig, next: GatewayConfig): Reloaded {
  const shares = started.cluster !== undefined || started.workers > 1;
  const counts = (path: string) => RELOADABLE.test(path) && !(shares && SHARED_LIMITS.test(path));
  return {
    changed: differences(last, next),
    needsRestart: differences(started, next).filter((path) => !counts(path)),
  };
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
