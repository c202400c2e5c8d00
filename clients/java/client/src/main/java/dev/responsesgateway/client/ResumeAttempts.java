package dev.responsesgateway.client;

import io.grpc.Status.Code;
import java.time.Duration;
import java.time.Instant;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.Executor;
import java.util.concurrent.ThreadLocalRandom;
import java.util.concurrent.TimeUnit;
import java.util.function.Consumer;

/** Attempts to resume: at once, then with growing waits, within the grace time. Guarded by the session's lock. */
final class ResumeAttempts {
  /** The first attempt comes at once: most streams break with a gateway or balancer that is already replaced. */
  private static final long MIN_WAIT_MILLIS = 100;

  private static final long MAX_WAIT_MILLIS = 3_000;

  /** One attempt takes no longer, so that a dead address does not use up the grace time. */
  private static final long ATTEMPT_TIMEOUT_MILLIS = 10_000;

  private final Instant deadline;
  private final Executor locked;
  private final Runnable attempt;
  private final Runnable abandon;
  private final Consumer<StreamException> giveUp;
  private int count;
  private boolean stopped;

  /**
   * @param locked runs work with the session's lock
   * @param attempt opens a stream; its end is told by {@link #failed}, success by {@link #stop}
   * @param abandon gives up a stream that does not answer; its end is not told any more
   */
  ResumeAttempts(
      Instant deadline,
      Executor locked,
      Runnable attempt,
      Runnable abandon,
      Consumer<StreamException> giveUp) {
    this.deadline = deadline;
    this.locked = locked;
    this.attempt = attempt;
    this.abandon = abandon;
    this.giveUp = giveUp;
  }

  /** The first attempt comes at once, unless the last streams brought nothing. */
  void begin(int fruitless) {
    count = Math.max(0, fruitless - 1);
    if (count == 0) {
      later(0, this::once);
      return;
    }
    var wait = delay(StreamException.inferred(Code.UNAVAILABLE, Reasons.STREAM_LOST, "lost again and again"));
    if (Instant.now().plusMillis(wait).isAfter(deadline)) {
      later(0, () -> giveUp.accept(lost(null)));
    } else {
      later(wait, this::once);
    }
  }

  void stop() {
    stopped = true;
  }

  void failed(StreamException failure) {
    count++;
    if (!failure.resumable()) {
      giveUp.accept(failure);
      return;
    }
    var wait = delay(failure);
    if (Instant.now().plusMillis(wait).isAfter(deadline)) {
      giveUp.accept(lost(failure));
      return;
    }
    later(wait, this::once);
  }

  private long delay(StreamException failure) {
    var full = Math.min(MIN_WAIT_MILLIS << Math.min(count - 1, 10), MAX_WAIT_MILLIS);
    return Math.max(
        full / 2 + ThreadLocalRandom.current().nextLong(full / 2 + 1),
        failure.retryAfter().map(Duration::toMillis).orElse(0L));
  }

  private void once() {
    var current = count;
    attempt.run();
    var left = Math.max(1, Duration.between(Instant.now(), deadline).toMillis());
    later(
        Math.min(ATTEMPT_TIMEOUT_MILLIS, left),
        () -> {
          // Still the same attempt, without an answer.
          if (count == current) {
            abandon.run();
            failed(StreamException.inferred(Code.DEADLINE_EXCEEDED, Reasons.STREAM_LOST, "no answer in time"));
          }
        });
  }

  private void later(long millis, Runnable work) {
    CompletableFuture.delayedExecutor(millis, TimeUnit.MILLISECONDS)
        .execute(
            () ->
                locked.execute(
                    () -> {
                      if (!stopped) {
                        work.run();
                      }
                    }));
  }

  private static StreamException lost(StreamException cause) {
    return StreamException.inferred(
        Code.UNAVAILABLE, Reasons.STREAM_LOST, "the stream could not be resumed in time", cause);
  }
}
