/** Session events → bytes of the API, straight from the upstream's bytes. */
import type { SessionEvent, TurnCost, TurnFailed, UpstreamFrame } from '../core/types.ts';
import { type GatewayError, STATUS_NUMBER } from '../errors.ts';
import { type Api, loadApi } from './api.ts';
import { tellsRequest, withoutRequest } from './brief.ts';
import { DocumentEncoder } from './document-encoder.ts';
import { durationOf } from './duration.ts';
import type { KnownPlace } from './echo.ts';
import type { EventFormat } from './messages.ts';
import { Output } from './output.ts';
import { Frame, frameFromBytes } from './peek.ts';
import { Reader } from './reader.ts';
import type { Plan } from './schema.ts';
import { interned, MAX_DOCUMENTS, MAX_SHAPES, type Shape } from './shape.ts';
import { ShapeEncoder } from './shape-encoder.ts';

/** Field numbers of the envelope, which never change. */
const SEQ_TAG = 1 << 3;
const LANE_TAG = (2 << 3) | 2;
const TURN_TAG = (3 << 3) | 2;
const TYPE_TAG = (4 << 3) | 2;
const OUTCOME_TAG = 5 << 3;
const JSON_TAG = (6 << 3) | 2;
const COMMIT_TAG = 76 << 3;
const OMITTED_TAG = 79 << 3;
const EVENT_TAG = (1 << 3) | 2;
const EVENTS_TAG = (2 << 3) | 2;
const ANSWER_TAG = (1 << 3) | 2;
const ANSWER_JSON_TAG = (2 << 3) | 2;

const OUTCOME = { COMPLETED: 1, INCOMPLETE: 2, FAILED: 3, CANCELLED: 4, DEADLINE_EXCEEDED: 5 } as const;
const VERDICT = { SAFE: 1, UNSAFE: 2, UNKNOWN: 3 } as const;
export const PHASE = { NOT_SENT: 1, SENT: 2, CREATED: 3, OUTPUT_STARTED: 4 } as const;

/** Event.type and Event.lane_id say these; a payload does not repeat them. */
const CARRIED = ['type', 'stream_id'];

interface Arm {
  readonly plan: Plan;
  readonly since: number;
  /** The payload field's tag. */
  readonly tag: number;
  /** Event.type, tag and length included. */
  readonly typeField: Uint8Array;
}

interface LastShape {
  readonly shape: Shape | undefined;
  readonly key: number;
  readonly encoder: FrameEncoder | undefined;
}

type FrameEncoder = ShapeEncoder | DocumentEncoder;

export class EventEncoder {
  readonly #api: Api;
  readonly #arms = new Map<string, Arm>();
  readonly #failedTag: number;
  readonly #noticeTag: number;
  readonly #costTag: number;
  readonly #out = new Output();
  readonly #reader = new Reader(this.#out);
  readonly #shapes = new Map<Shape, Map<number, FrameEncoder | undefined>>();
  #lastShape: LastShape = { shape: undefined, key: 0, encoder: undefined };
  readonly #names = new Names();

