import type { UpstreamFrame } from '../core/types.ts';
import { frameFromBytes } from '../translate/peek.ts';

const REDACTED = '[redacted]';

/** Frames in which an upstream speaks of the request. Output is not searched: it would cost every event. */
const TALKS_OF_REQUEST: ReadonlySet<string> = new Set(['error', 'response.failed']);

/** Providers quote parts of a bad key in errors, and a hostile one all of it; the caller is not to see the operator's. */
export function frameWithoutSecret(frame: UpstreamFrame, secret: () => string | undefined): UpstreamFrame {
  if (!TALKS_OF_REQUEST.has(frame.type)) return frame;
  const key = secret();
  // Without escapes, which could spell the key in other letters.
  const text = key === undefined ? '' : JSON.stringify(frame.json());
  if (key === undefined || !text.includes(key)) return frame;
  return frameFromBytes(Buffer.from(text.replaceAll(key, REDACTED), 'utf8'));
}

export function textWithoutSecret(text: string, secret: () => string | undefined): string {
  const key = secret();
  return key === undefined ? text : text.replaceAll(key, REDACTED);
}
