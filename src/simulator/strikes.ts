import { terminalEvent } from './engine.ts';
import { ApiError, type ErrorShape } from './errors.ts';
import { type EventFault, oddFrame } from './faults.ts';
import type { Settings } from './options.ts';
import type { Run } from './turn.ts';

/** How an error frame is framed, where that differs from the settings. */
export interface ErrorStyle {
  shape?: ErrorShape | undefined;
  streamId?: string | undefined;
  /** Closes the connection after the frame, with this code. */
  thenClose?: number | undefined;
}

/** What faults may do to a connection. */
export interface StrikeTarget {
  settings(): Settings;
  send(json: string): void;
  sendBinary(bytes: Buffer): void;
  /** Ends TCP after what was sent before. */
  hangUp(): void;
  close(code: number, reason: string): void;
  reachConnectionLimit(): void;
  /** Ends a run with an error frame. */
  failRun(run: Run, error: ApiError, style: ErrorStyle): void;
  /** The run's terminal event has been sent. */
  finish(run: Run): void;
}

/** Applies a fault that concerns more than the order of events. Returns whether the run goes on. */
export function strike(target: StrikeTarget, run: Run, fault: EventFault): boolean {
  switch (fault.kind) {
    case 'cut':
      target.hangUp();
      return false;
    case 'close':
      target.close(fault.code, fault.reason);
      return false;
    case 'connection-limit':
      target.reachConnectionLimit();
      return false;
    case 'error': {
      const { shape, thenClose } = fault;
      target.failRun(run, new ApiError(fault), {
        shape,
        thenClose,
        streamId: attribution(fault.streamId, run),
      });
      return false;
    }
    case 'failed': {
      const outcome = { status: 'failed', code: fault.code, message: fault.message } as const;
      target.send(terminalEvent(run, outcome, target.settings()));
      run.events += 1;
      target.finish(run);
      return false;
    }
    case 'binary':
      target.sendBinary(Buffer.from(oddFrame(fault, run.lane)));
      return true;
    default:
      target.send(oddFrame(fault, run.lane));
      return true;
  }
}

export function attribution(to: 'own' | 'none' | { name: string }, run: Run): string | undefined {
  if (typeof to === 'object') return to.name;
  return to === 'none' ? undefined : run.streamId;
}
