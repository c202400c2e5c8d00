import { extendContext, type Item, UnknownCall } from './context.ts';
import { missingToolCall } from './errors.ts';
import type { JsonObject } from './json.ts';
import { inputItems } from './request.ts';
import { requestProblem } from './request-schema.ts';
import type { EndedResponse } from './steering.ts';
import type { Run } from './turn.ts';

/** What becomes of one `response.inject` (upstream.md#responseinject). */
export type InjectVerdict =
  | { kind: 'taken'; run: Run; frame: string }
  | { kind: 'failed'; frame: string }
  /** No request that the server understands: it answers with an error and closes. */
  | { kind: 'malformed'; problem: Error };

/** The items of a verdict that is `taken` are with the run. */
export function judgeInject(
  frame: JsonObject,
  active: Run | undefined,
  ended: EndedResponse | undefined,
): InjectVerdict {
  const problem = requestProblem(frame, 'Inject');
  if (problem !== null) return { kind: 'malformed', problem };
  const id = String(frame.response_id);
  const target = active ?? ended;
  if (active === undefined || !active.request.multiAgent || active.outcome !== null) {
    const code = target === undefined ? 'response_not_found' : 'response_already_completed';
    const error = {
      code,
      message:
        target === undefined ? `Response '${id}' was not found.` : `Response '${id}' has already completed.`,
    };
    return {
      kind: 'failed',
      frame: injectFrame('response.inject.failed', id, target, { input: frame.input, error }),
    };
  }
  const items = inputItems(frame.input);
  try {
    extendContext(active.context, [...active.told, ...items]);
  } catch (error) {
    if (!(error instanceof UnknownCall)) throw error;
    return { kind: 'malformed', problem: missingToolCall(error.callId) };
  }
  active.told.push(...items.map((item): Item => ({ type: 'message', ...item })));
  return { kind: 'taken', run: active, frame: injectFrame('response.inject.created', id, active, {}) };
}

function injectFrame(
  type: string,
  responseId: string,
  target: Run | EndedResponse | undefined,
  fields: JsonObject,
): string {
  return JSON.stringify({
    type,
    sequence_number: target === undefined ? 0 : target.sequence++,
    ...(target?.streamId === undefined ? {} : { stream_id: target.streamId }),
    response_id: responseId,
    ...fields,
  });
}
