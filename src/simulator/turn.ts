import { createHash, randomUUID } from 'node:crypto';
import type { BackgroundLogs } from './background.ts';
import { type Context, EMPTY_CONTEXT, extendContext, type Item, UnknownCall } from './context.ts';
import {
  ApiError,
  invalidEncryptedContent,
  itemNotFound,
  missingToolCall,
  missingToolOutput,
  modelNotFound,
} from './errors.ts';
import type { EventFault, FaultPlan } from './faults.ts';
import type { Journal, JournalEntry } from './journal.ts';
import { isObject } from './json.ts';
import { type Plan, planResponse } from './model.ts';
import { checkHistory } from './odd.ts';
import type { Settings } from './options.ts';
import type { CreateRequest } from './request.ts';
import { settingsJson } from './response-object.ts';
import { globMatches } from './script.ts';
import type { ResponseRecord, ResponseStore } from './store.ts';

/** What all connections of a simulator share. `settings` is replaced as a whole by `configure()`. */
export interface World {
  settings: Settings;
  readonly store: ResponseStore;
  readonly journal: Journal;
  readonly faults: FaultPlan;
  readonly background: BackgroundLogs;
  requestsSeen: number;
}

/** One steer that the server has taken ownership of. */
export interface Steer {
  readonly id: string;
  readonly input: readonly Item[];
  /** As the client sent it, to be handed back when the successor cannot start. */
  readonly rawInput: unknown;
}

export type Outcome =
  | { status: 'completed' }
  | { status: 'incomplete'; reason: string }
  | { status: 'cancelled' }
  | { status: 'failed'; code: string; message: string };

/** One response being generated. Written by the event generator (engine.ts) and by the connection that owns it. */
export interface Run {
  readonly id: string;
  /** What events before the terminal call it. */
  readonly earlyId: string;
  /** Empty for the default lane. */
  readonly lane: string;
  readonly sharesOutputIndex: boolean;
  readonly hasEmptyItemIds: boolean;
  /** `stream_id` of its events; undefined: none. */
  readonly streamId: string | undefined;
  readonly request: CreateRequest;
  readonly input: readonly Item[];
  readonly parentId: string | null;
  /** What the model sees: the parent's context and the input. */
  readonly context: Context;
  readonly cachedTokens: number;
  plan: Plan;
  readonly sparse: boolean;
  readonly createdAt: number;
  readonly entry: JournalEntry;
  readonly keyTag: string;
  /** Undefined: long, and written again for each event that echoes it. */
  readonly settingsJson: string | undefined;
  readonly faults: EventFault[];

  sequence: number;
  /** Events produced so far, and the type of the last one. */
  events: number;
  eventType: string;
  /** Wait asked for after the last event, for pacing. */
  waitMs: number;
  wasDelta: boolean;
  outputTokens: number;
  reasoningTokens: number;
  readonly output: Item[];
  /** Outputs and what was injected between them, as the conversation goes on with them. */
  readonly told: Item[];
  readonly outputJson: string[];
  /** `outputTokens` when each item was done. */
  readonly itemTokens: number[];
  madeClientCall: boolean;
  readonly steers: Steer[];
  outcome: Outcome | null;
  /** The final Response object, once there is an outcome. */
  finalJson: string;
}

/** The request's own texts are kept as well: twice megabytes, for each response that runs. */
const MAX_KEPT_ECHO_CHARS = 256 * 1024;

export interface TurnStart {
  request: CreateRequest;
  lane: string;
  parent: ResponseRecord | null;
  /** The parent sits in this connection's cache, so its tokens need not be read again. */
  parentIsCached: boolean;
  /** Token counts of contexts that this connection has seen, by hash; null where nothing is cached. */
  prefixes: ReadonlyMap<string, number> | null;
  /** Steered messages that go before the input. */
  steered: readonly Item[];
  entry: JournalEntry;
  keyTag: string;
  faults: EventFault[];
}

/**
 * Checks a create against its conversation and plans the response.
 * Throws `ApiError`: then nothing was generated and no response id exists.
 */
