import { estimateTokens, extendContext, type Item } from './context.ts';
import { ApiError, errorFrame } from './errors.ts';
import type { JsonObject } from './json.ts';
import { type Compaction, planResponse } from './model.ts';
import { obfuscation } from './obfuscation.ts';
import { warningFrame } from './odd.ts';
import type { Settings, Switches } from './options.ts';
import { responseJson, usageJson } from './response-object.ts';
import type { PlannedItem } from './script.ts';
import { encryptedContent, newId, type Outcome, type Run } from './turn.ts';

/**
 * The events of one response, in the order of upstream.md#order-of-events, each as ready JSON. The generator is pulled one event at
 * a time, so an output of any length needs no more memory than its own text. `run.outcome` is set just before the
 * terminal event is yielded; `run.waitMs` and `run.wasDelta` tell the puller how to pace.
 */
export function* responseEvents(run: Run, settings: () => Settings): Generator<string, void> {
  const { timing, switches } = settings();
  if (switches.lifeCycles > 1) yield* relayedToolEvents(run);
  const head = (status: string): string => responseJson(run, status, '[]', null, 'null', run.earlyId);
  const first = run.request.background ? 'queued' : 'in_progress';
  yield event(run, 'response.created', `"response":${head(first)}`);
  if (run.request.background) yield event(run, 'response.queued', `"response":${head('queued')}`);
  const uncached = Math.max(0, run.context.tokens - run.cachedTokens);
  const readMs = (uncached * timing.costPerInputTokenUs) / 1000;
  if (!run.request.generate) {
    if (readMs > 0) run.waitMs = readMs;
  } else {
    run.waitMs = readMs + (run.plan.timeToFirstTokenMs ?? timing.timeToFirstTokenMs);
    yield event(run, 'response.in_progress', `"response":${head('in_progress')}`);
  }
  if (switches.warnings) {
    run.eventType = 'error';
    yield warningFrame(run.streamId);
  }
  const outcome = (yield* outputEvents(run, settings)) ?? endOf(run);
  if (outcome === 'hang') {
    run.waitMs = Number.POSITIVE_INFINITY;
    yield '';
    return;
  }
  if (outcome.status === 'failed' && switches.failureTold === 'error-first')
    yield errorOf(run, outcome, settings());
  yield terminalEvent(run, outcome, settings());
}

/** A failure as an error frame beside its terminal. */
export function errorOf(
  run: Run,
  outcome: Extract<Outcome, { status: 'failed' }>,
  { switches }: Settings,
): string {
  run.eventType = 'error';
  return errorFrame(new ApiError({ status: 500, code: outcome.code, message: outcome.message }), {
    shape: switches.errorShape,
    headersPlace: switches.errorHeaders,
    streamId: run.streamId,
    sequenceNumber: run.sequence++,
  });
}

/** A whole response of its own, in which a relay has run a tool, before the one that answers the create. */
function* relayedToolEvents(run: Run): Generator<string> {
  const id = newId('resp');
  const call = {
    id: newId('ws'),
    type: 'web_search_call',
    status: 'completed',
    action: { type: 'search', query: 'weather' },
  };
  const json = JSON.stringify(call);
  for (const [type, status] of [
    ['response.created', 'in_progress'],
    ['response.in_progress', 'in_progress'],
  ] as const)
    yield event(run, type, `"response":${responseJson(run, status, '[]', null, 'null', id)}`);
  yield event(run, 'response.output_item.done', `"output_index":0,"item":${json}`);
  const done = responseJson(run, 'completed', `[${json}]`, { status: 'completed' }, 'null', id);
  yield event(run, 'response.completed', `"response":${done}`);
  run.sequence = 0;
}

/** The terminal event for an outcome; also used when a fault ends a response early. */
export function terminalEvent(run: Run, outcome: Outcome, settings: Settings): string {
  const usage = usageJson(run, settings.switches);
  const { terminals } = settings.switches;
  const told = terminals === 'cancelled' || terminals === 'canceled' ? CANCELLED : outcome;
  const output = `[${run.outputJson.join(',')}]`;
  run.finalJson = responseJson(run, told.status, output, told, usage);
  run.outcome = told;
  const sent = run.sparse ? responseJson(run, told.status, '[]', told, usage) : run.finalJson;
  return event(run, terminalType(told, terminals), `"response":${sent}`);
}

