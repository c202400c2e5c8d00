package dev.responsesgateway.client;

import com.fasterxml.jackson.core.JsonProcessingException;
import dev.responsesgateway.v1.FunctionCall;
import dev.responsesgateway.v1.InputItem;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import java.util.function.Consumer;

/**
 * Runs turns until the model answers without calling a function. The calls of a turn run side by side; an unknown
 * function and an exception go back to the model as {@code {"error": …}}. Calls of a turn that did not complete are not
 * made.
 */
public final class ToolLoop {
  /** A model that still calls tools after so many turns is most likely going in circles. */
  public static final int DEFAULT_MAX_TURNS = 32;

  private final List<Tool> functions;
  private final int maxTurns;

  private ToolLoop(List<Tool> functions, int maxTurns) {
    this.functions = functions;
    this.maxTurns = maxTurns;
  }

  /** A loop over these functions with the default limit. */
  public static ToolLoop of(Tool... functions) {
    return new ToolLoop(List.of(functions), DEFAULT_MAX_TURNS);
  }

  /** The same loop with another limit of turns. */
  public ToolLoop maxTurns(int turns) {
    return new ToolLoop(functions, turns);
  }

  /**
   * Runs the loop.
   *
   * @param onTurn is told each turn when it was started, and may read it
   * @throws TurnLimitException if the model still calls functions in the last turn that is allowed
   * @throws GatewayException if a turn fails
   */
  public Result run(Lane lane, TurnRequest request, Consumer<Turn> onTurn) {
    var builder = request.toBuilder();
    functions.forEach(function -> builder.addTool(function.spec()));
    var next = builder.build();
    // Functions may block: they get threads of their own.
    var threads = Executors.newCachedThreadPool(ToolLoop::thread);
    try {
      for (var count = 1; ; count++) {
        var turn = lane.start(next);
        onTurn.accept(turn);
        var result = turn.result();
        var calls = result.functionCalls();
        if (calls.isEmpty() || result.outcome().orElse(null) != Outcome.COMPLETED) {
          return result;
        }
        if (count >= maxTurns) {
          throw new TurnLimitException(result);
        }
        next = next.continued(call(calls, threads));
      }
    } finally {
      threads.shutdownNow();
    }
  }

  private List<InputItem> call(List<FunctionCall> calls, ExecutorService threads) {
    var outputs = new ArrayList<CompletableFuture<InputItem>>();
    for (var call : calls) {
      outputs.add(
          CompletableFuture.supplyAsync(() -> Items.callOutput(call.getCallId(), outputOf(call)), threads));
    }
    return outputs.stream().map(Waits::join).toList();
  }

  private String outputOf(FunctionCall call) {
    for (var function : functions) {
      if (!function.name().equals(call.getName())) {
        continue;
      }
      try {
        return function.call(call.getArguments());
      } catch (Exception problem) {
        return errorResult(problem.getMessage() == null ? problem.toString() : problem.getMessage());
      }
    }
    return errorResult("there is no function " + call.getName());
  }

  private static String errorResult(String message) {
    try {
      return Schema.MAPPER.writeValueAsString(Map.of("error", message));
    } catch (JsonProcessingException impossible) {
      throw new IllegalStateException(impossible);
    }
  }

  private static Thread thread(Runnable work) {
    var thread = new Thread(work, "responses-gateway-tool");
    thread.setDaemon(true);
    return thread;
  }
}
