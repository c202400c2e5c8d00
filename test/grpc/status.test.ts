import type { Metadata } from '@grpc/grpc-js';
import protobuf from 'protobufjs';
import { describe, expect, it } from 'vitest';
import { GatewayError, REASONS, type Reason } from '../../src/errors.ts';
import { ERROR_DOMAIN, toStatus } from '../../src/grpc/status.ts';

// The public definitions, written independently of the encoder under test.
const root = protobuf.parse(
  `
  syntax = "proto3";
  package google.rpc;
  message Any { string type_url = 1; bytes value = 2; }
  message Status { int32 code = 1; string message = 2; repeated Any details = 3; }
  message ErrorInfo { string reason = 1; string domain = 2; map<string, string> metadata = 3; }
  message Duration { int64 seconds = 1; int32 nanos = 2; }
  message RetryInfo { Duration retry_delay = 1; }
  message FieldViolation { string field = 1; string description = 2; }
  message BadRequest { repeated FieldViolation field_violations = 1; }
  message Violation { string subject = 1; string description = 2; }
  message QuotaFailure { repeated Violation violations = 1; }
`,
  { keepCase: true },
).root;

function details(metadata: Metadata | null | undefined): Record<string, Record<string, unknown>> {
  const bytes = metadata?.get('grpc-status-details-bin')[0] as Buffer;
  const status = root.lookupType('google.rpc.Status').decode(bytes).toJSON();
  const found: Record<string, Record<string, unknown>> = { status };
  for (const any of (status.details ?? []) as { type_url: string; value: string }[]) {
    const name = any.type_url.replace('type.googleapis.com/', '');
    found[name] = root.lookupType(name).decode(Buffer.from(any.value, 'base64')).toJSON();
  }
  return found;
}

describe('toStatus', () => {
  it('is OK without an error', () => {
    expect(toStatus(undefined)).toMatchObject({ code: 0, details: 'OK' });
  });

  it('carries reason, domain and facts in ErrorInfo', () => {
    const status = toStatus(new GatewayError('TURN_ID_REUSED', 'used before', { metadata: { turn: 'a' } }));
    expect(status).toMatchObject({ code: 9, details: 'used before' });
    const found = details(status.metadata);
    expect(found.status).toMatchObject({ code: 9, message: 'used before' });
    expect(found['google.rpc.ErrorInfo']).toEqual({
      reason: 'TURN_ID_REUSED',
      domain: ERROR_DOMAIN,
      metadata: { turn: 'a' },
    });
    expect(Object.keys(found)).toHaveLength(2);
  });

  it('adds RetryInfo, BadRequest and QuotaFailure where they fit', () => {
    const retry = details(toStatus(new GatewayError('DRAINING', 'later', { retryAfterMs: 1_234 })).metadata);
    expect(retry['google.rpc.RetryInfo']).toEqual({ retry_delay: { seconds: '1', nanos: 234_000_000 } });
    const bad = details(
      toStatus(new GatewayError('INVALID_FIELD', 'no', { metadata: { field: 'create.temperature' } }))
        .metadata,
    );
    expect(bad['google.rpc.BadRequest']).toEqual({
      field_violations: [{ field: 'create.temperature', description: 'no' }],
    });
    const quota = details(
      toStatus(new GatewayError('LIMIT_EXCEEDED', 'full', { metadata: { limit: 'sessions' } })).metadata,
    );
    expect(quota['google.rpc.QuotaFailure']).toEqual({
      violations: [{ subject: 'sessions', description: 'full' }],
    });
  });

  it.each([
    ['emoji and lone surrogates', '\u{1F600}\ud800'.repeat(500)],
    ['spaces, which take three bytes', ' '.repeat(5_000)],
    ['percent signs', '%'.repeat(5_000)],
    ['plain text', 'x'.repeat(5_000)],
  ])('stays below 1.5 KB on the wire and keeps its reason, whatever it holds: %s', (_, long) => {
    for (const reason of Object.keys(REASONS) as Reason[]) {
      const more = Object.fromEntries(Array.from({ length: 40 }, (__, i) => [`key${i}${long}`, long]));
      const error = new GatewayError(reason, long, {
        metadata: { field: long, limit: long, ...more },
        retryAfterMs: 86_400_000,
      });
      const status = toStatus(error);
      const message = encodeURI(status.details ?? '');
      const binary = Buffer.from(status.metadata.get('grpc-status-details-bin')[0] ?? '').toString('base64');
      const names = 'grpc-message grpc-status-details-bin grpc-status 16'.length;
      expect(message.length + binary.length + names).toBeLessThanOrEqual(1_500);
      const found = details(status.metadata);
      expect(Object.keys(found).sort()).toEqual([
        'google.rpc.BadRequest',
        'google.rpc.ErrorInfo',
        'google.rpc.QuotaFailure',
        'google.rpc.RetryInfo',
        'status',
      ]);
      expect(found['google.rpc.ErrorInfo']).toMatchObject({ reason });
      expect(String(found.status?.['message'] ?? '').length).toBeGreaterThan(3);
    }
  });
});
