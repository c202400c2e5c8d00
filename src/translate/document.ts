/**
 * Events that are no deltas repeat each other as well: `created` and `completed` of one turn and the next have all but ids,
 * times and numbers of tokens in common. What differs is learned from frames that were read in full; a frame that fits is
 * compared instead of parsed, and its value is the last one's with other ids in it.
 */
import {
  CLOSE_BRACKET,
  COMMA,
  closingQuote,
  OPEN_BRACE,
  OPEN_BRACKET,
  QUOTE,
  skipSpace,
  skipValue,
} from './scan.ts';
import {
  documentLike,
  type Hole,
  interned,
  type Literal,
  literalOf,
  MAX_DOCUMENT_HOLES,
  rememberDocument,
  type Shape,
} from './shape.ts';

export interface Document {
  /** Of the sample. */
  readonly json: Json;
  /** Where in it the holes are. */
  readonly edits: Edits;
  /** All that frames of the shape have to share, whatever values may differ. */
  readonly skeleton: string;
  readonly scalars: readonly Scalar[];
  /** Of all frames of the shape; undefined: they name none, or each its own. */
  readonly streamId: string | undefined;
  /** Frames that fitted. */
  uses: number;
}

/** By key of an object or index of a list: the hole's number, or what is to be changed in there. */
export type Edits = ReadonlyMap<string | number, number | Edits>;

export type Json = Readonly<Record<string, unknown>>;

/** A value that may differ: a string without its quotes, or a whole number. */
interface Scalar extends Hole {
  readonly path: readonly (string | number)[];
  readonly start: number;
  readonly end: number;
}

/** Frames that repeat instructions and tools are among them; larger ones are rare. */
const MAX_BYTES = 64 * 1024;
const MAX_DEPTH = 32;
const MAX_SCALARS = 2_000;
/** Frames of a type that are read in full between two that are learned from; more and more while none fits. */
const LEARN_EVERY = 4;
const LEARN_SELDOM = 128;
/** Types are few; should one day they not be, it begins anew. */
const MAX_TYPES = 64;
const WHOLE = /^(?:0|[1-9][0-9]{0,14})$/;

interface Learning {
  every: number;
  left: number;
  shape: Shape | undefined;
}

const learning = new Map<string, Learning>();

/** Learns from a frame that was read in full and is valid. */
export function learnDocument(bytes: Buffer, type: string): void {
  if (bytes.length > MAX_BYTES || !isTime(type)) return;
  const sample = Buffer.from(bytes);
  const scalars = scalarsIn(sample);
  if (scalars === undefined) return;
  const skeleton = skeletonOf(sample, scalars);
  const before = documentLike(skeleton);
  const isHole = scalars.map((scalar, at) => before !== undefined && differs(before, at, scalar, sample));
  if (isHole.filter(Boolean).length > MAX_DOCUMENT_HOLES) return;
  const shape = shapeOf(sample, type, scalars, skeleton, isHole);
  if (shape.document !== undefined) shape.document.uses = before?.document?.uses ?? 0;
  rememberDocument(shape, before);
  (learning.get(type) as Learning).shape = shape;
}

/** The frame's value; where its own values lie is in `places`, as `values` of shape.ts tells them. */
export function documentIn(
  { json, edits }: Document,
  holes: readonly Hole[],
  src: Buffer,
  places: Int32Array,
): Json {
  const read = (hole: number): unknown => {
    const start = places[2 * hole] as number;
    const told = places[2 * hole + 1] as number;
    if (told < 0) return JSON.parse(src.toString('utf8', start - 1, ~told + 1));
    const text = src.toString('utf8', start, told);
    return holes[hole]?.kind === 'number' ? Number(text) : text;
  };
  return edited(json, edits, read) as Json;
}

function edited(value: unknown, edits: Edits, read: (hole: number) => unknown): unknown {
  const copy = (Array.isArray(value) ? value.slice() : { ...(value as Json) }) as Record<
    string | number,
    unknown
  >;
  for (const [key, edit] of edits)
    copy[key] = typeof edit === 'number' ? read(edit) : edited(copy[key], edit, read);
  return copy;
}

function isTime(type: string): boolean {
  let one = learning.get(type);
  if (one === undefined) {
    if (learning.size >= MAX_TYPES) learning.clear();
    // Not from the first of a type: who makes up new ones has nobody learn from them.
    one = { every: LEARN_EVERY, left: LEARN_EVERY, shape: undefined };
    learning.set(type, one);
  }
  if (one.left > 0) {
    one.left -= 1;
    return false;
  }
  const wasOfUse = one.shape?.document === undefined || one.shape.document.uses > 0;
  one.every = wasOfUse ? LEARN_EVERY : Math.min(LEARN_SELDOM, one.every * 2);
  one.left = one.every;
  return true;
}

