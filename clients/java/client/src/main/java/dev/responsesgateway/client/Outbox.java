package dev.responsesgateway.client;

import dev.responsesgateway.v1.ConnectRequest;
import java.util.ArrayDeque;
import java.util.List;

/** The queue of messages for the gateway. It outlives streams. Guarded by the session's lock. */
final class Outbox {
  private final ArrayDeque<Outgoing> queue = new ArrayDeque<>();

  /** Starts that wait until the session has moved, and what is about them. */
  private final ArrayDeque<Outgoing> held = new ArrayDeque<>();

  private boolean holding;

  /** A heartbeat that waits, or null. */
  private Outgoing beat;

  private long bytes;

  /**
   * A message that waits to be sent.
   *
   * @param message null: half-close
   * @param turn the turn whose start it is, or null
   * @param about the turn that it cancels or steers, or null: it must not come before its start
   */
  record Outgoing(ConnectRequest message, Turn turn, Turn about) {
    int bytes() {
      return message == null ? 0 : message.getSerializedSize();
    }

    /** Whether it begins a turn, or concerns one that has not begun. */
    boolean waits() {
      return turn != null || (about != null && !about.sent);
    }
  }

  void add(ConnectRequest message) {
    add(new Outgoing(message, null, null));
  }

  void add(Outgoing outgoing) {
    (holding && outgoing.waits() ? held : queue).addLast(outgoing);
    bytes += outgoing.bytes();
  }

  void halfClose() {
    add(new Outgoing(null, null, null));
  }

  /** Queues messages before all others. */
  void addFirst(List<Outgoing> first) {
    for (var index = first.size() - 1; index >= 0; index--) {
      queue.addFirst(first.get(index));
      bytes += first.get(index).bytes();
    }
  }

  /** Queues a heartbeat before all else. One at a time: where nothing is taken, more would only pile up. */
  void beat(ConnectRequest message) {
    if (beat == null) {
      beat = new Outgoing(message, null, null);
      addFirst(List.of(beat));
    }
  }

  /** Keeps starts back that were not sent, and those that come. */
  void hold() {
    holding = true;
    queue.removeIf(outgoing -> outgoing.waits() && held.add(outgoing));
  }

  void letGo() {
    holding = false;
    queue.addAll(held);
    held.clear();
  }

  Outgoing take() {
    var outgoing = queue.poll();
    if (outgoing == beat) {
      beat = null;
    }
    if (outgoing != null) {
      bytes -= outgoing.bytes();
    }
    return outgoing;
  }

  void clear() {
    queue.clear();
    held.clear();
    beat = null;
    bytes = 0;
  }

  long bytes() {
    return bytes;
  }
}
