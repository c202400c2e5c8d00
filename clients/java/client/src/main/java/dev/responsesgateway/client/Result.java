package dev.responsesgateway.client;

import com.fasterxml.jackson.core.JsonProcessingException;
import dev.responsesgateway.v1.ContentPart;
import dev.responsesgateway.v1.Cost;
import dev.responsesgateway.v1.FunctionCall;
import dev.responsesgateway.v1.OutputItem;
import dev.responsesgateway.v1.Response;
import java.io.Serializable;
import java.util.List;
import java.util.Optional;
import java.util.stream.Collectors;
import java.util.stream.Stream;

/** What a turn came to, as far as it was read. */
public final class Result implements Serializable {
  private static final long serialVersionUID = 1L;

  private final String laneId;
  private final String turnId;
  private final Outcome outcome;
  private final List<Response> responses;
  private final List<OutputItem> items;
  private final String partial;
  private final Cost cost;
  private final List<Result> turns;

  Result(
      String laneId,
      String turnId,
      Outcome outcome,
      List<Response> responses,
      List<OutputItem> items,
      String partial,
      Cost cost) {
    this(laneId, turnId, outcome, responses, items, partial, cost, List.of());
  }

  private Result(
      String laneId,
      String turnId,
      Outcome outcome,
      List<Response> responses,
      List<OutputItem> items,
      String partial,
      Cost cost,
      List<Result> turns) {
    this.laneId = laneId;
    this.turnId = turnId;
    this.outcome = outcome;
    this.responses = List.copyOf(responses);
    this.items = List.copyOf(items);
    this.partial = partial;
    this.cost = cost;
    this.turns = List.copyOf(turns);
  }

  /** The last turn's result as that of a loop of turns. */
  Result of(List<Result> loop) {
    return new Result(laneId, turnId, outcome, responses, items, partial, cost, loop);
  }

  /** What the turn cost by the gateway's price table; empty without one. */
  public Optional<Cost> cost() {
    return Optional.ofNullable(cost);
  }

  /** The results of all turns of a tool loop, in order; empty for a single turn. */
  public List<Result> turns() {
    return turns;
  }

  /** The turn's lane. */
  public String laneId() {
    return laneId;
  }

  /** The turn. */
  public String turnId() {
    return turnId;
  }

  /** Empty as long as the turn goes on, and if it ended without a last event. */
  public Optional<Outcome> outcome() {
    return Optional.ofNullable(outcome);
  }

  /** The last response of the turn. */
  public Optional<Response> response() {
    return responses.isEmpty() ? Optional.empty() : Optional.of(responses.get(responses.size() - 1));
  }

  /** Names the response to continue from; empty if none was created. */
  public String responseId() {
    return response().map(Response::getId).orElse("");
  }

  /** All responses of the turn, in order. A steered turn has several. */
  public List<Response> responses() {
    return responses;
  }

  /** The output items of the last response that are complete. */
  public List<OutputItem> items() {
    return items;
  }

  /** The visible answer. Of a turn that broke off, it is what had arrived. */
  public String text() {
    var text = parts().map(part -> part.getOutputText().getText()).collect(Collectors.joining());
    return partial.length() > text.length() ? partial : text;
  }

  /** The model's refusal; empty if it did not refuse. */
  public String refusal() {
    return parts().map(part -> part.getRefusal().getRefusal()).collect(Collectors.joining());
  }

  /**
   * The answer as a record, by the schema of {@link TurnRequest.Builder#format}. What refuses, is incomplete or does not
   * fit leaves the value empty, and the result as it is.
   */
  public <T extends Record> Parsed<T> parse(Class<T> type) {
    if (outcome != Outcome.COMPLETED || !refusal().isEmpty()) {
      return new Parsed<>(this, Optional.empty(), Optional.empty());
    }
    try {
      return new Parsed<>(this, Optional.of(Schema.MAPPER.readValue(text(), type)), Optional.empty());
    } catch (JsonProcessingException mismatch) {
      return new Parsed<>(this, Optional.empty(), Optional.of(mismatch));
    }
  }

  /** The calls that wait for a result. */
  public List<FunctionCall> functionCalls() {
    return items.stream().filter(OutputItem::hasFunctionCall).map(OutputItem::getFunctionCall).toList();
  }

  /** What the turn cost; for the result of a tool loop, what all its turns cost. */
  public Usage usage() {
    if (!turns.isEmpty()) {
      return turns.stream().map(Result::usage).reduce(new Usage(0, 0, 0, 0, 0), Usage::plus);
    }
    long input = 0;
    long cached = 0;
    long output = 0;
    long reasoning = 0;
    long total = 0;
    for (var response : responses) {
      var usage = response.getUsage();
      input += usage.getInputTokens();
      cached += usage.getInputTokensDetails().getCachedTokens();
      output += usage.getOutputTokens();
      reasoning += usage.getOutputTokensDetails().getReasoningTokens();
      total += usage.getTotalTokens();
    }
    return new Usage(input, cached, output, reasoning, total);
  }

  private Stream<ContentPart> parts() {
    return items.stream().flatMap(item -> item.getMessage().getContentList().stream());
  }
}