export function startTurn(world: World, start: TurnStart): Run {
  const { request, parent, entry } = start;
  const { switches } = world.settings;
  if (switches.models !== undefined && !switches.models.some((glob) => globMatches(glob, request.model))) {
    throw modelNotFound(request.model);
  }
  checkHistory(request.input, switches);
  const input = resolveItems(world, [...start.steered, ...request.input], start.keyTag);
  const base = parent?.context ?? conversationContext(world.store, request) ?? EMPTY_CONTEXT;
  let cachedTokens = start.parentIsCached ? base.tokens : 0;
  const context = extend(base, input, (prefix) => {
    if (parent === null && start.prefixes?.has(prefix.hash) === true) cachedTokens = prefix.tokens;
  });
  const open = context.openCalls.keys().next().value;
  if (open !== undefined) throw missingToolOutput(open);
  const plan: Plan = request.generate
    ? planResponse(request, context, world.settings.script)
    : { items: [], end: { status: 'completed' } };
  if (switches.plainReasoning && request.generate && plan.items.every(({ type }) => type !== 'reasoning'))
    plan.items = [{ type: 'reasoning', summary: 'Thinking about the request.' }, ...plan.items];
  if (plan.end.status === 'error') {
    throw new ApiError({ status: plan.end.httpStatus, code: plan.end.code, message: plan.end.message });
  }
  const echoed = settingsJson(request, parent?.id ?? null);
  const id = newId('resp');
  Object.assign(entry, {
    status: 'running',
    responseId: id,
    previousResponseId: parent?.id ?? null,
    warmUp: !request.generate,
    contextHash: context.hash,
    contextItems: context.items,
    reasoningItems: context.reasoningItems,
    inputTokens: context.tokens,
    cachedTokens,
  } satisfies Partial<JournalEntry>);
  return {
    id,
    earlyId: switches.idInTerminal ? newId('resp') : id,
    lane: start.lane,
    sharesOutputIndex: switches.sharedOutputIndex,
    hasEmptyItemIds: switches.emptyItemIds,
    streamId: start.lane === '' || !switches.echoLanes ? undefined : start.lane,
    request,
    input,
    parentId: parent?.id ?? null,
    context,
    cachedTokens,
    plan,
    sparse: plan.sparse === true || switches.sparse,
    createdAt: Math.floor(Date.now() / 1000),
    entry,
    keyTag: start.keyTag,
    settingsJson: echoed.length > MAX_KEPT_ECHO_CHARS ? undefined : echoed,
    faults: start.faults,
    sequence: 0,
    events: 0,
    eventType: '',
    waitMs: 0,
    wasDelta: false,
    outputTokens: 0,
    reasoningTokens: 0,
    output: [],
    told: [],
    outputJson: [],
    itemTokens: [],
    madeClientCall: false,
    steers: [],
    outcome: null,
    finalJson: '',
  };
}

/** Turns a finished run into the record that later turns continue from, and stores it when it asked for that. */
export function finishTurn(world: World, run: Run): ResponseRecord {
  const { entry, outcome } = run;
  if (outcome === null) throw new Error('finishTurn needs an outcome');
  const isUsable = outcome.status !== 'failed' && outcome.status !== 'cancelled';
  const record: ResponseRecord = {
    id: run.id,
    stored: run.request.store,
    isUsable,
    context: isUsable ? extendContext(run.context, run.told) : run.context,
    // Only a stored response is ever read again; a cached one needs no more than its context.
    input: run.request.store ? run.input : [],
    output: run.request.store ? run.output : [],
    json: run.request.store ? run.finalJson : '',
  };
  if (record.stored) world.store.put(record);
  if (isUsable && run.request.conversationId !== null) {
    world.store.setConversation(run.request.conversationId, record.context);
  }
  entry.status = outcome.status;
  entry.errorCode = outcome.status === 'failed' ? outcome.code : null;
  entry.eventsSent = run.events;
  world.journal.settle(entry);
  return record;
}

/** Marks a run whose client went away, or that an error frame ended. */
export function abandonTurn(
  world: World,
  run: Run,
  status: 'aborted' | 'error',
  code: JournalEntry['errorCode'],
): void {
  run.entry.status = status;
  run.entry.errorCode = code;
  run.entry.eventsSent = run.events;
  world.journal.settle(run.entry);
}

export function newId(prefix: string): string {
  return `${prefix}_${randomUUID().replaceAll('-', '')}`;
}

/** Ties encrypted reasoning to the credential, so that another key's items are refused as the live API does. */
export function keyTagOf(authorization: string | undefined): string {
  return createHash('sha256')
    .update(authorization ?? '')
    .digest('hex')
    .slice(0, 12);
}

export function encryptedContent(run: Run, itemId: string, at: 'done' | 'terminal'): string {
  return `${ENCRYPTED_PREFIX}${run.keyTag}${itemId}${run.context.hash}${at === 'done' ? 'A' : 'B'}`;
}

const ENCRYPTED_PREFIX = 'gAAAAA';

function extend(base: Context, input: readonly Item[], onPrefix: (context: Context) => void): Context {
  try {
    return extendContext(base, input, onPrefix);
  } catch (error) {
    if (error instanceof UnknownCall) throw missingToolCall(error.callId);
    throw error;
  }
}

function conversationContext(store: ResponseStore, request: CreateRequest): Context | undefined {
  return request.conversationId === null ? undefined : store.conversation(request.conversationId);
}

function resolveItems(world: World, items: readonly Item[], keyTag: string): Item[] {
  const rule = world.settings.switches.itemIds;
  return items.map((item) => {
    const { id } = item;
    if (item.type === 'item_reference' || (item.type === undefined && Object.keys(item).join() === 'id')) {
      const found = world.store.item(String(id));
      if (found === undefined) throw itemNotFound(String(id));
      return found;
    }
    const encrypted = item.encrypted_content;
    if (item.type === 'reasoning' && typeof encrypted === 'string') {
      if (!encrypted.startsWith(ENCRYPTED_PREFIX + keyTag)) throw invalidEncryptedContent();
    } else if (typeof id === 'string' && rule !== 'ignore' && (rule === 'all' || item.type === 'reasoning')) {
      if (world.store.item(id) === undefined) throw itemNotFound(id);
    }
    return isObject(item) && item.type === undefined ? { ...item, type: 'message' } : item;
  });
}
