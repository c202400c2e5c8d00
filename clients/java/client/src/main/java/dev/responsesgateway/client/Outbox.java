package dev.responsesgateway.client;

import dev.responsesgateway.v1.ConnectRequest;
import java.util.ArrayDeque;
import java.util.List;

/** The queue of messages for the gateway. It outlives streams. Guarded by the session's lock. */
final class Outbox {
  private final ArrayDeque<Outgoing> queue = new ArrayDeque<>();

  /** Starts that wait until the session has moved. */
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
   */
  record Outgoing(ConnectRequest message, Turn turn) {
    int bytes() {
      return message == null ? 0 : message.getSerializedSize();
    }
  }

  void add(ConnectRequest message, Turn turn) {
    var outgoing = new Outgoing(message, turn);
    (holding && turn != null ? held : queue).addLast(outgoing);
    bytes += outgoing.bytes();
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
      beat = new Outgoing(message, null);
      addFirst(List.of(beat));
    }
  }

  /** Keeps starts back that were not sent, and those that come. */
  void hold() {
    holding = true;
    queue.removeIf(outgoing -> outgoing.turn() != null && held.add(outgoing));
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