  constructor(api: Api = loadApi()) {
    this.#api = api;
    const event = api.type('Event');
    for (const slot of api.plan('Event').slots) {
      for (const field of slot.fields) {
        for (const kind of field.kinds) {
          const { resolvedType } = event.fields[field.name]?.resolve() ?? {};
          const plan = api.plan(resolvedType?.name ?? '', CARRIED);
          this.#arms.set(interned(kind), {
            plan,
            since: field.since,
            tag: field.tag,
            typeField: typeFieldOf(kind),
          });
        }
      }
    }
    this.#failedTag = ((event.fields['turn_failed']?.id ?? 0) << 3) | 2;
    this.#noticeTag = ((event.fields['notice']?.id ?? 0) << 3) | 2;
    this.#costTag = ((event.fields['cost']?.id ?? 0) << 3) | 2;
  }

  /** One `Event`. Never throws: what cannot be typed goes as the upstream's exact JSON. */
  event(event: SessionEvent, format: EventFormat): Uint8Array {
    const from = this.#out.at;
    this.#event(event, format);
    return this.#out.take(from);
  }

  /** A `ConnectResponse` with the batch. */
  connectResponse(events: readonly SessionEvent[], format: EventFormat): Uint8Array {
    const out = this.#out;
    const from = out.at;
    const guess = sizeOf(events);
    out.reserve(5);
    out.varint(EVENTS_TAG);
    const mark = out.open(guess);
    this.#events(events, format);
    out.close(mark, guess);
    return out.take(from);
  }

  /** A `CreateResponseResponse` with the batch. */
  createResponseResponse(events: readonly SessionEvent[], format: EventFormat): Uint8Array {
    const from = this.#out.at;
    this.#events(events, format);
    return this.#out.take(from);
  }

  /** The event without its content, which takes `omittedBytes`; of a last event the response without `output` is left. */
  withoutContent(event: SessionEvent, format: EventFormat, omittedBytes: number): SessionEvent {
    const bare: BareEvent = { ...event, frame: withoutOutput(event), omittedBytes };
    return this.event(bare, format).length > MAX_BARE_BYTES ? { ...bare, frame: undefined } : bare;
  }

  /** What a call beside a turn answers with: the upstream's JSON as `message` in field 1, and as it is in field 2. */
  answer(message: string, json: Uint8Array, format: EventFormat): Uint8Array {
    const out = this.#out;
    const from = out.at;
    const typed = format.payload !== 'json' && this.#typed(ANSWER_TAG, this.#api.plan(message), json, format);
    if (!typed || format.payload === 'both') this.#json(ANSWER_JSON_TAG, json);
    return out.take(from);
  }

  #events(events: readonly SessionEvent[], format: EventFormat): void {
    const out = this.#out;
    for (const event of events) {
      out.reserve(5);
      out.varint(EVENT_TAG);
      const mark = out.open(event.byteLength);
      this.#event(event, format);
      out.close(mark, event.byteLength);
    }
  }

  #event(event: SessionEvent, format: EventFormat): void {
    const out = this.#out;
    const arm = this.#arms.get(event.type);
    out.reserve(16);
    out.varint(SEQ_TAG);
    out.varint64(event.seq);
    this.#names.write(event, arm?.typeField, out);
    if (event.outcome !== undefined) {
      out.reserve(2);
      out.varint(OUTCOME_TAG);
      out.varint(OUTCOME[event.outcome]);
    }
    if (event.commit !== undefined) {
      out.reserve(12);
      out.varint(COMMIT_TAG);
      out.varint64(event.commit);
    }
    if (isBare(event)) {
      out.reserve(12);
      out.varint(OMITTED_TAG);
      out.varint64(event.omittedBytes);
    }
    if (event.cost !== undefined) this.#message(this.#costTag, 'Cost', costOf(event.cost));
    if (event.turnFailed !== undefined)
      this.#message(
        this.#failedTag,
        'TurnFailed',
        isBare(event) ? bareFailedOf(event.turnFailed) : failedAs(event.turnFailed, event.frame, format),
      );
    else if (event.notice !== undefined) this.#message(this.#noticeTag, 'Notice', noticeOf(event.notice));
    if (event.frame !== undefined)
      this.#frame(event.frame, event.turnFailed === undefined ? arm : undefined, format);
  }

  #frame(frame: UpstreamFrame, arm: Arm | undefined, format: EventFormat): void {
    const bare = format.echo === 'none' && tellsRequest(frame.type) ? bareBytesOf(frame) : undefined;
    const known = arm !== undefined && format.payload !== 'json' && arm.since <= this.#revision(format);
    const lossless =
      known &&
      (this.#shaped(frame, arm, format) ||
        (bare === undefined
          ? this.#typed(arm.tag, arm.plan, frame.bytes, format, placesOf(frame))
          : this.#typed(arm.tag, arm.plan, bare(), format)));
    if (lossless && format.payload !== 'both') return;
    if (bare !== undefined) return this.#json(JSON_TAG, bare());
    this.#out.reserve(5);
    this.#out.varint(JSON_TAG);
    if (frame instanceof Frame) this.#out.chunk(frame.src, frame.start, frame.end);
    else this.#out.chunk(frame.bytes, 0, frame.bytes.length);
  }

  /** The short way, for frames of a shape that was translated before; false if nothing was written. */
  #shaped(frame: UpstreamFrame, arm: Arm, format: EventFormat): boolean {
    if (!(frame instanceof Frame) || frame.shape === undefined) return false;
    const encoder = this.#shapeEncoder(frame.shape, arm, format);
    if (encoder === undefined) return false;
    const out = this.#out;
    const before = out.at;
    out.reserve(5);
    out.varint(arm.tag);
    const guess = encoder.length;
    const mark = out.open(guess);
    if (encoder.write(frame, out)) {
      encoder.length = out.at - mark;
      out.close(mark, guess);
      return true;
    }
    out.at = before;
    return false;
  }

  #shapeEncoder(shape: Shape, arm: Arm, format: EventFormat): FrameEncoder | undefined {
    const last = this.#lastShape;
    const revision = this.#revision(format);
    // Of each revision there are two.
    const key = format.echo === 'none' ? ~revision : revision;
    if (last.shape === shape && last.key === key) return last.encoder;
    let known = this.#shapes.get(shape);
    if (known === undefined) {
      // Shapes that are forgotten must not stay here; learning one again is cheap.
      if (this.#shapes.size >= MAX_SHAPES + MAX_DOCUMENTS) this.#shapes.clear();
      known = new Map();
      this.#shapes.set(shape, known);
    }
    let encoder = known.get(key);
    if (encoder === undefined && !known.has(key)) {
      const made = shape.document === undefined ? ShapeEncoder : DocumentEncoder;
      encoder = made.of(shape, arm.plan, revision, format.echo);
      known.set(key, encoder);
    }
    this.#lastShape = { shape, key, encoder };
    return encoder;
  }

  /** Whether the message says all that the JSON says; if it cannot be trusted, nothing is written. */
  #typed(
    tag: number,
    plan: Plan,
    json: Uint8Array,
    format: EventFormat,
    places?: readonly KnownPlace[],
  ): boolean {
    const out = this.#out;
    const before = out.at;
    try {
      out.reserve(5);
      out.varint(tag);
      // Without keys and punctuation about half is left; a wrong guess costs a shift by a byte.
      const mark = out.open(json.length >> 1);
      const read = this.#reader.read(plan, bufferOf(json), this.#revision(format), places);
      out.close(mark, json.length >> 1);
      if (read && !this.#reader.ambiguous) return this.#reader.lossless;
    } catch {
      // Malformed JSON, from whoever made the frame: it is passed on as it came.
    }
    out.at = before;
    return false;
  }

  #revision(format: EventFormat): number {
    return format.schemaRevision === 0 ? this.#api.schemaRevision : format.schemaRevision;
  }

  #json(tag: number, bytes: Uint8Array): void {
    this.#out.reserve(5);
    this.#out.varint(tag);
    this.#out.chunk(bytes, 0, bytes.length);
  }

  #message(tag: number, name: string, value: Readonly<Record<string, unknown>>): void {
    this.#json(tag, this.#api.type(name).encode(value).finish());
  }
}

