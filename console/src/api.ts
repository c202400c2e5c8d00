import { createParser } from 'eventsource-parser';
import type { BoardView, Overview, SessionDetail, SessionPage, TurnPage } from '../../src/admin/api.ts';

const TOKEN = 'responses-gateway-token';

/** What the admin port said instead of an answer. */
export class Refused extends Error {
  readonly status: number;
  readonly field: string | undefined;

  constructor(status: number, message: string, field: string | undefined) {
    super(message);
    this.status = status;
    this.field = field;
  }
}

/** Kept for the tab alone: it ends with it, and no other page of the host sees it in a cookie. */
export function setToken(token: string): void {
  sessionStorage.setItem(TOKEN, token);
}

export function overview(query: { step: number; seconds: number }): Promise<Overview> {
  return get(`/overview?step=${query.step}&seconds=${query.seconds}`);
}

export function sessions(query: Readonly<Record<string, string>>, signal: AbortSignal): Promise<SessionPage> {
  return get(`/sessions?${new URLSearchParams(query)}`, signal);
}

export function session(id: string): Promise<SessionDetail> {
  return get(`/sessions/${encodeURIComponent(id)}`);
}

export function turns(id: string): Promise<TurnPage> {
  return get(`/sessions/${encodeURIComponent(id)}/turns?limit=1000`);
}

export async function post(path: string, body: Readonly<Record<string, string>>): Promise<void> {
  await send(path, {
    method: 'POST',
    body: JSON.stringify(body),
    headers: { 'content-type': 'application/json' },
  });
}

/** One board a second, until `signal` ends it. Resolves when the stream has ended; rejects when there was none. */
export async function watchBoard(onBoard: (board: BoardView) => void, signal: AbortSignal): Promise<void> {
  const response = await send('/overview/stream', { signal });
  const parser = createParser({
    onEvent: ({ event, data }) => {
      if (event === 'board') onBoard(JSON.parse(data) as BoardView);
    },
  });
  const reader = response.body?.pipeThrough(new TextDecoderStream()).getReader();
  for (let part = await reader?.read(); part !== undefined && !part.done; part = await reader?.read())
    parser.feed(part.value);
}

async function get<T>(path: string, signal?: AbortSignal): Promise<T> {
  const response = await send(path, signal === undefined ? {} : { signal });
  return (await response.json()) as T;
}

async function send(path: string, init: RequestInit): Promise<Response> {
  const token = sessionStorage.getItem(TOKEN);
  const headers = new Headers(init.headers);
  if (token !== null) headers.set('authorization', `Bearer ${token}`);
  const response = await fetch(path, { ...init, headers });
  if (response.ok) return response;
  const problem = (await response.json().catch(() => ({}))) as { error?: string; field?: string };
  throw new Refused(response.status, problem.error ?? response.statusText, problem.field);
}
