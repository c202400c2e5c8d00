import { type DescMethod, fromBinary, type MessageShape, toBinary } from '@bufbuild/protobuf';
import type { MethodDefinition } from '@grpc/grpc-js';
import { ResponsesService } from './gen/responses/gateway/v1/service_pb.ts';

export const CONNECT_PATH = pathOf(ResponsesService.method.connect);

/** The service as grpc-js wants it, for servers and for calls without a session. */
export const responsesServiceDefinition = {
  connect: definition(ResponsesService.method.connect),
  createResponse: definition(ResponsesService.method.createResponse),
  compactResponse: definition(ResponsesService.method.compactResponse),
  getResponse: definition(ResponsesService.method.getResponse),
  streamResponse: definition(ResponsesService.method.streamResponse),
  deleteResponse: definition(ResponsesService.method.deleteResponse),
  cancelResponse: definition(ResponsesService.method.cancelResponse),
  listInputItems: definition(ResponsesService.method.listInputItems),
  countInputTokens: definition(ResponsesService.method.countInputTokens),
  listModels: definition(ResponsesService.method.listModels),
};

function definition<M extends DescMethod>(
  method: M,
): MethodDefinition<MessageShape<M['input']>, MessageShape<M['output']>> {
  return {
    path: pathOf(method),
    originalName: method.localName,
    requestStream: method.methodKind === 'client_streaming' || method.methodKind === 'bidi_streaming',
    responseStream: method.methodKind === 'server_streaming' || method.methodKind === 'bidi_streaming',
    requestSerialize: (message) => Buffer.from(toBinary(method.input as M['input'], message)),
    requestDeserialize: (bytes) => fromBinary(method.input as M['input'], bytes),
    responseSerialize: (message) => Buffer.from(toBinary(method.output as M['output'], message)),
    responseDeserialize: (bytes) => fromBinary(method.output as M['output'], bytes),
  };
}

export function pathOf(method: DescMethod): string {
  return `/${method.parent.typeName}/${method.name}`;
}
