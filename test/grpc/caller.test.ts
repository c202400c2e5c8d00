import { Metadata } from '@grpc/grpc-js';
import { describe, expect, it } from 'vitest';
import type { RpcCall } from '../../src/grpc/call.ts';
import { callerFacts, checkMetadata, MAX_METADATA_BYTES, traceContextOf } from '../../src/grpc/caller.ts';

function metadata(entries: Readonly<Record<string, string | readonly string[]>>): Metadata {
  const built = new Metadata();
  for (const [key, values] of Object.entries(entries))
    for (const value of [values].flat()) built.add(key, value);
  return built;
}

const traceparent = '00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01';

describe('checkMetadata', () => {
  it('takes what callers need', () => {
    expect(() => checkMetadata(metadata({ authorization: `Bearer ${'k'.repeat(4_000)}` }))).not.toThrow();
  });

  it.each([
    ['bytes', metadata({ 'x-a': 'a'.repeat(MAX_METADATA_BYTES) })],
    ['entries', metadata(Object.fromEntries(Array.from({ length: 65 }, (_, i) => [`x-${i}`, '1'])))],
    ['values of one key', metadata({ 'x-a': Array(65).fill('1') })],
  ])('refuses too many %s', (_, given) => {
    expect(() => checkMetadata(given)).toThrow(expect.objectContaining({ reason: 'LIMIT_EXCEEDED' }));
  });
});

describe('callerFacts', () => {
  const facts = (given: Metadata) =>
    callerFacts({ metadata: given, peer: '127.0.0.1:1', peerCertificate: undefined } as RpcCall);

  it('reads the credentials', () => {
    expect(facts(metadata({ authorization: 'Bearer a', 'x-upstream-api-key': 'b' }))).toEqual({
      authorization: 'Bearer a',
      upstreamKey: 'b',
      peerAddress: '127.0.0.1:1',
      peerCertificate: undefined,
    });
  });

  it('does not choose between two of them', () => {
    expect(facts(metadata({ authorization: ['Bearer a', 'Bearer b'] })).authorization).toBeUndefined();
  });
});

describe('traceContextOf', () => {
  it('reads what is well formed, and leaves out what is too long', () => {
    expect(traceContextOf(metadata({ traceparent, tracestate: 'a=b', baggage: 'c=d' }))).toEqual({
      traceparent,
      tracestate: 'a=b',
      baggage: 'c=d',
    });
    expect(traceContextOf(metadata({ traceparent, tracestate: 'a'.repeat(513) }))).toEqual({ traceparent });
  });

  it.each(['', '00-0', `${traceparent}-more`, traceparent.toUpperCase()])('ignores %j', (given) => {
    expect(traceContextOf(metadata({ traceparent: given, tracestate: 'a=b' }))).toBeUndefined();
  });
});
