export { type Api, loadApi } from './api.ts';
export { createBodyToUpstream } from './create.ts';
export { KnownHistories } from './known-items.ts';
export type {
  ActiveTurn,
  ClientMessage,
  CompactRequest,
  CreateResponseRequest,
  EventFormat,
  OpenedFacts,
  OpenRequest,
} from './messages.ts';
export { frameFromBytes, frameIn, type Peek, peekFrame } from './peek.ts';
export { createWire, type Steps, type Wire } from './wire.ts';
