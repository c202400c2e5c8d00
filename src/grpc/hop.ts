import { createHash, createHmac, timingSafeEqual } from 'node:crypto';
import type { Metadata } from '@grpc/grpc-js';
import type { Principal } from '../access/types.ts';

/** Who called, said by one process of the gateway to another. */
const HOP_KEY = 'x-responses-gateway-hop';

/** The first signs, all are accepted: so a secret is replaced without an outage. */
export type Secrets = readonly [Uint8Array, ...Uint8Array[]];

/** It becomes part of a path. */
const PROCESS_ID = /^[\w-]{1,64}$/;

export interface Hop {
  /** Authenticated by the process that the client reached. */
  readonly principal: Principal;
  /** Id of the process that the stream is for. */
  readonly to: string;
}

/** Signed together with the first message: who overhears a hop can repeat this very resume at most. */
export function writeHop(metadata: Metadata, hop: Hop, open: Uint8Array, secrets: Secrets): void {
  const payload = Buffer.from(JSON.stringify(hop)).toString('base64url');
  metadata.set(HOP_KEY, `${payload}.${sign(payload, open, secrets[0]).toString('base64url')}`);
}

/** What another process says; undefined: nothing, or not in our form. `signed`: it knows the secret. */
export function readHop(
  metadata: Metadata,
  open: Uint8Array,
  secrets: Secrets,
): { readonly hop: Hop; readonly signed: boolean } | undefined {
  const [text] = metadata.get(HOP_KEY);
  const [, payload = '', signature = ''] = /^([\w-]+)\.([\w-]+)$/.exec(String(text ?? '')) ?? [];
  const hop = parse(Buffer.from(payload, 'base64url').toString());
  if (hop === undefined) return undefined;
  const given = Buffer.from(signature, 'base64url');
  const fits = (expected: Buffer) => given.length === expected.length && timingSafeEqual(given, expected);
  return { hop, signed: secrets.some((secret) => fits(sign(payload, open, secret))) };
}

function sign(payload: string, open: Uint8Array, secret: Uint8Array): Buffer {
  const digest = createHash('sha256').update(open).digest('base64url');
  return createHmac('sha256', secret).update(`${payload}.${digest}`).digest();
}

function parse(text: string): Hop | undefined {
  try {
    const { principal, to } = JSON.parse(text) as Partial<Hop>;
    const known = typeof principal?.tenantId === 'string' && typeof principal.subject === 'string';
    return known && typeof to === 'string' && PROCESS_ID.test(to) ? { principal, to } : undefined;
  } catch {
    return undefined;
  }
}
