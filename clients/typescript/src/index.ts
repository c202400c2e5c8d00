/**
 * The TypeScript client of responses-gateway. Five nouns: a {@link Client} holds the connection, a {@link Session} is
 * one stream with its own upstream connection, a {@link Lane} is one line of conversation in a session, a {@link Turn}
 * is one response and everything until its end, and an {@link Event} is one thing that happened.
 */
export { Client } from './client.ts';
export {
  type Code,
  GatewayError,
  LoopLimitError,
  LoopLimitError as TurnLimitError,
  type Phase,
  type Replay,
  StreamError,
  TurnBusyError,
  TurnError,
  type UpstreamErrorFacts,
} from './errors.ts';
export type { Event, EventPayload, GoAway, Outcome } from './event.ts';
export type { ContentPart } from './gen/responses/gateway/v1/content_pb.ts';
export type { FunctionCall, InputItem } from './gen/responses/gateway/v1/items_pb.ts';
export type { Lane } from './lane.ts';
export type { Logger, LogLevel } from './log.ts';
export { DEFAULT_MAX_TURNS, type ToolCall, type ToolLoop } from './loop.ts';
export {
  type Budget,
  type ClientOptions,
  DEFAULT_ADDRESS,
  DEFAULT_CLOSE_TIMEOUT_MS,
  DEFAULT_CONNECT_TIMEOUT_MS,
  DEFAULT_HEARTBEAT_MS,
  DEFAULT_MAX_BUFFERED_BYTES,
  DEFAULT_MAX_QUEUED_BYTES,
  DEFAULT_MAX_RECEIVE_BYTES,
  type SessionOptions,
  type WaitOptions,
} from './options.ts';
export { InferredReason, Reason } from './reasons.ts';
export {
  callOutput,
  file,
  type Input,
  image,
  type Json,
  jsonItem,
  message,
  type TurnRequest,
} from './request.ts';
export type {
  CallOptions,
  CreateOptions,
  FollowOptions,
  ListOptions,
  ResponseStream,
  Responses,
} from './responses.ts';
export { type Parsed, parseResult, type Result, type Usage } from './result.ts';
export type { Schema } from './schema.ts';
export type { Limits, Session, Stats } from './session.ts';
export { type FunctionTool, type ToolContext, tool } from './tools.ts';
export type { Turn } from './turn.ts';
