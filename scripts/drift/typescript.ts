/**
 * Reads the type declarations of the openai package: interfaces, aliases and namespaces as its generator
 * writes them. No compiler is needed for that, and none is available to scripts in TypeScript 7.
 */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { type Lazy, type Member, merge, NOTHING, type ObjectShape, type Shape, union } from './shape.ts';

/** The files of an API, by the name under which its declarations are known. */
const FILES = {
  stable: {
    '': 'responses/responses.d.ts',
    InputItems: 'responses/input-items.d.ts',
    InputTokens: 'responses/input-tokens.d.ts',
    Models: 'models.d.ts',
    Shared: 'shared.d.ts',
    Pagination: '../core/pagination.d.ts',
  },
  beta: {
    '': 'beta/responses/responses.d.ts',
    InputItems: 'beta/responses/input-items.d.ts',
    InputTokens: 'beta/responses/input-tokens.d.ts',
    Pagination: '../core/pagination.d.ts',
  },
} as const;

/** Module aliases of the declarations, by the name of the file they stand for. */
const ALIASES: Readonly<Record<string, string>> = {
  ResponsesAPI: '',
  Shared: 'Shared',
  InputItemsAPI: 'InputItems',
  InputTokensAPI: 'InputTokens',
  CursorPageParams: 'Pagination.CursorPageParams',
};

type Declaration =
  | { readonly kind: 'alias'; readonly scope: string; readonly type: string }
  | {
      readonly kind: 'interface';
      readonly scope: string;
      readonly bases: readonly string[];
      readonly body: string;
    };

type Declarations = ReadonlyMap<string, readonly Declaration[]>;

