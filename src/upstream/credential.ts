import { GatewayError } from '../errors.ts';
import { type Secret, sealSecret } from '../ground/secret.ts';

/** Where an upstream's own key comes from. A function is asked at every dial, so that keys can be rotated. */
export type CredentialSource = Secret | (() => Secret | undefined | Promise<Secret | undefined>) | undefined;

/** Wraps a secret. Throws UPSTREAM_AUTH when it cannot stand in a header; the text does not show it. */
export function createCredential(secret: string): Secret {
  const sealed = sealSecret(secret);
  if (sealed !== undefined) return sealed;
  throw new GatewayError(
    'UPSTREAM_AUTH',
    'the provider credential holds characters that no header may carry',
  );
}

export async function currentCredential(source: CredentialSource): Promise<Secret | undefined> {
  return typeof source === 'function' ? source() : source;
}
