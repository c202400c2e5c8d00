/** Decoded messages → upstream JSON. What cannot be said upstream is refused, with the path of the field. */
import { isUtf8 } from 'node:buffer';
import { GatewayError, invalidField } from '../errors.ts';
import { foldName } from '../ground/json-names.ts';
import { joinTexts, LONG_TEXT } from '../ground/long-texts.ts';

import { isJson, isJsonSteps, type OnMember, OPEN_BRACE, skipSpace } from './scan.ts';
import type { Field, Plan, Slot } from './schema.ts';

/** A message as protobufjs decodes it: its own properties are the fields that were on the wire. */
export type Message = Readonly<Record<string, unknown>>;

/** What of a message takes long and was done beforehand. */
export interface Written {
  /** By a text: what it is in JSON. */
  readonly texts: ReadonlyMap<string, string>;
  /** By the bytes of raw JSON in UTF-8. */
  readonly documents: ReadonlyMap<Uint8Array, WrittenJson>;
  /** By a list: its entries as raw JSON each. */
  readonly lists: ReadonlyMap<unknown, readonly string[]>;
}

export interface WrittenJson {
  readonly text: string;
  readonly isValid: boolean;
  /** Of the outermost object, as `OnMember` is told them. */
  readonly members: readonly Parameters<OnMember>[];
}

/** Reads a long document of raw JSON, with pauses. */
export function* writtenJson(bytes: Buffer): Generator<undefined, WrittenJson> {
  const text = bytes.toString('utf8');
  yield;
  const members: Parameters<OnMember>[] = [];
  const note: OnMember = (...member) => {
    members.push(member);
  };
  const isValid = yield* isJsonSteps(bytes, MAX_JSON_DEPTH, note, MAX_JSON_VALUES, LONG_TEXT);
  return { text, isValid, members };
}

/** Deeper pass-through JSON is refused: no API needs it, and parsers behind us may not stand it. */
const MAX_JSON_DEPTH = 256;

/** Megabytes of text are a few values; millions of values are an attack on whoever parses them. */
const MAX_JSON_VALUES = 250_000;

export function objectOf(members: Iterable<readonly [string, string]>): string {
  return `{${joinTexts(
    Array.from(members, ([key, json]) => `${JSON.stringify(key)}:${json}`),
    ',',
  )}}`;
}

export class Writer {
  readonly #checksBounds: boolean;
  readonly #written: Written | undefined;

  /**
   * `checksBounds`: hold values to what the upstream accepts; for what clients send. `written`: what was done beforehand.
   */
  constructor(checksBounds: boolean, written?: Written) {
    this.#checksBounds = checksBounds;
    this.#written = written;
  }

  /** Tells the members of the object that the message stands for, as raw JSON, in the order of the fields. */
  eachMember(
    plan: Plan,
    message: Message,
    path: string,
    tell: (key: string, json: string) => void,
    except?: ReadonlySet<string>,
  ): void {
    for (const slot of slotsIn(plan, message)) {
      if (except?.has(slot.key) === true) continue;
      const json = this.#slot(slot, message, path);
      if (json !== undefined) tell(slot.key, json);
    }
  }

  /** The value of one field that is set. */
  field(field: Field, value: unknown, path: string): string {
    if (this.#checksBounds) checkBounds(field, value, path);
    if (field.shape === 'list') return `[${joinTexts(this.list(field, value, path), ',')}]`;
    if (field.shape === 'map') {
      const [entry] = field.element().fields;
      if (entry === undefined) throw new Error(`${field.name} has no entries`);
      const entries = Object.entries(value as Message);
      return objectOf(entries.map(([key, item]) => [key, this.field(entry, item, `${path}["${key}"]`)]));
    }
    if (field.isMessage) return this.#message(field, value as Message, path);
    if (field.raw) return rawJson(value, path, this.#written);
    if (field.scalar === 'string') return this.#written?.texts.get(value as string) ?? JSON.stringify(value);
    if (field.scalar === 'double' && !Number.isFinite(value)) {
      throw invalidField(path, String(value), 'a finite number');
    }
    return String(value);
  }

  /** The entries of a list field, as raw JSON each. */
  list(field: Field, value: unknown, path: string): readonly string[] {
    const written = this.#written?.lists.get(value);
    if (written !== undefined) return written;
    const [entry] = field.element().fields;
    if (entry === undefined) throw new Error(`${field.name} has no entries`);
    return (value as readonly unknown[]).map((item, index) => this.field(entry, item, `${path}[${index}]`));
  }

  /** An arm of a union: the object, and which one it is. */
  arm(field: Field, discriminator: string, message: Message, path: string): string {
    const { kindsJson } = field;
    let told: string | undefined;
    let members = '';
    for (const slot of slotsIn(field.message(), message)) {
      let json = this.#slot(slot, message, path);
      if (json === undefined) continue;
      if (slot.key === discriminator) {
        if (json === '""') json = kindsJson[0] as string;
        told = json;
      }
      members += `,${slot.keyJson}${json}`;
    }
    if (told === undefined) return `{"${discriminator}":${kindsJson[0]}${members}}`;
    if (!kindsJson.includes(told)) {
      throw invalidField(`${path}.${discriminator}`, told, field.kinds.join(', '));
    }
    return `{${members.slice(1)}}`;
  }

  #message(field: Field, message: Message, path: string): string {
    const { inline } = field.message();
    if (inline === undefined) return this.#object(field.message(), message, path);
    const json = this.#slot(inline, message, path);
    if (json !== undefined) return json;
    throw invalidField(path, 'nothing set', `one of ${inline.fields.map((arm) => arm.name).join(', ')}`);
  }

  #object(plan: Plan, message: Message, path: string): string {
    let members = '';
    for (const slot of slotsIn(plan, message)) {
      const json = this.#slot(slot, message, path);
      if (json !== undefined) members += members === '' ? slot.keyJson + json : `,${slot.keyJson}${json}`;
    }
    return `{${members}}`;
  }

