import type { IncomingMessage, ServerResponse } from 'node:http';
import { BackgroundLog } from './background.ts';
import { EMPTY_CONTEXT, extendContext, type Item, textOf, UnknownCall } from './context.ts';
import { errorOf, privateDone, responseEvents, terminalEvent } from './engine.ts';
import {
  ApiError,
  codelessPreviousResponseInvalid,
  errorFrame,
  errorResponseBody,
  invalidRequest,
  missingToolCall,
  previousResponseNotFound,
  responseNotFound,
  toApiError,
} from './errors.ts';
import { type EventFault, type FaultSite, oddFrame } from './faults.ts';
import type { JournalEntry } from './journal.ts';
import { isObject, type JsonObject } from './json.ts';
import { spelled } from './odd.ts';
import type { Switches } from './options.ts';
import { Pump } from './pump.ts';
import { checkRequest, inputItems, parseCreate } from './request.ts';
import { responseJson } from './response-object.ts';
import type { ResponseRecord } from './store.ts';
import { abandonTurn, finishTurn, newId, type Run, startTurn, type World } from './turn.ts';

/** The HTTP side of `/v1/responses`. `path` is the URL's path without the `/v1` in front of it. */
export async function handleHttp(
  world: World,
  request: IncomingMessage,
  response: ServerResponse,
  path: string,
  keyTag: string,
  query = new URLSearchParams(),
): Promise<void> {
  try {
    const route = `${request.method ?? ''} ${path.replace(/^\/responses\/(?!(?:compact|input_tokens)$)[^/]+/, '/responses/:id')}`;
    const id = decodeURIComponent(path.split('/')[2] ?? '');
    if (route !== 'POST /responses') {
      const fault = world.faults.request(siteOf(world), 'call-fails');
      if (fault?.kind === 'call-fails') {
        world.journal.counters.faultsApplied += 1;
        if (fault.cut) return void response.destroy();
        throw new ApiError(fault);
      }
    }
    switch (route) {
      case 'POST /responses':
        return await create(world, request, response, keyTag);
      case 'POST /responses/compact':
        return sendJson(response, 200, compact(world, (await readBody(world, request)).body, keyTag));
      case 'POST /responses/input_tokens':
        return sendJson(response, 200, count(world, (await readBody(world, request)).body));
      case 'GET /responses/:id':
        if (query.get('stream') === 'true') return await replay(world, id, query, response);
        return sendText(response, 200, currentJson(world, id));
      case 'GET /responses/:id/input_items':
        return sendJson(response, 200, pageOf(stored(world, id), query));
      case 'DELETE /responses/:id':
        if (!world.store.delete(id)) throw responseNotFound(id);
        world.background.delete(id);
        return sendJson(response, 200, { id, object: 'response', deleted: true });
      case 'POST /responses/:id/cancel':
        return sendText(response, 200, cancelled(world, id));
      case 'GET /models':
        return sendJson(response, 200, {
          object: 'list',
          data: (world.settings.switches.models ?? []).map(modelObject),
        });
      default:
        throw new ApiError({ status: 404, message: `Invalid URL (${request.method ?? ''} /v1${path})` });
    }
  } catch (error) {
    sendError(response, toApiError(error), world.settings.switches);
  }
}

/** `isOk`: as some relays do, with status 200 where the error should have one of its own. */
export function sendError(response: ServerResponse, error: ApiError, switches: Switches, isOk = false): void {
  if (response.headersSent || response.destroyed) {
    response.destroy();
    return;
  }
  for (const [name, value] of Object.entries(error.headers ?? {})) response.setHeader(name, value);
  sendJson(
    response,
    isOk ? 200 : error.status,
    errorResponseBody(spelled(error, switches), switches.errorShape),
  );
}

async function create(
  world: World,
  request: IncomingMessage,
  response: ServerResponse,
  keyTag: string,
): Promise<void> {
  const { body, bytes } = await readBody(world, request);
  world.requestsSeen += 1;
  const entry = world.journal.open({
    connection: 0,
    transport: 'http',
    lane: '',
    bytesReceived: bytes,
    request: body,
    successorOf: null,
  });
  const site = siteOf(world);
  try {
    const run = begin(world, body, entry, site, keyTag);
    new HttpTurn(world, run, response, body.stream === true).start();
  } catch (error) {
    const apiError = toApiError(error);
    entry.status = 'error';
    entry.errorCode = apiError.code ?? apiError.type;
    world.journal.notify();
    const { switches } = world.settings;
    sendError(response, apiError, switches, body.stream === true && switches.refusalStatus === 'ok');
  }
}

