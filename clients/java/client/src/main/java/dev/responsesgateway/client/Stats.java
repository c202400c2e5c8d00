package dev.responsesgateway.client;

/**
 * Numbers about a session, for logs and metrics.
 *
 * @param resumes how often a lost or old stream was replaced
 * @param bufferedBytes events that wait for their readers now
 * @param maxBufferedBytes the most that ever waited
 * @param queuedBytes requests that wait to be sent
 * @param runningTurns turns without an outcome
 * @param lastSeq number of the newest event
 */
public record Stats(
    int resumes, long bufferedBytes, long maxBufferedBytes, long queuedBytes, int runningTurns, long lastSeq) {}
