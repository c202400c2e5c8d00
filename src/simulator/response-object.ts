import { estimateTokens } from './context.ts';
import { isObject, type JsonObject } from './json.ts';
import type { Switches } from './options.ts';
import type { CreateRequest } from './request.ts';
import type { Outcome, Run } from './turn.ts';

export function usageJson(run: Run, { warmUpBilled, attribution }: Switches): string {
  const input = run.request.generate || warmUpBilled ? run.context.tokens : 0;
  const cached = Math.min(run.cachedTokens, input);
  return JSON.stringify({
    input_tokens: input,
    input_tokens_details: { cached_tokens: cached, cache_write_tokens: 0 },
    output_tokens: run.outputTokens,
    output_tokens_details: { reasoning_tokens: run.reasoningTokens },
    total_tokens: input + run.outputTokens,
    ...(attribution && { attribution: attributionOf(run, input) }),
  });
}

/** Which item and which field cost what (upstream.md#attribution). */
function attributionOf(run: Run, input: number): JsonObject {
  const tokens = (inputTokens: number, outputTokens: number): JsonObject => ({
    input_tokens: inputTokens,
    output_tokens: outputTokens,
    cached_tokens: 0,
    cache_write_tokens: 0,
  });
  const { instructions, tools } = run.request.body;
  const fields = Object.entries({ instructions, tools }).filter(
    ([, value]) => value != null && JSON.stringify(value) !== '[]',
  );
  let told = 0;
  const items = run.output.map((item, at): [string, JsonObject] => {
    const until = run.itemTokens[at] ?? told;
    const own = until - told;
    told = until;
    return [String(item.id), { ...tokens(0, own), content: [] }];
  });
  return {
    items: Object.fromEntries(items),
    request_fields: Object.fromEntries(
      fields.map(([name, value]) => [
        name,
        tokens(Math.min(input, estimateTokens(JSON.stringify(value))), 0),
      ]),
    ),
  };
}

/** A Response object of upstream.md#response-object; `outputJson` and `usage` are ready JSON. */
export function responseJson(
  run: Run,
  status: string,
  outputJson: string,
  outcome: Outcome | null,
  usage = 'null',
  id = run.id,
): string {
  const error = outcome?.status === 'failed' ? { code: outcome.code, message: outcome.message } : null;
  const incomplete = outcome?.status === 'incomplete' ? { reason: outcome.reason } : null;
  const echo = run.settingsJson ?? settingsJson(run.request, run.parentId);
  const completedAt = outcome?.status === 'completed' ? Math.floor(Date.now() / 1000) : null;
  return (
    `{"id":"${id}","object":"response","created_at":${run.createdAt},"status":"${status}",` +
    `"completed_at":${completedAt},"error":${JSON.stringify(error)},"incomplete_details":${JSON.stringify(incomplete)},` +
    `"output":${outputJson},"usage":${usage},${echo}}`
  );
}

/** The part of the Response object that echoes the request, without braces; the same in all events of a response. */
export function settingsJson(request: CreateRequest, parentId: string | null): string {
  const { body } = request;
  const given = (key: string, otherwise: unknown): unknown => body[key] ?? otherwise;
  return JSON.stringify({
    access_programs: given('access_programs', null),
    background: request.background,
    conversation: request.conversationId === null ? null : { id: request.conversationId },
    frequency_penalty: 0,
    instructions: given('instructions', null),
    max_output_tokens: given('max_output_tokens', null),
    max_tool_calls: given('max_tool_calls', null),
    metadata: given('metadata', {}),
    model: request.model,
    moderation: null,
    parallel_tool_calls: given('parallel_tool_calls', true),
    presence_penalty: 0,
    previous_response_id: parentId,
    prompt_cache_key: given('prompt_cache_key', null),
    prompt_cache_retention: given('prompt_cache_retention', null),
    reasoning: {
      context: null,
      effort: null,
      mode: 'standard',
      summary: null,
      ...Object(given('reasoning', {})),
    },
    safety_identifier: given('safety_identifier', null),
    service_tier: SERVICE_TIERS[String(given('service_tier', 'auto'))] ?? given('service_tier', 'default'),
    store: request.store,
    temperature: given('temperature', 1),
    text: { format: { type: 'text' }, verbosity: 'medium', ...Object(given('text', {})) },
    tool_choice: given('tool_choice', 'auto'),
    tool_usage: TOOL_USAGE,
    tools: toolsOf(given('tools', [])),
    top_logprobs: given('top_logprobs', 0),
    top_p: given('top_p', 1),
    truncation: given('truncation', 'disabled'),
    user: given('user', null),
  }).slice(1, -1);
}

/** Live objects tell of a function tool also what the request left out. */
function toolsOf(tools: unknown): unknown {
  if (!Array.isArray(tools)) return [];
  return tools.map((tool: unknown) =>
    isObject(tool) && tool.type === 'function'
      ? { description: null, output_schema: null, parameters: null, strict: true, ...tool }
      : tool,
  );
}

const NO_IMAGES = {
  input_tokens: 0,
  input_tokens_details: { image_tokens: 0, text_tokens: 0 },
  output_tokens: 0,
  output_tokens_details: { image_tokens: 0, text_tokens: 0 },
  total_tokens: 0,
};
const TOOL_USAGE = { image_gen: NO_IMAGES, web_search: { num_requests: 0 } };

const SERVICE_TIERS: Readonly<Record<string, string>> = { auto: 'default', fast: 'priority' };
