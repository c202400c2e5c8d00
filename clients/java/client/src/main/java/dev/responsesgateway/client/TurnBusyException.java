package dev.responsesgateway.client;

/** A second reader read a turn: reason TURN_BUSY. */
public final class TurnBusyException extends IllegalStateException {
  private static final long serialVersionUID = 1L;

  TurnBusyException(String message) {
    super(message);
  }

  /** {@link Reasons#TURN_BUSY}. */
  public String reason() {
    return Reasons.TURN_BUSY;
  }
}
