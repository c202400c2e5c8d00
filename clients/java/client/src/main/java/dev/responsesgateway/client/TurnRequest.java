package dev.responsesgateway.client;

import com.google.protobuf.ByteString;
import dev.responsesgateway.v1.CreateBody;
import dev.responsesgateway.v1.InputItem;
import dev.responsesgateway.v1.InputMode;
import dev.responsesgateway.v1.NewConversation;
import dev.responsesgateway.v1.StartTurn;
import dev.responsesgateway.v1.Tool;
import java.time.Duration;
import java.util.List;
import java.util.Map;
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

    /**
     * {@code auto} (the upstream's default), {@code none}, {@code required}, or the name of a function. In a tool loop it
     * counts for the first turn.
     */
    public Builder toolChoice(String choice) {
      var tool = start.getCreateBuilder().getToolChoiceBuilder();
      if (List.of("auto", "none", "required").contains(choice)) {
        tool.setMode(choice);
      } else {
        tool.getFunctionBuilder().setName(choice);
      }
      return this;
    }

    /** Whether several tools may be called at once. Upstream's default: true. */
    public Builder parallelToolCalls(boolean parallel) {
      start.getCreateBuilder().setParallelToolCalls(parallel);
      return this;
    }

    /** Of reasoning models: {@code minimal}, {@code low}, {@code medium}, {@code high} … */
    public Builder effort(String effort) {
      start.getCreateBuilder().getReasoningBuilder().setEffort(effort);
      return this;
    }

    /** {@code auto}, {@code concise} or {@code detailed}. Default: no summary. */
    public Builder reasoningSummary(String summary) {
      start.getCreateBuilder().getReasoningBuilder().setSummary(summary);
      return this;
    }

    /** 0 to 2. Upstream's default: 1. */
    public Builder temperature(double temperature) {
      start.getCreateBuilder().setTemperature(temperature);
      return this;
    }

    /** 0 to 1. Upstream's default: 1. */
    public Builder topP(double topP) {
      start.getCreateBuilder().setTopP(topP);
      return this;
    }

    /** Reasoning included; at least 16. */
    public Builder maxOutputTokens(int tokens) {
      start.getCreateBuilder().setMaxOutputTokens(tokens);
      return this;
    }

    /**
     * Holds the answer to the JSON Schema of a record, made as for {@link Tool#of}. Read it with {@link Result#parse}.
     *
     * @throws IllegalArgumentException if the record has no JSON Schema
     */
    public Builder format(Class<? extends Record> type) {
      var schema = Schema.of(type);
      return format(type.getSimpleName(), schema.json(), schema.strict());
    }

    /** Holds the answer to a JSON Schema. Names have up to 64 of a-z A-Z 0-9 _ -. */
    public Builder format(String name, String schema, boolean strict) {
      start
          .getCreateBuilder()
          .getTextBuilder()
          .getFormatBuilder()
          .getJsonSchemaBuilder()
          .setName(name)
          .setSchema(ByteString.copyFromUtf8(schema))
          .setStrict(strict);
      return this;
    }

    /** {@code low}, {@code medium} or {@code high}. */
    public Builder verbosity(String verbosity) {
      start.getCreateBuilder().getTextBuilder().setVerbosity(verbosity);
      return this;
    }

    /** More output, for instance {@code reasoning.encrypted_content}. */
    public Builder include(String... kinds) {
      start.getCreateBuilder().clearInclude().addAllInclude(List.of(kinds));
      return this;
    }

    /** Labels stored with the response: at most 16. */
    public Builder metadata(Map<String, String> labels) {
      start.getCreateBuilder().clearMetadata().putAllMetadata(labels);
      return this;
    }

    /** Groups requests with a common beginning, to hit the prompt cache more often. */
    public Builder cacheKey(String key) {
      start.getCreateBuilder().setPromptCacheKey(key);
      return this;
    }

    /** Stable, hashed identity of the end user. */
    public Builder safetyIdentifier(String identifier) {
      start.getCreateBuilder().setSafetyIdentifier(identifier);
      return this;
    }

    /** {@code auto}, {@code default}, {@code flex}, {@code priority} … */
    public Builder serviceTier(String tier) {
      start.getCreateBuilder().setServiceTier(tier);
      return this;
    }

    /** Members of the upstream's request that have no option here, as a JSON object. */
    public Builder extraJson(String json) {
      start.getCreateBuilder().setExtraJson(ByteString.copyFromUtf8(json));
      return this;
    }

    /** Whether the upstream keeps the response. Upstream's default: true. */
    public Builder store(boolean store) {
      start.getCreateBuilder().setStore(store);
      return this;
    }

    /** Changes the upstream's request as the generated message. */
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
