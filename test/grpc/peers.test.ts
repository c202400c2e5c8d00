import { createHmac, randomBytes } from 'node:crypto';
import { Metadata } from '@grpc/grpc-js';
import { expect, test } from 'vitest';
import { Peers } from '../../src/grpc/peers.ts';

const secret = randomBytes(32);
const peers = new Peers({ id: '1', addressOf: (id) => `unix:/nowhere/${id}.sock`, secret });
const principal = { tenantId: 'blue', subject: 'key-1' };
const payload = Buffer.from(JSON.stringify(principal)).toString('base64url');

function sign(text: string, key: Uint8Array): string {
  return `${text}.${createHmac('sha256', key).update(text).digest('base64url')}`;
}

function withHop(value: string | undefined): Metadata {
  const metadata = new Metadata();
  if (value !== undefined) metadata.set('x-responses-gateway-hop', value);
  return metadata;
}

test.each([
  ['one of us', sign(payload, secret), principal],
  ['no one', undefined, undefined],
  ['somebody with another secret', sign(payload, randomBytes(32)), undefined],
  ['somebody who changed it', sign(payload, secret).replace(payload, payload.replace(/^./, 'x')), undefined],
  ['somebody who cut the signature', sign(payload, secret).slice(0, -4), undefined],
  ['somebody who sends no signature', `${payload}.`, undefined],
  ['somebody who sends something else', 'Bearer x', undefined],
])('the principal as said by %s', (_who, value, expected) => {
  expect(peers.principalOf(withHop(value))).toEqual(expected);
});
