import type { HttpAnswer } from '../dialect/refusal.ts';
import type { UpstreamFrame } from '../dialect/types.ts';
import type { Secret } from '../ground/secret.ts';
import { frameFromBytes } from '../translate/peek.ts';

/**
 * The one door that an upstream's words pass on their way to a caller: the upstream was given the operator's key, and
 * providers, proxies and hostile servers quote it. Nothing that an upstream said is read before it went through here.
 */
export interface Redactor {
  /** A text about the request: a close reason, a status line. */
  text(text: string): string;
  /** A JSON value about the request. */
  json(value: unknown): unknown;
  /** An answer that is not the one asked for. */
  refusal(answer: HttpAnswer): HttpAnswer;
  /** An answer that is. */
  answer(body: Buffer): Buffer;
  frame(frame: UpstreamFrame): UpstreamFrame;
}

export function redactorFor(secret: Secret | undefined): Redactor {
  return secret === undefined ? NOTHING_TO_HIDE : new KeyRedactor(secret);
}

/** What stands where the key stood. */
export const REDACTED = '[redacted]';

/**
 * Shorter ones ("EMPTY", "test") are what servers without keys are given. They are taken out of errors, but content
 * may hold such a word by itself.
 */
const MIN_REAL_KEY_CHARS = 16;

/** Longer ones are no error objects. */
const MAX_ERROR_BYTES = 64 * 1024;

/** What is enough of a key to know it by, where it is quoted in part: "sk-pro", but not "sk-". */
const TELLING_CHARS = 6;

/** Frames in which an upstream speaks of the request: looked at closely, however the key is spelled. */
const TALKS_OF_REQUEST: ReadonlySet<string> = new Set(['error', 'response.failed']);

const NOTHING_TO_HIDE: Redactor = {
  text: (text) => text,
  json: (value) => value,
  refusal: (answer) => answer,
  answer: (body) => body,
  frame: (frame) => frame,
};

class KeyRedactor implements Redactor {
  readonly #secret: Secret;

  constructor(secret: Secret) {
    this.#secret = secret;
  }

  text(text: string): string {
    return text.replaceAll(spellingsOf(this.#secret), REDACTED);
  }

  json(value: unknown): unknown {
    if (typeof value === 'string') return this.text(value);
    if (typeof value !== 'object' || value === null) return value;
    if (Array.isArray(value)) return value.map((each) => this.json(each));
    return Object.fromEntries(
      Object.entries(value).map(([name, each]) => [this.text(name), this.json(each)]),
    );
  }

  refusal(answer: HttpAnswer): HttpAnswer {
    return { ...answer, body: this.#body(answer.body) ?? answer.body };
  }

  /** A short one may be an error in disguise (HTTP 200, `{"error":…}`), and is looked at as closely. */
  answer(body: Buffer): Buffer {
    if (this.#isTooShort) return body;
    if (body.length <= MAX_ERROR_BYTES) {
      const clean = this.#body(body.toString('utf8'));
      return clean === undefined ? body : Buffer.from(clean, 'utf8');
    }
    if (!this.#isIn(body)) return body;
    const parsed = parse(body.toString('utf8'));
    return Buffer.from(parsed === undefined ? '' : JSON.stringify(this.json(parsed)), 'utf8');
  }

  /** Deltas are not searched: each would pay for it, and what they hold was made by the model. */
  frame(frame: UpstreamFrame): UpstreamFrame {
    if (TALKS_OF_REQUEST.has(frame.type)) {
      const clean = this.#clean(Buffer.from(frame.bytes).toString('utf8'), frame.json());
      return clean === undefined ? frame : frameFromBytes(Buffer.from(clean, 'utf8'));
    }
    if (this.#isTooShort || frame.type.endsWith('.delta') || !this.#isIn(frame.bytes)) return frame;
    return frameFromBytes(Buffer.from(JSON.stringify(this.json(frame.json())), 'utf8'));
  }

  /** Undefined: the key is not in it. */
  #body(text: string): string | undefined {
    const parsed = parse(text);
    return parsed === undefined ? this.text(text) : this.#clean(text, parsed);
  }

  /** Undefined: the key is not in it. Members that come twice are in the text only, escapes resolved only in the value. */
  #clean(text: string, value: unknown): string | undefined {
    const spellings = spellingsOf(this.#secret);
    if (text.search(spellings) < 0 && JSON.stringify(value).search(spellings) < 0) return undefined;
    return JSON.stringify(this.json(value));
  }

  /** To be looked for in content. */
  get #isTooShort(): boolean {
    return this.#secret.reveal().length < MIN_REAL_KEY_CHARS;
  }

  /** A key in its own letters. */
  #isIn(bytes: Uint8Array): boolean {
    if (this.#isTooShort) return false;
    const buffer = Buffer.isBuffer(bytes)
      ? bytes
      : Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    return buffer.includes(this.#secret.reveal(), 0, 'latin1');
  }
}

/** By secret: compiling one takes as long as some turns. */
const SPELLINGS = new WeakMap<Secret, RegExp>();

function spellingsOf(secret: Secret): RegExp {
  const known = SPELLINGS.get(secret) ?? compileSpellings(secret.reveal());
  SPELLINGS.set(secret, known);
  return known;
}

function compileSpellings(key: string): RegExp {
  const whole = spelledOut(key);
  if (key.length < MIN_REAL_KEY_CHARS) return new RegExp(whole, 'g');
  const inPart = `${spelledOut(key.slice(0, TELLING_CHARS))}[\\w.*…•%&#;\\\\-]{2,}`;
  const hex = Buffer.from(key, 'latin1').toString('hex');
  return new RegExp([whole, inPart, ...inBase64(key), hex].join('|'), 'gi');
}

/** Each character as it is, percent-encoded, escaped as in JSON, or as an HTML entity. */
function spelledOut(key: string): string {
  return [...key]
    .map((character) => {
      const code = character.charCodeAt(0);
      const hex = code.toString(16).padStart(2, '0');
      const itself = character.replace(/[\\^$.*+?()[\]{}|/-]/, '\\$&');
      return `(?:${itself}|%(?:25)*${hex}|\\\\+u00${hex}|&#${code};|&#x${hex};)`;
    })
    .join('');
}

/** What of its base64 depends on the key alone, for each of the three ways in which it may lie in a longer text. */
function inBase64(key: string): readonly string[] {
  return [0, 1, 2].map((offset) => {
    const bytes = Buffer.concat([Buffer.alloc(offset), Buffer.from(key, 'latin1')]);
    const own = bytes
      .toString('base64')
      .slice(Math.ceil((offset * 8) / 6), Math.floor((bytes.length * 8) / 6));
    return own.replaceAll('+', '[+-]').replaceAll('/', '[/_]');
  });
}

function parse(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}
