import type { IncomingMessage } from 'node:http';
import * as z from 'zod';
import { json, problem, problemOf, type Reply } from './reply.ts';
import type { ActResult, SessionSource } from './source.ts';

/** What somebody did by the admin port. Written to the log whatever its level. */
export interface AuditRecord {
  readonly action: 'cancel_turn' | 'drain_session' | 'drain_process' | 'set_log_level';
  readonly sessionId?: string;
  readonly turnId?: string;
  readonly level?: string;
  readonly result: string;
  /** Address of who asked. */
  readonly remoteAddress: string | undefined;
}

export interface ActSources {
  readonly sessions: SessionSource;
  readonly logLevel: LogLevel;
  /** Undefined: whoever started this gateway ends it by other means. */
  readonly drain: (() => void) | undefined;
  readonly audit: (record: AuditRecord) => void;
}

export interface LogLevel {
  get(): string;
  /** False: there is no such level. */
  set(level: string): boolean;
  readonly levels: readonly string[];
}

const MAX_BODY_BYTES = 1024;

export async function cancelTurn(
  sources: ActSources,
  request: IncomingMessage,
  sessionId: string,
  turnId: string,
): Promise<Reply> {
  return act(request, turnId, async () => {
    const result = await sources.sessions.cancelTurn(sessionId, turnId);
    return outcome(sources, request, result, { action: 'cancel_turn', sessionId, turnId }, 'turn cancelled');
  });
}

export async function drainSession(
  sources: ActSources,
  request: IncomingMessage,
  sessionId: string,
): Promise<Reply> {
  return act(request, sessionId, async () => {
    const result = await sources.sessions.drainSession(sessionId);
    return outcome(sources, request, result, { action: 'drain_session', sessionId }, 'session draining');
  });
}

export async function drainProcess(sources: ActSources, request: IncomingMessage): Promise<Reply> {
  return act(request, 'drain', async () => {
    const { drain } = sources;
    const result = drain === undefined ? 'refused' : 'done';
    sources.audit({ action: 'drain_process', result, remoteAddress: request.socket.remoteAddress });
    if (drain === undefined) return problem(409, 'whoever started this gateway has to end it');
    // The answer first: the admin port closes with the rest.
    setImmediate(drain);
    return json(202, { done: 'draining' });
  });
}

export async function changeLogLevel(sources: ActSources, request: IncomingMessage): Promise<Reply> {
  const refusal = refuseForeign(request);
  if (refusal !== undefined) return refusal;
  const body = await jsonBody(request, z.strictObject({ level: z.string(), confirm: z.string() }));
  if (isReply(body)) return body;
  if (body.confirm !== body.level) return unconfirmed(body.level);
  return setLogLevel(sources, request, body.level);
}

/** By PUT, which no page of another site can send: the body alone says it. */
export async function putLogLevel(sources: ActSources, request: IncomingMessage): Promise<Reply> {
  const body = await readBody(request);
  return setLogLevel(sources, request, body === undefined ? undefined : levelOf(body));
}

function setLogLevel(sources: ActSources, request: IncomingMessage, level: string | undefined): Reply {
  const { logLevel, audit } = sources;
  if (level === undefined || !logLevel.set(level)) {
    return problem(400, `the body is a level, or {"level": …}: ${logLevel.levels.join(', ')}`, 'level');
  }
  audit({ action: 'set_log_level', level, result: 'done', remoteAddress: request.socket.remoteAddress });
  return json(200, { level });
}

/** Both `debug` and `{"level":"debug"}`. */
function levelOf(body: string): string | undefined {
  const text = body.trim();
  if (!text.startsWith('{')) return text;
  try {
    const level: unknown = (JSON.parse(text) as Record<string, unknown>).level;
    return typeof level === 'string' ? level : undefined;
  } catch {
    return undefined;
  }
}

function outcome(
  { audit }: ActSources,
  request: IncomingMessage,
  result: ActResult,
  what: Pick<AuditRecord, 'action' | 'sessionId' | 'turnId'>,
  done: string,
): Reply {
  audit({ ...what, result, remoteAddress: request.socket.remoteAddress });
  switch (result) {
    case 'done':
      return json(202, { done });
    case 'unknownSession':
      return problem(404, 'no running session of this id is here', 'id');
    case 'unknownTurn':
      return problem(404, 'the session has no such turn that has not ended', 'turnId');
    case 'noAnswer':
      return problem(504, 'a worker did not answer in time; it may still do what was asked for', 'id');
  }
}

/** Runs what the request asks for when it comes from our own page or a tool, and names again what it is about. */
async function act(request: IncomingMessage, target: string, run: () => Promise<Reply>): Promise<Reply> {
  const refusal = refuseForeign(request);
  if (refusal !== undefined) return refusal;
  const body = await jsonBody(request, z.strictObject({ confirm: z.string() }));
  if (isReply(body)) return body;
  return body.confirm === target ? run() : unconfirmed(target);
}

function unconfirmed(target: string): Reply {
  return problem(400, `"confirm" has to repeat what this is about: ${target.slice(0, 128)}`, 'confirm');
}

/**
 * A page of another site may send a form, and nothing that needs to be asked for first: JSON does. Browsers also say
 * where a request comes from.
 */
function refuseForeign({ headers }: IncomingMessage): Reply | undefined {
  const [type] = (headers['content-type'] ?? '').split(';');
  if (type?.trim().toLowerCase() !== 'application/json') {
    return problem(415, 'the body has to be JSON, and said to be (application/json)', 'content-type');
  }
  const site = headers['sec-fetch-site'];
  if (site !== undefined && site !== 'same-origin' && site !== 'none') {
    return problem(403, 'a page of another site may not do this', 'sec-fetch-site');
  }
  const { origin, host } = headers;
  if (origin !== undefined && URL.parse(origin)?.host !== host) {
    return problem(403, 'a page of another site may not do this', 'origin');
  }
  return undefined;
}

async function jsonBody<Shape extends z.ZodRawShape>(
  request: IncomingMessage,
  schema: z.ZodObject<Shape, z.core.$strict>,
): Promise<z.output<typeof schema> | Reply> {
  const text = await readBody(request);
  if (text === undefined) return problem(413, `the body may have ${MAX_BODY_BYTES} bytes`, 'body');
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch {
    return problem(400, 'the body is no JSON', 'body');
  }
  const parsed = schema.safeParse(value);
  return parsed.success ? parsed.data : problemOf(parsed.error, value, schema);
}

function isReply(value: unknown): value is Reply {
  return typeof value === 'object' && value !== null && 'status' in value && 'contentType' in value;
}

async function readBody(request: IncomingMessage): Promise<string | undefined> {
  const chunks: Buffer[] = [];
  let bytes = 0;
  for await (const chunk of request as AsyncIterable<Buffer>) {
    bytes += chunk.length;
    if (bytes > MAX_BODY_BYTES) return undefined;
    chunks.push(chunk);
  }
  return Buffer.concat(chunks).toString('utf8');
}
