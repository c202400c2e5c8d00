/** How a response ended, in the upstream's own view. */
export type Ending = 'completed' | 'incomplete' | 'failed' | 'cancelled';

/**
 * Events that end a response. Those of the published API say how by their name; others were seen from further servers
 * and relays (upstream.md#odd-upstreams), which put the status into the response.
 */
const TERMINALS: ReadonlyMap<string, Ending | 'byStatus'> = new Map<string, Ending | 'byStatus'>([
  // Some servers end every response so, and tell in its status that it was cut off or has failed.
  ['response.completed', 'byStatus'],
  ['response.incomplete', 'incomplete'],
  ['response.failed', 'failed'],
  ['response.cancelled', 'cancelled'],
  ['response.canceled', 'cancelled'],
  ['response.done', 'byStatus'],
]);

const ENDING_BY_STATUS: ReadonlyMap<unknown, Ending> = new Map<unknown, Ending>([
  ['completed', 'completed'],
  ['incomplete', 'incomplete'],
  ['failed', 'failed'],
  ['cancelled', 'cancelled'],
  ['canceled', 'cancelled'],
]);

/** Undefined: the event ends nothing. A terminal without a status that is known went well, as far as anyone can tell. */
export function endingOf(type: string, status: unknown): Ending | undefined {
  const ending = TERMINALS.get(type);
  return ending === 'byStatus' ? (ENDING_BY_STATUS.get(status) ?? 'completed') : ending;
}

/** Errors that announce something and end nothing: vLLM says five minutes ahead that it will close the connection. */
const WARNING_CODES: ReadonlySet<string> = new Set(['connection_expiring']);

export function isWarning(code: string | undefined): boolean {
  return code !== undefined && WARNING_CODES.has(code);
}

/** The upstream does not know the member that names a lane. */
export function refusesLanes(facts: {
  readonly code?: string;
  readonly param?: string;
  readonly message?: string;
}): boolean {
  if (facts.code === 'invalid_stream_id' || facts.code === 'websocket_stream_limit_reached') return false;
  if (facts.param !== undefined) return facts.param === 'stream_id';
  return /(unsupported|unknown|unrecognized|extra|unexpected)\b[^.]*\bstream_id\b/i.test(facts.message ?? '');
}
