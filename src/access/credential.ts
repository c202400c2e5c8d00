import { readFileSync, statSync } from 'node:fs';
import { type Secret, sealSecret } from '../ground/secret.ts';
import { AccessOptionsError, type AccessWarning, type CredentialSource } from './options.ts';

/** How often a file is looked at; a rotated key waits no longer than this. */
const FILE_CHECK_INTERVAL_MS = 1_000;

/** Gives the current credential; reads the environment once and a file when it changed. */
export type CredentialReader = () => Secret;

export function openCredential(
  source: CredentialSource,
  path: string,
  clock: () => number,
  warn: (warning: AccessWarning) => void,
): CredentialReader {
  switch (source.kind) {
    case 'env': {
      const value = process.env[source.name];
      if (value === undefined) throw new AccessOptionsError(path, `${source.name} is not set`);
      const credential = sealSecret(value.trim());
      if (credential === undefined) throw new AccessOptionsError(path, `${source.name} is not a usable key`);
      return () => credential;
    }
    case 'file':
      return openFile(source.path, path, clock, warn);
  }
}

function openFile(
  file: string,
  path: string,
  clock: () => number,
  warn: (warning: AccessWarning) => void,
): CredentialReader {
  const first = readSecretFile(file);
  if (first.kind === 'unusable') throw new AccessOptionsError(path, `${file} ${first.why}`);
  if (first.worldReadable) {
    warn({ code: 'CREDENTIAL_FILE_READABLE', message: `${file} can be read by every user of this host` });
  }
  let current = first;
  let checkedAtMs = clock();
  return () => {
    const nowMs = clock();
    if (nowMs - checkedAtMs >= FILE_CHECK_INTERVAL_MS) {
      checkedAtMs = nowMs;
      const next = readSecretFile(file, current.version);
      if (next.kind === 'unusable') {
        warn({
          code: 'CREDENTIAL_FILE_UNREADABLE',
          message: `${file} ${next.why}; the old key stays in use`,
        });
      } else if (next.kind === 'read') {
        current = next;
      }
    }
    return current.credential;
  };
}

type SecretFile =
  | {
      readonly kind: 'read';
      readonly credential: Secret;
      readonly version: string;
      readonly worldReadable: boolean;
    }
  | { readonly kind: 'unusable'; readonly why: string };

function readSecretFile(file: string): SecretFile;
function readSecretFile(file: string, known: string): SecretFile | { readonly kind: 'same' };
function readSecretFile(file: string, known?: string): SecretFile | { readonly kind: 'same' } {
  try {
    const facts = statSync(file, { bigint: true });
    // The inode tells a replaced file (Kubernetes swaps a link), the time an overwritten one.
    const version = `${facts.ino}:${facts.mtimeNs}:${facts.size}`;
    if (version === known) return { kind: 'same' };
    const credential = sealSecret(readFileSync(file, 'utf8').trim());
    if (credential === undefined) return { kind: 'unusable', why: 'does not hold a usable key' };
    return { kind: 'read', credential, version, worldReadable: (facts.mode & 0o004n) !== 0n };
  } catch (error) {
    const code = error instanceof Error && 'code' in error ? String(error.code) : 'unknown error';
    return { kind: 'unusable', why: `cannot be read (${code})` };
  }
}
