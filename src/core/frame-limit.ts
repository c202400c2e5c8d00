import { GatewayError } from '../errors.ts';
import type { Core } from './core.ts';
import type { Up } from './link-slot.ts';

/** In bytes. An upstream closes the whole link over a larger frame, with everything that runs on it. */
export function frameLimit(core: Core, up: Up): number {
  return Math.min(core.limits.maxFrameBytes, up.capabilities.maxFrameBytes);
}

export function tooLarge(
  bytes: number,
  limit: number,
  more: Readonly<Record<string, string>> = {},
): GatewayError {
  return new GatewayError('FRAME_TOO_LARGE', `the request has ${bytes} bytes, the upstream takes ${limit}`, {
    metadata: { bytes: String(bytes), limit: String(limit), ...more },
  });
}
