package dev.responsesgateway.client;

import dev.responsesgateway.v1.TurnOutcome;
import java.util.Optional;

/** How a turn ended. */
public enum Outcome {
  /** The response is complete. */
  COMPLETED,
  /** The response stopped early and is usable as far as it goes. */
  INCOMPLETE,
  /** The turn failed. */
  FAILED,
  /** The client gave it up, or its session ended. */
  CANCELLED,
  /** Its own timeout passed. */
  DEADLINE_EXCEEDED;

  static Optional<Outcome> of(TurnOutcome outcome) {
    return switch (outcome) {
      case TURN_OUTCOME_UNSPECIFIED -> Optional.empty();
      case TURN_OUTCOME_COMPLETED -> Optional.of(COMPLETED);
      case TURN_OUTCOME_INCOMPLETE -> Optional.of(INCOMPLETE);
      case TURN_OUTCOME_CANCELLED -> Optional.of(CANCELLED);
      case TURN_OUTCOME_DEADLINE_EXCEEDED -> Optional.of(DEADLINE_EXCEEDED);
      // FAILED, and outcomes that are newer than this client: ended, and not known to be well.
      case TURN_OUTCOME_FAILED, UNRECOGNIZED -> Optional.of(FAILED);
    };
  }
}
