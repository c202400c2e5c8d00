package dev.responsesgateway.client;

import dev.responsesgateway.v1.ConnectRequest;
import dev.responsesgateway.v1.InputItem;
import io.grpc.Status;
import java.time.Duration;
import java.util.ArrayDeque;
import java.util.Iterator;
import java.util.List;
import java.util.NoSuchElementException;
import java.util.concurrent.CancellationException;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.TimeoutException;
import java.util.concurrent.locks.Condition;
import java.util.concurrent.locks.ReentrantLock;
import java.util.stream.Stream;
import java.util.stream.StreamSupport;

/**
 * One response and everything until its end. It has one reader at a time, who either iterates over the events or takes
 * the result; the result after some events takes what is left into account. A loop that was left can be gone on with.
 */
public final class Turn implements Iterable<Event>, AutoCloseable {
  private final SessionCore session;
  private final Lane lane;
  private final String id;

  // The session's, guarded by its lock.
  final long order;

  /** Kept until the gateway is known to have it. */
  ConnectRequest start;

  /** Set before the start is handed to the transport: afterwards nobody could say that it was not sent. */
  boolean sent;

  boolean seen;
  boolean cancelRequested;

  private final ReentrantLock lock = new ReentrantLock();
  private final Condition something = lock.newCondition();
  // Guarded by the lock.
  private final ArrayDeque<Queued> queue = new ArrayDeque<>();
  private final Accumulator accumulator = new Accumulator();
  private boolean reading;
  private boolean over;
  private TurnException failure;
  private TurnException failing;
  private CompletableFuture<Result> future;

  private record Queued(dev.responsesgateway.v1.Event event, int bytes) {}

  Turn(SessionCore session, Lane lane, String id, long order) {
    this.session = session;
    this.lane = lane;
    this.id = id;
    this.order = order;
  }

  /** The turn's id. */
  public String id() {
    return id;
  }

  /** The turn's lane. */
  public Lane lane() {
    return lane;
  }

  /**
   * The turn's events, up to the one with an outcome; waits for them. After the last event of a turn that failed,
   * {@code hasNext} throws its {@link TurnException}; an interrupt ends the wait with a {@link CancellationException}.
   */
  @Override
  public Iterator<Event> iterator() {
    return new Iterator<>() {
      private Event next;

      @Override
      public boolean hasNext() {
        if (next == null) {
          next = read(Long.MAX_VALUE);
        }
        return next != null;
      }

      @Override
      public Event next() {
        if (!hasNext()) {
          throw new NoSuchElementException();
        }
        var event = next;
        next = null;
        return event;
      }
    };
  }

  /** The events as a stream. */
  public Stream<Event> stream() {
    return StreamSupport.stream(spliterator(), false);
  }

  /**
   * Reads the turn to its end and returns its result. An incomplete response is no error: see {@link Result#outcome}.
   *
   * @throws TurnException if the turn failed; {@link #soFar} then holds what there is
   */
  public Result result() {
    while (read(Long.MAX_VALUE) != null) {
      // The accumulator has seen it.
    }
    return soFar();
  }

  /** {@link #result} that waits no longer than this. A wait that ended loses nothing. */
  public Result result(Duration timeout) throws TimeoutException {
    var deadline = System.nanoTime() + timeout.toNanos();
    while (true) {
      var left = deadline - System.nanoTime();
      if (left <= 0) {
        throw new TimeoutException("no result yet");
      }
      try {
        if (read(left) == null) {
          return soFar();
        }
      } catch (ReadTimeout late) {
        throw new TimeoutException("no result yet");
      }
    }
  }

  /**
   * Reads the turn to its end without a thread that waits. The turn then has its reader; cancelling the future does
   * not cancel the turn.
   */
  public CompletableFuture<Result> resultAsync() {
    Runnable after;
    CompletableFuture<Result> result;
    lock.lock();
    try {
      if (future == null) {
        claim();
        future = new CompletableFuture<>();
      }
      result = future;
      after = drain();
    } finally {
      lock.unlock();
    }
    after.run();
    return result;
  }

  /** What has been read so far. */
  public Result soFar() {
    lock.lock();
    try {
      return accumulator.result(lane.id(), id);
    } finally {
      lock.unlock();
    }
  }

  /** Adds one user message to the running turn. See {@link #steer(List)}. */
  public void steer(String text) {
    steer(Items.text(text));
  }

  /**
   * Adds user input to the running turn. Acceptance ({@code response.steer.accepted}) and refusal arrive as events of
   * the turn. A steer that is on its way when the stream breaks may be lost; it is never sent twice.
   */
  public void steer(List<InputItem> input) {
    session.steer(lane.id(), id, input);
  }

