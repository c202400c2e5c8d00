package dev.responsesgateway.client;

import dev.responsesgateway.v1.CreateBody;
import dev.responsesgateway.v1.InputItem;
import dev.responsesgateway.v1.InputMode;
import dev.responsesgateway.v1.NewConversation;
import dev.responsesgateway.v1.StartTurn;
import dev.responsesgateway.v1.Tool;
import java.time.Duration;
import java.util.List;
import java.util.function.Consumer;

/** Says what a turn runs. An empty one continues the lane with no new input. Immutable. */
public final class TurnRequest {
  private final StartTurn start;

  private TurnRequest(StartTurn start) {
    this.start = start;
  }

  /** A request of one user message. */
  public static TurnRequest of(String text) {
    return builder().input(text).build();
  }

  /** Starts a request. */
  public static Builder builder() {
    return new Builder(StartTurn.newBuilder());
  }

  /** A builder with what this request says. */
  public Builder toBuilder() {
    return new Builder(start.toBuilder());
  }

  StartTurn start() {
    return start;
  }

  /** The next request of a tool loop: the same settings, the results as input. */
  TurnRequest continued(List<InputItem> outputs) {
    var next = start.toBuilder().clearTurnId().clearChain().clearInputMode();
    // A forced tool choice would force the call again and again.
    next.getCreateBuilder().clearInput().clearPreviousResponseId().clearToolChoice().addAllInput(outputs);
    return new TurnRequest(next.build());
  }

  /** Builds requests. */
  public static final class Builder {
    private final StartTurn.Builder start;

    private Builder(StartTurn.Builder start) {
      this.start = start;
    }

    /** One user message: what is new since the lane's last response. */
    public Builder input(String text) {
      return input(Items.text(text));
    }

    /** What is new since the lane's last response; everything, with {@link #fullHistory}. */
    public Builder input(List<InputItem> items) {
      start.getCreateBuilder().clearInput().addAllInput(items);
      return this;
    }

    /** Default: the session's. */
    public Builder model(String model) {
      start.getCreateBuilder().setModel(model);
      return this;
    }

    /** System message. Not inherited from the lane's last turn: give it with each one. */
    public Builder instructions(String instructions) {
      start.getCreateBuilder().setInstructions(instructions);
      return this;
    }

    /** Tools that the model may call. Not inherited either. */
    public Builder tools(List<Tool> tools) {
      start.getCreateBuilder().clearTools().addAllTools(tools);
      return this;
    }

    Builder addTool(Tool tool) {
      start.getCreateBuilder().addTools(tool);
      return this;
    }

    /** Whether the upstream keeps the response. Upstream's default: true. */
    public Builder store(boolean store) {
      start.getCreateBuilder().setStore(store);
      return this;
    }

    /** Changes anything else of the upstream's request. */
    public Builder create(Consumer<CreateBody.Builder> change) {
      change.accept(start.getCreateBuilder());
      return this;
    }

    /** Continues from this response id, of whichever lane: a fork. */
    public Builder from(String responseId) {
      start.setPreviousResponseId(responseId);
      return this;
    }

    /** Starts from nothing on this lane. */
    public Builder newConversation() {
      start.setNewConversation(NewConversation.getDefaultInstance());
      return this;
    }

    /** The input is the whole conversation, and the gateway works out what is new. */
    public Builder fullHistory() {
      start.setInputMode(InputMode.INPUT_MODE_FULL_HISTORY);
      return this;
    }

    /** From acceptance to outcome, kept by the gateway. Default: the gateway's, usually none. */
    public Builder timeout(Duration timeout) {
      start.setTimeout(Times.of(timeout));
      return this;
    }

    /** Lets the gateway wait and send again when the upstream refuses for its rate limit. */
    public Builder waitOnRateLimit() {
      start.setWaitOnRateLimit(true);
      return this;
    }

    /** Unique in the session. Default: chosen by the client. */
    public Builder turnId(String turnId) {
      start.setTurnId(turnId);
      return this;
    }

    /** The request. */
    public TurnRequest build() {
      start.getCreateBuilder();
      return new TurnRequest(start.build());
    }
  }
}
