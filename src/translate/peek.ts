/** A first look at an upstream frame: is it JSON, which event, which lane. Nothing is built but two strings. */
import { isUtf8 } from 'node:buffer';
import type { UpstreamFrame } from '../core/types.ts';
import { GatewayError } from '../errors.ts';
import { withoutEcho } from './brief.ts';
import { documentIn, learnDocument } from './document.ts';
import { echoIn, type KnownPlace, learnEcho, MIN_FRAME_BYTES } from './echo.ts';
import { BACKSLASH, isJson, MAX_DEPTH, OPEN_BRACE, QUOTE, skipSpace } from './scan.ts';
import { ByteTable } from './schema.ts';
import { findShape, lane, learnShape, type Shape, text, values } from './shape.ts';

/** What JSON.parse would find at the top of the frame: the last of several equal keys, strings only. */
export interface Peek {
  readonly type: string | undefined;
  readonly streamId: string | undefined;
}

/** Undefined unless the frame is one JSON object in UTF-8. */
export function peekFrame(bytes: Buffer): Peek | undefined {
  if (bytes[skipSpace(bytes, 0)] !== OPEN_BRACE || !isUtf8(bytes)) return undefined;
  let type: string | undefined;
  let streamId: string | undefined;
  let sure = true;
  const ok = isJson(bytes, MAX_DEPTH, (keyStart, keyEnd, valueStart, valueEnd) => {
    if (isKey(TYPE, bytes, keyStart, keyEnd)) type = TYPES.read(bytes, valueStart, valueEnd);
    else if (isKey(STREAM_ID, bytes, keyStart, keyEnd)) streamId = LANES.read(bytes, valueStart, valueEnd);
    else if (sure && hasEscape(bytes, keyStart, keyEnd)) sure = false;
  });
  if (!ok) return undefined;
  return sure ? { type, streamId } : peekSlowly(bytes);
}

/** The frame of a link. Throws UPSTREAM_PROTOCOL on anything but a JSON object with a string `type`. */
export function frameFromBytes(bytes: Buffer): UpstreamFrame {
  return frameIn(bytes, 0, bytes.length);
}

/** The same for src[start, end), which must not change while the frame is in use. */
export function frameIn(src: Buffer, start: number, end: number): UpstreamFrame {
  const shape = findShape(src, start, end);
  if (shape !== undefined) {
    const streamId = lane.end > lane.start ? LANES.read(src, lane.start, lane.end) : shape.document?.streamId;
    const places = shape.document && values.slice(0, 2 * shape.holes.length);
    const frame = new Frame(
      shape.type,
      streamId,
      shape,
      src,
      start,
      end,
      text.start,
      text.end,
      undefined,
      undefined,
      places,
    );
    if (text.value !== undefined && places === undefined) keepText(frame, src, text.value);
    return frame;
  }
  const isShort = end - start <= SHORT_FRAME_BYTES;
  const json = isShort && isReadWhole(src, start, end) ? objectIn(src, start, end) : undefined;
  if (typeof json?.['type'] === 'string') {
    const { stream_id: streamId } = json;
    const name = typeof streamId === 'string' ? streamId : undefined;
    learnDocument(src.subarray(start, end), json['type']);
    return new Frame(json['type'], name, undefined, src, start, end, 0, 0, json);
  }
  const bytes = src.subarray(start, end);
  const mayEcho =
    end - start > MIN_FRAME_BYTES && TELLS_RESPONSE.test(bytes.toString('latin1', 0, HEAD_BYTES));
  const echo = mayEcho ? echoIn(bytes) : undefined;
  const peek = peekFrame(echo?.rest ?? bytes);
  if (peek?.type === undefined) {
    const found = peek === undefined ? 'no JSON object' : 'no type';
    throw new GatewayError('UPSTREAM_PROTOCOL', `the upstream sent a frame that is ${found}`);
  }
  if (echo !== undefined) learnEcho(bytes, echo);
  if (peek.type.endsWith('.delta')) learnShape(bytes, peek.type);
  else learnDocument(bytes, peek.type);
  return new Frame(peek.type, peek.streamId, undefined, src, start, end, 0, 0, json, echo?.places);
}

/** Bytes of a chunk that holds many frames: a buffer of its own for each would cost more than the rest of it. */
export class Frame implements UpstreamFrame {
  readonly type: string;
  readonly streamId: string | undefined;
  /** What the frame is known to look like. */
  readonly shape: Shape | undefined;
  readonly src: Buffer;
  readonly start: number;
  readonly end: number;
  /** Of a longer text, as far as that is known; both 0 if not. The end is negative (`~end`) if it holds escapes. */
  readonly textStart: number;
  readonly textEnd: number;
  /** What of it was known before. */
  readonly places: readonly KnownPlace[] | undefined;
  /** Of a document: where the values of its shape's holes lie. */
  readonly values: Int32Array | undefined;
  /** The longer text without its escapes, for a while after it was read. */
  text: string | undefined;
  #json: Readonly<Record<string, unknown>> | undefined;
  #brief: Readonly<Record<string, unknown>> | undefined;

  constructor(
    type: string,
    streamId: string | undefined,
    shape: Shape | undefined,
    src: Buffer,
    start: number,
    end: number,
    textStart: number,
    textEnd: number,
    json?: Readonly<Record<string, unknown>>,
    places?: readonly KnownPlace[],
    values?: Int32Array,
  ) {
    this.type = type;
    this.streamId = streamId;
    this.shape = shape;
    this.src = src;
    this.start = start;
    this.end = end;
    this.textStart = textStart;
    this.textEnd = textEnd;
    this.#json = json;
    this.places = places;
    this.values = values;
  }

