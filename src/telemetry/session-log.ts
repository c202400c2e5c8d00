import type { Logger } from 'pino';
import type { TurnRecord } from '../core/types.ts';
import type { GatewayError, StatusCode } from '../errors.ts';
import { errorType } from './labels.ts';
import type { InfoLine } from './logs.ts';
import { CONCERNS_OPERATORS } from './refusals.ts';
import { scrub, scrubLine } from './scrub.ts';
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
  #labelsMember: string | undefined;
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
    this.#head ??= scrubLine(membersOf({ session_id: this.#start.sessionId, tenant: this.#start.tenantId }));
    this.#labelsMember ??= scrubLine(member('labels', this.#labels));
    this.#info.write(this.#head + turnMembers(record, split, ids, this.#labelsMember), 'turn ended');
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

/** Written by hand, each with a comma before it: this is most of what a turn's line costs. `labels` is a member as well. */
function turnMembers(
  record: TurnRecord,
  split: TurnSplit,
  ids: TraceIds | undefined,
  labels: string,
): string {
  const { failed, usage, route, cost } = record;
  let names = `,"lane_id":${JSON.stringify(record.laneId)},"turn_id":${JSON.stringify(record.turnId)}`;
  if (ids !== undefined) names += `,"trace_id":"${ids.traceId}","span_id":"${ids.spanId}"`;
  let words = `,"outcome":"${record.outcome}"`;
  if (failed !== undefined) {
    const { error, phase, replay } = failed;
    words += `,"reason":"${error.reason}"${member('error_type', errorType(error.reason, error.upstream?.code))}`;
    words += `,"fault":"${error.fault}","phase":"${phase}","replay":"${replay}"`;
  }
  words += member('model', record.requestModel) + member('response_model', record.responseModel);
  words += member('response_id', record.responseId) + member('upstream', route?.upstream);
  let numbers = `,"total_ms":${ms(split.totalSeconds)},"queue_ms":${ms(split.queueSeconds)}`;
  numbers += `,"gateway_ms":${ms(split.gatewaySeconds)},"upstream_ms":${ms(split.upstreamSeconds)}`;
  numbers += member('added_up_ms', fineMs(split.addedUpSeconds));
  numbers += member('added_down_ms', fineMs(split.addedDownSeconds));
  if (split.firstOutputSeconds !== undefined) numbers += `,"ttft_ms":${ms(split.firstOutputSeconds)}`;
  if (usage !== undefined) {
    numbers += `,"input_tokens":${usage.inputTokens},"cached_tokens":${usage.cachedInputTokens}`;
    numbers += `,"output_tokens":${usage.outputTokens},"reasoning_tokens":${usage.reasoningTokens}`;
  }
  if (cost !== undefined) numbers += member('cost', cost.amount) + member('currency', cost.currency);
  numbers += `,"events":${record.events},"tool_calls":${record.toolCalls},"bytes_up":${record.bytesUp}`;
  numbers += `,"bytes_down":${record.bytesDown},"bytes_saved":${savedBytes(record)}`;
  numbers += `,"sends":${record.sends},"replays":${record.replays}`;
  // Callers and upstreams choose the words.
  return scrub(names) + labels + scrub(words) + numbers;
}

function savedBytes({ fullContextBytes, bytesUp }: TurnRecord): number {
  return Math.max(0, fullContextBytes - bytesUp);
}

/** Nothing for what is undefined. */
function member(name: string, value: unknown): string {
  return value === undefined ? '' : `,"${name}":${JSON.stringify(value)}`;
}

/** Of its JSON; what is undefined is left out. */
function membersOf(fields: object): string {
  return JSON.stringify(fields).slice(1, -1);
}

function traceFields(ids: TraceIds | undefined): { trace_id?: string; span_id?: string } {
  return ids === undefined ? {} : { trace_id: ids.traceId, span_id: ids.spanId };
}

function ms(seconds: number): number {
  return Math.round(seconds * 1_000);
}

/** Most are less than a millisecond. */
function fineMs(seconds: number | undefined): number | undefined {
  return seconds === undefined ? undefined : Math.round(seconds * 100_000) / 100;
}
