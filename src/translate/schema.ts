/**
 * Compiles the descriptors, once per message type, into the tables that reader and writer walk. All knowledge
 * about upstream JSON is in the .proto files and their options; there is none here.
 */
import protobuf from 'protobufjs/light.js';

const WIRE_TYPES: Readonly<Record<string, number>> = protobuf.types.basic;

/** Where `proto/api.json` keeps the options that protobufjs's JSON would lose. */
export const PARSED_OPTIONS = 'parsed';

export type Scalar = 'string' | 'double' | 'int32' | 'int64' | 'bool' | 'bytes';

export interface Bounds {
  readonly min?: number;
  readonly max?: number;
  readonly max_key_length?: number;
  readonly max_value_length?: number;
}

export interface Field {
  readonly name: string;
  readonly number: number;
  readonly tag: number;
  readonly scalar: Scalar | undefined;
  readonly shape: 'single' | 'list' | 'map';
  /** Compiled on first use, for types may contain themselves. Throws on a scalar field. */
  readonly message: () => Plan;
  readonly isMessage: boolean;
  /** The message stands for one value of any JSON type. */
  readonly isInline: boolean;
  /** What may stand for one entry of a list, or for a value of a map. Throws on a single field. */
  readonly element: () => Slot;
  readonly packed: boolean;
  /** Absent and zero differ, so zero is written. */
  readonly presence: boolean;
  readonly raw: boolean;
  readonly always: boolean;
  readonly base64: boolean;
  readonly since: number;
  readonly bounds: Bounds | undefined;
  readonly kinds: readonly string[];
  /** The same as JSON. */
  readonly kindsJson: readonly string[];
}

/** What may stand at one place of a document: at most one field for each JSON type. */
export interface Slot {
  readonly key: string;
  readonly keyBytes: Uint8Array;
  /** The key as JSON, with its colon. */
  readonly keyJson: string;
  /** Upstreams repeat the order of their keys; see `Guess`. */
  readonly next: Guess;
  /** The slot's bit in the set of keys seen; -1 for keys that the envelope carries. */
  readonly bit: number;
  readonly fields: readonly Field[];
  /** Whose zero is written where no field is set: the message cannot say that there is none. */
  readonly implicit: Field | undefined;
  readonly string: Field | undefined;
  readonly number: Field | undefined;
  readonly boolean: Field | undefined;
  readonly list: Field | undefined;
  readonly object: Field | undefined;
  readonly map: Field | undefined;
  /** An inline message, which takes every JSON type. */
  readonly any: Field | undefined;
  readonly raw: Field | undefined;
  /** A union's arms by the value of the discriminator. */
  readonly arms: ByteTable<Field> | undefined;
  readonly discriminator: string;
  readonly discriminatorBytes: Uint8Array;
  /** How many scalar JSON types have a field. */
  readonly scalars: number;
  /** JSON null and no fields set mean the same here. */
  readonly nullable: boolean;
  readonly since: number;
}

/** The slot whose key came next the last time. */
export interface Guess {
  slot: Slot | undefined;
}

export interface Plan {
  readonly type: protobuf.Type;
  /** Set if the message stands for one value instead of an object. */
  readonly inline: Slot | undefined;
  readonly slots: readonly Slot[];
  readonly byKey: ByteTable<Slot>;
  /** By the name of the message's field. */
  readonly byField: ReadonlyMap<string, Slot>;
  /** Those that are written whatever the message has. */
  readonly implicit: readonly Slot[];
  readonly first: Guess;
  /** Bits of the slots whose absence the message cannot express. */
  readonly requiredLow: number;
  readonly requiredHigh: number;
}

/** Looks strings up by their bytes in a buffer, without making a string. */
export class ByteTable<T> {
  readonly #cells: { readonly bytes: Uint8Array; readonly value: T }[][] = [];
  readonly #mask: number;

  constructor(entries: ReadonlyMap<string, T>) {
    let size = 4;
    while (size < entries.size * 2) size *= 2;
    this.#mask = size - 1;
    for (const [text, value] of entries) {
      const bytes = Buffer.from(text);
      const index = hashOf(bytes, 0, bytes.length) & this.#mask;
      this.#cells[index] = [...(this.#cells[index] ?? []), { bytes, value }];
    }
  }

