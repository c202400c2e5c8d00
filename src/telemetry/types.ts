import type { Fact, TraceContext } from '../core/types.ts';
import type { StatusCode } from '../errors.ts';

/** What a session's driver tells telemetry. Nothing here is called per delta event. */
export interface SessionTelemetry {
  fact(fact: Fact): void;
  /** Trace context to send with the upstream handshake or request of this turn; undefined when not configured. */
  outgoing(turnId: string | undefined): TraceContext | undefined;
  /** One write to the client: `events` in one message of `bytes`. */
  batch(events: number, bytes: number): void;
  resumed(outcome: 'RESUMED' | 'PARTIAL' | 'GONE'): void;
  end(status: StatusCode | 'OK'): void;
}

export interface SessionStart {
  readonly sessionId: string;
  readonly tenantId: string;
  readonly method: string;
  readonly traceContext: TraceContext | undefined;
  readonly captureContent: boolean;
  /** From `:authority`. */
  readonly serverAddress: string | undefined;
}

export interface Telemetry {
  session(start: SessionStart): SessionTelemetry;
  /** A stream attached or left; a session can have several one after the other. */
  streamOpened(sessionId: string): void;
  streamClosed(sessionId: string, status: StatusCode | 'OK', durationMs: number): void;
  rpcEnded(method: string, status: StatusCode | 'OK', durationMs: number): void;
  shutdown(): Promise<void>;
}
