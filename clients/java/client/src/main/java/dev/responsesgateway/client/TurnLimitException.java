package dev.responsesgateway.client;

import dev.responsesgateway.v1.FunctionCall;
import io.grpc.Status;
import java.util.List;

/** The model still called functions in the last turn that a tool loop allows: reason LOOP_TURN_LIMIT. */
public final class TurnLimitException extends LoopException {
  private static final long serialVersionUID = 1L;

  TurnLimitException(Result result, List<FunctionCall> openCalls) {
    super(
        Status.Code.CANCELLED,
        Reasons.LOOP_TURN_LIMIT,
        "the tool loop reached its limit of turns",
        result,
        openCalls);
  }
}
