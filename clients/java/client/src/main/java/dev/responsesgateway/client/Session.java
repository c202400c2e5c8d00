package dev.responsesgateway.client;

import java.util.Optional;
import java.util.concurrent.CompletableFuture;

/**
 * One stream to the gateway with its own upstream connection. It outlives its stream: a lost one is resumed by itself,
 * without gap or repeat, as long as the gateway keeps the session. A turn that may have run is never run again.
 */
public final class Session implements AutoCloseable {
  private final SessionCore core;

  Session(SessionCore core) {
    this.core = core;
  }

  /** Names the session in logs and traces. It is no secret. */
  public String id() {
    return core.id();
  }

  /** What the gateway granted. */
  public Limits limits() {
    return core.limits();
  }

  /** Whether there is a stream now; without one, what is started waits until the session is resumed. */
  public boolean connected() {
    return core.connected();
  }

  /** Numbers about the session. */
  public Stats stats() {
    return core.stats();
  }

  /**
   * Completes when the session is over: with the reason, or with nothing after {@link #close}. On a thread of the
   * client's executor.
   */
  public CompletableFuture<Optional<GatewayException>> closed() {
    return core.closed().copy();
  }

  /** The lane of this name; empty is the default lane. Names are up to 256 of A-Z a-z 0-9 _ . - */
  public Lane lane(String name) {
    return new Lane(core, name);
  }

  /** Starts a turn on the default lane. See {@link Lane#start(TurnRequest)}. */
  public Turn start(TurnRequest request) {
    return lane("").start(request);
  }

  /** Starts a turn of one user message on the default lane. */
  public Turn start(String text) {
    return lane("").start(text);
  }

  /**
   * Cancels what still runs, ends the stream and waits until nothing of the session is left, running callbacks apart. It
   * may be called from one.
   */
  @Override
  public void close() {
    core.close();
  }
}
