import { asObject, type Json, own, textOf } from '../dialect/json.ts';
import { elementsOf, membersOf } from '../ground/json-members.ts';
import type { NewNode } from './transcript.ts';
import type { UpstreamFrame } from './types.ts';

/** A response of the upstream that has begun and has no terminal yet. */
export interface OpenResponse {
  readonly id: string;
  readonly parentId: string | undefined;
  /** What extends the parent: raw JSON of each item. */
  readonly input: readonly string[];
  readonly stored: boolean;
  /** In the order of `output_index`; those of one index in the order in which they were done. */
  readonly output: DoneItem[];
  /** Raw JSON of tool outputs that it took while it ran. */
  readonly injected: string[];
  outputBytes: number;
  /** The id that it had before `response.created` came once more with another, and what had been said until then. */
  readonly before?: { readonly id: string; readonly outputEvents: number };
}

export interface DoneItem {
  readonly index: number;
  /** Tells an item that is done twice from another under the same index. */
  readonly identity: string;
  readonly id: string | undefined;
  readonly isCompaction: boolean;
  /** Its bytes, as they came. */
  readonly text: string;
}

/** Beyond it an index is nonsense. */
const MAX_OUTPUT_ITEMS = 4_096;

/** Keeps the item of a `response.output_item.done`; nothing is kept any more of a response over the limit. */
export function keepItem(response: OpenResponse, frame: UpstreamFrame, maxBytes: number): void {
  const json = frame.json();
  const item = asObject(own(json, 'item'));
  if (item === undefined) return;
  const text = bytesOf(item, frame);
  response.outputBytes += text.length;
  // So many items are no answer, and would make each further one slower.
  if (response.output.length >= MAX_OUTPUT_ITEMS) response.outputBytes = Number.POSITIVE_INFINITY;
  if (response.outputBytes > maxBytes) {
    response.output.length = 0;
    return;
  }
  place(response.output, {
    index: indexOf(own(json, 'output_index'), response.output),
    identity: ['type', 'id', 'call_id'].map((name) => textOf(own(item, name)) ?? '').join(' '),
    id: textOf(own(item, 'id')),
    isCompaction: own(item, 'type') === 'compaction',
    text,
  });
}

/** What the response said: its items as they were done, or the terminal's own list where that says more (upstream.md#response-object). */
export function outputOf(response: OpenResponse, terminal: UpstreamFrame): Said {
  const said = saidBy(response, terminal);
  return response.injected.length === 0 ? said : withInjected(said, response.injected);
}

type Said = Pick<NewNode, 'output' | 'itemIds' | 'compactionIndex'>;

/** Outputs that the response took while it ran stand behind their calls, unless the response tells them itself. */
function withInjected(said: Said, injected: readonly string[]): Said {
  const items = said.output.map((text, at) => ({ text, id: said.itemIds?.[at], json: parsed(text) }));
  const compaction = said.compactionIndex === undefined ? undefined : items[said.compactionIndex];
  for (const text of injected) {
    const json = parsed(text);
    const callId = own(json, 'call_id');
    const sameCall = (item: { json: Json | undefined }) => own(item.json, 'call_id') === callId;
    const isOutput = ({ json: told }: { json: Json | undefined }) => own(told, 'type') === own(json, 'type');
    if (callId !== undefined && items.some((item) => sameCall(item) && isOutput(item))) continue;
    const call = callId === undefined ? -1 : items.findLastIndex(sameCall);
    items.splice(call < 0 ? items.length : call + 1, 0, { text, id: undefined, json });
  }
  return {
    output: items.map(({ text }) => text),
    itemIds: items.map(({ id }) => id),
    compactionIndex: compaction === undefined ? undefined : items.indexOf(compaction),
  };
}

function parsed(text: string): Json | undefined {
  return asObject(JSON.parse(text) as unknown);
}

function saidBy({ output, before }: OpenResponse, terminal: UpstreamFrame): Said {
  const listed = own(asObject(own(terminal.brief?.() ?? terminal.json(), 'response')), 'output');
  // Of two responses for one create only the terminal knows which items are its own.
  const saysMore = (length: number) => (before === undefined ? length > output.length : length > 0);
  if (Array.isArray(listed) && saysMore(listed.length)) {
    const at = listed.findLastIndex((item: unknown) => own(asObject(item), 'type') === 'compaction');
    return {
      output: listedTexts(terminal, listed),
      itemIds: listed.map((item: unknown) => textOf(own(asObject(item), 'id'))),
      compactionIndex: at < 0 ? undefined : at,
    };
  }
  const at = output.findLastIndex(({ isCompaction }) => isCompaction);
  return {
    output: output.map(({ text }) => text),
    itemIds: output.map(({ id }) => id),
    compactionIndex: at < 0 ? undefined : at,
  };
}

/** Items are not always done in their order, and relays number messages and calls apart. */
function place(output: DoneItem[], item: DoneItem): void {
  const same = output.findIndex(({ index, identity }) => index === item.index && identity === item.identity);
  if (same >= 0) {
    output[same] = item;
    return;
  }
  const after = output.findLastIndex(({ index }) => index <= item.index);
  output.splice(after + 1, 0, item);
}

/** As they came: numbers of 64 bits do not survive JSON.parse. Most items print to the very bytes, which is quicker. */
function bytesOf(item: Json, frame: UpstreamFrame): string {
  const printed = JSON.stringify(item);
  const text = jsonOf(frame);
  return text.includes(printed) ? printed : (memberText(text, 'item') ?? printed);
}

function indexOf(index: unknown, output: readonly DoneItem[]): number {
  const isSane =
    typeof index === 'number' && Number.isInteger(index) && index >= 0 && index < MAX_OUTPUT_ITEMS;
  return isSane ? index : (output.at(-1)?.index ?? 0);
}

function listedTexts(terminal: UpstreamFrame, listed: readonly unknown[]): readonly string[] {
  const text = jsonOf(terminal);
  const printed = listed.map((item) => JSON.stringify(item));
  if (printed.every((each) => text.includes(each))) return printed;
  const response = memberText(text, 'response');
  const output = response === undefined ? undefined : memberText(response, 'output');
  const texts = output === undefined ? [] : elementsOf(output);
  return texts.length === listed.length ? texts : printed;
}

/** Of equal names the last counts. */
function memberText(text: string, name: string): string | undefined {
  const member = membersOf(text).findLast((each) => each.name === name);
  return member === undefined ? undefined : text.slice(member.valueStart, member.end);
}

function jsonOf(frame: UpstreamFrame): string {
  const { buffer, byteOffset, byteLength } = frame.bytes;
  return Buffer.from(buffer, byteOffset, byteLength).toString('utf8');
}
