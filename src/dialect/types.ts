/** What the words of an upstream are read from and written to: shared by the core and the links. */
import type { GatewayError } from '../errors.ts';

/** One event of the upstream as it came. `json()` parses once and remembers; delta events never call it. */
export interface UpstreamFrame {
  readonly type: string;
  /** The upstream's lane name; undefined on the unnamed lane and on frames about the connection. */
  readonly streamId: string | undefined;
  /** A view that is made when asked for: the hot path asks for `byteLength` only. */
  readonly bytes: Uint8Array;
  readonly byteLength: number;
  json(): Readonly<Record<string, unknown>>;
  /** The same without what a response repeats of its request: its instructions and tools, where they are long. */
  brief?(): Readonly<Record<string, unknown>>;
}

/** The body of `response.create`, split so that chaining and replay never re-encode what the client sent. */
export interface CreateBody {
  /** JSON name → raw JSON, in sending order, without type, stream_id, input, previous_response_id, stream. */
  readonly fields: ReadonlyMap<string, string>;
  /** Raw JSON of each input item. */
  readonly input: readonly string[];
  readonly previousResponseId: string | undefined;
  readonly model: string | undefined;
  /** The upstream's default is true. */
  readonly store: boolean;
  /** False asks for a warm-up. */
  readonly generate: boolean;
  readonly usesConversation: boolean;
  /** What is known of long texts among `fields` and `input`; of others it is found out when it is asked for. */
  readonly long?: LongTexts;
}

/** By the text: its bytes in UTF-8, and its SHA-256. */
export type LongTexts = ReadonlyMap<string, { readonly bytes: number; readonly digest: string }>;

export interface TraceContext {
  readonly traceparent: string;
  readonly tracestate?: string;
  readonly baggage?: string;
}

/** Why a link never came up or went away. */
export interface LinkDown {
  readonly during: 'dial' | 'open';
  readonly error: GatewayError;
  /**
   * The link was closed because of one frame (close code 1009): `error` is for the turn whose frame it was, this for
   * every other turn on the link.
   */
  readonly bystanderError?: GatewayError;
  readonly closeCode?: number;
  readonly httpStatus?: number;
  /** Dialling again will not help until the operator changes something (bad key, bad URL). */
  readonly permanent: boolean;
  readonly retryAfterMs?: number;
}

/** Tokens; 0 where the upstream says nothing. */
export interface Usage {
  readonly inputTokens: number;
  readonly cachedInputTokens: number;
  readonly cacheWriteTokens: number;
  readonly outputTokens: number;
  readonly reasoningTokens: number;
  /** Which item and which field of the request they went to, where the upstream tells. */
  readonly attribution?: Attribution;
}

/** By id of the item, and by field of the request. */
export interface Attribution {
  readonly items: ReadonlyMap<string, AttributedTokens>;
  readonly fields: ReadonlyMap<string, AttributedTokens>;
}

/** Cached and written ones are parts of the input. */
export interface AttributedTokens {
  readonly inputTokens: number;
  readonly cachedInputTokens: number;
  readonly cacheWriteTokens: number;
  readonly outputTokens: number;
}
