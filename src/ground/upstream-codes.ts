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

/** Undefined for all others: an upstream may write anything there, also what it was sent. */
export function knownUpstreamCode(code: string | undefined): string | undefined {
  return code !== undefined && UPSTREAM_CODES.has(code) ? code : undefined;
}
