import { describe, expect, it } from 'vitest';
import { candidates, type RouteRequest } from '../../src/upstream/routing.ts';

const upstreams = [
  { name: 'a', models: ['gpt-*'], origin: 'https://one' },
  { name: 'b', models: [], origin: 'https://two' },
  { name: 'c', models: ['gpt-*', 'grok-*'], fallback: ['a', 'c', 'b'], origin: 'https://one' },
];

function route(changes: Partial<RouteRequest> = {}): string {
  const request = {
    upstream: undefined,
    model: undefined,
    current: undefined,
    allowed: undefined,
    ownKey: false,
    mayFailOver: true,
  };
  return candidates(upstreams, { ...request, ...changes })
    .map(({ name }) => name)
    .join(' ');
}

describe('the route of a dial', () => {
  it('is the first that serves the model, then the later ones that do', () => {
    expect(route({ model: 'gpt-5.5' })).toBe('a b c');
    expect(route({ model: 'grok-4' })).toBe('b c');
    expect(route({ model: 'other' })).toBe('b');
    expect(route()).toBe('b');
  });

  it('is the named one and its own fallbacks, whatever the model', () => {
    expect(route({ upstream: 'a', model: 'grok-4' })).toBe('a');
    expect(route({ upstream: 'c' })).toBe('c a b');
    expect(route({ upstream: 'nobody' })).toBe('');
  });

  it('begins where the session is', () => {
    expect(route({ model: 'gpt-5.5', current: 'c' })).toBe('c a b');
    expect(route({ upstream: 'c', current: 'b' })).toBe('b c a');
    expect(route({ upstream: 'c', current: 'gone' })).toBe('c a b');
  });

  it('is one upstream when nothing may fail over: where the session is, even if the model changed', () => {
    expect(route({ model: 'gpt-5.5', mayFailOver: false })).toBe('a');
    expect(route({ model: 'other', current: 'a', mayFailOver: false })).toBe('a');
  });

  it('keeps a caller’s own key with one origin', () => {
    expect(route({ model: 'gpt-5.5', ownKey: true })).toBe('a c');
    expect(route({ upstream: 'c', ownKey: true })).toBe('c a');
  });

  it('never leaves what the tenant may use', () => {
    expect(route({ model: 'gpt-5.5', allowed: ['a', 'c'] })).toBe('a c');
    expect(route({ upstream: 'c', allowed: ['c', 'b'] })).toBe('c b');
    expect(route({ upstream: 'c', current: 'a', allowed: ['c'], mayFailOver: false })).toBe('c');
    expect(route({ upstream: 'a', allowed: ['b'] })).toBe('');
  });

  it('takes the first of all when every upstream wants a model and none is told', () => {
    const wanting = upstreams.filter(({ name }) => name !== 'b');
    const request = {
      upstream: undefined,
      current: undefined,
      allowed: undefined,
      ownKey: false,
      mayFailOver: false,
    };
    expect(candidates(wanting, { ...request, model: undefined }).map(({ name }) => name)).toEqual(['a']);
    expect(candidates(wanting, { ...request, model: 'other' })).toEqual([]);
  });
});
