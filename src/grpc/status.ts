import { status as grpcStatus, Metadata, type StatusObject } from '@grpc/grpc-js';
import protobuf from 'protobufjs/minimal.js';
import { type GatewayError, STATUS_NUMBER } from '../errors.ts';

/** `ErrorInfo.domain` of everything the gateway says. Part of the API. */
export const ERROR_DOMAIN = 'responses-gateway';

const DETAILS_KEY = 'grpc-status-details-bin';

// gRPC's C core takes 8 KiB of trailers by default and proxies less, so all of ours stay below 4 KiB:
// grpc-message is percent-encoded (three bytes for one), the details are base64 (four for three).
const MAX_MESSAGE_BYTES = 480;
const MAX_DETAIL_VALUE_BYTES = 256;
const MAX_METADATA_ENTRIES = 6;
const MAX_DETAILS_BYTES = 1_800;

/** The status that ends a call: `undefined` is OK. The only place where errors become gRPC statuses. */
export function toStatus(error: GatewayError | undefined): StatusObject {
  if (error === undefined) return { code: grpcStatus.OK, details: 'OK', metadata: new Metadata() };
  const message = clip(error.message, MAX_MESSAGE_BYTES);
  const metadata = new Metadata();
  metadata.set(DETAILS_KEY, Buffer.from(encodeDetails(error, message)));
  return { code: STATUS_NUMBER[error.code], details: message, metadata };
}

/** google.rpc.Status with ErrorInfo always, and RetryInfo, BadRequest or QuotaFailure where they fit. */
export function encodeDetails(error: GatewayError, message: string): Uint8Array {
  const details = [errorInfo(error)];
  if (error.retryAfterMs !== undefined) details.push(retryInfo(error.retryAfterMs));
  const { field, limit } = error.metadata;
  if (field !== undefined) details.push(violation('BadRequest', field, message));
  if (limit !== undefined) details.push(violation('QuotaFailure', limit, message));

  const status = protobuf.Writer.create()
    .uint32(8)
    .int32(STATUS_NUMBER[error.code])
    .uint32(18)
    .string(message);
  for (const detail of details) {
    const any = protobuf.Writer.create()
      .uint32(10)
      .string(`type.googleapis.com/google.rpc.${detail.type}`)
      .uint32(18)
      .bytes(detail.value)
      .finish();
    // ErrorInfo comes first and always fits; what does not fit after it is left out.
    if (status.len + any.length > MAX_DETAILS_BYTES) continue;
    status.uint32(26).bytes(any);
  }
  return status.finish();
}

interface Detail {
  readonly type: 'ErrorInfo' | 'RetryInfo' | 'BadRequest' | 'QuotaFailure';
  readonly value: Uint8Array;
}

function errorInfo(error: GatewayError): Detail {
  const writer = protobuf.Writer.create().uint32(10).string(error.reason).uint32(18).string(ERROR_DOMAIN);
  for (const [key, value] of Object.entries(error.metadata).slice(0, MAX_METADATA_ENTRIES)) {
    const entry = protobuf.Writer.create()
      .uint32(10)
      .string(clip(key, 64))
      .uint32(18)
      .string(clip(value, MAX_DETAIL_VALUE_BYTES / 2))
      .finish();
    writer.uint32(26).bytes(entry);
  }
  return { type: 'ErrorInfo', value: writer.finish() };
}

function retryInfo(retryAfterMs: number): Detail {
  const ms = Math.max(0, Math.round(retryAfterMs));
  const duration = protobuf.Writer.create()
    .uint32(8)
    .int64(Math.floor(ms / 1_000))
    .uint32(16)
    .int32((ms % 1_000) * 1_000_000)
    .finish();
  return { type: 'RetryInfo', value: protobuf.Writer.create().uint32(10).bytes(duration).finish() };
}

/** BadRequest.FieldViolation and QuotaFailure.Violation have the same two fields. */
function violation(type: 'BadRequest' | 'QuotaFailure', subject: string, description: string): Detail {
  const one = protobuf.Writer.create()
    .uint32(10)
    .string(clip(subject, MAX_DETAIL_VALUE_BYTES))
    .uint32(18)
    .string(clip(description, MAX_DETAIL_VALUE_BYTES))
    .finish();
  return { type, value: protobuf.Writer.create().uint32(10).bytes(one).finish() };
}

/** At most `maxBytes` of UTF-8, whole characters only: grpc-js throws on a lone surrogate in a message. */
function clip(text: string, maxBytes: number): string {
  const bytes = Buffer.from(text, 'utf8');
  if (bytes.length <= maxBytes) return bytes.toString('utf8');
  let end = maxBytes;
  while (end > 0 && ((bytes[end] ?? 0) & 0xc0) === 0x80) end--;
  return bytes.toString('utf8', 0, end);
}
