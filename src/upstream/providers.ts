import type { LinkCapabilities } from '../core/types.ts';

export type ProviderName = 'openai' | 'azure' | 'xai' | 'compatible';
export type Transport = 'auto' | 'websocket' | 'sse';

/** A provider's differences, as data. The facts are those of upstream.md#lanes, #connection-limit and #other-endpoints. */
export interface ProviderFacts {
  /** Path of the API when the configured URL has none. */
  readonly basePath: string;
  readonly keyHeader: 'bearer' | 'api-key';
  /** What a WebSocket link can do. */
  readonly webSocket: Omit<LinkCapabilities, 'transport'>;
  /** Requests at once on a link over HTTP. */
  readonly httpMaxInFlight: number;
  /** Answers to the upgrade that mean "no WebSocket here", not "not you" or "not now". */
  readonly noUpgradeStatuses: ReadonlySet<number>;
  /** How long an answer to our ping may take. */
  readonly pongTimeoutMs: number;
  /** Whether a key may travel unencrypted beyond this machine. */
  readonly plaintextAllowed: boolean;
}

const MINUTE_MS = 60_000;

/** Observed on the ChatGPT route; larger frames are answered with close 1009 (upstream.md#frames). */
const MAX_FRAME_BYTES = 16 * 1024 * 1024;

/** Upgrade Required, and what HTTP servers without such a route answer to the GET of an upgrade. */
const NO_UPGRADE = [426, 404, 405, 501];

/** A pong that takes longer than this belongs to a dead connection. */
const PONG_TIMEOUT_MS = 10_000;

const OPENAI: ProviderFacts = {
  basePath: '/v1',
  keyHeader: 'bearer',
  webSocket: {
    multiplexed: true,
    maxInFlight: 16,
    maxNamedLanes: 32,
    keepsUnstored: true,
    storesResponses: true,
    steering: true,
    warmUp: true,
    maxAgeMs: 60 * MINUTE_MS,
    // The core adds up to a tenth as jitter; a turn may then still run for five minutes.
    rotateAfterMs: 50 * MINUTE_MS,
    maxFrameBytes: MAX_FRAME_BYTES,
  },
  httpMaxInFlight: 16,
  noUpgradeStatuses: new Set(NO_UPGRADE),
  pongTimeoutMs: PONG_TIMEOUT_MS,
  plaintextAllowed: false,
};

export const PROVIDERS: Readonly<Record<ProviderName, ProviderFacts>> = {
  openai: OPENAI,
  azure: {
    ...OPENAI,
    basePath: '/openai/v1',
    keyHeader: 'api-key',
    webSocket: { ...OPENAI.webSocket, multiplexed: false, maxInFlight: 1, maxNamedLanes: 0, steering: false },
  },
  xai: {
    ...OPENAI,
    webSocket: {
      ...OPENAI.webSocket,
      multiplexed: false,
      maxInFlight: 1,
      maxNamedLanes: 0,
      steering: false,
      maxAgeMs: 25 * MINUTE_MS,
      // With the core's jitter at most 22 minutes: three remain for the turn that runs.
      rotateAfterMs: 20 * MINUTE_MS,
    },
    // Pongs were seen up to 9.6 s late while it generates (upstream.md#other-endpoints).
    pongTimeoutMs: 30_000,
  },
  // vLLM, LM Studio, llama.cpp, Ollama and others: the least that any of them does. Configuration tells more.
  compatible: {
    basePath: '/v1',
    keyHeader: 'bearer',
    webSocket: {
      multiplexed: false,
      maxInFlight: 1,
      maxNamedLanes: 0,
      keepsUnstored: false,
      storesResponses: false,
      steering: false,
      warmUp: false,
      maxAgeMs: 60 * MINUTE_MS,
      rotateAfterMs: 50 * MINUTE_MS,
      maxFrameBytes: MAX_FRAME_BYTES,
    },
    httpMaxInFlight: 16,
    // Frameworks answer an upgrade that no route takes with 400 (Node, Go) or 403 (Starlette), or serve the GET.
    noUpgradeStatuses: new Set([...NO_UPGRADE, 200, 400, 403]),
    pongTimeoutMs: PONG_TIMEOUT_MS,
    // Local and in-cluster servers mostly have no certificate.
    plaintextAllowed: true,
  },
};

export function webSocketCapabilities(
  facts: ProviderFacts,
  overrides: Partial<Omit<LinkCapabilities, 'transport'>>,
): LinkCapabilities {
  return { ...facts.webSocket, ...overrides, transport: 'websocket' };
}

/** A link over HTTP: every lane is a request of its own, nothing is remembered, nothing ages. */
export function httpCapabilities(
  facts: ProviderFacts,
  overrides: Partial<Omit<LinkCapabilities, 'transport'>>,
): LinkCapabilities {
  return {
    transport: 'sse',
    multiplexed: true,
    maxInFlight: overrides.maxInFlight ?? facts.httpMaxInFlight,
    maxNamedLanes: Number.MAX_SAFE_INTEGER,
    keepsUnstored: false,
    storesResponses: overrides.storesResponses ?? facts.webSocket.storesResponses,
    steering: false,
    warmUp: false,
    maxAgeMs: Number.POSITIVE_INFINITY,
    rotateAfterMs: undefined,
    maxFrameBytes: overrides.maxFrameBytes ?? facts.webSocket.maxFrameBytes,
  };
}
