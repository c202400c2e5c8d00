import { RecordedTelemetry } from '../harness/fakes.ts';

/** Records nothing: what it would keep must not look like a leak. */
export class SilentTelemetry extends RecordedTelemetry {
  override rpcEnded(): void {}
  override callRefused(): void {}
  override resumeHeldBack(): void {}
  override streamOpened(): void {}
  override streamClosed(): void {}
  override session(): ReturnType<RecordedTelemetry['session']> {
    return {
      fact: () => {},
      outgoing: () => undefined,
      batch: () => {},
      resumed: () => {},
      steered: () => {},
      end: () => {},
    };
  }
}