  /** Whichever field of the slot is set; undefined if none is and that can be said. */
  #slot(slot: Slot, message: Message, path: string): string | undefined {
    let field: Field | undefined;
    for (const candidate of slot.fields) {
      if (!isSet(candidate, slot, message)) continue;
      if (field !== undefined)
        throw invalidField(path, `both ${field.name} and ${candidate.name}`, 'one of them');
      field = candidate;
    }
    if (field === undefined) {
      const { implicit } = slot;
      return implicit && this.field(implicit, zeroOf(implicit), `${path}.${implicit.name}`);
    }
    const value = message[field.name];
    const at = `${path}.${field.name}`;
    if (slot.discriminator === '') return this.field(field, value, at);
    if (field.kinds.length > 0) return this.arm(field, slot.discriminator, value as Message, at);
    const json =
      field.raw && this.#checksBounds ? rawUnionJson(value, at, this.#written) : this.field(field, value, at);
    if (field.raw && slot.scalars === 0 && !isObject(json)) {
      throw invalidJson(at, 'a JSON value that is no object', 'one JSON object');
    }
    return json;
  }
}

/** Those of which something is to be written, in their order: a message has few of the fields that it may have. */
function slotsIn({ byField, implicit }: Plan, message: Message): readonly Slot[] {
  const slots: Slot[] = [...implicit];
  for (const name of Object.keys(message)) {
    const slot = byField.get(name);
    if (slot !== undefined && !slots.includes(slot)) slots.push(slot);
  }
  // A few, and nearly in order.
  for (let at = 1; at < slots.length; at += 1) {
    const slot = slots[at] as Slot;
    let to = at;
    for (; to > 0 && (slots[to - 1] as Slot).bit > slot.bit; to -= 1) slots[to] = slots[to - 1] as Slot;
    slots[to] = slot;
  }
  return slots;
}

function isSet(field: Field, slot: Slot, message: Message): boolean {
  if (!Object.hasOwn(message, field.name)) return false;
  const value = message[field.name];
  if (value === null || value === undefined) return false;
  if (field.shape === 'list') return (value as readonly unknown[]).length > 0;
  if (field.shape === 'map') return Object.keys(value).length > 0;
  return !field.raw || slot.discriminator !== '' || (value as Uint8Array).length > 0;
}

function zeroOf(field: Field): unknown {
  if (field.shape === 'list') return [];
  if (field.shape === 'map') return {};
  return field.scalar === 'string' ? '' : field.scalar === 'bool' ? false : 0;
}

function isObject(json: string): boolean {
  return json.trimStart().startsWith('{');
}

/** Pass-through JSON, untouched. */
function rawJson(value: unknown, path: string, written: Written | undefined, onMember?: OnMember): string {
  const bytes = value as Uint8Array;
  const document = written?.documents.get(bytes);
  if (document === undefined) {
    if (!isUtf8(bytes)) throw notUtf8(path);
    if (!isJson(bytes, MAX_JSON_DEPTH, onMember, MAX_JSON_VALUES)) throw malformed(path);
    return bufferOf(bytes).toString('utf8');
  }
  if (!document.isValid) throw malformed(path);
  if (onMember !== undefined) for (const member of document.members) onMember(...member);
  return document.text;
}

