import type { UpstreamFrame } from '../core/types.ts';

/** Throws on anything but a JSON object with an own `type` of type string. */
export function frameFromBytes(bytes: Buffer): UpstreamFrame {
  const value: unknown = JSON.parse(bytes.toString('utf8'));
  if (typeof value !== 'object' || value === null || Array.isArray(value))
    throw new SyntaxError('not an object');
  const record = value as Readonly<Record<string, unknown>>;
  const type = Object.hasOwn(record, 'type') ? record['type'] : undefined;
  const streamId = Object.hasOwn(record, 'stream_id') ? record['stream_id'] : undefined;
  if (typeof type !== 'string') throw new SyntaxError('no type');
  return { type, streamId: typeof streamId === 'string' ? streamId : undefined, bytes, json: () => record };
}