  get(src: Uint8Array, start: number, end: number): T | undefined {
    const cell = this.#cells[hashOf(src, start, end) & this.#mask];
    if (cell === undefined) return undefined;
    for (const { bytes, value } of cell) if (equalsAt(bytes, src, start, end)) return value;
    return undefined;
  }
}

function hashOf(src: Uint8Array, start: number, end: number): number {
  let hash = end - start;
  for (let i = start; i < end; i++) hash = (Math.imul(hash, 31) + (src[i] ?? 0)) | 0;
  return hash ^ (hash >>> 15);
}

export function startsAt(bytes: Uint8Array, src: Uint8Array, at: number): boolean {
  for (let i = 0; i < bytes.length; i++) if (bytes[i] !== src[at + i]) return false;
  return true;
}

export function equalsAt(bytes: Uint8Array, src: Uint8Array, start: number, end: number): boolean {
  if (bytes.length !== end - start) return false;
  for (let i = 0; i < bytes.length; i++) if (bytes[i] !== src[start + i]) return false;
  return true;
}

/** Plans of the messages under one root; `carried` are keys that whoever holds the message tells elsewhere. */
export class Plans {
  /** By type, and by what is carried. */
  readonly #plans = new Map<protobuf.Type, Map<string, Plan>>();

  of(type: protobuf.Type, carried: readonly string[] = []): Plan {
    let variants = this.#plans.get(type);
    if (variants === undefined) {
      variants = new Map();
      this.#plans.set(type, variants);
    }
    const key = carried.length === 0 ? '' : carried.join();
    const known = variants.get(key);
    if (known !== undefined) return known;
    const plan = this.#compile(type, carried);
    variants.set(key, plan);
    return plan;
  }

  #compile(type: protobuf.Type, carried: readonly string[]): Plan {
    const fields = type.fieldsArray.map((field) => this.#field(field));
    const inline = optionOf(type, 'json_inline') === true;
    const byKey = new Map<string, Field[]>();
    for (const [index, field] of fields.entries()) {
      const key = inline ? '' : String(optionOf(type.fieldsArray[index], 'json_key') ?? field.name);
      byKey.set(key, [...(byKey.get(key) ?? []), field]);
    }
    const discriminator = String(optionOf(type.oneofsArray?.[0], 'json_union') ?? '');
    const slots = [...byKey].map(([key, group], bit) => slotOf(key, bit, group, discriminator));
    const table = new Map(slots.map((slot) => [slot.key, slot]));
    for (const [index, key] of carried.entries()) {
      if (!table.has(key)) table.set(key, slotOf(key, slots.length + index, [], ''));
    }
    return {
      type,
      inline: inline && slots[0] !== undefined ? { ...slots[0], nullable: false } : undefined,
      slots,
      byKey: new ByteTable(table),
      byField: new Map(slots.flatMap((slot) => slot.fields.map((field) => [field.name, slot] as const))),
      implicit: slots.filter((slot) => slot.implicit !== undefined),
      first: { slot: undefined },
      requiredLow: bitsOf(slots.filter((slot) => !slot.nullable && slot.bit < 32)),
      requiredHigh: bitsOf(slots.filter((slot) => !slot.nullable && slot.bit >= 32)),
    };
  }

