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

/** The first thing that is wrong, with its place. */
export function problemOf({ issues: [issue] }: z.ZodError): Reply {
  if (issue?.code === 'unrecognized_keys') {
    const [field = ''] = issue.keys;
    return problem(400, `there is no such field: ${field.slice(0, 64)}`, field.slice(0, 64));
  }
  return problem(400, issue?.message ?? 'not valid', issue?.path.map(String).join('.'));
}