const CANCELLED: Outcome = { status: 'cancelled' };

function terminalType({ status }: Outcome, terminals: Switches['terminals']): string {
  if (terminals === 'done') return 'response.done';
  return `response.${terminals === 'openai' ? status : terminals}`;
}

/** What some relays send behind the terminal. */
export function privateDone(run: Run): string {
  return event(
    run,
    'response.done',
    `"response":{"id":"${run.id}","status":"${run.outcome?.status ?? 'completed'}"}`,
  );
}

/** All output of a response; of one with several agents also what comes after its calls were answered. */
function* outputEvents(run: Run, settings: () => Settings): Generator<string, Outcome | undefined> {
  for (;;) {
    const cut = yield* plannedEvents(run, settings);
    if (cut !== undefined || !run.request.multiAgent || !run.madeClientCall) return cut;
    if (!(yield* waitForOutputs(run, settings()))) return undefined;
    run.madeClientCall = false;
    const context = extendContext(run.context, run.told);
    run.plan = planResponse(run.request, context, settings().script);
  }
}

/** Waits until all calls have their outputs, injected one by one or together. False: they did not come in time. */
function* waitForOutputs(run: Run, { switches }: Settings): Generator<string, boolean> {
  const untilMs = performance.now() + switches.injectWaitMs;
  while (extendContext(run.context, run.told).openCalls.size > 0) {
    run.waitMs = untilMs - performance.now();
    if (run.waitMs <= 0) return false;
    yield '';
  }
  return true;
}

function* plannedEvents(run: Run, settings: () => Settings): Generator<string, Outcome | undefined> {
  const { items, end } = run.plan;
  for (const [position, item] of items.entries()) {
    const isLast = position === items.length - 1;
    const cut = yield* itemEvents(run, item, isLast && end.status !== 'completed', settings);
    if (cut !== undefined) return cut;
    if (!isLast && run.steers.length > 0 && !run.madeClientCall) return STEERED;
  }
  return undefined;
}

function endOf(run: Run): Outcome | 'hang' {
  const { end } = run.plan;
  switch (end.status) {
    case 'hang':
      return 'hang';
    case 'incomplete':
      return { status: 'incomplete', reason: end.reason };
    case 'failed':
      return { status: 'failed', code: end.code, message: end.message };
    default:
      return { status: 'completed' };
  }
}

const STEERED: Outcome = { status: 'incomplete', reason: 'steered' };

function* itemEvents(
  run: Run,
  item: PlannedItem | Compaction,
  stopsHalfway: boolean,
  settings: () => Settings,
): Generator<string, Outcome | undefined> {
  switch (item.type) {
    case 'message':
    case 'refusal':
      return yield* messageEvents(run, item, stopsHalfway, settings);
    case 'reasoning':
      yield* reasoningEvents(run, item, settings().switches);
      return undefined;
    case 'function_call':
    case 'custom_tool_call':
      return yield* callEvents(run, item);
    case 'image':
      yield* imageEvents(run, item);
      return undefined;
    case 'item':
      yield* plainItemEvents(run, item.item);
      return undefined;
    case 'compaction':
      yield* compactionEvents(run);
      return undefined;
    case 'event': {
      const { type, ...rest } = item.event;
      const fields = JSON.stringify(rest).slice(1, -1);
      yield event(run, type, fields);
      return undefined;
    }
  }
}

