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
import java.util.function.Supplier;
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

  /** The gateway has named it among the turns that run. */
  boolean delivered;

  boolean cancelRequested;

  /** It brings results for calls that a tool loop has left open. */
  boolean answers;

  /** Its tool loop has given it up, and it goes on. */
  boolean orphan;

  private final ReentrantLock lock = new ReentrantLock();
  private final Condition something = lock.newCondition();
  // Guarded by the lock.
  private final ArrayDeque<Queued> queue = new ArrayDeque<>();
  private final Accumulator accumulator = new Accumulator();
  private long bytes;
  private boolean reading;
  private boolean wasRead;

  /** Since when a reader waits for an event, by System.nanoTime; 0: none does. */
  private long waitingSince;


  /** The loop over the events that has begun, and its thread; or whoever takes the result. */
  private Object owner;

  private Thread ownerThread;

  /** Events went into the result unread. */
  private boolean folded;

  private boolean closed;
  private boolean over;
  private TurnException failure;
  private TurnException failing;
  private CompletableFuture<Result> future;

  /** When its tool loop is out of time, by System.nanoTime, and what whoever reads it then hears. */
  private long endsAtNanos = Long.MAX_VALUE;

  private Supplier<LoopException> late;

  private record Queued(dev.responsesgateway.v1.Event event, int bytes) {}

  Turn(SessionCore session, Lane lane, String id, long order) {
    this.session = session;
    this.lane = lane;
    this.id = id;
    this.order = order;
  }

  /** Bounds the reading of a turn of a tool loop. Called before anybody reads it. */
  void endsAt(long nanos, Supplier<LoopException> late) {
    endsAtNanos = nanos;
    this.late = late;
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
   *
   * <p>Who reads so slowly that the readers of other turns wait gets the reason READER_TOO_SLOW: single events were
   * dropped, but {@link #result} is complete. A second loop, from another thread that goes on, gets a {@link
   * TurnBusyException}.
   */
  @Override
  public Iterator<Event> iterator() {
    return new Iterator<>() {
      private Event next;

      @Override
      public boolean hasNext() {
        if (next == null) {
          next = read(Long.MAX_VALUE, this);
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
    while (read(Long.MAX_VALUE, null) != null) {
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
        if (read(left, null) == null) {
          return soFar();
        }
      } catch (ReadTimeout late) {
        throw new TimeoutException("no result yet");
      }
    }
  }

  /**
   * Reads the turn to its end without a thread that waits. The turn then has its reader, until the future is done;
   * cancelling the future does not cancel the turn, and somebody else may read on. The future completes on a thread of the client's executor, see {@link
   * Client.Builder#executor}: what follows it may block.
   */
  public CompletableFuture<Result> resultAsync() {
    Runnable after;
    CompletableFuture<Result> result;
    lock.lock();
    try {
      if (future == null || future.isDone()) {
        claim();
        reading = false;
        wasRead = true;
        waitingSince = System.nanoTime();
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
    dismiss("the turn was closed", false);
  }

  /** Gives up a turn of a tool loop: it is cancelled, and whoever still reads it hears TURN_CLOSED. */
  void abandon() {
    cancel();
    session.abandoned(this);
  }

  /** Closes the turn; with {@code keep}, what came stays in its result. */
  void dismiss(String why, boolean keep) {
    long dropped;
    Runnable after = () -> {};
    lock.lock();
    try {
      dropped = bytes;
      bytes = 0;
      for (var queued = queue.poll(); queued != null; queued = queue.poll()) {
        if (keep && !over) {
          accumulator.add(queued.event());
        }
      }
      if (!over) {
        closed = true;
        over = true;
        failure =
            StreamException.inferred(Status.Code.CANCELLED, Reasons.TURN_CLOSED, why)
                .forTurn(lane.id(), id, Replay.UNKNOWN);
        something.signalAll();
        if (future != null) {
          after = drain();
        }
      }
    } finally {
      lock.unlock();
    }
    session.release(dropped);
    session.forget(this);
    after.run();
  }

  /** What the replay verdict is if the turn's end is never heard. Called with the session's lock held. */
  Replay replay() {
    if (seen) {
      return Replay.UNSAFE;
    }
    return sent ? Replay.UNKNOWN : Replay.SAFE;
  }

  /** Hands an event to the reader; returns how many bytes now wait for it. */
  int push(dev.responsesgateway.v1.Event event, int size) {
    lock.lock();
    try {
      if (closed) {
        if (orphan) {
          accumulator.add(event);
        }
        return 0;
      }
      if (over || failing != null) {
        return 0;
      }
      if (folded || future != null) {
        // Nobody wants the single event.
        take(event);
        waitingSince = future == null ? waitingSince : System.nanoTime();
        if (over) {
          something.signalAll();
          if (future != null) {
            drain().run();
          }
        }
        return 0;
      }
      queue.add(new Queued(event, size));
      bytes += size;
      something.signal();
      return size;
    } finally {
      lock.unlock();
    }
  }

  /** Puts what waits, and all that still comes, into the result: the events are gone, the result stays whole. */
  long fold() {
    lock.lock();
    try {
      var freed = bytes;
      bytes = 0;
      for (var queued = queue.poll(); queued != null; queued = queue.poll()) {
        take(queued.event());
      }
      folded = true;
      something.signalAll();
      return freed;
    } finally {
      lock.unlock();
    }
  }

  /** What waits here, and who. */
  record Load(long bytes, boolean readerWaits, boolean wasRead) {}

  Load load(long patienceNanos) {
    lock.lock();
    try {
      var waits = waitingSince != 0 && !over && System.nanoTime() - waitingSince >= patienceNanos;
      return new Load(bytes, waits && queue.isEmpty(), wasRead);
    } finally {
      lock.unlock();
    }
  }

  /** Ends the turn without a last event; what is queued can still be read. */
  void fail(TurnException error) {
    lock.lock();
    try {
      if (over || failing != null) {
        return;
      }
      failing = error;
      something.signalAll();
      if (future != null) {
        drain().run();
      }
    } finally {
      lock.unlock();
    }
  }

  /** The next event; null after the last one of a turn that went well. {@code loop} is null for the result. */
  private Event read(long nanos, Object loop) {
    Queued queued;
    boolean ended;
    var ofLoop = endsAtNanos == Long.MAX_VALUE ? Long.MAX_VALUE : endsAtNanos - System.nanoTime();
    lock.lock();
    try {
      claim();
      try {
        own(loop);
        wasRead = true;
        var left = Math.min(nanos, ofLoop);
        if (waitingSince == 0) {
          waitingSince = System.nanoTime();
        }
        while (queue.isEmpty() && !over && failing == null && !(folded && loop != null)) {
          if (left <= 0 && ofLoop <= nanos) {
            throw late.get();
          }
          if (left <= 0) {
            throw new ReadTimeout();
          }
          left = something.awaitNanos(left);
        }
      } catch (InterruptedException interrupt) {
        Thread.currentThread().interrupt();
        throw new CancellationException("interrupted while waiting for turn " + id);
      } finally {
        waitingSince = 0;
        reading = false;
      }
      queued = queue.poll();
      if (queued == null) {
        if (folded && loop != null && !closed) {
          throw StreamException.inferred(
                  Status.Code.RESOURCE_EXHAUSTED,
                  Reasons.READER_TOO_SLOW,
                  "events were dropped because nobody read them while other turns waited; the result is complete")
              .forTurn(lane.id(), id, Replay.UNSAFE)
              .with(accumulator.result(lane.id(), id));
        }
        end();
        if (failure != null) {
          throw failure;
        }
        return null;
      }
      bytes -= queued.bytes();
      take(queued.event());
      ended = over;
    } finally {
      lock.unlock();
    }
    session.release(queued.bytes());
    if (ended) {
      session.forget(this);
    }
    return Event.of(queued.event());
  }

  private void claim() {
    if (future != null && future.isDone()) {
      // It has its result, or whoever waited for it has given up.
      future = null;
    }
    if (reading || future != null) {
      throw new TurnBusyException("the turn already has a reader");
    }
    reading = true;
  }

  /** One loop at a time; one that was left can be gone on with. The result may be taken from anywhere. */
  private void own(Object loop) {
    if (loop != null
        && owner != null
        && owner != loop
        && ownerThread != Thread.currentThread()
        && ownerThread.isAlive()
        && !(over && queue.isEmpty())) {
      throw new TurnBusyException("the turn is read by " + ownerThread.getName());
    }
    owner = loop == null ? this : loop;
    ownerThread = Thread.currentThread();
  }

  private void end() {
    if (!over) {
      over = true;
      failure = failing;
      if (failure != null) {
        failure.with(accumulator.result(lane.id(), id));
      }
    }
  }

  /** Feeds the future. Called with the lock held; the returned work is done without. */
  private Runnable drain() {
    var released = bytes;
    bytes = 0;
    for (var queued = queue.poll(); queued != null; queued = queue.poll()) {
      take(queued.event());
    }
    if (failing != null) {
      end();
    }
    var ended = over;
    var error = failure;
    var result = ended && error == null ? accumulator.result(lane.id(), id) : null;
    var waited = future;
    return () -> {
      session.release(released);
      if (!ended) {
        return;
      }
      session.forget(this);
      // On a thread of its own: what follows may use the session, and wait.
      session.execute(
          () -> {
            if (error == null) {
              waited.complete(result);
            } else {
              waited.completeExceptionally(error);
            }
          });
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
            : StreamException.inferred(Status.Code.UNKNOWN, Reasons.PROTOCOL, "the turn failed without a reason")
                .forTurn(lane.id(), id, Replay.UNKNOWN);
    failure.with(accumulator.result(lane.id(), id));
  }

  private static final class ReadTimeout extends RuntimeException {
    private static final long serialVersionUID = 1L;

    ReadTimeout() {
      super(null, null, false, false);
    }
  }
}
