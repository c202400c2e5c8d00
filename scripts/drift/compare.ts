/** Walks an upstream definition and the proto side by side and tells what the proto has not. */
import type { Field, Plan, Slot } from '../../src/translate/schema.ts';
import type { ObjectShape, Shape } from './shape.ts';

export interface Gap {
  /** The proto message. */
  readonly message: string;
  /** The upstream's key, or the kind of a union that has no arm. */
  readonly field: string;
  /** What is missing. */
  readonly missing: string;
  /** Where the upstream defines it. */
  readonly upstream: string;
}

export function compare(shape: Shape, plan: Plan, carried: readonly string[] = []): Gap[] {
  const walk = new Walk();
  if (plan.inline !== undefined) walk.slot(plan.inline, shape, plan.type.name, '');
  else for (const object of shape.objects) walk.object(object, plan, carried);
  return [...new Map(walk.gaps.map((gap) => [`${gap.message} ${gap.field} ${gap.missing}`, gap])).values()];
}

class Walk {
  readonly gaps: Gap[] = [];
  readonly #seen = new Set<string>();

  object(object: ObjectShape, plan: Plan, carried: readonly string[]): void {
    const message = plan.type.name;
    const id = `${object.name} ${message}`;
    if (this.#seen.has(id)) return;
    this.#seen.add(id);
    for (const [key, member] of object.members) {
      const slot = plan.slots.find((candidate) => candidate.key === key);
      if (slot !== undefined) this.slot(slot, member.shape(), message, key, object.name);
      else if (!carried.includes(key)) this.#gap(message, key, 'field', object.name);
    }
  }

  slot(slot: Slot, shape: Shape, message: string, key: string, upstream = ''): void {
    const inline = slot.any?.message();
    if (inline?.inline !== undefined) {
      const strings = shape.strings && slot.string === undefined;
      const lists = slot.list === undefined ? shape.lists : [];
      this.slot(inline.inline, { ...shape, strings, lists }, inline.type.name, '', upstream);
      return;
    }
    const passedThrough = slot.raw !== undefined && slot.discriminator === '';
    if (passedThrough || (shape.any && slot.raw !== undefined)) return;
    if (shape.any) this.#gap(message, key, 'any JSON value', upstream);
    if (shape.strings && slot.string === undefined) this.#gap(message, key, 'string form', upstream);
    if (shape.numbers && slot.number === undefined) this.#gap(message, key, 'number form', upstream);
    if (shape.booleans && slot.boolean === undefined) this.#gap(message, key, 'boolean form', upstream);
    for (const list of shape.lists) this.#entries(slot.list, list(), message, key, 'list form', upstream);
    for (const map of shape.maps) this.#entries(slot.map, map(), message, key, 'map form', upstream);
    for (const object of shape.objects) {
      if (slot.discriminator !== '') this.#arm(slot, object, message);
      else if (slot.object !== undefined) this.object(object, slot.object.message(), []);
      else this.#gap(message, key, 'object form', object.name);
    }
  }

  #entries(
    field: Field | undefined,
    shape: Shape,
    message: string,
    key: string,
    form: string,
    upstream: string,
  ): void {
    if (field === undefined) this.#gap(message, key, form, upstream);
    else this.slot(field.element(), shape, message, key, upstream);
  }

  #arm(slot: Slot, object: ObjectShape, message: string): void {
    for (const kind of object.members.get(slot.discriminator)?.literals ?? []) {
      const arm = slot.fields.find((field) => field.kinds.includes(kind));
      if (arm === undefined) this.#gap(message, kind, 'kind', object.name);
      else this.object(object, arm.message(), [slot.discriminator]);
    }
  }

  #gap(message: string, field: string, missing: string, upstream: string): void {
    this.gaps.push({ message, field, missing, upstream });
  }
}
