/** What an upstream definition allows, whichever language it is written in. */
export interface Shape {
  readonly strings: boolean;
  /** The strings that are named; with `strings` others may be allowed beside them. */
  readonly literals: readonly string[];
  readonly numbers: boolean;
  readonly booleans: boolean;
  /** Anything goes. */
  readonly any: boolean;
  readonly lists: readonly Lazy[];
  readonly maps: readonly Lazy[];
  readonly objects: readonly ObjectShape[];
}

export type Lazy = () => Shape;

export interface ObjectShape {
  readonly name: string;
  readonly members: ReadonlyMap<string, Member>;
}

export interface Member {
  readonly shape: Lazy;
  /** The strings it may be, if it can be nothing else. */
  readonly literals: readonly string[];
}

export const NOTHING: Shape = {
  strings: false,
  literals: [],
  numbers: false,
  booleans: false,
  any: false,
  lists: [],
  maps: [],
  objects: [],
};

export function union(shapes: readonly Shape[]): Shape {
  return {
    strings: shapes.some((shape) => shape.strings),
    literals: shapes.flatMap((shape) => shape.literals),
    numbers: shapes.some((shape) => shape.numbers),
    booleans: shapes.some((shape) => shape.booleans),
    any: shapes.some((shape) => shape.any),
    lists: shapes.flatMap((shape) => shape.lists),
    maps: shapes.flatMap((shape) => shape.maps),
    objects: shapes.flatMap((shape) => shape.objects),
  };
}

/** All members of some objects at once, as for an intersection or a base type. */
export function merge(name: string, objects: readonly ObjectShape[]): ObjectShape {
  return { name, members: new Map(objects.flatMap((object) => [...object.members])) };
}
