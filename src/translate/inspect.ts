/**
 * A look at a request before it is decoded. Decoding passes over fields that we do not know. In the envelope that is
 * right, newer clients may say more there; in a body it would run another request than the client meant, so it is
 * refused. And decoding takes as long as there are fields, however few bytes they are: more than a request can need are
 * refused before they cost anything.
 */
import protobuf from 'protobufjs/light.js';
import { GatewayError, invalidField } from '../errors.ts';

/** Where bodies begin. */
const BODIES = ['CreateBody', 'CompactBody', 'CountBody', 'InputItem'];

/** Of one item, and of a request without its items. Thousands of content parts or tools fit; 25 ms of work do not. */
export const MAX_FIELDS = 25_000;
/** protobufjs gives up there as well. */
const MAX_NESTING = 100;

export interface Findings {
  /** A field of a body that this gateway does not know. */
  readonly unknown: GatewayError | undefined;
  /** More items or fields than there may be; nothing behind was looked at. */
  readonly excess: GatewayError | undefined;
}

/**
 * `type` may be an envelope, whose input items are bytes: they are counted, not looked into. `path` is how the client
 * knows the message. Throws MALFORMED_MESSAGE:
 * decoding does not look at wire types, so what it reads one way may come to an end in the middle of another.
 */
export function inspect(
  type: protobuf.Type,
  bytes: Uint8Array,
  {
    path = '',
    maxItems = Number.POSITIVE_INFINITY,
  }: { readonly path?: string; readonly maxItems?: number } = {},
): Findings {
  const look = new Look(maxItems, path);
  try {
    look.visit(tableOf(type), protobuf.Reader.create(bytes), bytes.length, false, 0);
  } catch (cause) {
    if (!(cause instanceof GatewayError))
      throw new GatewayError('MALFORMED_MESSAGE', `the bytes are no ${type.name}`, { cause });
    return { unknown: undefined, excess: cause };
  }
  return look.unknown === undefined ? NOTHING_FOUND : { unknown: look.unknown, excess: undefined };
}

const NOTHING_FOUND: Findings = { unknown: undefined, excess: undefined };

/** What a look needs of a type: asking protobufjs for each field of each message takes as long as decoding it. */
interface Table {
  readonly isBody: boolean;
  readonly byNumber: ReadonlyMap<number, Entry>;
}

interface Entry {
  readonly name: string;
  readonly type: protobuf.Type | undefined;
  /** Of the type, once it was met. */
  table: Table | undefined;
  readonly isPacked: boolean;
  readonly isItem: boolean;
}

const tables = new WeakMap<protobuf.Type, Table>();

function tableOf(type: protobuf.Type): Table {
  const known = tables.get(type);
  if (known !== undefined) return known;
  const byNumber = new Map<number, Entry>();
  for (const field of type.fieldsArray) {
    const { resolvedType } = field.resolve();
    const isMessage = resolvedType instanceof protobuf.Type && !(field instanceof protobuf.MapField);
    byNumber.set(field.id, {
      name: field.name,
      type: isMessage ? resolvedType : undefined,
      table: undefined,
      isPacked: field.repeated && field.packed,
      isItem: field.name === 'input' && field.type === 'bytes',
    });
  }
  const table = { isBody: BODIES.includes(type.name), byNumber };
  tables.set(type, table);
  return table;
}

class Look {
  unknown: GatewayError | undefined;
  readonly #maxItems: number;
  /** From the message that is looked at to the one at hand. */
  readonly #names: string[];
  #items = 0;
  #fields = 0;

  constructor(maxItems: number, path: string) {
    this.#maxItems = maxItems;
    this.#names = path === '' ? [] : [path];
  }

  visit(table: Table, reader: protobuf.Reader, end: number, inBody: boolean, depth: number): void {
    if (depth > MAX_NESTING) throw new RangeError('nested too deep');
    const isBody = inBody || table.isBody;
    while (reader.pos < end) {
      const tag = reader.uint32();
      const entry = table.byNumber.get(tag >>> 3);
      if (entry?.isItem === true) this.#countItem();
      else this.#countField();
      if (entry === undefined && isBody) {
        this.unknown ??= invalidField(
          this.#path,
          `field ${tag >>> 3}, unknown to this gateway`,
          'what its schema revision has, or extra_json',
        );
      }
      if ((tag & 7) !== 2) {
        reader.skipType(tag & 7);
        continue;
      }
      const length = reader.uint32();
      if (entry?.type !== undefined) {
        entry.table ??= tableOf(entry.type);
        this.#names.push(entry.name);
        this.visit(entry.table, reader, reader.pos + length, isBody, depth + 1);
        this.#names.pop();
      } else {
        // Each byte of a packed list may be a number.
        if (entry?.isPacked === true) this.#fields += length;
        reader.skip(length);
      }
    }
  }

  get #path(): string {
    return this.#names.join('.');
  }

  #countItem(): void {
    this.#items += 1;
    if (this.#items > this.#maxItems) throw tooMany('items_per_turn', `${this.#path}.input`, this.#maxItems);
  }

  #countField(): void {
    this.#fields += 1;
    if (this.#fields > MAX_FIELDS) throw tooMany('fields', this.#path, MAX_FIELDS);
  }
}

function tooMany(limit: string, path: string, max: number): GatewayError {
  const what = limit === 'items_per_turn' ? 'items' : 'fields';
  return new GatewayError('LIMIT_EXCEEDED', `${path}: found more than ${max} ${what}; allowed: ${max}`, {
    metadata: { limit, value: String(max), scope: 'message', field: path },
  });
}
