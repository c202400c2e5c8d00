/** Documents of a known shape → protobuf bytes: what repeats was translated once, what differs is put into its place. */
import protobuf from 'protobufjs/light.js';
import { withoutRequest } from './brief.ts';
import type { Document } from './document.ts';
import type { EventFormat } from './messages.ts';
import { Output } from './output.ts';
import type { Frame } from './peek.ts';
import { Reader } from './reader.ts';
import type { Plan } from './schema.ts';
import type { Hole, Shape } from './shape.ts';
import { putUnescaped } from './text.ts';

const MAX_INT32 = 2 ** 31 - 1;
const LENGTH_DELIMITED = 2;
/** Room for tag and length of one value. */
const VALUE_OVERHEAD_BYTES = 20;

type Part =
  | { readonly is: 'bytes'; readonly bytes: Uint8Array }
  /** A message with holes in it. */
  | { readonly is: 'open'; readonly tag: number; guess: number }
  | { readonly is: 'close' }
  | {
      readonly is: 'hole';
      readonly hole: number;
      readonly tag: number;
      readonly take: 'string' | 'integer' | 'double';
      /** Zero and absent differ, so zero is written. */
      readonly presence: boolean;
      readonly most: number;
    };

export class DocumentEncoder {
  readonly #parts: readonly Part[];
  /** Holes that the envelope tells: it cannot tell an empty one from none. */
  readonly #carried: readonly number[];
  readonly #overhead: number;
  readonly #marks: number[] = [];
  readonly #opened: Extract<Part, { is: 'open' }>[] = [];
  /** Length of the last message, which the next one most likely needs as many bytes to tell. */
  length = 0;