function siteOf(world: World): FaultSite {
  const { requestsHttp } = world.journal.counters;
  return {
    transport: 'http',
    connection: 0,
    request: requestsHttp,
    totalRequest: world.requestsSeen,
    lane: '',
  };
}

function begin(world: World, body: JsonObject, entry: JournalEntry, site: FaultSite, keyTag: string): Run {
  const { unknownFields } = world.settings.switches;
  const parsed = parseCreate(body, { transport: 'http', unknownFields });
  const faults = world.faults.events(site);
  const early = faults.find((fault) => fault.kind === 'error' && fault.atEvent === 0);
  if (early?.kind === 'error') {
    world.journal.counters.faultsApplied += 1;
    throw new ApiError(early);
  }
  return startTurn(world, {
    request: parsed,
    parent: parsed.previousResponseId === null ? null : findParent(world, parsed.previousResponseId, site),
    lane: '',
    parentIsCached: false,
    prefixes: null,
    steered: [],
    entry,
    keyTag,
    faults,
  });
}

function findParent(world: World, id: string, site: FaultSite): ResponseRecord {
  const fault = world.faults.request(site, 'previous-response-not-found');
  if (fault?.kind === 'previous-response-not-found') {
    throw fault.codeless ? codelessPreviousResponseInvalid() : previousResponseNotFound(id);
  }
  const record = world.store.get(id);
  if (record === undefined || !record.isUsable) throw previousResponseNotFound(id);
  return record;
}

/** One response over HTTP: an event stream, or a single body at the end. */
class HttpTurn {
  readonly #world: World;
  readonly #run: Run;
  readonly #response: ServerResponse;
  readonly #isStream: boolean;
  readonly #pump: Pump;
  /** Of a background response, which goes on without its client. */
  readonly #log: BackgroundLog | undefined;
  #clientIsGone = false;
  /** Events of the current slice: one chunk instead of many. */
  #batch = '';
  #isOver = false;

  constructor(world: World, run: Run, response: ServerResponse, isStream: boolean) {
    this.#world = world;
    this.#run = run;
    this.#response = response;
    this.#isStream = isStream;
    this.#log = run.request.background ? new BackgroundLog(run, () => this.#cancel()) : undefined;
    this.#pump = new Pump(
      {
        write: (_run, json) => this.#write(json),
        pendingBytes: () => (this.#clientIsGone ? 0 : response.writableLength + this.#batch.length),
        cork: () => {},
        uncork: () => this.#flush(),
      },
      {
        settings: () => world.settings,
        strike: (_run, fault) => this.#strike(fault),
        ended: () => this.#finish(),
        crashed: (_run, error) => this.#fail(toApiError(error)),
      },
    );
  }

  start(): void {
    if (this.#log !== undefined) this.#world.background.add(this.#log);
    this.#response.setHeader('x-request-id', newId('req'));
    if (this.#isStream) {
      this.#response.writeHead(200, {
        'content-type': 'text/event-stream; charset=utf-8',
        'cache-control': 'no-cache',
      });
      this.#response.flushHeaders();
    }
    if (this.#log !== undefined && !this.#isStream) {
      sendText(this.#response, 200, responseJson(this.#run, 'queued', '[]', null));
    }
    this.#response.on('drain', () => this.#pump.drained());
    this.#response.on('close', () => this.#abort());
    this.#pump.start(
      this.#run,
      responseEvents(this.#run, () => this.#world.settings),
    );
  }

  #write(json: string, type = this.#run.eventType): void {
    this.#log?.add(type, json);
    if (!this.#isStream || this.#clientIsGone) return;
    this.#writeEvent(type, json);
  }

