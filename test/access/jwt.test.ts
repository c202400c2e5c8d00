import { once } from 'node:events';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type CryptoKey, exportJWK, exportSPKI, generateKeyPair, type JWK, SignJWT } from 'jose';
import { beforeAll, describe, expect, onTestFinished, test, vi } from 'vitest';
import type { AuthMethod, JwtAuth } from '../../src/access/options.ts';
import { bearer, NOW_MS, open, refusalOf } from './support.ts';

const ISSUER = 'https://issuer.example.org';
const AUDIENCE = 'responses-gateway';

let signing: { readonly privateKey: CryptoKey; readonly publicKey: CryptoKey };
let other: { readonly privateKey: CryptoKey; readonly publicKey: CryptoKey };

beforeAll(async () => {
  signing = await generateKeyPair('ES256', { extractable: true });
  other = await generateKeyPair('ES256', { extractable: true });
});

describe('JWT with a public key', () => {
  test('claims name the tenant; expiry counts with the clock skew', async () => {
    const { access } = open({ auth: [await publicKeyAuth()] });
    const principal = await access.authenticate(bearer(await token({ org: { id: 'blue' } })));
    expect(principal).toEqual({ tenantId: 'blue', subject: 'svc-1', expiresAtMs: NOW_MS + 60_000 + 30_000 });
  });

  test('a map turns claim values into tenants; a fixed tenant needs no claim', async () => {
    const mapped = await publicKeyAuth({ tenant: { kind: 'claim', claim: 'plan', map: { gold: 'red' } } });
    const { access } = open({ auth: [mapped] });
    expect(await access.authenticate(bearer(await token({ plan: 'gold' })))).toMatchObject({
      tenantId: 'red',
    });
    for (const plan of ['tin', 'toString', '__proto__', 7, null]) {
      await refusalOf(access.authenticate(bearer(await token({ plan }))));
    }
    const { access: fixed } = open({
      auth: [await publicKeyAuth({ tenant: { kind: 'fixed', tenant: 'red' } })],
    });
    expect(await fixed.authenticate(bearer(await token({})))).toMatchObject({ tenantId: 'red' });
  });

  test.each<[string, (claims: Claims) => Promise<string>]>([
    ['another key', (claims) => token(claims, { key: other.privateKey })],
    ['another audience', (claims) => token({ ...claims, aud: 'someone-else' })],
    ['no audience', (claims) => token({ ...claims, aud: undefined })],
    ['another issuer', (claims) => token({ ...claims, iss: 'https://evil.example.org' })],
    ['expiry beyond the skew', (claims) => token({ ...claims, exp: (NOW_MS - 31_000) / 1000 })],
    ['no expiry', (claims) => token({ ...claims, exp: undefined })],
    ['a start beyond the skew', (claims) => token({ ...claims, nbf: (NOW_MS + 31_000) / 1000 })],
    ['no subject', (claims) => token({ ...claims, sub: undefined })],
    ['an endless subject', (claims) => token({ ...claims, sub: 'x'.repeat(300) })],
    ['a tenant that does not exist', (claims) => token({ ...claims, org: { id: 'green' } })],
    ['a tenant from the prototype', (claims) => token({ ...claims, org: 'constructor' })],
    ['the public key taken for a secret', hmacWithPublicKey],
    ['no signature', unsigned],
    [
      'a key of its own in the header',
      (claims) => token(claims, { key: other.privateKey, embed: other.publicKey }),
    ],
    ['an extension that must be understood', (claims) => token(claims, { crit: true })],
  ])('refuses %s', async (_, make) => {
    const { access } = open({ auth: [await publicKeyAuth()] });
    const error = await refusalOf(access.authenticate(bearer(await make({ org: { id: 'blue' } }))));
    expect(error.reason).toBe('UNAUTHENTICATED');
    expect(error.message).toBe('the caller could not be authenticated');
    expect(error.cause).toBeUndefined();
  });

  test('within the skew an expired or early token is good', async () => {
    const { access } = open({ auth: [await publicKeyAuth()] });
    const claims = { org: { id: 'blue' } };
    await access.authenticate(bearer(await token({ ...claims, exp: (NOW_MS - 29_000) / 1000 })));
    await access.authenticate(bearer(await token({ ...claims, nbf: (NOW_MS + 29_000) / 1000 })));
  });

  test('an age limit and a type are checked where they are asked for', async () => {
    const { access } = open({ auth: [await publicKeyAuth({ maxTokenAgeMs: 60_000, typ: 'at+jwt' })] });
    const claims = { org: { id: 'blue' } };
    await access.authenticate(bearer(await token(claims, { typ: 'at+jwt' })));
    await refusalOf(access.authenticate(bearer(await token(claims))));
    const old = { ...claims, iat: (NOW_MS - 120_000) / 1000 };
    await refusalOf(access.authenticate(bearer(await token(old, { typ: 'at+jwt' }))));
  });

  test('two issuers stand side by side', async () => {
    const first = await publicKeyAuth({ tenant: { kind: 'fixed', tenant: 'blue' } });
    const second = await publicKeyAuth({
      issuer: 'https://second.example.org',
      keys: { kind: 'publicKey', pem: await exportSPKI(other.publicKey) },
      tenant: { kind: 'fixed', tenant: 'red' },
    });
    const { access } = open({ auth: [first, second] });
    expect(await access.authenticate(bearer(await token({})))).toMatchObject({ tenantId: 'blue' });
    const theirs = { iss: 'https://second.example.org' };
    expect(await access.authenticate(bearer(await token(theirs, { key: other.privateKey })))).toMatchObject({
      tenantId: 'red',
    });
    await refusalOf(access.authenticate(bearer(await token(theirs))));
  });
});

