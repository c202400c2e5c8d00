package dev.responsesgateway.client;

import dev.responsesgateway.v1.Cost;
import dev.responsesgateway.v1.OutputItem;
import dev.responsesgateway.v1.Response;
import java.util.ArrayList;
import java.util.List;

/** Builds the result from the events; the one place that knows how. */
final class Accumulator {
  private final List<Response> responses = new ArrayList<>();
  private final StringBuilder text = new StringBuilder();
  private List<OutputItem> items = new ArrayList<>();
  private Outcome outcome;
  private Cost cost;

  void add(dev.responsesgateway.v1.Event event) {
    switch (event.getPayloadCase()) {
      case OUTPUT_TEXT_DELTA -> text.append(event.getOutputTextDelta().getDelta());
      case OUTPUT_ITEM_DONE -> items.add(event.getOutputItemDone().getItem());
      case RESPONSE_CREATED -> begin(event.getResponseCreated().getResponse());
      case RESPONSE_COMPLETED -> finish(event.getResponseCompleted().getResponse());
      case RESPONSE_INCOMPLETE -> finish(event.getResponseIncomplete().getResponse());
      case RESPONSE_FAILED -> finish(event.getResponseFailed().getResponse());
      default -> {}
    }
    outcome = Outcome.of(event.getOutcome()).orElse(outcome);
    if (event.hasCost()) {
      cost = event.getCost();
    }
  }

  Result result(String laneId, String turnId) {
    return new Result(laneId, turnId, outcome, responses, items, text.toString(), cost);
  }

  private void begin(Response response) {
    responses.add(response);
    items = new ArrayList<>();
    text.setLength(0);
  }

  /** Replaces what response.created said. The finished response may list no output: the items then came alone. */
  private void finish(Response response) {
    var last = responses.size() - 1;
    if (last >= 0 && responses.get(last).getId().equals(response.getId())) {
      responses.set(last, response);
    } else {
      // A sparse upstream has left response.created out: what came so far belongs to this response.
      responses.add(response);
    }
    if (response.getOutputCount() > items.size()) {
      items = new ArrayList<>(response.getOutputList());
    }
  }
}
