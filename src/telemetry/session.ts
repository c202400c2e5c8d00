import type { Logger } from 'pino';
import { createCapture } from './capture.ts';
import type { TelemetrySettings } from './options.ts';
import { OWN } from './own-names.ts';
import { createSessionLog } from './session-log.ts';
import { createSessionMeters, type MeterShare } from './session-meters.ts';
import { createSessionSpans } from './session-spans.ts';
import type { Tracing } from './tracing.ts';
import { createRebuildTimes, splitTurn } from './turn-split.ts';
import type { SessionStart, SessionTelemetry } from './types.ts';

export interface SessionShare {
  readonly tracing: Tracing | undefined;
  readonly meters: MeterShare;
  readonly logger: Logger;
  readonly settings: TelemetrySettings;
}

/** What the process needs of a session beyond what its driver uses. */
export interface ObservedSession {
  readonly telemetry: SessionTelemetry;
  event(name: 'stream opened' | 'stream closed', status?: string): void;
}

/** Hands each fact to spans, meters and log; none of them knows of the others. */
export function createSession(share: SessionShare, start: SessionStart, ended: () => void): ObservedSession {
  const { settings } = share;
  const spans = createSessionSpans(share.tracing, start, {
    propagate: settings.traces.propagate,
    acceptsCallers: settings.traces.acceptsCallers,
    semconv: settings.genaiSemconv,
  });
  const meters = createSessionMeters(share.meters, start.tenantId);
  const log = createSessionLog(share.logger, start, spans.ids(undefined));
  const rebuilds = createRebuildTimes();
  const captures = settings.captureContent === 'full' && start.captureContent && share.tracing !== undefined;
  const capture = captures ? createCapture(settings.maxContentBytes) : undefined;
  let over = false;

  const telemetry: SessionTelemetry = {
    fact(fact) {
      if (over) return;
      if (fact.kind === 'turnEnded') {
        const split = splitTurn(fact.record, rebuilds.take(fact.record.turnId));
        log.turnEnded(fact.record, split, spans.ids(fact.record.turnId));
        meters.turnEnded(fact.record, split);
        spans.turnEnded(fact.record, split, capture?.take(fact.record));
        return;
      }
      rebuilds.fact(fact);
      meters.fact(fact);
      spans.fact(fact);
    },
    outgoing: (turnId) => spans.outgoing(turnId),
    batch: (events, bytes) => meters.batch(events, bytes),
    resumed(outcome) {
      meters.resumed(outcome);
      spans.event('resumed', { [OWN.outcome]: outcome });
    },
    end(status) {
      if (over) return;
      over = true;
      log.end(status);
      meters.end(status);
      spans.end(status);
      ended();
    },
    capture,
    get log() {
      return log.logger;
    },
  };
  return {
    telemetry,
    event: (name, status) =>
      spans.event(name, status === undefined ? undefined : { 'rpc.status_code': status }),
  };
}
