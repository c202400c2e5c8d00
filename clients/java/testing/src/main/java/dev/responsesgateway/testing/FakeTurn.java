package dev.responsesgateway.testing;

import dev.responsesgateway.v1.InputItem;
import dev.responsesgateway.v1.StartTurn;
import dev.responsesgateway.v1.SteerTurn;
import java.util.List;
import java.util.concurrent.CopyOnWriteArrayList;
import java.util.stream.Collectors;

/** A turn that a program started. */
public final class FakeTurn {
  private final StartTurn start;
  private final List<SteerTurn> steers = new CopyOnWriteArrayList<>();
  private volatile boolean cancelled;

  FakeTurn(StartTurn start) {
    this.start = start;
  }

  /** The whole message. */
  public StartTurn start() {
    return start;
  }

  /** The lane that it runs on. */
  public String laneId() {
    return start.getLaneId();
  }

  /** Its id in the session. */
  public String turnId() {
    return start.getTurnId();
  }

  /** Its new input. */
  public List<InputItem> input() {
    return start.getCreate().getInputList();
  }

  /** The texts of the input's messages, one a line. */
  public String text() {
    return input().stream()
        .filter(InputItem::hasMessage)
        .map(item -> item.getMessage().getText())
        .collect(Collectors.joining("\n"));
  }

  /** The outputs of function calls in the input, in order. */
  public List<String> callOutputs() {
    return input().stream()
        .filter(InputItem::hasFunctionCallOutput)
        .map(item -> item.getFunctionCallOutput().getOutput())
        .toList();
  }

  /** What it was steered with until now. */
  public List<SteerTurn> steers() {
    return List.copyOf(steers);
  }

  /** Whether the program cancelled it before its end. */
  public boolean cancelled() {
    return cancelled;
  }

  void steer(SteerTurn steer) {
    steers.add(steer);
  }

  void cancel() {
    cancelled = true;
  }
}
