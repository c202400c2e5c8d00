import { z } from 'zod';
import type { Item } from './context.ts';
import { ApiError, errorFrame, invalidRequest, missingParameter } from './errors.ts';
import { isObject } from './json.ts';
import type { Switches } from './options.ts';

/**
 * Switches that each make one of the upstreams that users' gateways meet (upstream.md#odd-upstreams). The default of each
 * is what OpenAI does.
 */
export const ODD_SWITCHES = {
  failureTold: z
    .enum(['once', 'error-first', 'failed-first'])
    .default('once')
    .describe('a failed response: by its terminal alone, or by an error frame before or behind it too'),
  warnings: z
    .boolean()
    .default(false)
    .describe('an error frame in each response that ends nothing: the connection will close'),
  lifeCycles: z
    .int()
    .min(1)
    .max(2)
    .default(1)
    .describe(
      '2: a relay that runs a tool itself; each create is answered by two responses, the second is the answer',
    ),
  doneAfterTerminal: z.boolean().default(false).describe('a private response.done behind each terminal'),
  terminals: z
    .enum(['openai', 'done', 'cancelled', 'canceled'])
    .default('openai')
    .describe('response.done for every end; or every response is cancelled, in one spelling or the other'),
  refusalsNameLane: z
    .boolean()
    .default(true)
    .describe('false: a refused create gets an error without stream_id'),
  echoLanes: z.boolean().default(true).describe('false: stream_id is taken, and given back by nothing'),
  parentNotFound: z
    .enum(['coded', 'null-code', 'numeric-code', 'other-code', 'words', 'failed'])
    .default('coded')
    .describe('how an unknown previous_response_id is told; failed: as response.failed'),
  rateLimits: z
    .enum(['openai', 'too_many_requests', 'text-429', 'number-429', 'no-status'])
    .default('openai')
    .describe('code and status of every error 429'),
  idInTerminal: z
    .boolean()
    .default(false)
    .describe('true: only the terminal has the id to continue from; the events before it name another'),
  sharedOutputIndex: z.boolean().default(false).describe('true: every item has the output_index 0'),
  emptyItemIds: z.boolean().default(false).describe('true: every item has the id ""'),
  requireItemIds: z
    .boolean()
    .default(false)
    .describe('true: assistant messages, reasoning and hosted calls are refused without their id'),
  plainReasoning: z
    .boolean()
    .default(false)
    .describe('true: an open model: reasoning comes as plain content, and calls are refused without it'),
  truncatedCalls: z
    .enum(['take', 'refuse'])
    .default('take')
    .describe('a call in the input whose arguments were cut off'),
  refusalStatus: z
    .enum(['status', 'ok'])
    .default('status')
    .describe('ok: over HTTP, a refused stream is answered by status 200 and a JSON error'),
} as const;

/** An error as this upstream spells it. */
export function spelled(error: ApiError, { parentNotFound, rateLimits }: Switches): ApiError {
  if (error.code === 'previous_response_not_found') return PARENT_NOT_FOUND[parentNotFound](error);
  if (error.status === 429) return RATE_LIMITS[rateLimits](error);
  return error;
}

type Spell = (error: ApiError) => ApiError;

const same: Spell = (error) => error;

const PARENT_NOT_FOUND: Readonly<Record<Switches['parentNotFound'], Spell>> = {
  coded: same,
  failed: same,
  'null-code': (error) => error.with({ code: null, param: null }),
  'numeric-code': (error) => error.with({ code: 400 }),
  'other-code': (error) => error.with({ code: 'invalid_request_error', param: null }),
  words: (error) => error.with({ code: null, param: null, omit: ['code', 'param'] }),
};

const RATE_LIMITS: Readonly<Record<Switches['rateLimits'], Spell>> = {
  openai: same,
  too_many_requests: (error) => error.with({ code: 'too_many_requests', type: 'too_many_requests' }),
  'text-429': (error) => error.with({ code: '429' }),
  'number-429': (error) => error.with({ code: 429 }),
  'no-status': (error) => error.with({ omit: ['status'] }),
};

/** The warning of vLLM's server, five minutes ahead. It names nothing that would tell it from a failure but its code. */
export function warningFrame(streamId: string | undefined): string {
  const error = new ApiError({
    status: 400,
    code: 'connection_expiring',
    message: 'Connection will close in 5 minutes.',
  });
  return errorFrame(error, { shape: 'nested', headersPlace: 'inside', streamId });
}

/** What strict servers find wrong with a history. */
export function checkHistory(items: readonly Item[], switches: Switches): void {
  for (const [index, item] of items.entries()) {
    if (switches.requireItemIds && needsId(item) && (typeof item.id !== 'string' || item.id === ''))
      throw missingParameter(`input[${index}].id`);
    if (item.type !== 'function_call') continue;
    if (switches.truncatedCalls === 'refuse' && !isJson(item.arguments))
      throw invalidRequest(
        `Invalid 'input[${index}].arguments': expected a JSON object.`,
        `input[${index}].arguments`,
        'invalid_value',
      );
    if (switches.plainReasoning && !hasReasoningBefore(items, index))
      throw invalidRequest(
        `The reasoning_content in the thinking mode must be passed back to the API (input[${index}]).`,
        null,
      );
  }
}

/** Kinds whose `id` the published schema requires of an input (upstream.md#odd-upstreams). */
const KINDS_WITH_ID: ReadonlySet<unknown> = new Set([
  'reasoning',
  'file_search_call',
  'web_search_call',
  'computer_call',
  'code_interpreter_call',
  'local_shell_call',
  'mcp_list_tools',
  'mcp_call',
  'program',
  'program_output',
  'image_generation_call',
]);

function needsId(item: Item): boolean {
  const isAnswer = item.role === 'assistant' && Array.isArray(item.content);
  return isAnswer || KINDS_WITH_ID.has(item.type);
}

function isJson(text: unknown): boolean {
  try {
    return isObject(JSON.parse(String(text)));
  } catch {
    return false;
  }
}

/** In the same answer: between the call and the input before it. */
function hasReasoningBefore(items: readonly Item[], index: number): boolean {
  for (let at = index - 1; at >= 0; at -= 1) {
    const item = items[at];
    if (item?.type === 'reasoning') return Array.isArray(item.content) && item.content.length > 0;
    if (item?.role === 'user' || String(item?.type).endsWith('_output')) return false;
  }
  return false;
}
