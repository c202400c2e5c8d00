import type { Attributes } from '@opentelemetry/api';
import { ATTR } from './genai-names.ts';
import { OWN } from './own-names.ts';
import { scrub } from './scrub.ts';

export type ContentPart = 'instructions' | 'input' | 'output';

interface Message {
  readonly role: string;
  readonly parts: readonly Readonly<Record<string, unknown>>[];
}

type Json = Readonly<Record<string, unknown>>;

/**
 * Turns captured content into the attributes of the GenAI conventions (their message schema, as a JSON string).
 * Over `maxBytes` whole messages are left out, the oldest first; text that does not parse is left out too.
 */
export function contentAttributes(part: ContentPart, json: string, maxBytes: number): Attributes {
  const value = parse(json);
  if (value === undefined) return {};
  if (part === 'instructions') {
    return fitted(ATTR.systemInstructions, [{ type: 'text', content: value }], maxBytes);
  }
  const items = Array.isArray(value) ? value : [value];
  const messages = items.map((item) => message(item, part === 'input' ? 'user' : 'assistant'));
  return fitted(part === 'input' ? ATTR.inputMessages : ATTR.outputMessages, messages, maxBytes);
}

function fitted(name: string, entries: readonly unknown[], maxBytes: number): Attributes {
  const kept: string[] = [];
  let bytes = 2;
  for (const entry of entries.toReversed()) {
    const text = scrub(JSON.stringify(entry));
    bytes += Buffer.byteLength(text) + 1;
    if (bytes > maxBytes) break;
    kept.unshift(text);
  }
  return {
    [name]: `[${kept.join(',')}]`,
    ...(kept.length < entries.length && { [OWN.contentTruncated]: true }),
  };
}

function message(item: unknown, defaultRole: string): Message {
  if (typeof item === 'string') return { role: defaultRole, parts: [{ type: 'text', content: item }] };
  if (!isObject(item)) return { role: defaultRole, parts: [] };
  switch (item['type'] ?? 'message') {
    case 'message':
      return {
        role: typeof item['role'] === 'string' ? item['role'] : defaultRole,
        parts: contentParts(item['content']),
      };
    case 'function_call':
      return {
        role: 'assistant',
        parts: [{ type: 'tool_call', id: item['call_id'], name: item['name'], arguments: item['arguments'] }],
      };
    case 'function_call_output':
      return {
        role: 'tool',
        parts: [{ type: 'tool_call_response', id: item['call_id'], response: item['output'] }],
      };
    case 'reasoning':
      // Encrypted reasoning is of no use to a reader; summaries are.
      return {
        role: 'assistant',
        parts: contentParts(item['summary']).map((part) => ({ ...part, type: 'reasoning' })),
      };
    default:
      return { role: defaultRole, parts: [{ type: String(item['type']) }] };
  }
}

function contentParts(content: unknown): Json[] {
  if (typeof content === 'string') return [{ type: 'text', content }];
  if (!Array.isArray(content)) return [];
  return content.filter(isObject).map((part) => {
    const text = part['text'] ?? part['refusal'];
    return typeof text === 'string' ? { type: 'text', content: text } : { type: String(part['type']) };
  });
}

function isObject(value: unknown): value is Json {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

function parse(json: string): unknown {
  try {
    return JSON.parse(json);
  } catch {
    return undefined;
  }
}