  #field(field: protobuf.Field): Field {
    const type = field.resolve().resolvedType;
    const message = type instanceof protobuf.Type ? type : undefined;
    const map = field instanceof protobuf.MapField;
    const kinds = optionsOf(field, 'json_kind').map(String);
    // An arm's own discriminator is told by which arm it is, unless it has several.
    const discriminator = optionOf(field.partOf, 'json_union');
    const carried = kinds.length > 0 && typeof discriminator === 'string' ? [discriminator] : [];
    const wire = message === undefined ? (WIRE_TYPES[field.type] ?? 0) : 2;
    const packed = field.repeated && wire !== 2;
    const single: Field = {
      name: field.name,
      number: field.id,
      tag: (field.id << 3) | wire,
      scalar: message === undefined ? (field.type as Scalar) : undefined,
      isMessage: message !== undefined,
      isInline: message !== undefined && optionOf(message, 'json_inline') === true,
      message: lazy(() => this.of(message ?? unreachable(field), carried)),
      element: () => unreachable(field),
      shape: 'single',
      packed,
      presence: message !== undefined || field.hasPresence,
      raw: optionOf(field, 'json_raw') === true,
      always: optionOf(field, 'json_always') === true,
      base64: optionOf(field, 'json_base64') === true,
      since: Number(optionOf(field, 'since_revision') ?? 1),
      bounds: optionOf(field, 'bounds') as Bounds | undefined,
      kinds,
      kindsJson: kinds.map((kind) => JSON.stringify(kind)),
    };
    if (!map && !field.repeated) return single;
    const entry = {
      ...single,
      presence: true,
      bounds: undefined,
      kinds: [],
      kindsJson: [],
      ...(map && { number: 2, tag: (2 << 3) | wire }),
    };
    return {
      ...single,
      tag: (field.id << 3) | 2,
      shape: map ? 'map' : 'list',
      presence: false,
      element: lazy(() => ({ ...slotOf('', -1, [entry], ''), nullable: false })),
    };
  }
}

function slotOf(key: string, bit: number, fields: readonly Field[], discriminator: string): Slot {
  const arms = new Map(fields.flatMap((field) => field.kinds.map((kind) => [kind, field] as const)));
  const plain = fields.filter((field) => field.kinds.length === 0);
  const single = plain.filter((field) => field.shape === 'single');
  const scalar = (...types: readonly string[]) =>
    single.find((field) => !field.raw && types.includes(field.scalar ?? ''));
  return {
    key,
    keyBytes: Buffer.from(`${key}"`),
    keyJson: `${JSON.stringify(key)}:`,
    next: { slot: undefined },
    bit,
    fields,
    implicit: fields.find((field) => !maySayAbsent(field)),
    string: scalar('string'),
    number: scalar('double', 'int32', 'int64'),
    boolean: scalar('bool'),
    list: plain.find((field) => field.shape === 'list'),
    object: single.find((field) => field.isMessage && !field.isInline),
    map: plain.find((field) => field.shape === 'map'),
    any: single.find((field) => field.isInline),
    raw: single.find((field) => field.raw),
    arms: arms.size > 0 ? new ByteTable(arms) : undefined,
    discriminator,
    discriminatorBytes: Buffer.from(discriminator),
    scalars: single.filter((field) => field.scalar !== undefined && !field.raw).length,
    nullable: fields.every(maySayAbsent),
    since: fields.length === 0 ? 0 : Math.min(...fields.map((field) => field.since)),
  };
}

/** Whether leaving the field unset means that the key is not there. */
function maySayAbsent(field: Field): boolean {
  return field.presence || (field.shape === 'single' ? field.raw : !field.always);
}

function optionsOf(holder: protobuf.ReflectionObject | undefined, name: string): unknown[] {
  const parsed = (holder?.parsedOptions ?? holder?.options?.[PARSED_OPTIONS] ?? []) as readonly Readonly<
    Record<string, unknown>
  >[];
  return parsed.filter((option) => Object.hasOwn(option, `(${name})`)).map((option) => option[`(${name})`]);
}

function optionOf(holder: protobuf.ReflectionObject | null | undefined, name: string): unknown {
  const all = optionsOf(holder ?? undefined, name);
  // Each `(bounds).x = y` is an option of its own.
  return typeof all[0] === 'object' ? Object.assign({}, ...all) : all[0];
}

function bitsOf(slots: readonly Slot[]): number {
  return slots.reduce((bits, slot) => bits | (1 << (slot.bit & 31)), 0);
}

function lazy<T>(make: () => T): () => T {
  let made: T | undefined;
  return () => {
    made ??= make();
    return made;
  };
}

function unreachable(field: protobuf.Field): never {
  throw new Error(`${field.fullName} has no such part`);
}