/** A value that has differed once may differ always. */
function differs({ document, holes, sample }: Shape, at: number, now: Scalar, bytes: Buffer): boolean {
  const then = document?.scalars[at];
  if (then === undefined) return false;
  const wasHole = holes.some((hole) => hole === then);
  return wasHole || bytes.compare(sample, then.start, then.end, now.start, now.end) !== 0;
}

function shapeOf(
  sample: Buffer,
  type: string,
  scalars: readonly Scalar[],
  skeleton: string,
  isHole: readonly boolean[],
): Shape {
  const holes = scalars.filter((_, at) => isHole[at]);
  const literals: Literal[] = [];
  let from = 0;
  for (const { start, end } of holes) {
    literals.push(literalOf(sample.subarray(from, start)));
    from = end;
  }
  literals.push(literalOf(sample.subarray(from)));
  const laneHole = holes.findIndex(({ path, kind }) => kind === 'string' && path.join('.') === 'stream_id');
  const json = JSON.parse(sample.toString('utf8')) as Json;
  const { stream_id: lane } = json;
  const streamId = laneHole < 0 && typeof lane === 'string' ? lane : undefined;
  const document: Document = { json, edits: editsOf(holes), skeleton, scalars, streamId, uses: 0 };
  return { type: interned(type), literals, holes, laneHole, sample, document };
}

function editsOf(holes: readonly Scalar[]): Edits {
  const edits = new Map<string | number, number | Edits>();
  for (const [hole, { path }] of holes.entries()) {
    let at = edits;
    for (const key of path.slice(0, -1)) {
      const inner = (at.get(key) ?? new Map()) as Map<string | number, number | Edits>;
      at.set(key, inner);
      at = inner;
    }
    at.set(path.at(-1) as string | number, hole);
  }
  return edits;
}

/** All but the values; kinds tell a string from a number by the quotes around it. */
function skeletonOf(sample: Buffer, scalars: readonly Scalar[]): string {
  const parts: string[] = [];
  let from = 0;
  for (const { start, end } of scalars) {
    parts.push(sample.toString('latin1', from, start));
    from = end;
  }
  parts.push(sample.toString('latin1', from));
  return parts.join('\0');
}

/** Undefined where a key may be read in two ways, or there is too much of it. */
function scalarsIn(src: Buffer): readonly Scalar[] | undefined {
  const found: Scalar[] = [];
  let isPlain = true;
  const visit = (at: number, path: readonly (string | number)[]): number => {
    const first = src[at];
    if (path.length > MAX_DEPTH || found.length > MAX_SCALARS) isPlain = false;
    if (!isPlain) return skipValue(src, at);
    if (first === OPEN_BRACE) return members(at, path);
    if (first === OPEN_BRACKET) return elements(at, path);
    const end = skipValue(src, at);
    const key = String(path.at(-1));
    // What says of which kind something is does not just differ.
    if (key === 'type') return end;
    if (first === QUOTE) found.push({ key, kind: 'string', path, start: at + 1, end: end - 1 });
    else if (WHOLE.test(src.toString('latin1', at, end)))
      found.push({ key, kind: 'number', path, start: at, end });
    return end;
  };
  const members = (at: number, path: readonly (string | number)[]): number => {
    const keys = new Set<string>();
    let pos = skipSpace(src, at + 1);
    while (src[pos] === QUOTE) {
      const quote = closingQuote(src, pos + 1);
      const key = quote < 0 ? '__proto__' : src.toString('utf8', pos + 1, quote);
      if (key === '__proto__' || keys.has(key)) isPlain = false;
      keys.add(key);
      const value = skipSpace(src, skipSpace(src, (quote < 0 ? ~quote : quote) + 1) + 1);
      pos = skipSpace(src, visit(value, [...path, key]));
      if (src[pos] === COMMA) pos = skipSpace(src, pos + 1);
    }
    return pos + 1;
  };
  const elements = (at: number, path: readonly (string | number)[]): number => {
    let pos = skipSpace(src, at + 1);
    for (let index = 0; src[pos] !== CLOSE_BRACKET; index += 1) {
      pos = skipSpace(src, visit(pos, [...path, index]));
      if (src[pos] === COMMA) pos = skipSpace(src, pos + 1);
    }
    return pos + 1;
  };
  visit(skipSpace(src, 0), []);
  return isPlain ? found : undefined;
}