function* messageEvents(
  run: Run,
  item: Extract<PlannedItem, { type: 'message' | 'refusal' }>,
  stopsHalfway: boolean,
  settings: () => Settings,
): Generator<string, Outcome | undefined> {
  const isText = item.type === 'message';
  const id = itemId(run, 'msg');
  const index = outputIndex(run);
  const base: Item = { id, type: 'message', role: 'assistant' };
  if (isText && item.phase !== undefined) base.phase = item.phase;
  const partOf = (text: string): JsonObject =>
    isText
      ? { type: 'output_text', text, annotations: [], logprobs: [] }
      : { type: 'refusal', refusal: text };
  const at = `"item_id":"${id}","output_index":${index},"content_index":0`;
  const deltaType = isText ? 'response.output_text.delta' : 'response.refusal.delta';
  const logprobs = isText ? ',"logprobs":[]' : '';
  if (!run.sparse) {
    yield event(
      run,
      'response.output_item.added',
      itemField(index, { ...base, status: 'in_progress', content: [] }),
    );
    yield event(run, 'response.content_part.added', `${at},"part":${JSON.stringify(partOf(''))}`);
  }
  const { chunks, count } = chunksOf(item);
  const stopAfter = stopsHalfway ? Math.ceil(count / 2) : Number.POSITIVE_INFINITY;
  const deltaHead = `{"type":"${deltaType}"${laneField(run)},${at}${logprobs},"sequence_number":`;
  const { maxOutputTokens } = run.request;
  let text = '';
  let sent = 0;
  let cut: Outcome | undefined;
  for (const chunk of chunks) {
    if (sent >= stopAfter) break;
    if (
      sent > 0 &&
      run.steers.length > 0 &&
      !run.madeClientCall &&
      settings().switches.steerBoundary === 'delta'
    ) {
      cut = STEERED;
      break;
    }
    if (maxOutputTokens !== null && run.outputTokens >= maxOutputTokens) {
      cut = { status: 'incomplete', reason: 'max_output_tokens' };
      break;
    }
    text += chunk;
    sent += 1;
    run.outputTokens += 1;
    run.wasDelta = true;
    run.eventType = deltaType;
    yield `${deltaHead}${run.sequence++},"delta":${JSON.stringify(chunk)}${paddingOf(run)}}`;
  }
  run.entry.finalText += text;
  // A response that fails or hangs does not close its items.
  if (stopsHalfway && run.plan.end.status !== 'incomplete' && cut === undefined) return undefined;
  const isWhole = cut === undefined ? !stopsHalfway : cut === STEERED;
  const textJson = JSON.stringify(text);
  const partJson = isText
    ? `{"type":"output_text","text":${textJson},"annotations":[],"logprobs":[]}`
    : `{"type":"refusal","refusal":${textJson}}`;
  if (!run.sparse) {
    yield event(
      run,
      isText ? 'response.output_text.done' : 'response.refusal.done',
      isText ? `${at},"text":${textJson}${logprobs}` : `${at},"refusal":${textJson}`,
    );
    yield event(run, 'response.content_part.done', `${at},"part":${partJson}`);
  }
  const done: Item = { ...base, status: isWhole ? 'completed' : 'incomplete' };
  const json = `${JSON.stringify(done).slice(0, -1)},"content":[${partJson}]}`;
  yield finishItem(run, { ...done, content: [partOf(text)] }, json);
  return cut;
}

function* reasoningEvents(
  run: Run,
  item: Extract<PlannedItem, { type: 'reasoning' }>,
  { plainReasoning }: Switches,
): Generator<string> {
  const id = itemId(run, 'rs');
  const index = outputIndex(run);
  const at = `"item_id":"${id}","output_index":${index}`;
  if (plainReasoning) {
    const text = item.text ?? item.summary;
    const plain: Item = { id, type: 'reasoning', summary: [], content: [{ type: 'reasoning_text', text }] };
    yield event(run, 'response.output_item.added', itemField(index, { ...plain, content: [] }));
    for (const word of words(text))
      yield delta(run, 'response.reasoning_text.delta', `${at},"content_index":0`, word);
    yield event(
      run,
      'response.reasoning_text.done',
      `${at},"content_index":0,"text":${JSON.stringify(text)}`,
    );
    yield finishItem(run, plain);
    return;
  }
  const done: Item = { id, type: 'reasoning', summary: [{ type: 'summary_text', text: item.summary }] };
  if (item.text !== undefined) done.content = [{ type: 'reasoning_text', text: item.text }];
  if (run.request.includeEncryptedReasoning) done.encrypted_content = encryptedContent(run, id, 'done');
  const part = (text: string): string => `"part":{"type":"summary_text","text":${JSON.stringify(text)}}`;
  if (!run.sparse) {
    yield event(run, 'response.output_item.added', itemField(index, { id, type: 'reasoning', summary: [] }));
    yield event(run, 'response.reasoning_summary_part.added', `${at},"summary_index":0,${part('')}`);
  }
  for (const word of words(item.summary)) {
    run.reasoningTokens += 1;
    yield delta(run, 'response.reasoning_summary_text.delta', `${at},"summary_index":0`, word);
  }
  if (!run.sparse) {
    const text = JSON.stringify(item.summary);
    yield event(run, 'response.reasoning_summary_text.done', `${at},"summary_index":0,"text":${text}`);
    yield event(run, 'response.reasoning_summary_part.done', `${at},"summary_index":0,${part(item.summary)}`);
  }
  if (item.text !== undefined) {
    for (const word of words(item.text)) {
      run.reasoningTokens += 1;
      yield delta(run, 'response.reasoning_text.delta', `${at},"content_index":0`, word);
    }
    if (!run.sparse) {
      yield event(
        run,
        'response.reasoning_text.done',
        `${at},"content_index":0,"text":${JSON.stringify(item.text)}`,
      );
    }
  }
  yield finishItem(run, done);
  // The terminal has it encrypted anew (upstream.md#order-of-events).
  if (run.request.includeEncryptedReasoning)
    run.outputJson[run.outputJson.length - 1] = JSON.stringify({
      ...done,
      encrypted_content: encryptedContent(run, id, 'terminal'),
    });
}

