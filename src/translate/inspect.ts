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
  const look = new Look(maxItems);
  try {
    look.visit(type, protobuf.Reader.create(bytes), bytes.length, path, false, 0);
  } catch (cause) {
    if (!(cause instanceof GatewayError))
      throw new GatewayError('MALFORMED_MESSAGE', `the bytes are no ${type.name}`, { cause });
    return { unknown: undefined, excess: cause };
  }
  return { unknown: look.unknown, excess: undefined };
}

class Look {
  unknown: GatewayError | undefined;
  readonly #maxItems: number;
  #items = 0;
  #fields = 0;

  constructor(maxItems: number) {
    this.#maxItems = maxItems;
  }

  visit(
    type: protobuf.Type,
    reader: protobuf.Reader,
    end: number,
    path: string,
    inBody: boolean,
    depth: number,
  ): void {
    if (depth > MAX_NESTING) throw new RangeError('nested too deep');
    const isBody = inBody || BODIES.includes(type.name);
    while (reader.pos < end) {
      const tag = reader.uint32();
      const field = type.fieldsById[tag >>> 3];
      this.#count(field, path);
      if (field === undefined && isBody) {
        this.unknown ??= invalidField(
          path,
          `field ${tag >>> 3}, unknown to this gateway`,
          'what its schema revision has, or extra_json',
        );
      }
      const inner = field?.resolve().resolvedType;
      if ((tag & 7) !== 2) reader.skipType(tag & 7);
      else {
        const length = reader.uint32();
        if (inner instanceof protobuf.Type && !(field instanceof protobuf.MapField)) {
          const at = path === '' ? (field?.name ?? '') : `${path}.${field?.name}`;
          this.visit(inner, reader, reader.pos + length, at, isBody, depth + 1);
        } else {
          // Each byte of a packed list may be a number.
          if (field?.repeated === true && field.packed) this.#fields += length;
          reader.skip(length);
        }
      }
    }
  }

  #count(field: protobuf.Field | undefined, path: string): void {
    if (field?.name === 'input' && field.type === 'bytes') {
      this.#items += 1;
      if (this.#items > this.#maxItems) throw tooMany('items_per_turn', `${path}.input`, this.#maxItems);
      return;
    }
    this.#fields += 1;
    if (this.#fields > MAX_FIELDS) throw tooMany('fields', path, MAX_FIELDS);
  }
}

function tooMany(limit: string, path: string, max: number): GatewayError {
  const what = limit === 'items_per_turn' ? 'items' : 'fields';
  return new GatewayError('LIMIT_EXCEEDED', `${path}: found more than ${max} ${what}; allowed: ${max}`, {
    metadata: { limit, value: String(max), scope: 'message', field: path },
  });
}
