/** The generated messages, for what the client has no words of its own for. */
export * from './gen/responses/gateway/v1/content_pb.ts';
export * from './gen/responses/gateway/v1/create_pb.ts';
export * from './gen/responses/gateway/v1/event_pb.ts';
export * from './gen/responses/gateway/v1/events_pb.ts';
export * from './gen/responses/gateway/v1/items_pb.ts';
export * from './gen/responses/gateway/v1/resource_pb.ts';
export * from './gen/responses/gateway/v1/response_pb.ts';
export * from './gen/responses/gateway/v1/service_pb.ts';
export * from './gen/responses/gateway/v1/session_pb.ts';
export * from './gen/responses/gateway/v1/settings_pb.ts';
export * from './gen/responses/gateway/v1/tools_pb.ts';
export * from './gen/responses/gateway/v1/unary_pb.ts';
export { responsesServiceDefinition } from './service.ts';