/** Shapes of the exported types of the Responses API or of its beta, by name. `edit` changes the text first, for tests. */
export function readDeclarations(
  packageDir: string,
  api: keyof typeof FILES = 'stable',
  edit: (text: string, file: string) => string = (text) => text,
): (name: string) => Shape {
  const found = new Map<string, Declaration[]>();
  for (const [prefix, file] of Object.entries(FILES[api])) {
    const text = edit(readFileSync(join(packageDir, 'resources', file), 'utf8'), file);
    declare(text.replaceAll(/\/\*[\s\S]*?\*\//g, ''), prefix, found);
  }
  const reader = new Reader(found);
  return (name) => reader.reference(name, '');
}

/** Collects declarations under their full names, `Namespace.Name`. */
function declare(text: string, scope: string, into: Map<string, Declaration[]>): void {
  const pattern =
    /^[ \t]*(?:export )?(?:declare )?(interface|type|namespace) (\w+)(?:<[^>]*>)?(?: extends ([^{]+))?\s*(=|\{)/gm;
  for (let match = pattern.exec(text); match !== null; match = pattern.exec(text)) {
    const [, kind, name = '', bases = '', opener] = match;
    const full = scope === '' ? name : `${scope}.${name}`;
    const start = pattern.lastIndex;
    const end = opener === '{' ? closing(text, start) : endOfAlias(text, start);
    const inside = text.slice(start, end);
    pattern.lastIndex = end;
    if (kind === 'namespace') declare(inside, full, into);
    else {
      const declaration: Declaration =
        kind === 'type'
          ? { kind: 'alias', scope, type: inside }
          : { kind: 'interface', scope, bases: split(bases, ','), body: inside };
      into.set(full, [...(into.get(full) ?? []), declaration]);
    }
  }
}

class Reader {
  readonly #declarations: Declarations;
  readonly #known = new Map<string, Shape>();

  constructor(declarations: Declarations) {
    this.#declarations = declarations;
  }

  /** The type of that name, as seen from a namespace. */
  reference(name: string, scope: string): Shape {
    const full = this.#resolve(name, scope);
    const known = this.#known.get(full) ?? this.#declared(full);
    this.#known.set(full, known);
    return known;
  }

  #declared(full: string): Shape {
    const declarations = this.#declarations.get(full) ?? [];
    const [first] = declarations;
    if (first?.kind === 'alias') return this.#type(first.type, first.scope, full);
    const objects = declarations.flatMap((declaration) =>
      declaration.kind === 'alias'
        ? []
        : [
            ...declaration.bases.flatMap((base) => this.reference(base, declaration.scope).objects),
            this.#object(declaration.body, `${full}`, full),
          ],
    );
    return { ...NOTHING, objects: [merge(full, objects)] };
  }

  #resolve(name: string, scope: string): string {
    const [head = '', ...rest] = name.split('.');
    const alias = ALIASES[head];
    if (alias !== undefined) return [alias, ...rest].filter(Boolean).join('.');
    for (let at = scope; ; at = at.slice(0, Math.max(0, at.lastIndexOf('.')))) {
      const full = at === '' ? name : `${at}.${name}`;
      if (this.#declarations.has(full)) return full;
      if (at === '') throw new Error(`no declaration of ${name} in ${scope}`);
    }
  }

  #type(text: string, scope: string, name: string): Shape {
    const choices = split(text, '|');
    if (choices.length > 1) return union(choices.map((choice) => this.#type(choice, scope, name)));
    const type = (choices[0] ?? '').trim();
    if (type === 'null' || type === 'undefined') return NOTHING;
    const literal = /^'(.*)'$/.exec(type)?.[1];
    if (literal !== undefined) return { ...NOTHING, strings: true, literals: [literal] };
    if (type === 'string' || type.startsWith('(string &')) return { ...NOTHING, strings: true };
    if (type === 'number') return { ...NOTHING, numbers: true };
    if (type === 'boolean' || type === 'true' || type === 'false') return { ...NOTHING, booleans: true };
    if (type === 'unknown' || type === 'any') return { ...NOTHING, any: true };
    const list = /^Array<([\s\S]*)>$/.exec(type)?.[1];
    if (list !== undefined) return { ...NOTHING, lists: [this.#lazy(list, scope, name)] };
    const map = /^\{\s*\[key: string\]: ([\s\S]*?);?\s*\}$/.exec(type)?.[1];
    if (map !== undefined) return { ...NOTHING, maps: [this.#lazy(map, scope, name)] };
    if (type.startsWith('{')) return { ...NOTHING, objects: [this.#object(type.slice(1, -1), scope, name)] };
    if (type.startsWith('(')) return this.#type(type.slice(1, -1), scope, name);
    return this.reference(type, scope);
  }

  #object(body: string, scope: string, name: string): ObjectShape {
    const members = split(body, ';').flatMap((line): [string, Member][] => {
      const [, key, type = ''] = /^\s*'?([\w.]+)'?\??: ([\s\S]+)$/.exec(line) ?? [];
      if (key === undefined) return [];
      const literals = split(type, '|').map((choice) => /^'(.*)'$/.exec(choice.trim())?.[1]);
      const closed = literals.every((literal) => literal !== undefined);
      return [[key, { shape: this.#lazy(type, scope, `${name}.${key}`), literals: closed ? literals : [] }]];
    });
    return { name, members: new Map(members) };
  }

  #lazy(type: string, scope: string, name: string): Lazy {
    let made: Shape | undefined;
    return () => {
      made ??= this.#type(type, scope, name);
      return made;
    };
  }
}

/** Splits at a separator that is in no bracket and no string. */
function split(text: string, separator: string): string[] {
  const parts: string[] = [];
  let depth = 0;
  let start = 0;
  for (let i = 0; i < text.length; i++) {
    const c = text[i] as string;
    if (c === "'") {
      i = text.indexOf("'", i + 1);
      if (i < 0) throw new Error('a string does not end');
    } else if ('<{(['.includes(c)) depth++;
    else if ('>})]'.includes(c)) depth--;
    else if (c === separator && depth === 0) {
      parts.push(text.slice(start, i));
      start = i + 1;
    }
  }
  return [...parts, text.slice(start)].map((part) => part.trim()).filter((part) => part !== '');
}

function closing(text: string, start: number): number {
  let depth = 1;
  for (let i = start; i < text.length; i++) {
    if (text[i] === '{') depth++;
    else if (text[i] === '}' && --depth === 0) return i;
  }
  throw new Error('a declaration does not end');
}

function endOfAlias(text: string, start: number): number {
  let depth = 0;
  for (let i = start; i < text.length; i++) {
    if (text[i] === '{') depth++;
    else if (text[i] === '}') depth--;
    else if (text[i] === ';' && depth === 0) return i;
  }
  throw new Error('a declaration does not end');
}
