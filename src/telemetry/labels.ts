/** The value of a bounded label for everything that is not on its list. */
export const OTHER = '_OTHER';

/** Values of one label. What is not known becomes `_OTHER`, so that no client can make series without end. */
export interface LabelValues {
  of(value: string | undefined): string;
  /** The value has proved to be real (a model that answered, a tenant that authenticated). */
  learn(value: string | undefined): void;
}

/** Names come from upstreams too: one of a megabyte would be in every scrape. */
const MAX_LENGTH = 128;
const UNPRINTABLE = /\p{Cc}/u;

/** With a list: just that. Without: what was learned first, up to `max`. */
export function boundedLabel(max: number, list?: readonly string[]): LabelValues {
  const known = new Set(list);
  return {
    of: (value) => (value !== undefined && known.has(value) ? value : OTHER),
    learn(value) {
      if (list !== undefined || value === undefined || known.has(value) || known.size >= max) return;
      if (value !== '' && value.length <= MAX_LENGTH && !UNPRINTABLE.test(value)) known.add(value);
    },
  };
}

/**
 * Error codes of upstreams that are worth a value of their own; others are told by the gateway's own reason, which
 * is a closed list too.
 */
const UPSTREAM_CODES = new Set([
  'billing_hard_limit_reached',
  'content_policy_violation',
  'context_length_exceeded',
  'cyber_policy_violation',
  'insufficient_quota',
  'invalid_api_key',
  'invalid_encrypted_content',
  'invalid_image',
  'invalid_prompt',
  'invalid_stream_id',
  'misalignment_policy_violation',
  'model_not_found',
  'previous_response_not_found',
  'rate_limit_exceeded',
  'response_not_found',
  'server_error',
  'server_is_overloaded',
  'slow_down',
  'unsupported_model',
  'usage_limit_reached',
  'vector_store_timeout',
  'websocket_connection_limit_reached',
  'websocket_stream_limit_reached',
]);

export function errorType(reason: string, upstreamCode: string | undefined): string {
  return upstreamCode !== undefined && UPSTREAM_CODES.has(upstreamCode) ? upstreamCode : reason;
}

/**
 * Reasons of facts, and types of frames, come from short lists; this keeps the number of series bounded even if one day one does not.
 */
export function reasonLabel(max: number): (reason: string) => string {
  const known = new Set<string>();
  return (reason) => {
    if (known.has(reason)) return reason;
    if (known.size >= max || !/^[A-Za-z][A-Za-z0-9_.]{0,63}$/.test(reason)) return OTHER;
    known.add(reason);
    return reason;
  };
}
