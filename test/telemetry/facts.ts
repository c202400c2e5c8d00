import type { Fact, LinkRoute, TurnRecord, Usage } from '../../src/core/types.ts';
import type { SessionStart } from '../../src/telemetry/types.ts';

export const METHOD = 'responses.gateway.v1.ResponsesService/Connect';

export const ROUTE: LinkRoute = {
  upstream: 'primary',
  provider: 'openai',
  serverAddress: 'api.openai.com',
  serverPort: 443,
  pooled: false,
};

export const USAGE: Usage = {
  inputTokens: 1_200,
  cachedInputTokens: 1_000,
  cacheWriteTokens: 100,
  outputTokens: 80,
  reasoningTokens: 30,
};

export function start(overrides: Partial<SessionStart> = {}): SessionStart {
  return {
    sessionId: 'session-1',
    tenantId: 'acme',
    method: METHOD,
    traceContext: undefined,
    captureContent: false,
    serverAddress: 'gateway.internal:50051',
    ...overrides,
  };
}

export function accepted(
  overrides: Partial<Extract<Fact, { kind: 'turnAccepted' }>> & { turnId: string; atMs: number },
): Fact {
  return { kind: 'turnAccepted', laneId: '', model: 'gpt-5.2', traceContext: undefined, ...overrides };
}

/** A turn that went well: 100 ms in the queue, first output after 400, done after 900. */
export function record(
  overrides: Partial<TurnRecord> & { turnId: string; acceptedAtMs: number },
): TurnRecord {
  const at = overrides.acceptedAtMs;
  return {
    laneId: '',
    outcome: 'COMPLETED',
    failed: undefined,
    sentAtMs: at + 100,
    createdAtMs: at + 200,
    firstOutputAtMs: at + 400,
    lastOutputAtMs: at + 800,
    endedAtMs: at + 900,
    outputEvents: 41,
    events: 50,
    requestModel: 'gpt-5.2',
    responseModel: 'gpt-5.2-2026-08-01',
    responseId: `resp_${overrides.turnId}`,
    serviceTier: 'default',
    finishReason: 'stop',
    usage: USAGE,
    bytesUp: 2_000,
    fullContextBytes: 50_000,
    bytesDown: 9_000,
    toolCalls: 0,
    replays: 0,
    sends: 1,
    route: ROUTE,
    warmUp: false,
    ...overrides,
  };
}
