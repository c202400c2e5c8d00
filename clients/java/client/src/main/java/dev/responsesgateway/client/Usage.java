package dev.responsesgateway.client;

/** What a turn cost, in tokens, over all its responses. */
public record Usage(
    long inputTokens, long cachedInputTokens, long outputTokens, long reasoningTokens, long totalTokens) {}
