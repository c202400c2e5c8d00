import type { CreateRequest } from './request.ts';
import type { Outcome, Run } from './turn.ts';

export function usageJson(run: Run, warmUpBilled: boolean): string {
  const input = run.request.generate || warmUpBilled ? run.context.tokens : 0;
  const cached = Math.min(run.cachedTokens, input);
  return JSON.stringify({
    input_tokens: input,
    input_tokens_details: { cached_tokens: cached, cache_write_tokens: 0 },
    output_tokens: run.outputTokens,
    output_tokens_details: { reasoning_tokens: run.reasoningTokens },
    total_tokens: input + run.outputTokens,
  });
}

/** A Response object of upstream.md#response-object; `outputJson` and `usage` are ready JSON. */
export function responseJson(
  run: Run,
  status: string,
  outputJson: string,
  outcome: Outcome | null,
  usage = 'null',
): string {
  const error = outcome?.status === 'failed' ? { code: outcome.code, message: outcome.message } : null;
  const incomplete = outcome?.status === 'incomplete' ? { reason: outcome.reason } : null;
  const completedAt = outcome?.status === 'completed' ? Math.floor(Date.now() / 1000) : null;
  return (
    `{"id":"${run.id}","object":"response","created_at":${run.createdAt},"status":"${status}",` +
    `"completed_at":${completedAt},"error":${JSON.stringify(error)},"incomplete_details":${JSON.stringify(incomplete)},` +
    `"output":${outputJson},"usage":${usage},${run.settingsJson}}`
  );
}

/** The part of the Response object that echoes the request, without braces; the same in all events of a response. */
export function settingsJson(request: CreateRequest, parentId: string | null): string {
  const { body } = request;
  const given = (key: string, otherwise: unknown): unknown => body[key] ?? otherwise;
  return JSON.stringify({
    access_programs: given('access_programs', null),
    background: false,
    conversation: request.conversationId === null ? null : { id: request.conversationId },
    instructions: given('instructions', null),
    max_output_tokens: given('max_output_tokens', null),
    max_tool_calls: given('max_tool_calls', null),
    metadata: given('metadata', {}),
    model: request.model,
    parallel_tool_calls: given('parallel_tool_calls', true),
    previous_response_id: parentId,
    prompt_cache_key: given('prompt_cache_key', null),
    reasoning: { effort: null, summary: null, ...Object(given('reasoning', {})) },
    safety_identifier: given('safety_identifier', null),
    service_tier: SERVICE_TIERS[String(given('service_tier', 'auto'))] ?? given('service_tier', 'default'),
    store: request.store,
    temperature: given('temperature', 1),
    text: { format: { type: 'text' }, verbosity: 'medium', ...Object(given('text', {})) },
    tool_choice: given('tool_choice', 'auto'),
    tools: given('tools', []),
    top_logprobs: given('top_logprobs', 0),
    top_p: given('top_p', 1),
    truncation: given('truncation', 'disabled'),
    user: body.user ?? undefined,
  }).slice(1, -1);
}

const SERVICE_TIERS: Readonly<Record<string, string>> = { auto: 'default', fast: 'priority' };
