package dev.responsesgateway.client;

import dev.responsesgateway.v1.ReplayVerdict;

/** Whether a failed turn may be sent again without running twice. */
public enum Replay {
  /** It certainly did not run. */
  SAFE,
  /** It ran, wholly or in part. */
  UNSAFE,
  /** It may have run. */
  UNKNOWN;

  static Replay of(ReplayVerdict verdict) {
    return switch (verdict) {
      case REPLAY_VERDICT_SAFE -> SAFE;
      case REPLAY_VERDICT_UNSAFE -> UNSAFE;
      default -> UNKNOWN;
    };
  }
}
