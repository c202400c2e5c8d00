package dev.responsesgateway.client;

import dev.responsesgateway.v1.FunctionCall;
import io.grpc.Status;
import java.util.List;
import java.util.Optional;

/**
 * A tool loop ended early, at one of its limits: reasons LOOP_TURN_LIMIT ({@link TurnLimitException}), LOOP_TIME_LIMIT,
 * LOOP_TOKEN_LIMIT and LOOP_COST_LIMIT. The lane stays usable: its next turn first answers the calls that the model waits
 * for, with the results that the functions gave, and otherwise with an error result.
 */
public sealed class LoopException extends GatewayException permits TurnLimitException {
  private static final long serialVersionUID = 1L;

  private final Result result;
  private final List<FunctionCall> openCalls;

  LoopException(Status.Code code, String reason, String message, Result result, List<FunctionCall> openCalls) {
    super(Facts.inferred(code, reason, message, null));
    this.result = result;
    this.openCalls = List.copyOf(openCalls);
  }

  /** Of the last turn, with the turns and the usage of the whole loop; null if no turn began. */
  public Result result() {
    return result;
  }

  /** The calls that the model waits for. The lane's next turn answers them. */
  public List<FunctionCall> openCalls() {
    return openCalls;
  }

  @Override
  public Optional<Replay> replay() {
    return Optional.empty();
  }
}
