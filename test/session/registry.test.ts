import { describe, expect, it } from 'vitest';
import { readToken, SessionRegistry } from '../../src/session/registry.ts';
import type { EdgeSessionHandle } from '../../src/session/sessions.ts';

const alice = { tenantId: 'acme', subject: 'alice' };

function registryWith(id: string, principal = alice): SessionRegistry {
  const registry = new SessionRegistry();
  // Only identity matters here.
  registry.add({ id, principal } as EdgeSessionHandle);
  return registry;
}

describe('SessionRegistry', () => {
  it('finds a session by its token, for its caller only', () => {
    const registry = registryWith('s1');
    const token = registry.issueToken('s1', 1);
    expect(readToken(token)).toBeUndefined();
    expect(Buffer.from(token, 'base64url')).toHaveLength(32);
    expect(registry.claim(token, { tenantId: 'acme', subject: 'bob' })).toBeUndefined();
    expect(registry.claim(token, { tenantId: 'other', subject: 'alice' })).toBeUndefined();
    expect(registry.claim(`${token}x`, alice)).toBeUndefined();
    expect(registry.claim('', alice)).toBeUndefined();
    expect(registry.claim(token, alice)?.id).toBe('s1');
  });

  it('says in a token which process issued it', () => {
    const registry = new SessionRegistry('r-1.');
    registry.add({ id: 'ses_9', principal: alice } as EdgeSessionHandle);
    expect(readToken(registry.issueToken('ses_9', 1))).toEqual({ process: 'r-1', sessionId: 'ses_9' });
    expect(readToken('nonsense')).toBeUndefined();
    expect(readToken('a.b.c')).toBeUndefined();
  });

  it('takes over a session with the tokens that opened it elsewhere', () => {
    const old = registryWith('s1');
    const token = old.issueToken('s1', 3);
    const registry = new SessionRegistry('r-2.');
    registry.add({ id: 's1', principal: alice } as EdgeSessionHandle, old.tokensOf('s1'));
    expect(registry.claim(token, alice)?.id).toBe('s1');
    expect(registry.claim(token, { tenantId: 'acme', subject: 'bob' })).toBeUndefined();
  });

  it('does not confuse callers whose names run together', () => {
    const registry = registryWith('s1', { tenantId: 'ab', subject: 'c' });
    const token = registry.issueToken('s1', 1);
    expect(registry.claim(token, { tenantId: 'a', subject: 'bc' })).toBeUndefined();
    expect(registry.claim(token, { tenantId: 'ab","c', subject: '' })).toBeUndefined();
  });

  it('keeps a used token good until its successor is used', () => {
    const registry = registryWith('s1');
    const first = registry.issueToken('s1', 1);
    expect(registry.claim(first, alice)?.id).toBe('s1');
    const lost = registry.issueToken('s1', 5);
    expect(registry.claim(first, alice)?.id).toBe('s1');
    expect(registry.claim(lost, alice)).toBeUndefined();
    const second = registry.issueToken('s1', 5);
    expect(registry.claim(second, alice)?.id).toBe('s1');
    expect(registry.claim(first, alice)).toBeUndefined();
  });

  it('voids a used token when an event sent after its successor is acknowledged', () => {
    const registry = registryWith('s1');
    const first = registry.issueToken('s1', 1);
    const second = registry.issueToken('s1', 5);
    registry.acknowledged('s1', 4);
    expect(registry.claim(first, alice)?.id).toBe('s1');
    const third = registry.issueToken('s1', 7);
    registry.acknowledged('s1', 7);
    expect(registry.claim(first, alice)).toBeUndefined();
    expect(registry.claim(second, alice)).toBeUndefined();
    expect(registry.claim(third, alice)?.id).toBe('s1');
  });

  it('forgets a session with all its tokens', async () => {
    const registry = registryWith('s1');
    const tokens = [registry.issueToken('s1', 1), registry.issueToken('s1', 2)];
    const empty = registry.whenEmpty(60_000);
    registry.remove('s1');
    await empty;
    for (const token of tokens) expect(registry.claim(token, alice)).toBeUndefined();
    expect(registry.issueToken('s1', 3)).toBe('');
    expect(registry.size).toBe(0);
  });
});
