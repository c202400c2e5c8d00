/**
 * Attributes of spans that no convention defines. Short, because every span carries a dozen of them, and written
 * out, because putting them together for every turn costs more than setting them.
 */
export const OWN = {
  addedDown: 'gateway.added.down',
  addedUp: 'gateway.added.up',
  bufferBytes: 'gateway.buffer.bytes',
  bytes: 'gateway.bytes',
  clientName: 'gateway.client.name',
  clientVersion: 'gateway.client.version',
  cost: 'gateway.cost.amount',
  costCurrency: 'gateway.cost.currency',
  contentTruncated: 'gateway.content.truncated',
  laneId: 'gateway.lane.id',
  linkCloseCode: 'gateway.link.close_code',
  link: 'gateway.link',
  linkId: 'gateway.link.id',
  linkPooled: 'gateway.link.pooled',
  outcome: 'gateway.outcome',
  phase: 'gateway.phase',
  purpose: 'gateway.purpose',
  queueDuration: 'gateway.queue.duration',
  reason: 'gateway.reason',
  rebuildDuration: 'gateway.rebuild.duration',
  replay: 'gateway.replay',
  replays: 'gateway.replays',
  sends: 'gateway.sends',
  toolDuration: 'gateway.tool.duration',
  toolNames: 'gateway.tool.names',
  toolCalls: 'gateway.tool_calls',
  turnId: 'gateway.turn.id',
  upstream: 'gateway.upstream',
  upstreamDuration: 'gateway.upstream.duration',
  warmUp: 'gateway.warm_up',
} as const;

/** Of the labels that a client gives its session. */
export const OWN_LABEL_PREFIX = 'gateway.label.';