function notUtf8(path: string): GatewayError {
  return invalidJson(path, 'bytes that are not UTF-8', 'one JSON value in UTF-8');
}

function malformed(path: string): GatewayError {
  return invalidJson(
    path,
    'malformed JSON',
    `one JSON value, nested at most ${MAX_JSON_DEPTH} deep, of at most ${MAX_JSON_VALUES} values`,
  );
}

/**
 * An arm of a union that has no type of its own. What it is, and whose, is told by its members: all who read it have to
 * read the same, so none may come twice, and those that decide only in their own spelling.
 */
function rawUnionJson(value: unknown, path: string, written: Written | undefined): string {
  const bytes = bufferOf(value as Uint8Array);
  const names = new Names(path, bytes);
  return rawJson(value, path, written, (keyStart, keyEnd) => {
    const name = names.take(keyStart, keyEnd);
    if (name === 'plain' || name.read === name.key || !DECISIVE.has(name.read)) return;
    const found = `a name that some upstreams read as ${name.read}`;
    throw invalidJson(`${path}.${name.key}`, found, `${name.read}, in this spelling`);
  });
}

const DECISIVE: ReadonlySet<string> = new Set(['type', 'id', 'role', 'model', 'tools', 'svg']);

/** The members of one JSON object, untouched; a key that comes twice is refused. */
export function rawMembers(value: Uint8Array, path: string): ReadonlyMap<string, string> {
  const steps = rawMemberSteps(value, path);
  for (;;) {
    const step = steps.next();
    if (step.done === true) return step.value;
  }
}

/** The same, with a pause offered where a long document takes long. */
export function* rawMemberSteps(
  value: Uint8Array,
  path: string,
): Generator<undefined, ReadonlyMap<string, string>> {
  const bytes = bufferOf(value);
  const names = new Names(path, bytes);
  const places: (readonly [key: string, start: number, end: number])[] = [];
  if (!isUtf8(bytes)) throw notUtf8(path);
  const take: OnMember = (keyStart, keyEnd, valueStart, valueEnd) => {
    names.take(keyStart, keyEnd);
    places.push([keyAt(bytes, keyStart, keyEnd), valueStart, valueEnd]);
  };
  if (!(yield* isJsonSteps(bytes, MAX_JSON_DEPTH, take, MAX_JSON_VALUES, LONG_TEXT))) throw malformed(path);
  if (bytes[skipSpace(bytes, 0)] !== OPEN_BRACE) throw invalidJson(path, 'no object', 'one JSON object');
  if (bytes.length >= LONG_TEXT) yield;
  const members = new Map<string, string>();
  for (const [key, start, end] of places) {
    members.set(key, bytes.toString('utf8', start, end));
    if (end - start >= LONG_TEXT) yield;
  }
  return members;
}

/** No item, tool or body has a tenth of it; reading a million names takes long. */
const MAX_MEMBERS = 1_000;

/**
 * The names of one object, each as every reader takes it. Nearly all are a few plain letters, of which no string is made:
 * their bytes are compared where they are.
 */
class Names {
  readonly #path: string;
  readonly #bytes: Buffer;
  readonly #places: { readonly hash: number; readonly start: number; readonly end: number }[] = [];
  /** Once there is one that is not plain. */
  #read: Set<string> | undefined;

  constructor(path: string, bytes: Buffer) {
    this.#path = path;
    this.#bytes = bytes;
  }

