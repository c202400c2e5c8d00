import { status as grpcStatus, Metadata, type StatusObject } from '@grpc/grpc-js';
import protobuf from 'protobufjs/minimal.js';
import { type GatewayError, STATUS_NUMBER } from '../errors.ts';

/** `ErrorInfo.domain` of everything the gateway says. Part of the API. */
export const ERROR_DOMAIN = 'responses-gateway';

/** Trailer of every status that a gateway says. */
export const DETAILS_KEY = 'grpc-status-details-bin';

// Proxies keep a response's trailers in small buffers: with nginx's of 4 KiB two such statuses make an INTERNAL of the
// call (docs/proxies.md). So all of it, as it is on the wire, is below 1.5 KB, whatever it has to say. What does not fit
// is cut; the reason never is.
const MAX_MESSAGE_BYTES = 440;
/** base64 makes 960 of it. */
const MAX_DETAILS_BYTES = 720;
const MAX_ERROR_INFO_BYTES = 240;
const MAX_METADATA_VALUE_BYTES = 128;
const MAX_VIOLATION_BYTES = 80;
const MAX_METADATA_ENTRIES = 6;

/** The status that ends a call: `undefined` is OK. The only place where errors become gRPC statuses. */
export function toStatus(error: GatewayError | undefined): StatusObject {
  if (error === undefined) return { code: grpcStatus.OK, details: 'OK', metadata: new Metadata() };
  const message = clipEncoded(error.message, MAX_MESSAGE_BYTES);
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

  const anys = details.map(({ type, value }) =>
    protobuf.Writer.create()
      .uint32(10)
      .string(`type.googleapis.com/google.rpc.${type}`)
      .uint32(18)
      .bytes(value)
      .finish(),
  );
  const used = anys.reduce((sum, { length }) => sum + length + FRAMING_BYTES, 2 * FRAMING_BYTES);
  const status = protobuf.Writer.create()
    .uint32(8)
    .int32(STATUS_NUMBER[error.code])
    .uint32(18)
    .string(clip(message, Math.max(0, MAX_DETAILS_BYTES - used)));
  for (const any of anys) status.uint32(26).bytes(any);
  return status.finish();
}

/** Tag and length of a field. */
const FRAMING_BYTES = 3;

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
      .string(clip(value, MAX_METADATA_VALUE_BYTES))
      .finish();
    if (writer.len + entry.length + FRAMING_BYTES > MAX_ERROR_INFO_BYTES) continue;
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
    .string(clip(subject, MAX_VIOLATION_BYTES))
    .uint32(18)
    .string(clip(description, MAX_VIOLATION_BYTES / 2))
    .finish();
  return { type, value: protobuf.Writer.create().uint32(10).bytes(one).finish() };
}

/** At most `maxBytes` as `grpc-message` is written: escaped, a space takes three bytes. */
function clipEncoded(text: string, maxBytes: number): string {
  let length = 0;
  let end = 0;
  const whole = clip(text, maxBytes);
  for (const character of whole) {
    length += encodeURI(character).length;
    if (length > maxBytes) break;
    end += character.length;
  }
  return whole.slice(0, end);
}

/** At most `maxBytes` of UTF-8, whole characters only: grpc-js throws on a lone surrogate in a message. */
function clip(text: string, maxBytes: number): string {
  const bytes = Buffer.from(text, 'utf8');
  if (bytes.length <= maxBytes) return bytes.toString('utf8');
  let end = maxBytes;
  while (end > 0 && ((bytes[end] ?? 0) & 0xc0) === 0x80) end--;
  return bytes.toString('utf8', 0, end);
}
