package dev.responsesgateway.client;

import java.time.Duration;
import java.time.Instant;

/**
 * What happened since something was last heard behind Opened. Back-off and deadline run on over streams that are opened
 * and lost again.
 */
record Losses(int count, Instant since) {
  /** A turn whose start was lost so often is given up: something on the path does not carry it. */
  static final int MAX_UNDELIVERED = 4;

  /** A stream that stood so long was no mistake, even if nothing came over it. */
  static final Duration STEADY = Duration.ofSeconds(10);

  static final Losses NONE = new Losses(0, null);

  Losses more() {
    return new Losses(count + 1, since == null ? Instant.now() : since);
  }
}
