/**
 * Decoding passes over fields that we do not know. In the envelope that is right, newer clients may say more there.
 * In a body it would run another request than the client meant, so it is refused.
 */
import protobuf from 'protobufjs/light.js';
import { GatewayError, invalidField } from '../errors.ts';

/** Where bodies begin. */
const BODIES = ['CreateBody', 'CompactBody', 'InputItem'];

/**
 * Throws INVALID_FIELD, or MALFORMED_MESSAGE: decoding does not look at wire types, so what it has read one way may
 * come to an end in the middle of another. The bytes must have been decoded as the type, so that protobufjs has held
 * their nesting to a hundred.
 */
export function refuseUnknownFields(type: protobuf.Type, bytes: Uint8Array): void {
  try {
    visit(type, protobuf.Reader.create(bytes), bytes.length, '', false);
  } catch (cause) {
    if (cause instanceof GatewayError) throw cause;
    throw new GatewayError('MALFORMED_MESSAGE', `the bytes are no ${type.name}`, { cause });
  }
}

function visit(
  type: protobuf.Type,
  reader: protobuf.Reader,
  end: number,
  path: string,
  inBody: boolean,
): void {
  const isBody = inBody || BODIES.includes(type.name);
  while (reader.pos < end) {
    const tag = reader.uint32();
    const field = type.fieldsById[tag >>> 3];
    if (field === undefined && isBody) {
      throw invalidField(
        path,
        `field ${tag >>> 3}, unknown to this gateway`,
        'what its schema revision has, or extra_json',
      );
    }
    const inner = field?.resolve().resolvedType;
    if ((tag & 7) === 2 && inner instanceof protobuf.Type && !(field instanceof protobuf.MapField)) {
      const length = reader.uint32();
      const at = path === '' ? (field?.name ?? '') : `${path}.${field?.name}`;
      visit(inner, reader, reader.pos + length, at, isBody);
    } else reader.skipType(tag & 7);
  }
}
