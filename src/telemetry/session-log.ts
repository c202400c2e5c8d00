import type { Logger } from 'pino';
import type { TurnRecord } from '../core/types.ts';
import type { StatusCode } from '../errors.ts';
import { errorType } from './labels.ts';
import type { TraceIds } from './tracing.ts';
import type { TurnSplit } from './turn-split.ts';
import type { SessionStart } from './types.ts';

/** One line for each end of a turn and of the session. */
export interface SessionLog {
  readonly logger: Logger;
  turnEnded(record: TurnRecord, split: TurnSplit, ids: TraceIds | undefined): void;
  end(status: StatusCode | 'OK'): void;
}

export function createSessionLog(
  root: Logger,
  start: SessionStart,
  sessionIds: TraceIds | undefined,
): SessionLog {
  const startedAt = performance.now();
  const labels =
    start.labels === undefined || start.labels.size === 0 ? {} : { labels: Object.fromEntries(start.labels) };
  let child: Logger | undefined;
  let turns = 0;
  let failures = 0;
  let bytesUp = 0;
  let bytesDown = 0;
  return {
    get logger() {
      child ??= root.child({ session_id: start.sessionId, ...traceFields(sessionIds) });
      return child;
    },
    turnEnded(record, split, ids) {
      turns += 1;
      if (record.outcome === 'FAILED') failures += 1;
      bytesUp += record.bytesUp;
      bytesDown += record.bytesDown;
      if (!root.isLevelEnabled('info')) return;
      const { failed, usage, route } = record;
      root.info(
        {
          session_id: start.sessionId,
          tenant: start.tenantId,
          lane_id: record.laneId,
          turn_id: record.turnId,
          ...traceFields(ids),
          ...labels,
          outcome: record.outcome,
          ...(failed !== undefined && {
            reason: failed.error.reason,
            error_type: errorType(failed.error.reason, failed.error.upstream?.code),
            fault: failed.error.fault,
            phase: failed.phase,
            replay: failed.replay,
          }),
          model: record.requestModel,
          response_model: record.responseModel,
          response_id: record.responseId,
          upstream: route?.upstream,
          total_ms: ms(split.totalSeconds),
          queue_ms: ms(split.queueSeconds),
          gateway_ms: ms(split.gatewaySeconds),
          upstream_ms: ms(split.upstreamSeconds),
          ttft_ms: ms(split.firstOutputSeconds),
          input_tokens: usage?.inputTokens,
          cached_tokens: usage?.cachedInputTokens,
          output_tokens: usage?.outputTokens,
          reasoning_tokens: usage?.reasoningTokens,
          events: record.events,
          tool_calls: record.toolCalls,
          bytes_up: record.bytesUp,
          bytes_down: record.bytesDown,
          bytes_saved: Math.max(0, record.fullContextBytes - record.bytesUp),
          sends: record.sends,
          replays: record.replays,
        },
        'turn ended',
      );
    },
    end(status) {
      root.info(
        {
          session_id: start.sessionId,
          tenant: start.tenantId,
          ...traceFields(sessionIds),
          method: start.method,
          client: start.clientName,
          client_version: start.clientVersion,
          ...labels,
          status,
          duration_ms: Math.round(performance.now() - startedAt),
          turns,
          failures,
          bytes_up: bytesUp,
          bytes_down: bytesDown,
        },
        'session ended',
      );
    },
  };
}

function traceFields(ids: TraceIds | undefined): { trace_id?: string; span_id?: string } {
  return ids === undefined ? {} : { trace_id: ids.traceId, span_id: ids.spanId };
}

function ms(seconds: number | undefined): number | undefined {
  return seconds === undefined ? undefined : Math.round(seconds * 1_000);
}