  private constructor(parts: readonly Part[], carried: readonly number[]) {
    this.#parts = parts;
    this.#carried = carried;
    this.#overhead = parts.reduce(
      (sum, part) => sum + (part.is === 'bytes' ? part.bytes.length : VALUE_OVERHEAD_BYTES),
      0,
    );
  }

  /** Undefined if frames of the shape say more than the message can, or have a value without a plain field. */
  static of(
    shape: Shape,
    plan: Plan,
    revision: number,
    echo: EventFormat['echo'],
  ): DocumentEncoder | undefined {
    const { sample, holes } = shape;
    const told = (json: Buffer): Buffer => (echo === 'none' ? withoutRequest(json) : json);
    if (translated(told(sample), plan, revision) === undefined) return undefined;
    // Values that are found again in what they are translated to.
    const marks = holes.map(({ kind }, at) => (kind === 'string' ? TEXT_MARK + at : NUMBER_MARK + at));
    const marked = translated(told(withMarks(shape, marks)), plan, revision);
    if (marked === undefined) return undefined;
    const found: Part[] = [];
    takeApart(
      plan.type,
      protobuf.Reader.create(marked),
      marked.length,
      new Map(marks.map((mark, at) => [mark, at])),
      found,
    );
    const written = found.flatMap((part) => (part.is === 'hole' ? [part.hole] : []));
    const carried = holes.flatMap((hole, at) => (isCarried(shape.document, hole) ? [at] : []));
    const left = holes.flatMap((hole, at) =>
      echo === 'none' && isOfRequest(shape.document, hole) ? [at] : [],
    );
    const all = [...written, ...carried, ...left];
    return all.length === holes.length && new Set(all).size === holes.length
      ? new DocumentEncoder(joined(found), carried)
      : undefined;
  }

  /** Appends the message of a frame of the shape; false if it has to be read in full, and `out` is to be set back. */
  write(frame: Frame, out: Output): boolean {
    const { src } = frame;
    const values = frame.values as Int32Array;
    out.reserve(frame.byteLength + this.#overhead);
    for (const hole of this.#carried) if (values[2 * hole] === values[2 * hole + 1]) return false;
    const marks = this.#marks;
    const opened = this.#opened;
    marks.length = 0;
    opened.length = 0;
    for (const part of this.#parts) {
      if (part.is === 'bytes') out.raw(part.bytes, 0, part.bytes.length);
      else if (part.is === 'open') {
        out.varint(part.tag);
        marks.push(out.open(part.guess));
        opened.push(part);
      } else if (part.is === 'close') {
        const mark = marks.pop() as number;
        const open = opened.pop() as Extract<Part, { is: 'open' }>;
        const length = out.at - mark;
        out.close(mark, open.guess);
        open.guess = length;
      } else if (!this.#value(part, src, values, out)) return false;
    }
    return true;
  }

  #value(part: Extract<Part, { is: 'hole' }>, src: Buffer, values: Int32Array, out: Output): boolean {
    const { tag, take, presence } = part;
    const start = values[2 * part.hole] as number;
    const told = values[2 * part.hole + 1] as number;
    if (take !== 'string') {
      let value = 0;
      for (let at = start; at < told; at += 1) value = value * 10 + ((src[at] as number) - 0x30);
      if (value > part.most) return false;
      if (value === 0 && !presence) return true;
      out.varint(tag);
      if (take === 'double') out.double(value);
      else out.varint64(value);
      return true;
    }
    if (told < 0) {
      out.varint(tag);
      const mark = out.open(~told - start);
      if (!putUnescaped(src, start, ~told, out)) return false;
      out.close(mark, ~told - start);
    } else if (told > start || presence) {
      out.varint(tag);
      out.chunk(src, start, told);
    }
    return true;
  }
}

/** No upstream says it. */
const TEXT_MARK = 'Zq0vX7mark#';
/** Fits 32 bits, and a double. */
const NUMBER_MARK = 2_147_000_000;

function isCarried(document: Document | undefined, hole: Hole): boolean {
  return placeOf(document, hole) === 'stream_id';
}

/** Of what is left out on wish. */
function isOfRequest(document: Document | undefined, hole: Hole): boolean {
  return /^response\.(?:instructions|tools)(?:\.|$)/.test(placeOf(document, hole));
}

function placeOf(document: Document | undefined, hole: Hole): string {
  return document?.scalars.find((each) => each === hole)?.path.join('.') ?? '';
}

function withMarks({ sample, literals, holes }: Shape, marks: readonly (string | number)[]): Buffer {
  const parts: Uint8Array[] = [];
  for (const [at, literal] of literals.entries()) {
    parts.push(literal.bytes);
    if (at < holes.length) parts.push(Buffer.from(String(marks[at])));
  }
  return parts.length === 1 ? sample : Buffer.concat(parts);
}

/** Undefined: it does not say all that the JSON says. */
function translated(json: Buffer, plan: Plan, revision: number): Uint8Array | undefined {
  const out = new Output();
  const reader = new Reader(out);
  const read = reader.read(plan, json, revision);
  return read && reader.lossless && !reader.ambiguous ? out.take(0) : undefined;
}

/** The message from where the reader is, in parts: marks are holes, and messages around them are open. */
function takeApart(
  type: protobuf.Type,
  reader: protobuf.Reader,
  end: number,
  marks: ReadonlyMap<unknown, number>,
  parts: Part[],
): void {
  while (reader.pos < end) {
    const from = reader.pos;
    const tag = reader.uint32();
    const field = type.fieldsById[tag >>> 3]?.resolve();
    const inner = field?.resolvedType;
    const isMap = field instanceof protobuf.MapField;
    const isMessage = inner instanceof protobuf.Type && !isMap;
    if (field !== undefined && isMessage && (tag & 7) === LENGTH_DELIMITED) {
      const length = reader.uint32();
      const within: Part[] = [];
      takeApart(inner, reader, reader.pos + length, marks, within);
      if (within.some(({ is }) => is === 'hole'))
        parts.push({ is: 'open', tag, guess: length }, ...within, { is: 'close' });
      else parts.push({ is: 'bytes', bytes: reader.buf.slice(from, reader.pos) });
      continue;
    }
    const value = field === undefined || isMap ? undefined : scalarOf(field, tag, reader);
    if (value === undefined) {
      reader.pos = from;
      reader.uint32();
      reader.skipType(tag & 7);
    }
    const hole = marks.get(value);
    if (field === undefined || hole === undefined) {
      parts.push({ is: 'bytes', bytes: reader.buf.slice(from, reader.pos) });
      continue;
    }
    const presence = field.repeated || field.hasPresence;
    const take = field.type === 'string' ? 'string' : field.type === 'double' ? 'double' : 'integer';
    const most = field.type === 'int32' ? MAX_INT32 : Number.MAX_SAFE_INTEGER;
    parts.push({ is: 'hole', hole, tag, take, presence, most });
  }
}

/** Of a field that may be a hole. */
function scalarOf(field: protobuf.Field, tag: number, reader: protobuf.Reader): unknown {
  if (field.type === 'string' && (tag & 7) === LENGTH_DELIMITED) return reader.string();
  if (field.type === 'double' && (tag & 7) === 1) return reader.double();
  if ((field.type === 'int32' || field.type === 'int64') && (tag & 7) === 0) return Number(reader.int64());
  return undefined;
}

/** Bytes in a row as one part. */
function joined(parts: readonly Part[]): readonly Part[] {
  const result: Part[] = [];
  let bytes: Uint8Array[] = [];
  const flush = (): void => {
    if (bytes.length > 0) result.push({ is: 'bytes', bytes: Buffer.concat(bytes) });
    bytes = [];
  };
  for (const part of parts) {
    if (part.is === 'bytes') bytes.push(part.bytes);
    else {
      flush();
      result.push(part);
    }
  }
  flush();
  return result;
}