/** Lane, turn and type of an event: events in a row have them in common, and turns the first two. */
class Names {
  readonly #out = new Output();
  #laneId = '';
  #turnId = '';
  #type = '';
  /** Of lane and turn. */
  #idBytes = 0;

  write({ laneId, turnId, type }: SessionEvent, typeField: Uint8Array | undefined, to: Output): void {
    const own = this.#out;
    const isSameTurn = this.#turnId === turnId && this.#laneId === laneId;
    if (!isSameTurn || this.#type !== type) {
      if (!isSameTurn) {
        own.at = 0;
        this.#text(LANE_TAG, laneId);
        this.#text(TURN_TAG, turnId);
        this.#idBytes = own.at;
        this.#laneId = laneId;
        this.#turnId = turnId;
      }
      own.at = this.#idBytes;
      if (typeField === undefined) this.#text(TYPE_TAG, type);
      else own.raw(typeField, 0, typeField.length);
      this.#type = type;
    }
    to.raw(own.bytes, 0, own.at);
  }

  #text(tag: number, text: string): void {
    if (text === '') return;
    this.#out.reserve(5);
    this.#out.varint(tag);
    this.#out.text(text);
  }
}

/** An event whose content is too long for its client. */
interface BareEvent extends SessionEvent {
  readonly omittedBytes: number;
}

