import { type Stats, statSync } from 'node:fs';
import { stat } from 'node:fs/promises';

/** Files that are watched, by name. */
export interface FileWatch {
  /**
   * These, and no others from now on. Those that were watched before go on from what was seen of them; of the others, what
   * was written after `sinceMs` (time of day) counts as a change.
   */
  watch(files: readonly string[], sinceMs: number): void;
  close(): void;
}

/** `watchConfigFile` for several. */
export function watchFiles(onChanged: () => void): FileWatch {
  const stops = new Map<string, () => void>();
  const watch = (files: readonly string[], sinceMs: number): void => {
    for (const [file, stop] of stops) {
      if (files.includes(file)) continue;
      stop();
      stops.delete(file);
    }
    for (const file of files)
      if (!stops.has(file)) stops.set(file, watchConfigFile(file, onChanged, { sinceMs }));
  };
  return { watch, close: () => watch([], 0) };
}

/** A look costs one call of the system. */
const LOOK_INTERVAL_MS = 2_000;
/** Editors and copies write in several steps. */
const QUIET_MS = 500;

type Look = Pick<Stats, 'mtimeMs' | 'ino' | 'size'>;

/**
 * Calls when the file has changed and has been left alone since: half a file can be valid, and let everybody in. It is
 * looked at by name, since a ConfigMap is replaced by links. Returns what ends it.
 */
export function watchConfigFile(
  file: string,
  onChanged: () => void,
  { intervalMs = LOOK_INTERVAL_MS, quietMs = QUIET_MS, sinceMs = Number.POSITIVE_INFINITY } = {},
): () => void {
  const first = statSync(file, { throwIfNoEntry: false });
  let seen: Look = first === undefined || first.ctimeMs >= sinceMs ? NO_FILE : first;
  let timer: NodeJS.Timeout;
  let ended = false;
  const lookAfter = (delayMs: number, changed: boolean): void => {
    timer = setTimeout(async () => {
      const now: Look = await stat(file).catch(() => NO_FILE);
      if (ended) return;
      if (!isSame(now, seen)) {
        seen = now;
        return lookAfter(quietMs, true);
      }
      lookAfter(intervalMs, false);
      if (changed) onChanged();
    }, delayMs);
    timer.unref();
  };
  lookAfter(intervalMs, false);
  return () => {
    ended = true;
    clearTimeout(timer);
  };
}

const NO_FILE: Look = { mtimeMs: 0, ino: 0, size: 0 };

function isSame(one: Look, other: Look): boolean {
  return one.mtimeMs === other.mtimeMs && one.ino === other.ino && one.size === other.size;
}
