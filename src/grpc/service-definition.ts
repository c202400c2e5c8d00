import type { ServiceDefinition, UntypedServiceImplementation } from '@grpc/grpc-js';
import type protobuf from 'protobufjs/light.js';
import { loadApi } from '../translate/index.ts';

/** Enums by name, bytes as buffers, and which arm of a oneof is set. */
const AS_OBJECT = { enums: String, longs: String, bytes: Buffer, defaults: true, oneofs: true } as const;

/** A service of `proto/api.json` as grpc-js registers it. `name` is the full one, as in `grpc.health.v1.Health`. */
export function serviceDefinition(name: string): ServiceDefinition<UntypedServiceImplementation> {
  const service = loadApi().root.lookupService(name);
  return Object.fromEntries(
    service.methodsArray.map((method) => {
      method.resolve();
      const { resolvedRequestType: request, resolvedResponseType: response } = method;
      const definition = {
        path: `/${name}/${method.name}`,
        requestStream: method.requestStream === true,
        responseStream: method.responseStream === true,
        ...codecOf('request', request),
        ...codecOf('response', response),
      };
      return [method.name, definition];
    }),
  ) as unknown as ServiceDefinition<UntypedServiceImplementation>;
}

function codecOf(side: 'request' | 'response', type: protobuf.Type | null): object {
  if (type === null) throw new Error('a method without a type');
  return {
    [`${side}Serialize`]: (value: object) => {
      const bytes = type.encode(type.fromObject(value)).finish();
      return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    },
    [`${side}Deserialize`]: (bytes: Buffer) => type.toObject(type.decode(bytes), AS_OBJECT),
  };
}
