package dev.responsesgateway.client;

import java.time.Duration;
import java.util.Set;
import java.util.concurrent.CancellationException;
import java.util.concurrent.ThreadLocalRandom;
import java.util.function.Supplier;

/** Runs again what certainly did not run. */
public final class Retry {
  private static final long MAX_WAIT_MILLIS = 3_000;

  /** A caller who waits for one call does not expect to wait longer by itself. */
  static final long MAX_TOLD_WAIT_MILLIS = 10_000;

  /** Time may help with these even where the gateway names none. */
  private static final Set<String> PASSING =
      Set.of(
          Reasons.OVERLOADED,
          Reasons.UPSTREAM_UNAVAILABLE,
          Reasons.UPSTREAM_OVERLOADED,
          Reasons.UPSTREAM_RATE_LIMITED,
          Reasons.UPSTREAM_CIRCUIT_OPEN,
          Reasons.UPSTREAM_LINK_LOST,
          Reasons.TOO_MANY_QUEUED_TURNS,
          Reasons.CHAIN_LOST);

  private Retry() {}

  /**
   * Runs the work, and again as long as it fails with a {@link TurnException} whose replay is SAFE, four times at most. It
   * waits as long as the gateway says, or 100 ms to 3 s.
   *
   * <pre>{@code
   * var result = Retry.whenSafe(() -> lane.start(request).result());
   * }</pre>
   */
  public static <T> T whenSafe(Supplier<T> work) {
    return whenSafe(4, work);
  }

  /** {@link #whenSafe(Supplier)} with another number of attempts. */
  public static <T> T whenSafe(int maxAttempts, Supplier<T> work) {
    for (var attempt = 1; ; attempt++) {
      try {
        return work.get();
      } catch (TurnException failure) {
        if (attempt >= maxAttempts || failure.replay().orElseThrow() != Replay.SAFE || !mayHelp(failure)) {
          throw failure;
        }
        pause(waitMillis(failure, attempt));
      }
    }
  }

  /** Whether time may help. */
  static boolean mayHelp(GatewayException failure) {
    return failure.retryAfter().isPresent() || PASSING.contains(failure.reason());
  }

  static long waitMillis(GatewayException failure, int attempt) {
    var full = Math.min(100L << Math.min(attempt, 10), MAX_WAIT_MILLIS);
    var told = failure.retryAfter().map(Duration::toMillis).orElse(0L);
    return Math.max(told, full / 2 + ThreadLocalRandom.current().nextLong(full / 2 + 1));
  }

  private static void pause(long millis) {
    try {
      Thread.sleep(millis);
    } catch (InterruptedException interrupt) {
      Thread.currentThread().interrupt();
      throw new CancellationException("interrupted while waiting to try again");
    }
  }
}
