package dev.responsesgateway.client;

/** The model still called functions in the last turn that a tool loop allows. */
public final class TurnLimitException extends RuntimeException {
  private static final long serialVersionUID = 1L;

  private final transient Result result;

  TurnLimitException(Result result) {
    super("the tool loop reached its limit of turns");
    this.result = result;
  }

  /** Of the last turn. */
  public Result result() {
    return result;
  }
}
