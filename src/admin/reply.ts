import type { ServerResponse } from 'node:http';
import type * as z from 'zod';

export interface Reply {
  readonly status: number;
  readonly contentType: string;
  readonly body: string | Uint8Array;
  readonly headers?: Readonly<Record<string, string>>;
}

/** An answer without an end; whoever opened it writes to it. */
export interface StreamReply {
  readonly status: 200;
  readonly contentType: string;
  readonly open: (response: ServerResponse) => void;
}

export function plain(status: number, text: string): Reply {
  return { status, contentType: 'text/plain; charset=utf-8', body: `${text}\n` };
}

export function json(status: number, value: unknown): Reply {
  return { status, contentType: 'application/json; charset=utf-8', body: `${JSON.stringify(value)}\n` };
}

/** `field`: the parameter, field or header that it is about. */
export function problem(status: number, error: string, field?: string): Reply {
  return json(status, field === undefined ? { error } : { error, field });
}

/** The first thing that is wrong: its place, what was found there, and what is allowed. */
export function problemOf({ issues: [issue] }: z.ZodError, given: unknown, schema: z.ZodObject): Reply {
  if (issue?.code === 'unrecognized_keys') {
    const field = (issue.keys[0] ?? '').slice(0, MAX_FOUND);
    return problem(400, `there is no "${field}"; allowed: ${Object.keys(schema.shape).join(', ')}`, field);
  }
  const field = issue?.path.map(String).join('.') ?? '';
  return problem(400, `${field}: found ${foundAt(given, field)}; allowed: ${allowed(issue)}`, field);
}

const MAX_FOUND = 64;

function foundAt(given: unknown, field: string): string {
  if (typeof given !== 'object' || given === null) return typeof given;
  const value = new Map(Object.entries(given)).get(field);
  return value === undefined ? 'nothing' : (JSON.stringify(value) ?? '').slice(0, MAX_FOUND);
}

function allowed(issue: z.core.$ZodIssue | undefined): string {
  switch (issue?.code) {
    case 'invalid_value':
      return issue.values.map(String).join(', ');
    case 'invalid_type':
      return issue.expected;
    case 'too_small':
      return `a length of at least ${issue.minimum}`;
    case 'too_big':
      return `a length of at most ${issue.maximum}`;
    default:
      return issue?.message ?? 'another value';
  }
}
