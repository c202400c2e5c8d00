import { fc, test } from '@fast-check/vitest';
import { describe, expect } from 'vitest';
import { createApiKey } from '../../src/access/auth/api-keys.ts';
import { parseAltNames } from '../../src/access/auth/mtls.ts';
import { finish } from '../../src/access/input-look.ts';
import { storedItemSteps } from '../../src/access/stored-items.ts';
import { SessionRegistry } from '../../src/session/registry.ts';
import type { EdgeSessionHandle } from '../../src/session/sessions.ts';
import { caller, open, refusalOf } from '../access/support.ts';
import { brokenCopies, FUZZ_TIMEOUT_MS, fuzz, JSON_WORDS } from './support.ts';

const PRINCIPAL = { tenantId: 'blue', subject: 'service' };

describe('what callers present', { timeout: FUZZ_TIMEOUT_MS }, () => {
  test.prop([fc.array(authorization(), { minLength: 1, maxLength: 20 })], fuzz({ costly: 15 }))(
    'lets nobody in by chance',
    async (attempts) => {
      const { access } = open({
        auth: [
          { kind: 'apiKeys', keys: [{ ...createApiKey(), tenant: 'blue' }] },
          {
            kind: 'jwt',
            issuer: 'i',
            audience: ['a'],
            algorithms: ['HS256'],
            keys: { kind: 'secret', secret: 's'.repeat(32) },
            tenant: { kind: 'fixed', tenant: 'blue' },
          },
          { kind: 'mtls', rules: [{ match: { kind: 'san', type: 'DNS', value: '*' }, tenant: 'blue' }] },
        ],
      });
      const errors = await Promise.all(
        attempts.map((facts) => refusalOf(access.authenticate(caller(facts)))),
      );
      expect(new Set(errors.map(({ message }) => message)).size).toBe(1);
    },
  );

  test.prop([fc.string(), fc.nat(100)], fuzz())(
    'is no resume token unless it was issued, and to this caller',
    (guess, at) => {
      const registry = new SessionRegistry();
      const session = { id: 'ses_1', principal: PRINCIPAL } as unknown as EdgeSessionHandle;
      registry.add(session);
      const token = registry.issueToken('ses_1', 1);
      const place = at % token.length;
      const changed = `${token.slice(0, place)}${token[place] === 'A' ? 'B' : 'A'}${token.slice(place + 1)}`;
      for (const wrong of [
        guess,
        changed,
        `${token} `,
        token.slice(1),
        `${token}${token}`,
        token.toUpperCase(),
        '',
      ]) {
        if (wrong !== token) expect(registry.claim(wrong, PRINCIPAL)).toBeUndefined();
      }
      for (const principal of [
        { ...PRINCIPAL, tenantId: 'red' },
        { ...PRINCIPAL, subject: 'other' },
      ]) {
        expect(registry.claim(token, principal)).toBeUndefined();
      }
      expect(registry.claim(token, PRINCIPAL)).toBe(session);
    },
  );

  test.prop([fc.string()], fuzz())('in a certificate is a list of names, or refused', (text) => {
    const names = parseAltNames(text);
    if (names !== undefined)
      for (const { type, value } of names) expect([typeof type, typeof value]).toEqual(['string', 'string']);
  });

  test.prop(
    [fc.array(fc.record({ type: fc.constantFrom('DNS', 'URI', 'email'), value: fc.string() }))],
    fuzz(),
  )('in a certificate is read back as Node writes it', (names) => {
    // Node quotes a value as JSON when it holds a comma, a quote, a backslash or anything unprintable.
    const text = names.map(
      ({ type, value }) =>
        `${type}:${/^[\x20-\x7e]*$/.test(value) && !/[",\\]/.test(value) ? value : JSON.stringify(value)}`,
    );
    expect(parseAltNames(text.join(', '))).toEqual(names);
  });

  test.prop(
    [
      brokenCopies(
        [{ name: 'item', bytes: Buffer.from('{"type":"item_reference","id":"msg_1"}') }],
        JSON_WORDS,
      ),
    ],
    fuzz(),
  )('as an input item is searched without a crash', (bytes) => {
    expect(['undefined', 'string']).toContain(typeof finish(storedItemSteps(bytes.toString()))?.id);
  });
});

function authorization() {
  const part = fc.base64String({ maxLength: 40 });
  const token = fc.oneof(
    fc.string(),
    fc.tuple(part, part, part).map((parts) => parts.join('.')),
    fc.constant('eyJhbGciOiJub25lIn0.eyJpc3MiOiJpIiwic3ViIjoieCIsImV4cCI6OTk5OTk5OTk5OX0.'),
    fc.constant('eyJhbGciOiJIUzI1NiJ9.eyJpc3MiOiJpIiwic3ViIjoieCIsImF1ZCI6ImEiLCJleHAiOjk5OTk5OTk5OTl9.AAAA'),
    fc.string().map((text) => `rgk_${text}`),
    fc.constant(createApiKey().key),
  );
  return fc.record({
    authorization: fc.option(
      fc.oneof(
        token,
        token.map((text) => `Bearer ${text}`),
      ),
      { nil: undefined },
    ),
    peerCertificate: fc.option(fc.uint8Array({ maxLength: 64 }), { nil: undefined }),
  });
}
