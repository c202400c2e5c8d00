package dev.responsesgateway.client;

import java.time.Duration;

/**
 * Announces the end of a stream.
 *
 * @param draining the gateway shuts down; otherwise the stream is old and is replaced by itself
 * @param movable another gateway goes on with the session: it moves by itself, as soon as no turn runs
 * @param timeLeft how long running turns may still take
 */
public record GoAway(boolean draining, boolean movable, Duration timeLeft) {}
