import type { TurnRecord } from '../core/types.ts';
import {
  ATTR,
  EXCEPTION_EVENT,
  GENAI_VERSIONS,
  type GenAiSemconv,
  isChosen,
  OPERATION_CHAT,
  providerName,
} from './genai-names.ts';
import { errorType } from './labels.ts';
import type { LogEvent } from './log-export.ts';
import { OWN } from './own-names.ts';
import type { TraceIds } from './tracing.ts';

/**
 * The failure of a turn as the conventions have it: a log record beside the span, under the name of each version that
 * was chosen. Codes only; the upstream's own words may hold content.
 */
export function turnExceptions(
  record: TurnRecord,
  ids: TraceIds | undefined,
  semconv: GenAiSemconv,
): readonly LogEvent[] {
  const { failed, route, outcome } = record;
  // A caller that changes its mind is no failure.
  if (failed === undefined || (outcome !== 'FAILED' && outcome !== 'DEADLINE_EXCEEDED')) return [];
  const { error } = failed;
  const type = errorType(error.reason, error.upstream?.code);
  const attributes = {
    [ATTR.operation]: OPERATION_CHAT,
    ...(route !== undefined && {
      [ATTR.provider]: providerName(route.provider),
      'server.address': route.serverAddress,
      'server.port': route.serverPort,
    }),
    ...(record.requestModel !== undefined && { [ATTR.requestModel]: record.requestModel }),
    ...(record.responseId !== undefined && { [ATTR.responseId]: record.responseId }),
    'error.type': type,
    'exception.type': type,
    'exception.message': `${error.reason} (${error.code}), fault ${error.fault}, replay ${failed.replay}`,
    [OWN.turnId]: record.turnId,
  };
  return GENAI_VERSIONS.filter((version) => isChosen(version, semconv)).map((version) => ({
    name: EXCEPTION_EVENT[version],
    level: 'warn',
    atMs: record.endedAtMs,
    attributes,
    ids,
  }));
}
