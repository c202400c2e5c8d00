import { describe, expect, test } from 'vitest';
import { createApiKey, scryptHash } from '../../src/access/auth/api-keys.ts';
import { REFUSAL_FLOOR_MS, refusedProofOf } from '../../src/access/auth/authenticate.ts';
import { AccessOptionsError } from '../../src/access/options.ts';
import { bearer, caller, NOW_MS, open, refusalOf } from './support.ts';

describe('API keys', () => {
  test('a new key is in the form that is looked for, and its hash is not the key', () => {
    const { key, id, hash } = createApiKey();
    expect(key).toMatch(/^rgk_[a-z2-7]{16}_[\w-]{43}$/);
    expect(key).toContain(id);
    expect(hash).toMatch(/^sha256:[0-9a-f]{64}$/);
    expect(new Set(Array.from({ length: 100 }, () => createApiKey().key)).size).toBe(100);
  });

  test('a key names its tenant and subject', async () => {
    const { access, blue, red } = open();
    expect(await access.authenticate(bearer(blue.key))).toEqual({
      tenantId: 'blue',
      subject: 'blue-service',
    });
    expect(await access.authenticate(bearer(red.key))).toEqual({ tenantId: 'red', subject: 'red-service' });
    expect(await access.authenticate(caller({ authorization: `bearer  ${red.key}` }))).toMatchObject({
      tenantId: 'red',
    });
  });

  test('two live keys of one subject both work, until the older one ends', async () => {
    const old = createApiKey();
    const next = createApiKey();
    let nowMs = NOW_MS;
    const { access } = open({
      now: () => nowMs,
      auth: [
        {
          kind: 'apiKeys',
          keys: [
            { id: old.id, hash: old.hash, tenant: 'blue', subject: 'svc', notAfterMs: NOW_MS + 1000 },
            { id: next.id, hash: next.hash, tenant: 'blue', subject: 'svc', notBeforeMs: NOW_MS - 1000 },
          ],
        },
      ],
    });
    const before = await access.authenticate(bearer(old.key));
    expect(before).toEqual({ tenantId: 'blue', subject: 'svc', expiresAtMs: NOW_MS + 1000 });
    expect(await access.authenticate(bearer(next.key))).toEqual({ tenantId: 'blue', subject: 'svc' });
    nowMs += 1000;
    expect((await refusalOf(access.authenticate(bearer(old.key)))).code).toBe('UNAUTHENTICATED');
    expect(await access.authenticate(bearer(next.key))).toMatchObject({ subject: 'svc' });
  });

  test('every wrong proof is refused with the same words and no sooner than the floor', async () => {
    const { access, blue } = open();
    const wrongSecret = `${blue.key.slice(0, -4)}AAAA`;
    const wrong: Parameters<typeof caller>[0][] = [
      {},
      { authorization: '' },
      { authorization: blue.key },
      { authorization: `Basic ${blue.key}` },
      { authorization: `Bearer ${wrongSecret}` },
      { authorization: `Bearer ${createApiKey().key}` },
      { authorization: 'Bearer rgk_' },
      { authorization: `Bearer ${blue.key} ${blue.key}` },
      { authorization: `Bearer rgk_${'x'.repeat(20_000)}` },
      { peerCertificate: Buffer.from('not a certificate') },
    ];
    const answers = await Promise.all(
      wrong.map(async (facts) => {
        const startedAtMs = performance.now();
        const { message, metadata, reason } = await refusalOf(access.authenticate(caller(facts)));
        return { message, metadata, reason, tookMs: performance.now() - startedAtMs };
      }),
    );
    expect(
      new Set(answers.map(({ message, metadata, reason }) => JSON.stringify([message, metadata, reason])))
        .size,
    ).toBe(1);
    // setTimeout may fire up to a millisecond early against performance.now().
    for (const { tookMs } of answers) expect(tookMs).toBeGreaterThanOrEqual(REFUSAL_FLOOR_MS - 2);
  });

  test('a scrypt hash is checked, once per process for a good key', async () => {
    const { key, id } = createApiKey();
    const hash = await scryptHash(key, 16_384);
    const { access } = open({ auth: [{ kind: 'apiKeys', keys: [{ id, hash, tenant: 'blue' }] }] });
    expect(await access.authenticate(bearer(key))).toEqual({ tenantId: 'blue', subject: id });
    // The hash is worked out in other threads, so the whole process counts.
    const before = process.cpuUsage();
    for (let n = 0; n < 20; n++) await access.authenticate(bearer(key));
    expect(process.cpuUsage(before).user / 20).toBeLessThan(10_000);
    await refusalOf(access.authenticate(bearer(`${key.slice(0, -1)}${key.endsWith('A') ? 'E' : 'A'}`)));
  });

  test('a flood of guesses against scrypt waits in a short queue and lets others in', async () => {
    const { key, id } = createApiKey();
    const { access } = open({
      auth: [{ kind: 'apiKeys', keys: [{ id, hash: await scryptHash(key), tenant: 'blue' }] }],
    });
    await access.authenticate(bearer(key));
    let answered = 0;
    const guesses = Array.from({ length: 200 }, async () => {
      const refusal = await refusalOf(access.authenticate(bearer(createApiKey().key)));
      answered += 1;
      return refusal;
    });
    await access.authenticate(bearer(key));
    expect(answered).toBeLessThan(20);
    for (const error of await Promise.all(guesses)) expect(error.reason).toBe('UNAUTHENTICATED');
  });

  test('why a key was refused is known to the operator, and stands in no error', async () => {
    const { access, blue } = open();
    const error = await refusalOf(access.authenticate(bearer(`rgk_${blue.id}_${'A'.repeat(43)}`)));
    expect(refusedProofOf(error)).toEqual({ kind: 'api_keys', keyId: blue.id, why: 'wrong_secret' });
    expect(JSON.stringify({ ...error })).not.toContain(blue.id);
    expect(error.cause).toBeUndefined();
  });

  test('made-up keys do not keep a caller out whose key was never checked before', async () => {
    const { key, id } = createApiKey();
    const { access } = open({
      auth: [{ kind: 'apiKeys', keys: [{ id, hash: await scryptHash(key), tenant: 'blue' }] }],
    });
    const guesses = Array.from({ length: 200 }, () =>
      refusalOf(access.authenticate(bearer(createApiKey().key))),
    );
    // An honest caller opens many connections at once.
    const honest = Array.from({ length: 50 }, () => access.authenticate(bearer(key)));
    for (const principal of await Promise.all(honest)) expect(principal.subject).toBe(id);
    for (const error of await Promise.all(guesses)) expect(error.reason).toBe('UNAUTHENTICATED');
  });

  test('guesses against one key are told as overload, and do not keep another key’s callers out', async () => {
    const attacked = createApiKey();
    const other = createApiKey();
    const keys = await Promise.all(
      [attacked, other].map(async ({ key, id }) => ({ id, hash: await scryptHash(key), tenant: 'blue' })),
    );
    const { access } = open({ auth: [{ kind: 'apiKeys', keys }] });
    const guess = () => `rgk_${attacked.id}_${createApiKey().key.slice(-43)}`;
    const guesses = Array.from({ length: 100 }, () => refusalOf(access.authenticate(bearer(guess()))));
    const tooMany = refusalOf(access.authenticate(bearer(attacked.key)));
    expect(await access.authenticate(bearer(other.key))).toMatchObject({ subject: other.id });
    expect(await tooMany).toMatchObject({ reason: 'OVERLOADED', retryAfterMs: 1_000 });
    const reasons = (await Promise.all(guesses)).map(({ reason }) => reason);
    expect(reasons.filter((reason) => reason === 'OVERLOADED').length).toBeGreaterThan(80);
    expect(reasons.filter((reason) => reason === 'UNAUTHENTICATED').length).toBeGreaterThan(2);
    expect(await access.authenticate(bearer(attacked.key))).toMatchObject({ subject: attacked.id });
  });

  test.each([
    ['an id of another form', { id: 'short' }, 'auth[0].keys[0].id'],
    ['a hash of another form', { hash: 'md5:00' }, 'auth[0].keys[0].hash'],
    [
      'scrypt costs that are no power of two',
      { hash: `scrypt:10000:8:1:${'A'.repeat(22)}:${'A'.repeat(43)}` },
      'auth[0].keys[0].hash',
    ],
    [
      'scrypt costs that eat the memory',
      { hash: `scrypt:1048576:8:1:${'A'.repeat(22)}:${'A'.repeat(43)}` },
      'auth[0].keys[0].hash',
    ],
    ['a tenant that does not exist', { tenant: 'green' }, 'auth[0].keys[0].tenant'],
  ])('refuses %s at start', (_, wrong, path) => {
    const { id, hash } = createApiKey();
    const start = () => open({ auth: [{ kind: 'apiKeys', keys: [{ id, hash, tenant: 'blue', ...wrong }] }] });
    expect(start).toThrow(AccessOptionsError);
    expect(start).toThrow(path);
  });
});
