package dev.responsesgateway.client;

import dev.responsesgateway.v1.FunctionCall;
import dev.responsesgateway.v1.InputItem;
import io.grpc.Status;
import java.time.Duration;
import java.util.ArrayList;
import java.util.List;
import java.util.concurrent.CancellationException;
import java.util.concurrent.TimeoutException;
import java.util.function.Consumer;
import java.util.function.ToDoubleFunction;

/**
 * Runs turns until the model answers without calling a function. The calls of a turn run side by side; an unknown
 * function, an exception, and a function that does not answer in time go back to the model as {@code {"error": …}}: each
 * call is answered. Calls of a turn that did not complete are not made.
 *
 * <p>The loop owns its turns: when it ends early, the turn that runs is cancelled. The lane stays usable: its next turn
 * answers the calls that were left open. Immutable.
 */
public final class ToolLoop {
  /** A model that still calls tools after so many turns is most likely going in circles. */
  public static final int DEFAULT_MAX_TURNS = 32;

  private final List<Tool> functions;
  private final Settings settings;

  /** Asked before a call is made. */
  @FunctionalInterface
  public interface Approval {
    /** False denies the call; what it throws denies it too, and goes to the model. */
    boolean approve(FunctionCall call) throws Exception;
  }

  record Settings(
      int maxTurns,
      Duration maxDuration,
      long maxTokens,
      double maxCost,
      ToDoubleFunction<Result> cost,
      Duration callTimeout,
      int maxConcurrency,
      Approval approval,
      Consumer<CallReport> onCall) {
    static final Settings DEFAULT =
        new Settings(DEFAULT_MAX_TURNS, null, 0, 0, result -> 0, null, 0, call -> true, report -> {});
  }

  private ToolLoop(List<Tool> functions, Settings settings) {
    this.functions = functions;
    this.settings = settings;
  }

  /** A loop over these functions with the default limit. */
  public static ToolLoop of(Tool... functions) {
    return new ToolLoop(List.of(functions), Settings.DEFAULT);
  }

  /** The same loop with another limit of turns. Default: {@link #DEFAULT_MAX_TURNS}. */
  public ToolLoop maxTurns(int turns) {
    var s = settings;
    return with(new Settings(turns, s.maxDuration, s.maxTokens, s.maxCost, s.cost, s.callTimeout, s.maxConcurrency, s.approval, s.onCall));
  }

  /** The same loop that takes no longer than this, functions included. Default: no limit. */
  public ToolLoop maxDuration(Duration duration) {
    var s = settings;
    return with(new Settings(s.maxTurns, duration, s.maxTokens, s.maxCost, s.cost, s.callTimeout, s.maxConcurrency, s.approval, s.onCall));
  }

  /** The same loop that begins no turn after its turns used so many tokens together. Default: no limit. */
  public ToolLoop maxTokens(long tokens) {
    var s = settings;
    return with(new Settings(s.maxTurns, s.maxDuration, tokens, s.maxCost, s.cost, s.callTimeout, s.maxConcurrency, s.approval, s.onCall));
  }

  /** The same loop that begins no turn after its turns cost so much together, in the unit of {@code cost}. */
  public ToolLoop maxCost(double limit, ToDoubleFunction<Result> cost) {
    var s = settings;
    return with(new Settings(s.maxTurns, s.maxDuration, s.maxTokens, limit, cost, s.callTimeout, s.maxConcurrency, s.approval, s.onCall));
  }

  /**
   * The same loop that waits no longer for a function: the model is told that it did not answer, and its thread is
   * interrupted. Default: no limit.
   */
  public ToolLoop callTimeout(Duration timeout) {
    var s = settings;
    return with(new Settings(s.maxTurns, s.maxDuration, s.maxTokens, s.maxCost, s.cost, timeout, s.maxConcurrency, s.approval, s.onCall));
  }

  /** The same loop with at most so many calls side by side. Default: all calls of a turn. */
  public ToolLoop maxConcurrency(int calls) {
    var s = settings;
    return with(new Settings(s.maxTurns, s.maxDuration, s.maxTokens, s.maxCost, s.cost, s.callTimeout, calls, s.approval, s.onCall));
  }

  /** The same loop that asks before each call. */
  public ToolLoop approval(Approval approval) {
    var s = settings;
    return with(new Settings(s.maxTurns, s.maxDuration, s.maxTokens, s.maxCost, s.cost, s.callTimeout, s.maxConcurrency, approval, s.onCall));
  }

  /** The same loop that tells each answered call, one after the other. What the listener throws is logged. */
  public ToolLoop onCall(Consumer<CallReport> listener) {
    var s = settings;
    return with(new Settings(s.maxTurns, s.maxDuration, s.maxTokens, s.maxCost, s.cost, s.callTimeout, s.maxConcurrency, s.approval, listener));
  }

  /** Runs the loop. See {@link #run(Lane, TurnRequest, Consumer)}. */
  public Result run(Lane lane, TurnRequest request) {
    return run(lane, request, turn -> {});
  }

  /**
   * Runs the loop. The result is that of the last turn; its turns and its usage are those of the loop.
   *
   * @param onTurn is told each turn when it was started, and may read it
   * @throws LoopException if the loop ends at one of its limits
   * @throws GatewayException if a turn fails; {@link TurnException#result} has the loop so far
   * @throws CancellationException if the thread is interrupted
   */
  public Result run(Lane lane, TurnRequest request, Consumer<Turn> onTurn) {
    return new Run(lane, request, onTurn).run();
  }

