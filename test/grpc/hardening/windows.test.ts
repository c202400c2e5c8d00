import { EventEmitter } from 'node:events';
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { adaptWindows, WIDE_WINDOW_BYTES } from '../../../src/grpc/hardening/windows.ts';

const MIB = 1024 * 1024;

class FakeStream extends EventEmitter {
  readableLength = 0;
}

class FakeSession extends EventEmitter {
  destroyed = false;
  destroyedWith: number | undefined;
  connectionWindow = 0;
  readonly windows: number[] = [];
  readonly acknowledge: (() => void)[] = [];

  setLocalWindowSize(bytes: number): void {
    this.connectionWindow = bytes;
  }

  settings({ initialWindowSize }: { initialWindowSize: number }, acknowledged?: () => void): void {
    this.windows.push(initialWindowSize);
    if (acknowledged !== undefined) this.acknowledge.push(acknowledged);
  }

  destroy(_error?: Error, code?: number): void {
    this.destroyed = true;
    this.destroyedWith = code;
    this.emit('close');
  }

  open(count: number, unread = 0): FakeStream[] {
    return Array.from({ length: count }, () => {
      const stream = new FakeStream();
      stream.readableLength = unread;
      this.emit('stream', stream);
      return stream;
    });
  }
}

let session: FakeSession;

beforeEach(() => {
  vi.useFakeTimers();
  session = new FakeSession();
  adaptWindows(session);
});

afterEach(() => void vi.useRealTimers());

describe('the windows of a connection', () => {
  it('are wide for few streams, and never hold more than 64 MiB of all of them', () => {
    expect(session.connectionWindow).toBeGreaterThanOrEqual(WIDE_WINDOW_BYTES);
    session.open(64);
    expect(session.windows).toEqual([]);
    session.open(936);
    expect(session.windows).toEqual([256 * 1024, 64 * 1024 - 1]);
    expect(1_000 * (session.windows.at(-1) ?? 0)).toBeLessThanOrEqual(64 * MIB);
  });

  it('widen again when half of the streams have left', () => {
    const streams = session.open(100);
    for (const stream of streams.slice(0, 60)) stream.emit('close');
    expect(session.windows).toEqual([256 * 1024]);
    for (const stream of streams.slice(60, 70)) stream.emit('close');
    expect(session.windows).toEqual([256 * 1024, WIDE_WINDOW_BYTES]);
  });

  it('are no way to fill the memory for a client that does not acknowledge them', () => {
    session.open(200, 512 * 1024);
    vi.advanceTimersByTime(200);
    expect(session.destroyed).toBe(true);
    expect(session.destroyedWith).toBe(11);
  });

  it('are not looked at any more once they are acknowledged', () => {
    const streams = session.open(200);
    for (const done of session.acknowledge) done();
    for (const stream of streams) stream.readableLength = MIB;
    vi.advanceTimersByTime(1_000);
    expect(session.destroyed).toBe(false);
  });
});