describe('JWT with a shared secret', () => {
  const secret = 's'.repeat(32);
  const auth: AuthMethod = {
    kind: 'jwt',
    issuer: ISSUER,
    audience: [AUDIENCE],
    algorithms: ['HS256'],
    keys: { kind: 'secret', secret },
    tenant: { kind: 'fixed', tenant: 'blue' },
  };

  test('is good with the pinned algorithm only', async () => {
    const { access } = open({ auth: [auth] });
    const key = Buffer.from(secret);
    await access.authenticate(bearer(await token({}, { key, alg: 'HS256' })));
    await refusalOf(
      access.authenticate(bearer(await token({}, { key: Buffer.alloc(64, 's'), alg: 'HS512' }))),
    );
  });

  test.each<[string, AuthMethod, string]>([
    ['a short secret', { ...auth, keys: { kind: 'secret', secret: 'short' } }, 'auth[0].keys.secret'],
    ['a secret for a public-key algorithm', { ...auth, algorithms: ['RS256'] }, 'auth[0].algorithms'],
    [
      'HS256 with a public key',
      { ...auth, keys: { kind: 'jwksUrl', url: 'https://x.example/' } },
      'auth[0].algorithms',
    ],
    ['a JWKS over plain http', jwks('http://issuer.example.org/jwks'), 'auth[0].keys.url'],
    ['no audience', { ...auth, audience: [] }, 'auth[0].audience'],
    ['no algorithm', { ...auth, algorithms: [] }, 'auth[0].algorithms'],
    ['a PEM that is none', { ...jwks(''), keys: { kind: 'publicKey', pem: 'x' } }, 'auth[0].keys.pem'],
    [
      'a JWKS file that is missing',
      { ...jwks(''), keys: { kind: 'jwksFile', path: '/nowhere' } },
      'auth[0].keys.path',
    ],
  ])('refuses %s at start', (_, method, path) => {
    expect(() => open({ auth: [method] })).toThrow(path);
  });
});

describe('JWKS', () => {
  test('over HTTP: fetched once, not again for made-up key ids, again for new keys after the cool-down', async () => {
    const server = await serveJwks([await publicJwk(signing.publicKey, 'k1')]);
    const { access } = open({ auth: [jwks(server.url)] });
    await access.authenticate(bearer(await token({}, { kid: 'k1' })));
    await access.authenticate(bearer(await token({}, { kid: 'k1' })));
    for (let n = 0; n < 20; n++)
      await refusalOf(access.authenticate(bearer(await token({}, { kid: `made-up-${n}` }))));
    expect(server.requests()).toBe(1);

    server.publish([await publicJwk(signing.publicKey, 'k1'), await publicJwk(other.publicKey, 'k2')]);
    vi.useFakeTimers({ now: Date.now() + 31_000, toFake: ['Date'] });
    onTestFinished(() => void vi.useRealTimers());
    const rotated = await token({}, { kid: 'k2', key: other.privateKey });
    expect(await access.authenticate(bearer(rotated))).toMatchObject({ tenantId: 'blue' });
    expect(server.requests()).toBe(2);
  });

  test('an issuer that does not answer is a refusal, and a warning', async () => {
    const server = await serveJwks([]);
    await server.close();
    const { access, warnings } = open({ auth: [jwks(server.url)] });
    await refusalOf(access.authenticate(bearer(await token({}, { kid: 'k1' }))));
    expect(warnings.map(({ code }) => code)).toEqual(['JWKS_UNAVAILABLE']);
  });

  test('a redirect is not followed', async () => {
    const target = await serveJwks([await publicJwk(signing.publicKey, 'k1')]);
    const server = await serveJwks([], target.url);
    const { access } = open({ auth: [jwks(server.url)] });
    await refusalOf(access.authenticate(bearer(await token({}, { kid: 'k1' }))));
    expect(target.requests()).toBe(0);
  });

  test('from a file: read again when it changes, kept when it breaks', async () => {
    const folder = mkdtempSync(join(tmpdir(), 'jwks-'));
    onTestFinished(() => rmSync(folder, { recursive: true }));
    const path = join(folder, 'jwks.json');
    const write = async (key: CryptoKey, kid: string) =>
      writeFileSync(path, JSON.stringify({ keys: [await publicJwk(key, kid)] }));
    await write(signing.publicKey, 'k1');
    const clock = vi.spyOn(performance, 'now');
    onTestFinished(() => clock.mockRestore());
    let extraMs = 0;
    const real = performance.timeOrigin;
    clock.mockImplementation(() => Date.now() - real + extraMs);
    const { access, warnings } = open({ auth: [{ ...jwks(''), keys: { kind: 'jwksFile', path } }] });
    await access.authenticate(bearer(await token({}, { kid: 'k1' })));
    await write(other.publicKey, 'k2');
    extraMs += 1_001;
    await access.authenticate(bearer(await token({}, { kid: 'k2', key: other.privateKey })));
    writeFileSync(path, '{');
    extraMs += 1_001;
    await access.authenticate(bearer(await token({}, { kid: 'k2', key: other.privateKey })));
    expect(warnings.map(({ code }) => code)).toEqual(['JWKS_UNAVAILABLE']);
  });
});

