import { asObject, own } from './json.ts';
import type { AttributedTokens, Attribution, Usage } from './types.ts';

/** Reads a `usage` object; undefined when there is none. */
export function readUsage(value: unknown): Usage | undefined {
  const usage = asObject(value);
  if (usage === undefined) return undefined;
  const input = asObject(own(usage, 'input_tokens_details'));
  const output = asObject(own(usage, 'output_tokens_details'));
  const attribution = readAttribution(own(usage, 'attribution'));
  return {
    inputTokens: count(own(usage, 'input_tokens')),
    cachedInputTokens: count(own(input, 'cached_tokens')),
    cacheWriteTokens: count(own(input, 'cache_write_tokens')),
    outputTokens: count(own(usage, 'output_tokens')),
    reasoningTokens: count(own(output, 'reasoning_tokens')),
    ...(attribution !== undefined && { attribution }),
  };
}

export function addUsage(a: Usage, b: Usage): Usage {
  const attribution = addAttribution(a.attribution, b.attribution);
  return {
    inputTokens: a.inputTokens + b.inputTokens,
    cachedInputTokens: a.cachedInputTokens + b.cachedInputTokens,
    cacheWriteTokens: a.cacheWriteTokens + b.cacheWriteTokens,
    outputTokens: a.outputTokens + b.outputTokens,
    reasoningTokens: a.reasoningTokens + b.reasoningTokens,
    ...(attribution !== undefined && { attribution }),
  };
}

/** Items of a history, and fields of a request; what an upstream makes up beyond them is not read. */
const MAX_ATTRIBUTED = 1_000;

function readAttribution(value: unknown): Attribution | undefined {
  const attribution = asObject(value);
  if (attribution === undefined) return undefined;
  const items = readAttributed(own(attribution, 'items'));
  const fields = readAttributed(own(attribution, 'request_fields'));
  return items.size + fields.size === 0 ? undefined : { items, fields };
}

function readAttributed(value: unknown): ReadonlyMap<string, AttributedTokens> {
  const all = new Map<string, AttributedTokens>();
  for (const [name, tokens] of Object.entries(asObject(value) ?? {}).slice(0, MAX_ATTRIBUTED)) {
    const told = asObject(tokens);
    if (told === undefined) continue;
    all.set(name, {
      inputTokens: count(own(told, 'input_tokens')),
      cachedInputTokens: count(own(told, 'cached_tokens')),
      cacheWriteTokens: count(own(told, 'cache_write_tokens')),
      outputTokens: count(own(told, 'output_tokens')),
    });
  }
  return all;
}

function addAttribution(a: Attribution | undefined, b: Attribution | undefined): Attribution | undefined {
  if (a === undefined || b === undefined) return a ?? b;
  return { items: addAttributed(a.items, b.items), fields: addAttributed(a.fields, b.fields) };
}

function addAttributed(
  a: ReadonlyMap<string, AttributedTokens>,
  b: ReadonlyMap<string, AttributedTokens>,
): ReadonlyMap<string, AttributedTokens> {
  const sum = new Map(a);
  for (const [name, tokens] of b) {
    const before = sum.get(name);
    if (before === undefined && sum.size >= MAX_ATTRIBUTED) continue;
    sum.set(name, {
      inputTokens: tokens.inputTokens + (before?.inputTokens ?? 0),
      cachedInputTokens: tokens.cachedInputTokens + (before?.cachedInputTokens ?? 0),
      cacheWriteTokens: tokens.cacheWriteTokens + (before?.cacheWriteTokens ?? 0),
      outputTokens: tokens.outputTokens + (before?.outputTokens ?? 0),
    });
  }
  return sum;
}

/** No response has as many tokens; sums of what an upstream makes up stay whole numbers all the same. */
const MAX_COUNT = 1e12;

function count(value: unknown): number {
  return typeof value === 'number' && value > 0 ? Math.trunc(Math.min(value, MAX_COUNT)) : 0;
}
