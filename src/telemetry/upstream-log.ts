import type { Logger } from 'pino';
import type { TurnRecord } from '../core/types.ts';
import type { Reason } from '../errors.ts';
import type { UpstreamEvent } from '../upstream/types.ts';

const BROKEN = { code: 'upstream_broken' } as const;

/** Dials that fail. Repeats are held back by the log, and counted. */
export function createUpstreamLog(logger: Logger): (event: UpstreamEvent) => void {
  return (event) => {
    if (event.kind !== 'dial' || event.failure === undefined) return;
    const { upstream, host, transport, failure } = event;
    const fields = {
      ...BROKEN,
      upstream,
      host,
      transport,
      reason: failure.reason,
      http_status: failure.httpStatus,
      errno: failure.errno,
    };
    logger.warn(fields, 'an upstream could not be dialled');
  };
}

/** Ends of turns that are no fault of the request: a key that is refused only at the turn, a link that was killed. */
const UPSTREAM_FAULTS: ReadonlySet<Reason> = new Set([
  'UPSTREAM_AUTH',
  'UPSTREAM_QUOTA_EXCEEDED',
  'UPSTREAM_UNAVAILABLE',
  'UPSTREAM_LINK_LOST',
  'UPSTREAM_PROTOCOL',
]);

export function warnOfUpstream(logger: Logger, { failed, route }: TurnRecord): void {
  // Without a route the turn never had a link: the dials that failed were told.
  if (failed === undefined || route === undefined || !UPSTREAM_FAULTS.has(failed.error.reason)) return;
  const { reason, metadata, upstream } = failed.error;
  const fields = {
    ...BROKEN,
    upstream: route.upstream,
    host: `${route.serverAddress}:${route.serverPort}`,
    reason,
    http_status: upstream?.status,
    errno: metadata['cause'],
    close_code: metadata['close_code'],
  };
  logger.warn(fields, 'an upstream failed a turn');
}
