import { diag } from '@opentelemetry/api';

/** What exporters of spans, metrics and log records have in common. */
export interface Exporting<Batch> {
  export(batch: Batch, done: (result: ExportResult) => void): void;
  shutdown(): Promise<void>;
  forceFlush?(): Promise<void>;
}

export interface ExportResult {
  /** 0: it was taken. */
  readonly code: number;
  readonly error?: Error;
}

/** Those that the OTLP specification calls retryable, by number: the collector is away, or has no room. */
const RETRYABLE: ReadonlySet<number> = new Set([1, 4, 8, 10, 11, 14, 15]);
const FIRST_BACKOFF_MS = 500;
const MAX_BACKOFF_MS = 5_000;
/** One after the other, a batch is given up after some 12 s: what comes after it waits in memory that is bounded. */
const MAX_ATTEMPTS = 6;

/**
 * OpenTelemetry's exporters over HTTP try again by themselves, those over gRPC (0.301) do not: every batch of a
 * collector's restart would be lost. After `shutdown` nothing is tried again.
 */
export function retrying<Batch, E extends Exporting<Batch>>(exporter: E): E {
  const send = exporter.export.bind(exporter);
  const shutdown = exporter.shutdown.bind(exporter);
  const waiting = new Map<NodeJS.Timeout, () => void>();
  let over = false;

  const attempt = (batch: Batch, tries: number, done: (result: ExportResult) => void): void =>
    send(batch, (result) => {
      if (over || result.code === 0 || tries >= MAX_ATTEMPTS || !isRetryable(result.error))
        return done(result);
      const backoffMs =
        Math.min(MAX_BACKOFF_MS, FIRST_BACKOFF_MS * 2 ** (tries - 1)) * (0.8 + 0.4 * Math.random());
      diag.debug(`export failed, trying again in ${Math.round(backoffMs)} ms`);
      const timer = setTimeout(() => {
        waiting.delete(timer);
        attempt(batch, tries + 1, done);
      }, backoffMs);
      // The last try, at once, of who is told to end meanwhile.
      waiting.set(timer, () => send(batch, done));
    });

  exporter.export = (batch, done) => attempt(batch, 1, done);
  exporter.shutdown = () => {
    over = true;
    for (const [timer, last] of waiting) {
      clearTimeout(timer);
      last();
    }
    waiting.clear();
    return shutdown();
  };
  return exporter;
}

function isRetryable(error: Error | undefined): boolean {
  return error !== undefined && 'code' in error && RETRYABLE.has(Number(error.code));
}