  /** Gives the turn up. Its last event arrives at once. Cancelling a turn that has ended does nothing. */
  public void cancel() {
    session.cancelTurn(this);
  }

  /** Stops listening: further events are dropped. It does not cancel the turn. */
  @Override
  public void close() {
    long dropped = 0;
    Runnable after = () -> {};
    lock.lock();
    try {
      if (over) {
        return;
      }
      for (var queued : queue) {
        dropped += queued.bytes();
      }
      queue.clear();
      over = true;
      failing =
          StreamException.inferred(Status.Code.CANCELLED, "TURN_CLOSED", "the turn was closed")
              .forTurn(lane.id(), id, Replay.UNKNOWN);
      failure = failing;
      something.signalAll();
      if (future != null) {
        after = drain();
      }
    } finally {
      lock.unlock();
    }
    session.release(dropped);
    after.run();
  }

  /** What the replay verdict is if the turn's end is never heard. Called with the session's lock held. */
  Replay replay() {
    if (seen) {
      return Replay.UNSAFE;
    }
    return sent ? Replay.UNKNOWN : Replay.SAFE;
  }

  /** Hands an event to the reader; false if nobody will read it. Returns work to be done without locks. */
  boolean push(dev.responsesgateway.v1.Event event, int bytes, List<Runnable> afterwards) {
    lock.lock();
    try {
      if (over || failing != null) {
        return false;
      }
      queue.add(new Queued(event, bytes));
      if (future == null) {
        something.signal();
      } else {
        afterwards.add(drain());
      }
      return true;
    } finally {
      lock.unlock();
    }
  }

  /** Ends the turn without a last event; what is queued can still be read. */
  void fail(TurnException error, List<Runnable> afterwards) {
    lock.lock();
    try {
      if (over || failing != null) {
        return;
      }
      failing = error;
      something.signalAll();
      if (future != null) {
        afterwards.add(drain());
      }
    } finally {
      lock.unlock();
    }
  }

  /** The next event; null after the last one of a turn that went well. */
  private Event read(long nanos) {
    Queued queued;
    lock.lock();
    try {
      claim();
      try {
        var left = nanos;
        while (queue.isEmpty() && !over && failing == null) {
          if (left <= 0) {
            throw new ReadTimeout();
          }
          left = something.awaitNanos(left);
        }
      } catch (InterruptedException interrupt) {
        Thread.currentThread().interrupt();
        throw new CancellationException("interrupted while waiting for turn " + id);
      } finally {
        reading = false;
      }
      queued = queue.poll();
      if (queued == null) {
        if (!over) {
          over = true;
          failure = failing;
        }
        if (failure != null) {
          throw failure;
        }
        return null;
      }
      take(queued.event());
    } finally {
      lock.unlock();
    }
    session.release(queued.bytes());
    return Event.of(queued.event());
  }

  private void claim() {
    if (reading || future != null) {
      throw new IllegalStateException("the turn already has a reader");
    }
    reading = true;
  }

  /** Feeds the future. Called with the lock held; the returned work is done without. */
  private Runnable drain() {
    long bytes = 0;
    for (var queued = queue.poll(); queued != null; queued = queue.poll()) {
      bytes += queued.bytes();
      take(queued.event());
    }
    if (!over && failing != null) {
      over = true;
      failure = failing;
    }
    var released = bytes;
    var ended = over;
    var error = failure;
    var result = ended && error == null ? accumulator.result(lane.id(), id) : null;
    return () -> {
      session.release(released);
      if (!ended) {
        return;
      }
      if (error == null) {
        future.complete(result);
      } else {
        future.completeExceptionally(error);
      }
    };
  }

  private void take(dev.responsesgateway.v1.Event event) {
    accumulator.add(event);
    var outcome = Outcome.of(event.getOutcome());
    if (outcome.isEmpty()) {
      if (SessionCore.refusesReusedId(event)) {
        over = true;
        failure = TurnException.of(event, event.getTurnFailed());
      }
      return;
    }
    over = true;
    if (outcome.get() == Outcome.COMPLETED || outcome.get() == Outcome.INCOMPLETE) {
      return;
    }
    failure =
        event.hasTurnFailed()
            ? TurnException.of(event, event.getTurnFailed())
            : StreamException.inferred(Status.Code.UNKNOWN, "PROTOCOL", "the turn failed without a reason")
                .forTurn(lane.id(), id, Replay.UNKNOWN);
  }

  private static final class ReadTimeout extends RuntimeException {
    private static final long serialVersionUID = 1L;

    ReadTimeout() {
      super(null, null, false, false);
    }
  }
}
