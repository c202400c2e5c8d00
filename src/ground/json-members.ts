import { LONG_TEXT } from './long-texts.ts';

/** Work that can be paused where it yields. */
type Steps<T> = Generator<undefined, T>;

/** One member of a JSON object, as offsets into its text. */
export interface Member {
  readonly name: string;
  readonly start: number;
  readonly valueStart: number;
  readonly end: number;
}

/**
 * The members of a JSON object in order, without parsing their values: what is kept of the text stays byte for
 * byte as it was. Linear in the text, without recursion. Throws SyntaxError when the outline is no object; values
 * are only followed to their end.
 */
export function membersOf(text: string): Member[] {
  return finish(memberSteps(text));
}

/** The same, with a pause offered wherever a long text takes long. */
export function* memberSteps(text: string): Steps<Member[]> {
  const members: Member[] = [];
  let at = expect(text, space(text, 0), '{');
  let pauseAt = LONG_TEXT;
  if (text[space(text, at)] === '}') return members;
  for (;;) {
    const start = space(text, at);
    const nameEnd = stringEnd(text, start);
    const name: unknown = JSON.parse(text.slice(start, nameEnd));
    const valueStart = space(text, expect(text, space(text, nameEnd), ':'));
    const end = text.length < LONG_TEXT ? valueEnd(text, valueStart) : yield* endSteps(text, valueStart);
    members.push({ name: String(name), start, valueStart, end });
    if (end >= pauseAt) {
      pauseAt = end + LONG_TEXT;
      yield;
    }
    at = space(text, end);
    if (text[at] === '}') return members;
    at = expect(text, at, ',');
  }
}

/** Above it an object is not parsed for the sake of a few short members: that takes as long as all of it is. */
const LONG_OBJECT_CHARS = 16 * 1024;

/**
 * The object, or undefined for what is none or no JSON. Of a long one only names and the beginnings of its members are read:
 * a long text stands as LONG_VALUE, as does a list or an object that is long and not empty.
 */
export function outlineOf(text: string): Readonly<Record<string, unknown>> | undefined {
  return finish(outlineSteps(text));
}

/** The same, with a pause offered wherever a long text takes long. */
export function* outlineSteps(text: string): Steps<Readonly<Record<string, unknown>> | undefined> {
  try {
    if (text.length < LONG_OBJECT_CHARS) return asObject(JSON.parse(text));
    const outline: Record<string, unknown> = Object.create(null);
    for (const { name, valueStart, end } of yield* memberSteps(text)) {
      const isLong = end - valueStart >= LONG_OBJECT_CHARS;
      outline[name] = isLong ? longValue(text, valueStart) : JSON.parse(text.slice(valueStart, end));
    }
    return outline;
  } catch {
    return undefined;
  }
}

/** Stands for a text that is not read, or for what is in a list or an object. */
export const LONG_VALUE = '\u2026';

function longValue(text: string, at: number): unknown {
  if (text[at] === '"') return LONG_VALUE;
  const isList = text[at] === '[';
  if (!isList && text[at] !== '{') return JSON.parse(text.slice(at, valueEnd(text, at)));
  const first = text[space(text, at + 1)];
  if (isList) return first === ']' ? [] : [LONG_VALUE];
  return first === '}' ? {} : { [LONG_VALUE]: LONG_VALUE };
}

function asObject(value: unknown): Readonly<Record<string, unknown>> | undefined {
  return typeof value === 'object' && value !== null ? (value as Record<string, unknown>) : undefined;
}

/** The elements of a JSON array, each as its text. Throws SyntaxError as `membersOf` does. */
export function elementsOf(text: string): string[] {
  return finish(elementSteps(text));
}

/** The same, with a pause offered wherever a long text takes long. */
export function* elementSteps(text: string): Steps<string[]> {
  const elements: string[] = [];
  let at = space(text, expect(text, space(text, 0), '['));
  let pauseAt = LONG_TEXT;
  if (text[at] === ']') return elements;
  for (;;) {
    const end = text.length < LONG_TEXT ? valueEnd(text, at) : yield* endSteps(text, at);
    elements.push(text.slice(at, end));
    if (end >= pauseAt) {
      pauseAt = end + LONG_TEXT;
      yield;
    }
    const next = space(text, end);
    if (text[next] === ']') return elements;
    at = space(text, expect(text, next, ','));
  }
}

function space(text: string, at: number): number {
  while (at < text.length && ' \t\r\n'.includes(text.charAt(at))) at += 1;
  return at;
}

function expect(text: string, at: number, character: string): number {
  if (text[at] !== character) throw new SyntaxError(`expected ${character}`);
  return at + 1;
}

function stringEnd(text: string, start: number): number {
  let at = expect(text, start, '"');
  for (;;) {
    const quote = text.indexOf('"', at);
    if (quote < 0) throw new SyntaxError('unterminated string');
    let slashes = 0;
    while (text[quote - 1 - slashes] === '\\') slashes += 1;
    at = quote + 1;
    if (slashes % 2 === 0) return at;
  }
}

/** To the end without a pause. */
function finish<T>(steps: Steps<T>): T {
  for (;;) {
    const step = steps.next();
    if (step.done === true) return step.value;
  }
}

function valueEnd(text: string, start: number): number {
  const first = text[start];
  if (first === '"') return stringEnd(text, start);
  if (first !== '{' && first !== '[') return scalarEnd(text, start);
  const place = { at: start, depth: 0, inString: false };
  goToEnd(text, place, text.length);
  return place.at;
}

function* endSteps(text: string, start: number): Steps<number> {
  const first = text[start];
  if (first !== '"' && first !== '{' && first !== '[') return scalarEnd(text, start);
  const place = { at: start, depth: 0, inString: false };
  while (!goToEnd(text, place, Math.min(place.at + LONG_TEXT, text.length))) yield;
  return place.at;
}

function scalarEnd(text: string, start: number): number {
  const delimiter = /[,}\]\s]/g;
  delimiter.lastIndex = start;
  const end = delimiter.exec(text)?.index ?? text.length;
  if (end === start) throw new SyntaxError('expected a value');
  return end;
}

/** How far the end of a text, a list or an object was looked for. */
interface Place {
  at: number;
  depth: number;
  inString: boolean;
}

/** Goes on from `place`. True: it is behind the value; false: it has come to `stopAt`. */
function goToEnd(text: string, place: Place, stopAt: number): boolean {
  let { at, depth, inString } = place;
  let isOver = false;
  while (at < stopAt && !isOver) {
    if (inString) {
      const quote = text.indexOf('"', at);
      if (quote < 0) throw new SyntaxError('unterminated string');
      let slashes = 0;
      while (text[quote - 1 - slashes] === '\\') slashes += 1;
      at = quote + 1;
      inString = slashes % 2 === 1;
      isOver = !inString && depth === 0;
      continue;
    }
    switch (text.charCodeAt(at)) {
      case QUOTE:
        inString = true;
        break;
      case OPEN_BRACE:
      case OPEN_BRACKET:
        depth += 1;
        break;
      case CLOSE_BRACE:
      case CLOSE_BRACKET:
        depth -= 1;
        isOver = depth === 0;
    }
    at += 1;
  }
  if (!isOver && at >= text.length) throw new SyntaxError('unterminated value');
  place.at = at;
  place.depth = depth;
  place.inString = inString;
  return isOver;
}

const QUOTE = 0x22;
const OPEN_BRACE = 0x7b;
const CLOSE_BRACE = 0x7d;
const OPEN_BRACKET = 0x5b;
const CLOSE_BRACKET = 0x5d;