function* callEvents(
  run: Run,
  item: Extract<PlannedItem, { type: 'function_call' | 'custom_tool_call' }>,
): Generator<string, Outcome | undefined> {
  const isFunction = item.type === 'function_call';
  const id = itemId(run, isFunction ? 'fc' : 'ctc');
  const callId = (isFunction ? item.callId : undefined) ?? newId('call');
  const index = outputIndex(run);
  const at = `"item_id":"${id}","output_index":${index}`;
  const field = isFunction ? 'arguments' : 'input';
  const stem = isFunction ? 'response.function_call_arguments' : 'response.custom_tool_call_input';
  const text = isFunction
    ? typeof item.arguments === 'string'
      ? item.arguments
      : JSON.stringify(item.arguments)
    : item.input;
  const made = (value: string, status: string): Item => ({
    id,
    type: item.type,
    status,
    [field]: value,
    call_id: callId,
    name: item.name,
  });
  if (!run.sparse) yield event(run, 'response.output_item.added', itemField(index, made('', 'in_progress')));
  const { maxOutputTokens } = run.request;
  for (let from = 0; from < text.length; from += ARGUMENT_CHUNK) {
    if (maxOutputTokens !== null && run.outputTokens >= maxOutputTokens) {
      yield finishItem(run, made(text.slice(0, from), 'incomplete'));
      return { status: 'incomplete', reason: 'max_output_tokens' };
    }
    yield delta(run, `${stem}.delta`, at, text.slice(from, from + ARGUMENT_CHUNK));
  }
  run.madeClientCall = true;
  if (!run.sparse) {
    const name = isFunction ? `"name":${JSON.stringify(item.name)},` : '';
    yield event(run, `${stem}.done`, `${at},${name}"${field}":${JSON.stringify(text)}`);
  }
  yield finishItem(run, made(text, 'completed'));
  return undefined;
}

function* imageEvents(run: Run, item: Extract<PlannedItem, { type: 'image' }>): Generator<string> {
  const id = itemId(run, 'ig');
  const index = outputIndex(run);
  const at = `"item_id":"${id}","output_index":${index}`;
  const result = Buffer.alloc(item.bytes, PIXELS).toString('base64');
  const made = (status: string, value: string | null): Item => ({
    id,
    type: 'image_generation_call',
    status,
    result: value,
  });
  if (!run.sparse) {
    yield event(run, 'response.output_item.added', itemField(index, made('in_progress', null)));
    yield event(run, 'response.image_generation_call.in_progress', at);
    yield event(run, 'response.image_generation_call.generating', at);
  }
  for (let n = 0; n < item.partials; n += 1) {
    const partial = result.slice(0, Math.ceil((result.length * (n + 1)) / (item.partials + 1) / 4) * 4);
    yield event(
      run,
      'response.image_generation_call.partial_image',
      `${at},"partial_image_index":${n},"output_format":"png","partial_image_b64":"${partial}"`,
    );
  }
  run.outputTokens += estimateTokens(result) >> 4;
  if (!run.sparse) yield event(run, 'response.image_generation_call.completed', at);
  yield finishItem(run, made('completed', result));
}

