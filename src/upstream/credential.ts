import { GatewayError } from '../errors.ts';
import { sealSecret } from '../ground/secret.ts';
import type { Credential } from './types.ts';

/** Where an upstream's own key comes from. A function is asked at every dial, so that keys can be rotated. */
export type CredentialSource =
  | Credential
  | (() => Credential | undefined | Promise<Credential | undefined>)
  | undefined;

/** Wraps a secret. Throws UPSTREAM_AUTH when it cannot stand in a header; the text does not show it. */
export function createCredential(secret: string): Credential {
  const sealed = sealSecret(secret);
  if (sealed !== undefined) return sealed;
  throw new GatewayError(
    'UPSTREAM_AUTH',
    'the provider credential holds characters that no header may carry',
  );
}

export async function currentCredential(source: CredentialSource): Promise<Credential | undefined> {
  return typeof source === 'function' ? source() : source;
}