  /** Throws INVALID_JSON when it was there before, in whatever spelling. Returns what it is read as. */
  take(start: number, end: number): 'plain' | { readonly key: string; readonly read: string } {
    if (this.#places.length === MAX_MEMBERS || this.#read?.size === MAX_MEMBERS)
      throw invalidJson(this.#path, `more than ${MAX_MEMBERS} members`, `at most ${MAX_MEMBERS}`);
    const hash = this.#read === undefined ? hashOfPlain(this.#bytes, start, end) : undefined;
    if (hash === undefined) return this.#takeAny(start, end);
    for (const place of this.#places) {
      if (place.hash === hash && this.#isSame(place, start, end)) throw this.#twice(start, end);
    }
    this.#places.push({ hash, start, end });
    return 'plain';
  }

  #takeAny(start: number, end: number): { readonly key: string; readonly read: string } {
    this.#read ??= new Set(
      this.#places.map((place) => this.#bytes.toString('latin1', place.start, place.end)),
    );
    const key = keyAt(this.#bytes, start, end);
    const read = foldName(key);
    if (this.#read.has(read)) throw this.#twice(start, end);
    this.#read.add(read);
    return { key, read };
  }

  #isSame(place: { readonly start: number; readonly end: number }, start: number, end: number): boolean {
    return this.#bytes.compare(this.#bytes, start, end, place.start, place.end) === 0;
  }

  #twice(start: number, end: number): GatewayError {
    return invalidJson(`${this.#path}.${keyAt(this.#bytes, start, end)}`, 'the key twice', 'each key once');
  }
}

function keyAt(bytes: Buffer, start: number, end: number): string {
  return JSON.parse(bytes.toString('utf8', start - 1, end + 1)) as string;
}

/** FNV-1a of a name that is spelled as all read it; undefined for any other. */
function hashOfPlain(bytes: Buffer, start: number, end: number): number | undefined {
  let hash = 0x811c9dc5;
  for (let at = start; at < end; at++) {
    const c = bytes[at] as number;
    if (!((c >= 0x61 && c <= 0x7a) || c === 0x5f || (c >= 0x30 && c <= 0x39))) return undefined;
    hash = Math.imul(hash ^ c, 0x01000193);
  }
  return hash;
}

function bufferOf({ buffer, byteOffset, byteLength }: Uint8Array): Buffer {
  return Buffer.from(buffer, byteOffset, byteLength);
}

export function invalidJson(field: string, found: string, allowed: string): GatewayError {
  return new GatewayError('INVALID_JSON', `${field}: found ${found}; allowed: ${allowed}`, {
    metadata: { field },
  });
}

function checkBounds(field: Field, value: unknown, path: string): void {
  if (field.base64 && !isBase64(value as string))
    throw invalidField(path, 'no base64', 'base64, or a data: URL of it');
  const { bounds } = field;
  if (bounds === undefined) return;
  const { min = Number.NEGATIVE_INFINITY, max = Number.POSITIVE_INFINITY } = bounds;
  if (field.scalar === 'string' && field.shape === 'single' && fitsAnyway(value as string, min, max)) return;
  const [size, unit] = sizeOf(field, value);
  if (!(size >= min && size <= max)) throw invalidField(path, `${size}${unit}`, `${range(min, max)}${unit}`);
  if (field.shape !== 'map') return;
  for (const [key, item] of Object.entries(value as Message)) {
    const {
      max_key_length: keyMax = Number.POSITIVE_INFINITY,
      max_value_length: valueMax = Number.POSITIVE_INFINITY,
    } = bounds;
    if (lengthOf(key) > keyMax)
      throw invalidField(path, `a key of ${lengthOf(key)} characters`, `at most ${keyMax}`);
    if (typeof item === 'string' && lengthOf(item) > valueMax) {
      throw invalidField(`${path}["${key}"]`, `${lengthOf(item)} characters`, `at most ${valueMax}`);
    }
  }
}

/** Alone or as a data: URL. In slices, because a regular expression runs out of stack on tens of megabytes. */
function isBase64(text: string): boolean {
  const start = text.startsWith('data:') ? text.indexOf(',') + 1 : 0;
  if (start > 0 && !text.slice(0, start).endsWith(';base64,')) return false;
  let end = text.length;
  while (end > start && end > text.length - 2 && text.charCodeAt(end - 1) === 0x3d) end--;
  if ((text.length - start) % 4 !== 0) return false;
  for (let at = start; at < end; at += BASE64_SLICE)
    if (!BASE64_LETTERS.test(text.slice(at, Math.min(at + BASE64_SLICE, end)))) return false;
  return true;
}

const BASE64_SLICE = 64 * 1024;
const BASE64_LETTERS = /^[A-Za-z0-9+/]*$/;

function sizeOf(field: Field, value: unknown): readonly [number, string] {
  if (field.shape === 'list') return [(value as readonly unknown[]).length, ' entries'];
  if (field.shape === 'map') return [Object.keys(value as Message).length, ' entries'];
  if (field.scalar === 'string') return [lengthOf(value as string), ' characters'];
  return [Number(value), ''];
}

/** Whether a text is within its bounds however many of its characters take two units: counting them takes long. */
function fitsAnyway(text: string, min: number, max: number): boolean {
  return text.length <= max && text.length >= 2 * min;
}

/** Characters as JSON Schema counts them: code points. */
function lengthOf(text: string): number {
  let length = text.length;
  for (let i = 1; i < text.length; i++) {
    if ((text.charCodeAt(i) & 0xfc00) === 0xdc00 && (text.charCodeAt(i - 1) & 0xfc00) === 0xd800) length--;
  }
  return length;
}

function range(min: number, max: number): string {
  if (min === Number.NEGATIVE_INFINITY) return `at most ${max}`;
  return max === Number.POSITIVE_INFINITY ? `at least ${min}` : `${min} to ${max}`;
}