function* compactionEvents(run: Run): Generator<string> {
  const id = itemId(run, 'cmp');
  const index = outputIndex(run);
  const done: Item = { id, type: 'compaction', encrypted_content: encryptedContent(run, id, 'done') };
  if (!run.sparse) {
    yield event(run, 'response.output_item.added', itemField(index, { ...done, encrypted_content: '' }));
    yield event(run, 'response.compaction.compacting', `"item_id":"${id}","output_index":${index}`);
  }
  yield finishItem(run, done);
}

function* plainItemEvents(run: Run, given: JsonObject): Generator<string> {
  const item: Item = { id: itemId(run, 'item'), ...given };
  if (!run.sparse) {
    const started = 'status' in item ? { ...item, status: 'in_progress' } : item;
    yield event(run, 'response.output_item.added', itemField(outputIndex(run), started));
  }
  if (CLIENT_CALLS.has(String(item.type))) run.madeClientCall = true;
  yield finishItem(run, item);
}

const CLIENT_CALLS: ReadonlySet<string> = new Set([
  'function_call',
  'custom_tool_call',
  'computer_call',
  'shell_call',
  'local_shell_call',
  'apply_patch_call',
  'mcp_approval_request',
]);

function finishItem(run: Run, item: Item, json = JSON.stringify(item)): string {
  const frame = event(run, 'response.output_item.done', `"output_index":${outputIndex(run)},"item":${json}`);
  run.output.push(item);
  run.told.push(item);
  run.outputJson.push(json);
  run.itemTokens.push(run.outputTokens);
  return frame;
}

/** `fields` is the inside of a JSON object, without braces; it may be empty. */
export function event(run: Run, type: string, fields: string): string {
  run.eventType = type;
  run.wasDelta = false;
  const rest = fields === '' ? '' : `,${fields}`;
  return `{"type":${JSON.stringify(type)},"sequence_number":${run.sequence++}${laneField(run)}${rest}}`;
}

function delta(run: Run, type: string, at: string, text: string): string {
  run.outputTokens += 1;
  const frame = event(run, type, `${at},"delta":${JSON.stringify(text)}${paddingOf(run)}`);
  run.wasDelta = true;
  return frame;
}

function paddingOf(run: Run): string {
  return run.request.obfuscate ? `,"obfuscation":"${obfuscation()}"` : '';
}

function laneField({ streamId }: Run): string {
  // Lane names are checked against a pattern that needs no escaping.
  return streamId === undefined ? '' : `,"stream_id":"${streamId}"`;
}

function outputIndex(run: Run): number {
  return run.sharesOutputIndex ? 0 : run.output.length;
}

function itemId(run: Run, prefix: string): string {
  return run.hasEmptyItemIds ? '' : newId(prefix);
}

function itemField(index: number, item: Item): string {
  return `"output_index":${index},"item":${JSON.stringify(item)}`;
}

function chunksOf(item: Extract<PlannedItem, { type: 'message' | 'refusal' }>): {
  chunks: Iterable<string>;
  count: number;
} {
  if (item.type === 'message' && item.deltas !== undefined) {
    return { chunks: generatedWords(item.deltas), count: item.deltas };
  }
  const chunks =
    item.type === 'message' && item.bytes !== undefined ? ['x'.repeat(item.bytes)] : words(item.text);
  return { chunks, count: chunks.length };
}

function* generatedWords(count: number): Generator<string> {
  for (let n = 0; n < count; n += 1) yield WORDS[n % WORDS.length] ?? '';
}

/** Words with the blanks that follow them, so that the pieces add up to the text. */
function words(text: string): string[] {
  return text.match(/\S+\s*|\s+/g) ?? [];
}

/** Small enough that ordinary arguments come in several deltas. */
const ARGUMENT_CHUNK = 24;
/** Not an image, but bytes that do not compress to nothing. */
const PIXELS = Buffer.from('89504e470d0a1a0a5f3c0e77d1b2a4', 'hex');
const WORDS = 'the gateway streams each word of this long answer as one delta of its own '.match(/\S+ /g) ?? [
  'word ',
];