function isBare(event: SessionEvent): event is BareEvent {
  return 'omittedBytes' in event;
}

/** Ids and usage of a response are shorter by far; what is longer has more in it than anybody can name here. */
const MAX_BARE_BYTES = 32 * 1024;

/** What a client needs of a last event to go on. Undefined: nothing is left. */
function withoutOutput({ frame, outcome }: SessionEvent): UpstreamFrame | undefined {
  if (frame === undefined || outcome === undefined) return undefined;
  const { response, ...rest } = frame.brief?.() ?? frame.json();
  if (typeof response !== 'object' || response === null) return undefined;
  return frameFromBytes(Buffer.from(JSON.stringify({ ...rest, response: { ...response, output: [] } })));
}

function placesOf(frame: UpstreamFrame): readonly KnownPlace[] | undefined {
  return frame instanceof Frame ? frame.places : undefined;
}

/** Made when somebody asks: a known shape does without. */
function bareBytesOf(frame: UpstreamFrame): () => Buffer {
  let bytes: Buffer | undefined;
  return () => {
    bytes ??= withoutRequest(bufferOf(frame.bytes));
    return bytes;
  };
}

function sizeOf(events: readonly SessionEvent[]): number {
  let size = 0;
  for (const event of events) size += event.byteLength;
  return size;
}

function typeFieldOf(type: string): Uint8Array {
  const out = new Output();
  out.varint(TYPE_TAG);
  out.text(type);
  return out.take(0);
}

function bufferOf(bytes: Uint8Array): Buffer {
  return Buffer.isBuffer(bytes) ? bytes : Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}

function failedOf(failed: TurnFailed): Readonly<Record<string, unknown>> {
  const { error } = failed;
  return {
    code: STATUS_NUMBER[error.code],
    reason: error.reason,
    message: error.message,
    replay: VERDICT[failed.replay],
    phase: PHASE[failed.phase],
    retry_after: error.retryAfterMs === undefined ? undefined : durationOf(error.retryAfterMs),
    upstream_error: upstreamOf(error),
    metadata: error.metadata,
  };
}

/** The upstream's words are the failed response itself, which repeats its request. */
function failedAs(
  failed: TurnFailed,
  frame: UpstreamFrame | undefined,
  { echo }: EventFormat,
): Readonly<Record<string, unknown>> {
  const told = failedOf(failed);
  const { upstream } = failed.error;
  if (echo !== 'none' || frame === undefined || !tellsRequest(frame.type) || upstream?.json === undefined)
    return told;
  return {
    ...told,
    upstream_error: { ...upstreamOf(failed.error), json: withoutRequest(bufferOf(frame.bytes)) },
  };
}

/** An upstream's own words may be as long as its whole answer, which a failed response is told with. */
function bareFailedOf(failed: TurnFailed): Readonly<Record<string, unknown>> {
  const { upstream: { json: _, ...words } = {}, message, metadata } = failed.error;
  return {
    ...failedOf(failed),
    message: clip(message),
    upstream_error: failed.error.upstream && clipped(words),
    metadata: clipped(metadata),
  };
}

const MAX_BARE_WORDS = 1_000;

function clipped(words: Readonly<Record<string, unknown>>): Readonly<Record<string, unknown>> {
  return Object.fromEntries(
    Object.entries(words).map(([name, value]) => [name, typeof value === 'string' ? clip(value) : value]),
  );
}

/** Not within a character. */
function clip(text: string): string {
  return text.length > MAX_BARE_WORDS ? text.slice(0, MAX_BARE_WORDS).toWellFormed() : text;
}

function upstreamOf({ upstream }: GatewayError): Readonly<Record<string, unknown>> | undefined {
  return upstream && { ...upstream };
}

function noticeOf(notice: NonNullable<SessionEvent['notice']>): Readonly<Record<string, unknown>> {
  return {
    kind: notice.kind,
    reason: notice.reason,
    replayed_bytes: notice.replayedBytes,
    elapsed: durationOf(notice.elapsedMs),
    detail: notice.detail,
  };
}

function costOf({ amount, currency, pricesAsOf }: TurnCost): Readonly<Record<string, unknown>> {
  return { amount, currency, prices_as_of: pricesAsOf };
}