  #writeEvent(type: string, json: string): void {
    const { counters } = this.#world.journal;
    const text = `event: ${type}\ndata: ${json}\n\n`;
    counters.framesSent += 1;
    counters.bytesSent += text.length;
    this.#batch += text;
  }

  #flush(): void {
    if (this.#batch !== '' && !this.#response.writableEnded) this.#response.write(this.#batch);
    this.#batch = '';
  }

  #finish(): void {
    this.#isOver = true;
    const { settings } = this.#world;
    const { outcome } = this.#run;
    if (outcome?.status === 'failed' && settings.switches.failureTold === 'failed-first')
      this.#write(errorOf(this.#run, outcome, settings), 'error');
    if (settings.switches.doneAfterTerminal) this.#write(privateDone(this.#run));
    finishTurn(this.#world, this.#run);
    this.#log?.end();
    this.#flush();
    if (this.#clientIsGone || (this.#log !== undefined && !this.#isStream)) return;
    if (this.#isStream) this.#response.end();
    else sendText(this.#response, 200, this.#run.finalJson);
  }

  #abort(): void {
    if (this.#isOver) return;
    if (this.#log !== undefined) {
      this.#clientIsGone = true;
      this.#batch = '';
      return this.#pump.drained();
    }
    this.#isOver = true;
    this.#pump.pause();
    const goesOn = this.#world.settings.switches.onDisconnect === 'finish';
    if (goesOn && this.#pump.exhaust(this.#run)) finishTurn(this.#world, this.#run);
    else abandonTurn(this.#world, this.#run, 'aborted', null);
    this.#pump.stop();
  }

  #cancel(): void {
    if (this.#isOver) return;
    this.#pump.stop();
    this.#write(terminalEvent(this.#run, { status: 'cancelled' }, this.#world.settings));
    this.#finish();
  }

  #fail(error: ApiError): void {
    this.#isOver = true;
    this.#log?.end();
    abandonTurn(this.#world, this.#run, 'error', error.code);
    if (this.#isStream) {
      this.#writeEvent('error', streamError(error, this.#run.sequence++, this.#world.settings.switches));
      this.#flush();
      this.#response.end();
    } else {
      sendError(this.#response, error, this.#world.settings.switches);
    }
  }

  /** Faults as far as they mean something over HTTP; close codes do not. */
  #strike(fault: EventFault): boolean {
    this.#world.journal.counters.faultsApplied += 1;
    switch (fault.kind) {
      case 'cut':
      case 'close':
      case 'connection-limit':
        this.#flush();
        this.#response.socket?.end(() => this.#response.destroy());
        this.#abort();
        return this.#log !== undefined;
      case 'error':
        this.#fail(new ApiError(fault));
        return false;
      case 'failed': {
        const outcome = { status: 'failed', code: fault.code, message: fault.message } as const;
        this.#write(terminalEvent(this.#run, outcome, this.#world.settings));
        this.#finish();
        return false;
      }
      case 'malformed':
      case 'unknown-event':
      case 'giant':
        if (this.#isStream) this.#writeEvent('response.odd', oddFrame(fault, ''));
        return true;
      default:
        return true;
    }
  }
}

/** As OpenAI's types have it, flat, and as Open Responses does, with `error`; other shapes are those of the switch. */
function streamError(given: ApiError, sequenceNumber: number, switches: Switches): string {
  const error = spelled(given, switches);
  const { errorShape, errorHeaders } = switches;
  if (errorShape !== 'nested')
    return errorFrame(error, { shape: errorShape, headersPlace: errorHeaders, sequenceNumber });
  const { type, code, message, param } = error;
  const told = { type, code, message, param };
  return JSON.stringify({
    type: 'error',
    sequence_number: sequenceNumber,
    code,
    message,
    param,
    error: told,
  });
}

/** All user messages, then one compaction item: a window that starts a new chain. */
function compact(world: World, body: JsonObject, keyTag: string): JsonObject {
  checkRequest(body, 'Compact');
  const previousId = body.previous_response_id;
  const parent = typeof previousId === 'string' ? world.store.get(previousId) : undefined;
  if (typeof previousId === 'string' && parent === undefined) throw previousResponseNotFound(previousId);
  const input = inputItems(body.input);
  const base = parent?.context ?? EMPTY_CONTEXT;
  const context = extendOrRefuse(base, input);
  const users = input.filter((item) => item.role === 'user');
  const output = [
    ...users.map((item) => ({
      id: newId('msg'),
      type: 'message',
      status: 'completed',
      role: 'user',
      content: Array.isArray(item.content) ? item.content : [{ type: 'input_text', text: textOf(item) }],
    })),
    { id: newId('cmp'), type: 'compaction', encrypted_content: `gAAAAA${keyTag}${context.hash}` },
  ];
  return {
    id: newId('resp'),
    object: 'response.compaction',
    created_at: Math.floor(Date.now() / 1000),
    output,
    usage: {
      input_tokens: context.tokens,
      input_tokens_details: { cached_tokens: 0, cache_write_tokens: 0 },
      output_tokens: COMPACTION_TOKENS,
      output_tokens_details: { reasoning_tokens: 0 },
      total_tokens: context.tokens + COMPACTION_TOKENS,
    },
  };
}

function extendOrRefuse(base: typeof EMPTY_CONTEXT, input: readonly Item[]) {
  try {
    return extendContext(base, input);
  } catch (error) {
    if (error instanceof UnknownCall) throw missingToolCall(error.callId);
    throw error;
  }
}

function stored(world: World, id: string): ResponseRecord {
  const record = world.store.get(id);
  if (record === undefined) throw responseNotFound(id);
  return record;
}

/** A background response is known while it runs. */
function currentJson(world: World, id: string): string {
  const log = world.background.get(id);
  if (log === undefined || log.isOver) return stored(world, id).json;
  const { run } = log;
  return responseJson(run, 'in_progress', `[${run.outputJson.join(',')}]`, null);
}

async function replay(
  world: World,
  id: string,
  query: URLSearchParams,
  response: ServerResponse,
): Promise<void> {
  const log = world.background.get(id);
  if (log === undefined) {
    stored(world, id);
    throw invalidRequest(
      'Cannot stream a response that was not created with background and stream.',
      'stream',
    );
  }
  const after = Number(query.get('starting_after') ?? '-1');
  if (!Number.isInteger(after)) throw invalidRequest("Invalid 'starting_after'.", 'starting_after');
  const gone = new AbortController();
  response.on('close', () => gone.abort());
  response.writeHead(200, { 'content-type': 'text/event-stream; charset=utf-8' });
  response.flushHeaders();
  for await (const { type, json } of log.read(after, gone.signal)) {
    world.journal.counters.framesSent += 1;
    if (!response.write(`event: ${type}\ndata: ${json}\n\n`))
      await new Promise((resolve) => {
        response.once('drain', resolve);
        response.once('close', resolve);
      });
  }
  response.end();
}

function cancelled(world: World, id: string): string {
  const log = world.background.get(id);
  if (log === undefined) {
    stored(world, id);
    throw invalidRequest('Cannot cancel a synchronous response.', null);
  }
  log.cancel();
  return stored(world, id).json;
}

function count(world: World, body: JsonObject): JsonObject {
  checkRequest(body, 'Count');
  const previousId = body.previous_response_id;
  const parent = typeof previousId === 'string' ? world.store.get(previousId) : undefined;
  if (typeof previousId === 'string' && parent === undefined) throw previousResponseNotFound(previousId);
  const { tokens } = extendOrRefuse(parent?.context ?? EMPTY_CONTEXT, inputItems(body.input));
  return { object: 'response.input_tokens', input_tokens: tokens };
}

/** The newest first unless told otherwise, 20 a page. */
function pageOf({ id, input }: ResponseRecord, query: URLSearchParams): JsonObject {
  const limit = Number(query.get('limit') ?? '20');
  if (!(Number.isInteger(limit) && limit >= 1 && limit <= 100))
    throw invalidRequest("Invalid 'limit': expected an integer from 1 to 100.", 'limit');
  const order = query.get('order') ?? 'desc';
  if (order !== 'asc' && order !== 'desc') throw invalidRequest("Invalid 'order'.", 'order');
  const given = input.map((item, at): Item => ({ id: `msg_${at}_${id.slice(-24)}`, ...item }));
  const all = order === 'asc' ? given : given.reverse();
  const after = query.get('after');
  const from = after === null ? 0 : all.findIndex((item) => item.id === after) + 1;
  if (after !== null && from === 0) throw invalidRequest("Invalid 'after'.", 'after');
  return listOf(all.slice(from, from + limit), from + limit < all.length);
}

function listOf(data: readonly Item[], hasMore: boolean): JsonObject {
  return {
    object: 'list',
    data,
    first_id: data[0]?.id ?? null,
    last_id: data.at(-1)?.id ?? null,
    has_more: hasMore,
  };
}

function modelObject(id: string): JsonObject {
  return { id, object: 'model', created: 0, owned_by: 'simulator' };
}

async function readBody(
  world: World,
  request: IncomingMessage,
): Promise<{ body: JsonObject; bytes: number }> {
  const chunks: Buffer[] = [];
  let bytes = 0;
  for await (const chunk of request) {
    if (!Buffer.isBuffer(chunk)) continue;
    bytes += chunk.length;
    if (bytes > MAX_BODY_BYTES)
      throw new ApiError({ status: 413, message: 'The request body is too large.' });
    chunks.push(chunk);
  }
  world.journal.counters.bytesReceived += bytes;
  let body: unknown;
  try {
    body = JSON.parse(Buffer.concat(chunks).toString('utf8'));
  } catch {
    throw invalidRequest('We could not parse the JSON body of your request.', null, 'invalid_json');
  }
  if (!isObject(body)) throw invalidRequest('The request body must be a JSON object.', null, 'invalid_type');
  return { body, bytes };
}

function sendJson(response: ServerResponse, status: number, value: unknown): void {
  sendText(response, status, JSON.stringify(value));
}

function sendText(response: ServerResponse, status: number, json: string): void {
  response.writeHead(status, { 'content-type': 'application/json' });
  response.end(json);
}

/** HTTP bodies may be larger than WebSocket messages; no limit is published. */
const MAX_BODY_BYTES = 512 * 1024 * 1024;
/** What the made-up summary "costs". */
const COMPACTION_TOKENS = 64;
