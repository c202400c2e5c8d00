export { type Api, loadApi } from './api.ts';
export { CALL_METHODS, type CallMethod } from './calls.ts';
export { createBodyToUpstream } from './create.ts';
export { KnownHistories } from './known-items.ts';
export type {
  ActiveTurn,
  CallRequest,
  ClientMessage,
  CreateResponseRequest,
  EventFormat,
  FollowResponseRequest,
  OpenedFacts,
  OpenRequest,
  RequestHead,
  Steps,
} from './messages.ts';
export { frameFromBytes, frameIn, type Peek, peekFrame } from './peek.ts';
export { createWire, type Wire } from './wire.ts';
