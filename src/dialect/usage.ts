import { asObject, own } from './json.ts';
import type { Usage } from './types.ts';

/** Reads a `usage` object; undefined when there is none. */
export function readUsage(value: unknown): Usage | undefined {
  const usage = asObject(value);
  if (usage === undefined) return undefined;
  const input = asObject(own(usage, 'input_tokens_details'));
  const output = asObject(own(usage, 'output_tokens_details'));
  return {
    inputTokens: count(own(usage, 'input_tokens')),
    cachedInputTokens: count(own(input, 'cached_tokens')),
    cacheWriteTokens: count(own(input, 'cache_write_tokens')),
    outputTokens: count(own(usage, 'output_tokens')),
    reasoningTokens: count(own(output, 'reasoning_tokens')),
  };
}

export function addUsage(a: Usage, b: Usage): Usage {
  return {
    inputTokens: a.inputTokens + b.inputTokens,
    cachedInputTokens: a.cachedInputTokens + b.cachedInputTokens,
    cacheWriteTokens: a.cacheWriteTokens + b.cacheWriteTokens,
    outputTokens: a.outputTokens + b.outputTokens,
    reasoningTokens: a.reasoningTokens + b.reasoningTokens,
  };
}

/** No response has as many tokens; sums of what an upstream makes up stay whole numbers all the same. */
const MAX_COUNT = 1e12;

function count(value: unknown): number {
  return typeof value === 'number' && value > 0 ? Math.trunc(Math.min(value, MAX_COUNT)) : 0;
}
