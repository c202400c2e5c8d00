package dev.responsesgateway.client;

/** What a turn cost, in tokens, over all its responses. */
public record Usage(
    long inputTokens, long cachedInputTokens, long outputTokens, long reasoningTokens, long totalTokens) {
  Usage plus(Usage other) {
    return new Usage(
        inputTokens + other.inputTokens,
        cachedInputTokens + other.cachedInputTokens,
        outputTokens + other.outputTokens,
        reasoningTokens + other.reasoningTokens,
        totalTokens + other.totalTokens);
  }
}