  get byteLength(): number {
    return this.end - this.start;
  }

  get bytes(): Buffer {
    return this.src.subarray(this.start, this.end);
  }

  json(): Readonly<Record<string, unknown>> {
    this.#json ??= this.#read();
    return this.#json;
  }

  brief(): Readonly<Record<string, unknown>> {
    // Looking for what may be left out costs more than reading all of a short frame, or of one that is known.
    if (this.byteLength <= SHORT_FRAME_BYTES || this.values !== undefined) return this.json();
    this.#brief ??=
      this.#json ??
      (JSON.parse(withoutEcho(this.src, this.start, this.end, this.places)) as Record<string, unknown>);
    return this.#brief;
  }

  #read(): Readonly<Record<string, unknown>> {
    const { shape, values, src, start, end } = this;
    if (shape?.document !== undefined && values !== undefined)
      return documentIn(shape.document, shape.holes, src, values);
    return JSON.parse(src.toString('utf8', start, end)) as Readonly<Record<string, unknown>>;
  }
}

/** Of the texts that are kept, and of the chunks that their frames lie in: a batch of events and what is read until it is written. */
const MAX_TEXT_COST = 2 * 1024 * 1024;
const textFrames: { readonly frame: Frame; readonly cost: number }[] = [];
let textCost = 0;
/** The chunk that was counted last: frames that came together share it. */
let countedChunk: Buffer | undefined;

/** Most frames are written in the same turn of the event loop. Those that wait longer are not to take their room twice. */
function keepText(frame: Frame, src: Buffer, value: string): void {
  frame.text = value;
  const cost = value.length + (src === countedChunk ? 0 : src.length);
  countedChunk = src;
  textFrames.push({ frame, cost });
  textCost += cost;
  while (textCost > MAX_TEXT_COST && textFrames.length > 1) {
    const [oldest] = textFrames.splice(0, 1) as [{ readonly frame: Frame; readonly cost: number }];
    textCost -= oldest.cost;
    oldest.frame.text = undefined;
  }
}

/** Events that are read whole wherever they come: checking them first would be reading them twice. */
const READ_WHOLE = new ByteTable(
  new Map(
    ['created', 'in_progress', 'output_item.done', 'completed', 'incomplete', 'failed'].map(
      (name) => [`response.${name}`, true] as const,
    ),
  ),
);
/** In the first bytes of a frame that repeats its request; whatever else has them there is only looked through for it. */
const TELLS_RESPONSE = /"response\.(?:created|queued|in_progress|completed|incomplete|failed)"/;
const HEAD_BYTES = 400;
const BEGINNING = Buffer.from('{"type":"');
const MAX_TYPE_BYTES = 32;

function isReadWhole(src: Buffer, start: number, end: number): boolean {
  const from = start + BEGINNING.length;
  if (end <= from + MAX_TYPE_BYTES || !isKey(BEGINNING, src, start, from)) return false;
  let to = from;
  while (to < from + MAX_TYPE_BYTES && src[to] !== QUOTE) to += 1;
  return READ_WHOLE.get(src, from, to) === true;
}

/** Undefined unless the bytes are one JSON object in UTF-8. */
function objectIn(src: Buffer, start: number, end: number): Readonly<Record<string, unknown>> | undefined {
  // What is no UTF-8 becomes U+FFFD, which a text may hold by itself.
  const json = src.toString('utf8', start, end);
  if (json.includes('\ufffd') && !isUtf8(src.subarray(start, end))) return undefined;
  try {
    return JSON.parse(json) as Readonly<Record<string, unknown>>;
  } catch {
    return undefined;
  }
}

/** Too little room for instructions and tools that are worth leaving out. */
const SHORT_FRAME_BYTES = 2_048;

/** Frames in a row mostly repeat these strings; then they cost a comparison and no allocation. */
class LastString {
  #bytes: Uint8Array = new Uint8Array(0);
  #text = '';

  /** Undefined if the value is no string. */
  read(src: Buffer, start: number, end: number): string | undefined {
    if (src[start] !== QUOTE) return undefined;
    if (isKey(this.#bytes, src, start, end)) return this.#text;
    this.#bytes = new Uint8Array(src.subarray(start, end));
    this.#text = JSON.parse(src.toString('utf8', start, end)) as string;
    return this.#text;
  }
}

const TYPE = Buffer.from('type');
const STREAM_ID = Buffer.from('stream_id');
const TYPES = new LastString();
const LANES = new LastString();

function isKey(key: Uint8Array, src: Uint8Array, start: number, end: number): boolean {
  if (key.length !== end - start) return false;
  for (let i = 0; i < key.length; i++) if (key[i] !== src[start + i]) return false;
  return true;
}

/** Whether the key may be one of ours, spelled with escapes. */
function hasEscape(src: Uint8Array, start: number, end: number): boolean {
  const first = src[start];
  if (first !== TYPE[0] && first !== STREAM_ID[0] && first !== BACKSLASH) return false;
  for (let i = start; i < end; i++) if (src[i] === BACKSLASH) return true;
  return false;
}

/** For keys with escapes, which may spell `type` in other letters. */
function peekSlowly(bytes: Buffer): Peek {
  const value = JSON.parse(bytes.toString('utf8')) as Readonly<Record<string, unknown>>;
  const own = (key: string) => {
    const found = Object.hasOwn(value, key) ? value[key] : undefined;
    return typeof found === 'string' ? found : undefined;
  };
  return { type: own('type'), streamId: own('stream_id') };
}
