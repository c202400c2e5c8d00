import { readFileSync } from 'node:fs';

/** For what is neither a client's connection nor a link: listeners, logs, files that are read again, DNS. */
const RESERVED = 256;
/** A connection has one session at least, and a session a link: the other half is for links. */
const SHARE_OF_CLIENTS = 0.5;
const MIN_CONNECTIONS = 16;
/** Where the limit cannot be read, as on macOS. */
const FALLBACK_LIMIT = 8_192;

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