/** `undefined` leaves a usual claim out. */
type Claims = Readonly<Record<string, unknown>>;

interface TokenOptions {
  readonly key?: CryptoKey | Uint8Array;
  readonly alg?: string;
  readonly kid?: string;
  readonly typ?: string;
  readonly embed?: CryptoKey;
  readonly crit?: boolean;
}

async function token(claims: Claims, options: TokenOptions = {}): Promise<string> {
  const payload = {
    iss: ISSUER,
    aud: AUDIENCE,
    sub: 'svc-1',
    iat: NOW_MS / 1000,
    exp: NOW_MS / 1000 + 60,
    ...claims,
  };
  const header = {
    alg: options.alg ?? 'ES256',
    ...(options.kid === undefined ? {} : { kid: options.kid }),
    ...(options.typ === undefined ? {} : { typ: options.typ }),
    ...(options.embed === undefined ? {} : { jwk: await exportJWK(options.embed) }),
    ...(options.crit === true ? { crit: ['urn:example:new'], 'urn:example:new': true } : {}),
  };
  const crit = options.crit === true ? { crit: { 'urn:example:new': true } } : undefined;
  return new SignJWT(payload).setProtectedHeader(header).sign(options.key ?? signing.privateKey, crit);
}

async function hmacWithPublicKey(claims: Claims): Promise<string> {
  return token(claims, { key: Buffer.from(await exportSPKI(signing.publicKey)), alg: 'HS256' });
}

async function unsigned(claims: Claims): Promise<string> {
  const [, payload] = (await token(claims)).split('.');
  return `${Buffer.from('{"alg":"none"}').toString('base64url')}.${payload}.`;
}

async function publicKeyAuth(options: Partial<JwtAuth> = {}): Promise<JwtAuth> {
  return {
    kind: 'jwt',
    issuer: ISSUER,
    audience: ['another', AUDIENCE],
    algorithms: ['ES256'],
    keys: { kind: 'publicKey', pem: await exportSPKI(signing.publicKey) },
    tenant: { kind: 'claim', claim: 'org.id' },
    ...options,
  };
}

function jwks(url: string): JwtAuth {
  return {
    kind: 'jwt',
    issuer: ISSUER,
    audience: [AUDIENCE],
    algorithms: ['ES256'],
    keys: { kind: 'jwksUrl', url },
    tenant: { kind: 'fixed', tenant: 'blue' },
  };
}

async function publicJwk(key: CryptoKey, kid: string): Promise<JWK> {
  return { ...(await exportJWK(key)), kid, alg: 'ES256', use: 'sig' };
}

async function serveJwks(keys: readonly JWK[], redirect?: string) {
  let published = keys;
  let requests = 0;
  const server = createServer((_, response) => {
    requests += 1;
    if (redirect !== undefined) response.writeHead(302, { location: redirect }).end();
    else response.setHeader('content-type', 'application/json').end(JSON.stringify({ keys: published }));
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  const close = async (): Promise<void> => {
    server.closeAllConnections();
    if (server.listening) await new Promise((resolve) => server.close(resolve));
  };
  onTestFinished(close);
  const { port } = server.address() as AddressInfo;
  return {
    url: `http://127.0.0.1:${port}/jwks.json`,
    publish: (next: readonly JWK[]) => {
      published = next;
    },
    requests: () => requests,
    close,
  };
}