  /** Error results for calls that nobody makes. */
  static List<InputItem> unanswered(List<FunctionCall> calls) {
    return calls.stream()
        .map(
            call ->
                Items.callOutput(
                    call.getCallId(), ToolCalls.errorResult("the call was not answered: the tool loop ended")))
        .toList();
  }

  private ToolLoop with(Settings changed) {
    return new ToolLoop(functions, changed);
  }

  private final class Run {
    private final Lane lane;
    private final Consumer<Turn> onTurn;
    private final long deadline;
    private final List<Result> done = new ArrayList<>();
    private TurnRequest next;

    /** The last completed response, as far as it waits for results: its calls, and what answers them so far. */
    private String asked = "";

    private List<FunctionCall> calls = List.of();
    private List<InputItem> given = List.of();
    private boolean shrunk;
    private double cost;

    Run(Lane lane, TurnRequest request, Consumer<Turn> onTurn) {
      this.lane = lane;
      this.onTurn = onTurn;
      deadline = settings.maxDuration == null ? Long.MAX_VALUE : System.nanoTime() + settings.maxDuration.toNanos();
      var builder = request.toBuilder();
      functions.forEach(function -> builder.addTool(function.spec()));
      next = builder.build();
    }

    Result run() {
      try (var answering = new ToolCalls(functions, settings)) {
        while (true) {
          try {
            turn();
            if (calls.isEmpty()) {
              return result();
            }
            limit();
            given = answering.answer(calls, left());
            if (left() <= 0) {
              throw late();
            }
          } catch (TurnException tooLarge) {
            if (!shrink(tooLarge)) {
              throw tooLarge.with(result());
            }
          }
          next = next.continued(given);
        }
      } finally {
        settle();
      }
    }

    /** Runs one turn. Whatever becomes of it, nothing of it is left behind. */
    private void turn() {
      if (Thread.currentThread().isInterrupted()) {
        throw new CancellationException("interrupted");
      }
      Turn turn;
      try {
        turn = lane.start(next, deadline);
      } catch (TimeoutException timeout) {
        throw late();
      }
      turn.endsAt(deadline, () -> late(turn));
      var finished = false;
      try {
        onTurn.accept(turn);
        var result = deadline == Long.MAX_VALUE ? turn.result() : turn.result(Duration.ofNanos(Math.max(1, left())));
        finished = true;
        done.add(result);
        asked = result.responseId();
        calls = result.functionCalls();
        given = List.of();
        shrunk = false;
        cost += settings.cost.applyAsDouble(result);
        if (result.outcome().orElse(null) != Outcome.COMPLETED) {
          // What an unfinished answer asks for is not run.
          settle();
          calls = List.of();
        }
      } catch (TimeoutException timeout) {
        throw late(turn);
      } finally {
        if (!finished) {
          if (done.stream().noneMatch(result -> result.turnId().equals(turn.id()))) {
            done.add(turn.soFar());
          }
          settle();
          turn.abandon();
        }
      }
    }

    private long left() {
      return deadline == Long.MAX_VALUE ? Long.MAX_VALUE : deadline - System.nanoTime();
    }

    private void limit() {
      if (done.size() >= settings.maxTurns) {
        throw new TurnLimitException(result(), calls);
      }
      if (settings.maxTokens > 0 && result().usage().totalTokens() >= settings.maxTokens) {
        throw new LoopException(
            Status.Code.RESOURCE_EXHAUSTED,
            Reasons.LOOP_TOKEN_LIMIT,
            "the tool loop reached its limit of tokens",
            result(),
            calls);
      }
      if (settings.maxCost > 0 && cost >= settings.maxCost) {
        throw new LoopException(
            Status.Code.RESOURCE_EXHAUSTED,
            Reasons.LOOP_COST_LIMIT,
            "the tool loop reached its limit of money",
            result(),
            calls);
      }
    }

    private LoopException late(Turn running) {
      if (done.stream().noneMatch(result -> result.turnId().equals(running.id()))) {
        done.add(running.soFar());
      }
      return late();
    }

    private LoopException late() {
      return new LoopException(
          Status.Code.DEADLINE_EXCEEDED,
          Reasons.LOOP_TIME_LIMIT,
          "the tool loop reached its limit of time",
          result(),
          calls);
    }

    /** Answers the calls whose outputs are too large to be sent with an error, once. */
    private boolean shrink(TurnException problem) {
      var tooLarge =
          problem.reason().equals(Reasons.MESSAGE_TOO_LARGE) || problem.reason().equals(Reasons.FRAME_TOO_LARGE);
      if (!tooLarge || shrunk || given.isEmpty()) {
        return false;
      }
      shrunk = true;
      var fair = given.stream().mapToLong(InputItem::getSerializedSize).sum() / (2L * given.size());
      given =
          given.stream()
              .map(
                  item ->
                      item.getSerializedSize() <= fair
                          ? item
                          : Items.callOutput(
                              item.getFunctionCallOutput().getCallId(),
                              ToolCalls.errorResult(
                                  "the output of " + item.getSerializedSize() + " bytes is too large to be sent")))
              .toList();
      return true;
    }

    /** Leaves the lane so that its next turn can run: the calls that the model waits for get results with it. */
    private void settle() {
      if (!calls.isEmpty()) {
        lane.leaveOpen(asked, given.isEmpty() ? unanswered(calls) : given);
      }
    }

    /** The last turn's, with what the whole loop came to; null if no turn began. */
    private Result result() {
      return done.isEmpty() ? null : done.get(done.size() - 1).of(done);
    }
  }
}
