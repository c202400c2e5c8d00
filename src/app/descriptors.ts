import { readFileSync } from 'node:fs';
import { opendir } from 'node:fs/promises';

/** For what is neither a client's connection nor a link: listeners, logs, files that are read again, DNS. */
const RESERVED = 256;
/** A connection has one session at least, and a session a link: the other half is for links. */
const SHARE_OF_CLIENTS = 0.5;
const MIN_CONNECTIONS = 16;
/** Where the limit cannot be read, as on macOS. */
const FALLBACK_LIMIT = 8_192;

const COUNT_INTERVAL_MS = 10_000;

export interface OpenDescriptors {
  /** At the last count; 0 where the system does not tell. */
  readonly open: number;
  close(): void;
}

/** Counts now and then: with tens of thousands of descriptors a count takes longer than a scrape should. */
export function countDescriptors(folder = '/proc/self/fd'): OpenDescriptors {
  let open = 0;
  const count = async () => {
    let found = 0;
    for await (const _ of await opendir(folder, { bufferSize: 1_024 })) found += 1;
    // The folder itself was one of them.
    open = Math.max(0, found - 1);
  };
  // Without a descriptor left it cannot be opened: the last count is near enough.
  const tryToCount = () => void count().catch(() => undefined);
  tryToCount();
  const timer = setInterval(tryToCount, COUNT_INTERVAL_MS);
  timer.unref();
  return {
    get open() {
      return open;
    },
    close: () => clearInterval(timer),
  };
}

/** File descriptors that the process may have. Node raises the soft limit to the hard one when it starts. */
export function descriptorLimit(limits: string = readLimits()): number {
  const found = /^Max open files\s+(\d+)/m.exec(limits)?.[1];
  return found === undefined ? FALLBACK_LIMIT : Number(found);
}

/** Client connections that leave enough descriptors for everything else. */
export function defaultMaxConnections(limit: number): number {
  return Math.max(MIN_CONNECTIONS, Math.floor((limit - RESERVED) * SHARE_OF_CLIENTS));
}

function readLimits(): string {
  try {
    return readFileSync('/proc/self/limits', 'utf8');
  } catch {
    return '';
  }
}
