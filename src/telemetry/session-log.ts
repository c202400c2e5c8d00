import type { Logger } from 'pino';
import type { TurnRecord } from '../core/types.ts';
import type { GatewayError, StatusCode } from '../errors.ts';
import { errorType } from './labels.ts';
import type { InfoLine } from './logs.ts';
import { CONCERNS_OPERATORS } from './refusals.ts';
import type { TraceIds } from './tracing.ts';
import type { TurnSplit } from './turn-split.ts';
import type { SessionStart } from './types.ts';
import { warnOfUpstream } from './upstream-log.ts';

/** One line for each end of a turn and of the session. */
export class SessionLog {
  readonly #root: Logger;
  readonly #info: InfoLine;
  readonly #start: SessionStart;
  /** What the lines of its turns begin with. */
  #head: string | undefined;
  readonly #ids: TraceIds | undefined;
  readonly #labels: Record<string, string> | undefined;
  readonly #startedAt = performance.now();
  #child: Logger | undefined;
  #turns = 0;
  #failures = 0;
  #bytesUp = 0;
  #bytesDown = 0;

  constructor(root: Logger, info: InfoLine, start: SessionStart, ids: TraceIds | undefined) {
    this.#root = root;
    this.#info = info;
    this.#start = start;
    this.#ids = ids;
    this.#labels = start.labels?.size ? Object.fromEntries(start.labels) : undefined;
  }

  get logger(): Logger {
    this.#child ??= this.#root.child({ session_id: this.#start.sessionId, ...traceFields(this.#ids) });
    return this.#child;
  }

  turnEnded(record: TurnRecord, split: TurnSplit, ids: TraceIds | undefined): void {
    this.#turns += 1;
    if (record.outcome === 'FAILED') this.#failures += 1;
    warnOfUpstream(this.#root, record);
    this.#bytesUp += record.bytesUp;
    this.#bytesDown += record.bytesDown;
    if (!this.#info.enabled) return;
    this.#head ??= membersOf({ session_id: this.#start.sessionId, tenant: this.#start.tenantId });
    this.#info.write(
      `${this.#head},${membersOf(turnFields(record, split, ids, this.#labels))}`,
      'turn ended',
    );
  }

  /** What an operator decides, or has to know of; a client's mistakes are its own to hear of. */
  refused(request: 'turn' | 'other', { reason, metadata }: GatewayError): void {
    if (!CONCERNS_OPERATORS.has(reason)) return;
    this.#root.warn(
      {
        code: 'request_refused',
        session_id: this.#start.sessionId,
        tenant: this.#start.tenantId,
        request,
        reason,
        limit: metadata['limit'],
        field: metadata['field'],
      },
      'a request was refused',
    );
  }

  end(status: StatusCode | 'OK'): void {
    this.#root.info(
      {
        session_id: this.#start.sessionId,
        tenant: this.#start.tenantId,
        ...traceFields(this.#ids),
        method: this.#start.method,
        client: this.#start.clientName,
        client_version: this.#start.clientVersion,
        labels: this.#labels,
        status,
        duration_ms: Math.round(performance.now() - this.#startedAt),
        turns: this.#turns,
        failures: this.#failures,
        bytes_up: this.#bytesUp,
        bytes_down: this.#bytesDown,
      },
      'session ended',
    );
  }
}

function turnFields(
  record: TurnRecord,
  split: TurnSplit,
  ids: TraceIds | undefined,
  labels: Readonly<Record<string, string>> | undefined,
): object {
  const { failed, usage, route, cost } = record;
  return {
    lane_id: record.laneId,
    turn_id: record.turnId,
    trace_id: ids?.traceId,
    span_id: ids?.spanId,
    labels,
    outcome: record.outcome,
    reason: failed?.error.reason,
    error_type: failed && errorType(failed.error.reason, failed.error.upstream?.code),
    fault: failed?.error.fault,
    phase: failed?.phase,
    replay: failed?.replay,
    model: record.requestModel,
    response_model: record.responseModel,
    response_id: record.responseId,
    upstream: route?.upstream,
    total_ms: ms(split.totalSeconds),
    queue_ms: ms(split.queueSeconds),
    gateway_ms: ms(split.gatewaySeconds),
    upstream_ms: ms(split.upstreamSeconds),
    added_up_ms: fineMs(split.addedUpSeconds),
    added_down_ms: fineMs(split.addedDownSeconds),
    ttft_ms: ms(split.firstOutputSeconds),
    input_tokens: usage?.inputTokens,
    cached_tokens: usage?.cachedInputTokens,
    output_tokens: usage?.outputTokens,
    reasoning_tokens: usage?.reasoningTokens,
    cost: cost?.amount,
    currency: cost?.currency,
    events: record.events,
    tool_calls: record.toolCalls,
    bytes_up: record.bytesUp,
    bytes_down: record.bytesDown,
    bytes_saved: Math.max(0, record.fullContextBytes - record.bytesUp),
    sends: record.sends,
    replays: record.replays,
  };
}

/** Of its JSON; what is undefined is left out. */
function membersOf(fields: object): string {
  return JSON.stringify(fields).slice(1, -1);
}

function traceFields(ids: TraceIds | undefined): { trace_id?: string; span_id?: string } {
  return ids === undefined ? {} : { trace_id: ids.traceId, span_id: ids.spanId };
}

function ms(seconds: number | undefined): number | undefined {
  return seconds === undefined ? undefined : Math.round(seconds * 1_000);
}

/** Most are less than a millisecond. */
function fineMs(seconds: number | undefined): number | undefined {
  return seconds === undefined ? undefined : Math.round(seconds * 100_000) / 100;
}
