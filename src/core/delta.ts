import type { Step } from './transcript.ts';

export type Delta =
  | { readonly ok: true; readonly delta: readonly string[] }
  | { readonly ok: false; readonly reason: 'history_shorter_than_known' | 'history_differs' };

/**
 * Proves that `full` starts with `known` (what the upstream has) and gives what follows. Items are the same when
 * the model would read the same: ids, statuses, empty annotations and the two spellings of plain text do not count.
 */
export function proveExtension(steps: readonly Step[], full: readonly string[]): Delta {
  const lists = steps.flatMap(({ input, output }) => [input, output]);
  const length = lists.reduce((sum, list) => sum + list.length, 0);
  if (full.length < length) return { ok: false, reason: 'history_shorter_than_known' };
  let at = 0;
  for (const known of lists) {
    if (!continues(known, full, at)) return { ok: false, reason: 'history_differs' };
    at += known.length;
  }
  return { ok: true, delta: full.slice(at) };
}

/** What each item of a list was last proved to be the same as: most clients say it the same way every time. */
const PROVED = new WeakMap<readonly string[], (string | undefined)[]>();

function continues(known: readonly string[], full: readonly string[], from: number): boolean {
  let proved = PROVED.get(known);
  for (const [index, left] of known.entries()) {
    const right = full[from + index] as string;
    if (left === right || proved?.[index] === right) continue;
    if (canonical(left) !== canonical(right)) return false;
    if (proved === undefined) {
      proved = [];
      PROVED.set(known, proved);
    }
    proved[index] = right;
  }
  return true;
}

function canonical(text: string): string {
  const item: unknown = JSON.parse(text);
  return typeof item === 'object' && item !== null && !Array.isArray(item)
    ? stringify(canonicalItem(item as Record<string, unknown>))
    : stringify(item);
}

function canonicalItem(item: Record<string, unknown>): Record<string, unknown> {
  const { id: _id, status: _status, ...rest } = item;
  if (rest['type'] === undefined && rest['role'] !== undefined) rest['type'] = 'message';
  if (rest['type'] === 'message') rest['content'] = canonicalContent(rest['content'], rest['role']);
  return rest;
}

function canonicalContent(content: unknown, role: unknown): unknown {
  const parts =
    typeof content === 'string'
      ? [{ type: role === 'assistant' ? 'output_text' : 'input_text', text: content }]
      : content;
  return Array.isArray(parts) ? parts.map(canonicalPart) : parts;
}

function canonicalPart(part: unknown): unknown {
  if (typeof part !== 'object' || part === null) return part;
  const fields = { ...(part as Record<string, unknown>) };
  for (const name of ['annotations', 'logprobs']) {
    if (Array.isArray(fields[name]) && (fields[name] as unknown[]).length === 0) delete fields[name];
  }
  return fields;
}

/** JSON with sorted keys and without nulls: absent and null read the same. */
function stringify(value: unknown): string {
  if (Array.isArray(value)) return `[${value.map(stringify).join(',')}]`;
  if (typeof value !== 'object' || value === null) return JSON.stringify(value) ?? 'null';
  const fields = value as Record<string, unknown>;
  const parts: string[] = [];
  for (const name of Object.keys(fields).sort()) {
    if (fields[name] !== null && fields[name] !== undefined)
      parts.push(`${JSON.stringify(name)}:${stringify(fields[name])}`);
  }
  return `{${parts.join(',')}}`;
}
