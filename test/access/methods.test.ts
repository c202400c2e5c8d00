import { X509Certificate } from 'node:crypto';
import { describe, expect, test } from 'vitest';
import { createApiKey } from '../../src/access/auth/api-keys.ts';
import { parseAltNames } from '../../src/access/auth/mtls.ts';
import { AccessOptionsError, type AuthMethod } from '../../src/access/options.ts';
import { bearer, caller, fixture, NOW_MS, open, refusalOf } from './support.ts';

const der = (name: string): Uint8Array => new X509Certificate(fixture(`${name}.pem`)).raw;

const MTLS: AuthMethod = {
  kind: 'mtls',
  rules: [
    { match: { kind: 'spiffe', id: 'spiffe://example.org/billing/*' }, tenant: 'blue' },
    { match: { kind: 'san', type: 'DNS', value: '*.example.org' }, tenant: 'red' },
  ],
};

describe('client certificates', () => {
  test('a SPIFFE id names the tenant, and is the subject', async () => {
    const { access } = open({ auth: [MTLS] });
    const principal = await access.authenticate(caller({ peerCertificate: der('spiffe') }));
    expect(principal).toMatchObject({ tenantId: 'blue', subject: 'URI:spiffe://example.org/billing/api' });
    expect(principal.expiresAtMs).toBe(Date.parse('2126-10-30T12:48:52Z'));
  });

  test('a DNS name fits its rule', async () => {
    const { access } = open({ auth: [MTLS] });
    const principal = await access.authenticate(caller({ peerCertificate: der('dns') }));
    expect(principal).toMatchObject({ tenantId: 'red', subject: 'DNS:reports.example.org' });
  });

  test('two URI names are no SPIFFE identity; an expired certificate is none either', async () => {
    const { access } = open({ auth: [MTLS] });
    for (const name of ['two-spiffe', 'expired']) {
      await refusalOf(access.authenticate(caller({ peerCertificate: der(name) })));
    }
    const { access: earlier } = open({ auth: [MTLS], now: () => Date.parse('2026-11-24T00:00:00Z') });
    expect(await earlier.authenticate(caller({ peerCertificate: der('expired') }))).toMatchObject({
      tenantId: 'blue',
    });
  });

  test.each([
    [
      'DNS:a.b, URI:spiffe://x/y',
      [
        { type: 'DNS', value: 'a.b' },
        { type: 'URI', value: 'spiffe://x/y' },
      ],
    ],
    ['URI:"spiffe://x/a, DNS:evil"', [{ type: 'URI', value: 'spiffe://x/a, DNS:evil' }]],
    ['DNS:"a\\u0000b"', [{ type: 'DNS', value: 'a\u0000b' }]],
    ['IP Address:10.0.0.1', [{ type: 'IP Address', value: '10.0.0.1' }]],
    [undefined, []],
    ['DNS:"unfinished', undefined],
    ['nonsense', undefined],
  ])('names of %s', (text, names) => {
    expect(parseAltNames(text)).toEqual(names);
  });

  test('refuses a rule that is no SPIFFE id', () => {
    const rule = { match: { kind: 'spiffe', id: 'https://example.org' }, tenant: 'blue' } as const;
    expect(() => open({ auth: [{ kind: 'mtls', rules: [rule] }] })).toThrow('auth[0].rules[0].match.id');
  });
});

describe('no authentication', () => {
  test('lets everybody in on loopback, with a warning', async () => {
    const { access, warnings } = open({ auth: [{ kind: 'none', tenant: 'blue' }] });
    expect(await access.authenticate(bearer('whatever'))).toEqual({ tenantId: 'blue', subject: 'anonymous' });
    expect(warnings.map(({ code }) => code)).toEqual(['AUTH_NONE']);
  });

  test('is refused at start on other addresses, unless forced', async () => {
    const start = (force?: true) =>
      open({ loopbackOnly: false, auth: [{ kind: 'none', tenant: 'blue', ...(force ? { force } : {}) }] });
    expect(() => start()).toThrow(AccessOptionsError);
    const { access, warnings } = start(true);
    expect(await access.authenticate(caller())).toMatchObject({ tenantId: 'blue' });
    expect(warnings.map(({ code }) => code)).toEqual(['AUTH_NONE_FORCED']);
  });
});

describe('the list of methods', () => {
  const { key, id, hash } = createApiKey();
  const keys: AuthMethod = { kind: 'apiKeys', keys: [{ id, hash, tenant: 'red', subject: 'r' }] };
  const none: AuthMethod = { kind: 'none', tenant: 'blue' };

  test('the first that fits decides, and its refusal is final', async () => {
    const { access } = open({ auth: [keys, MTLS, none] });
    const peerCertificate = der('spiffe');
    expect(await access.authenticate(bearer(key))).toMatchObject({ tenantId: 'red' });
    expect(
      await access.authenticate(caller({ authorization: `Bearer ${key}`, peerCertificate })),
    ).toMatchObject({
      subject: 'r',
    });
    expect(await access.authenticate(caller({ peerCertificate }))).toMatchObject({ tenantId: 'blue' });
    expect(await access.authenticate(caller())).toMatchObject({ subject: 'anonymous' });
    await refusalOf(access.authenticate(bearer(createApiKey().key)));
    await refusalOf(access.authenticate(caller({ peerCertificate: der('expired') })));
    await refusalOf(access.authenticate(bearer('a-mistyped-key')));
  });

  test('an empty list, doubled keys and doubled tenants are refused at start', () => {
    expect(() => open({ auth: [] })).toThrow('auth: is empty');
    const twice = { id, hash, tenant: 'red' };
    expect(() => open({ auth: [{ kind: 'apiKeys', keys: [twice, twice] }] })).toThrow('auth[0].keys[1].id');
    expect(() => open({ auth: [none] }, [{ id: 'blue' }, { id: 'blue' }])).toThrow('tenants[1].id');
    expect(() => open({ auth: [none] }, [])).toThrow('tenants: is empty');
  });

  test('the clock decides on validity', async () => {
    let nowMs = NOW_MS;
    const later = { id, hash, tenant: 'red', notBeforeMs: NOW_MS + 1 };
    const { access } = open({ now: () => nowMs, auth: [{ kind: 'apiKeys', keys: [later] }] });
    await refusalOf(access.authenticate(bearer(key)));
    nowMs += 1;
    expect(await access.authenticate(bearer(key))).toMatchObject({ tenantId: 'red' });
  });
});
