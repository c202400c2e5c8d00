import type { Metadata } from '@grpc/grpc-js';
import type { CallerFacts } from '../access/types.ts';
import type { TraceContext } from '../core/types.ts';
import { GatewayError } from '../errors.ts';
import type { RpcCall } from './call.ts';

/** gRPC's own customary limit for request metadata; Node would take 64 KiB. */
export const MAX_METADATA_BYTES = 8 * 1024;
const MAX_METADATA_ENTRIES = 64;

// W3C limits: version 00 is 55 characters; tracestate SHOULD pass 512; baggage MUST pass 8192, which is all we take.
const TRACEPARENT = /^[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}$/;
const MAX_TRACESTATE = 512;

/** Throws GatewayError when the metadata is larger than anyone needs. */
export function checkMetadata(metadata: Metadata): void {
  let bytes = 0;
  let entries = 0;
  for (const [key, values] of Object.entries(metadata.toHttp2Headers())) {
    for (const value of Array.isArray(values) ? values : [values]) {
      bytes += key.length + String(value ?? '').length;
      entries += 1;
    }
  }
  if (bytes <= MAX_METADATA_BYTES && entries <= MAX_METADATA_ENTRIES) return;
  throw new GatewayError(
    'LIMIT_EXCEEDED',
    `request metadata: found ${entries} entries of ${bytes} bytes; allowed: ${MAX_METADATA_ENTRIES} entries, ${MAX_METADATA_BYTES} bytes`,
    { metadata: { limit: 'metadata' } },
  );
}

export function callerFacts(call: RpcCall): CallerFacts {
  return {
    authorization: single(call.metadata, 'authorization'),
    upstreamKey: single(call.metadata, 'x-upstream-api-key'),
    peerAddress: call.peer,
    peerCertificate: call.peerCertificate,
  };
}

/** The trace context of the call itself; malformed ones are ignored, as the standard asks. */
export function traceContextOf(metadata: Metadata): TraceContext | undefined {
  return traceContext(
    single(metadata, 'traceparent'),
    single(metadata, 'tracestate'),
    single(metadata, 'baggage'),
  );
}

export function traceContext(
  traceparent: string | undefined,
  tracestate: string | undefined,
  baggage: string | undefined,
): TraceContext | undefined {
  if (traceparent === undefined || !TRACEPARENT.test(traceparent)) return undefined;
  return {
    traceparent,
    ...(tracestate && tracestate.length <= MAX_TRACESTATE ? { tracestate } : {}),
    ...(baggage && baggage.length <= MAX_METADATA_BYTES ? { baggage } : {}),
  };
}

/** A key given twice counts as not given: there is no telling which one is meant. */
function single(metadata: Metadata, key: string): string | undefined {
  const values = metadata.get(key);
  return values.length === 1 && typeof values[0] === 'string' ? values[0] : undefined;
}
