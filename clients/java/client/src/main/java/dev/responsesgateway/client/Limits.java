package dev.responsesgateway.client;

import java.time.Duration;

/**
 * What the gateway granted. Sizes are bytes; 0 means no limit of the gateway's own.
 *
 * @param resumeGrace how long the gateway keeps the session after a lost stream
 */
public record Limits(
    long maxMessageBytes,
    long maxFrameBytes,
    long maxBufferedBytes,
    long maxResumeBytes,
    int maxLanes,
    int maxTurnsInFlight,
    int maxQueuedTurnsPerLane,
    Duration resumeGrace) {}
