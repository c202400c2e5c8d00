package dev.responsesgateway.client;

import java.util.concurrent.TimeUnit;

/** When a stream's next heartbeat is due, and whether it was heard of. Guarded by the session's lock. */
final class Pulse {
  /** Without a message for so many intervals, nothing is expected any more. */
  private static final int SILENT_INTERVALS = 3;

  private final long interval;
  private long heardAt = System.nanoTime();
  private long sendAt;

  Pulse(long intervalNanos) {
    interval = intervalNanos;
    sendAt = heardAt + interval;
  }

  void heard() {
    heardAt = System.nanoTime();
  }

  /** Whether nothing came for too long; looked at when it is due. */
  boolean isSilent(boolean paused) {
    var now = System.nanoTime();
    // What is not read cannot be heard, and a process that stood still has heard nothing because of itself.
    if (paused || now - dueAt() > interval) {
      heardAt = now;
    }
    return now - heardAt >= SILENT_INTERVALS * interval;
  }

  boolean sends() {
    var now = System.nanoTime();
    if (now - sendAt < 0) {
      return false;
    }
    sendAt = now + interval;
    return true;
  }

  long millisUntilDue() {
    return Math.max(1, TimeUnit.NANOSECONDS.toMillis(dueAt() - System.nanoTime()) + 1);
  }

  private long dueAt() {
    var silentAt = heardAt + SILENT_INTERVALS * interval;
    return sendAt - silentAt < 0 ? sendAt : silentAt;
  }
}
