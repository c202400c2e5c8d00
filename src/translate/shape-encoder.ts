/** Frames of a known shape → protobuf bytes: what repeats was translated once, what differs is copied into place. */
import { Output, SPARE_BYTES } from './output.ts';
import type { Frame } from './peek.ts';
import { Reader } from './reader.ts';
import { isJson, MAX_DEPTH } from './scan.ts';
import type { Field, Plan, Slot } from './schema.ts';
import { endOfValid, type Literal, type Shape } from './shape.ts';
import { lookAt, memory, putUnescaped } from './text.ts';

const MAX_INT32 = 2 ** 31 - 1;

/** Above it, native code copies faster. */
const MAX_SHORT_BYTES = 64;

/** Room for tag and length of one value. */
const VALUE_OVERHEAD_BYTES = 20;

interface Step {
  /** JSON before the value. */
  readonly skip: number;
  /** Fields of the members in between, which never change. */
  readonly constant: Uint8Array;
  readonly take: 'string' | 'integer' | 'double' | 'carried';
  readonly tag: number;
  /** Zero and absent differ, so zero is written. */
  readonly presence: boolean;
  readonly most: number;
}

export class ShapeEncoder {
  readonly #steps: readonly Step[];
  readonly #tail: Uint8Array;
  readonly #overhead: number;
  /** Length of the last message, which the next one most likely needs as many bytes to tell. */
  length = 0;

  private constructor(steps: readonly Step[], tail: Uint8Array) {
    this.#steps = steps;
    this.#tail = tail;
    const constants = steps.reduce((sum, { constant }) => sum + constant.length, tail.length);
    this.#overhead = constants + steps.length * VALUE_OVERHEAD_BYTES + SPARE_BYTES;
  }

  /** Undefined if frames of the shape say more than the message can, or have a value without a plain field. */
  static of(shape: Shape, plan: Plan, revision: number): ShapeEncoder | undefined {
    const { sample, holes, literals } = shape;
    const out = new Output();
    const reader = new Reader(out);
    const translate = (json: Buffer): Uint8Array | undefined => {
      const from = out.at;
      const read = reader.read(plan, json, revision);
      const bytes = out.take(from);
      return read && !reader.ambiguous ? bytes : undefined;
    };
    if (translate(sample) === undefined || !reader.lossless) return undefined;
    const steps: Step[] = [];
    let possible = true;
    let constants: Uint8Array[] = [];
    isJson(sample, MAX_DEPTH, (keyStart, keyEnd, _valueStart, valueEnd) => {
      const hole = holes[steps.length];
      if (sample.toString('latin1', keyStart, keyEnd) !== hole?.key) {
        const member = Buffer.concat([BRACES[0], sample.subarray(keyStart - 1, valueEnd), BRACES[1]]);
        constants.push(translate(member) ?? new Uint8Array(0));
        return;
      }
      const slot = plan.byKey.get(sample, keyStart, keyEnd);
      const value = slot === undefined || slot.since > revision ? undefined : writingOf(slot, hole.kind);
      if (value === undefined) possible = false;
      const skip = (literals[steps.length] as Literal).bytes.length;
      steps.push({ skip, constant: Buffer.concat(constants), ...(value ?? CARRIED) });
      constants = [];
    });
    return possible ? new ShapeEncoder(steps, Buffer.concat(constants)) : undefined;
  }

  /** Appends the message of a frame of the shape; false if it has to be read in full, and `out` is to be set back. */
  write(frame: Frame, out: Output): boolean {
    const { src, start, end, textStart, textEnd } = frame;
    const steps = this.#steps;
    out.reserve(end - start + this.#overhead);
    let pos = start;
    for (let i = 0; i < steps.length; i++) {
      const step = steps[i] as Step;
      pos += step.skip;
      if (step.constant.length > 0) out.raw(step.constant, 0, step.constant.length);
      if (step.take === 'integer' || step.take === 'double') {
        let value = 0;
        for (let c = src[pos] as number; c >= 0x30 && c <= 0x39; c = src[++pos] as number) {
          value = value * 10 + (c - 0x30);
        }
        if (value > step.most) return false;
        if (value === 0 && !step.presence) continue;
        out.varint(step.tag);
        if (step.take === 'double') out.double(value);
        else out.varint64(value);
        continue;
      }
      const found = pos === textStart ? textEnd : endOfValid(src, pos, end);
      const quote = found < 0 ? ~found : found;
      if (step.take === 'carried') {
        // The envelope cannot tell an empty one from none.
        if (quote === pos) return false;
      } else if (found < 0) {
        out.varint(step.tag);
        const { text } = frame;
        // Escapes are a sixth of a text of code.
        const guess = text?.length ?? quote - pos;
        const mark = out.open(guess);
        if (pos === textStart && text !== undefined) {
          // Nothing is longer than its escape, so that there is room.
          out.at += out.bytes.write(text, out.at);
        } else if (!putUnescaped(src, pos, quote, out)) return false;
        out.close(mark, guess);
      } else if (quote > pos || step.presence) {
        out.varint(step.tag);
        lookAt(src);
        const { view, shift } = memory;
        if (quote - pos < MAX_SHORT_BYTES && quote + shift + SPARE_BYTES <= view.byteLength)
          out.short(view, pos + shift, quote - pos);
        else out.chunk(src, pos, quote);
      }
      pos = quote;
    }
    out.raw(this.#tail, 0, this.#tail.length);
    return true;
  }
}

const BRACES = [Buffer.from('{'), Buffer.from('}')] as const;
const CARRIED = { take: 'carried', tag: 0, presence: false, most: 0 } as const;

/** How a value of that kind is written; undefined where the reader would have to think. */
function writingOf(slot: Slot, kind: 'string' | 'number'): Omit<Step, 'skip' | 'constant'> | undefined {
  if (kind === 'string') {
    if (slot.fields.length === 0) return CARRIED;
    return slot.string === undefined ? undefined : { ...CARRIED, take: 'string', ...partsOf(slot.string) };
  }
  const field = slot.number;
  if (field === undefined || field.packed) return undefined;
  if (field.scalar === 'double') return { take: 'double', ...partsOf(field), most: Number.MAX_SAFE_INTEGER };
  const most = field.scalar === 'int32' ? MAX_INT32 : Number.MAX_SAFE_INTEGER;
  return { take: 'integer', ...partsOf(field), most };
}

function partsOf({ tag, presence }: Field): Pick<Step, 'tag' | 'presence'> {
  return { tag, presence };
}
