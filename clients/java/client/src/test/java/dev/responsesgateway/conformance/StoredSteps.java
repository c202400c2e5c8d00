package dev.responsesgateway.conformance;

import com.fasterxml.jackson.databind.JsonNode;
import dev.responsesgateway.client.Client;
import dev.responsesgateway.client.Event;
import dev.responsesgateway.client.ResponseStream;
import dev.responsesgateway.client.Responses;
import dev.responsesgateway.client.TurnRequest;
import dev.responsesgateway.v1.InputItem;
import dev.responsesgateway.v1.Message;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.List;
import java.util.Locale;
import java.util.Map;
import java.util.function.Function;

/** The steps about turns without a session, and about stored responses. */
final class StoredSteps {
  private final Function<JsonNode, List<InputItem>> input;
  private final Map<String, Read> known = new HashMap<>();

  private record Read(ResponseStream stream, List<Event> events) {}

  StoredSteps(Function<JsonNode, List<InputItem>> input) {
    this.input = input;
  }

  void step(Client client, String name, JsonNode step) {
    var responses = client.responses();
    var before = known.get(step.path("response").asText());
    var id = before == null ? step.path("response").asText() : before.stream().soFar().responseId();
    switch (name) {
      case "create" -> {
        var request = TurnRequest.builder().model("gpt-5.5").input(input.apply(step.get("input")));
        if (step.path("background").asBoolean(false)) {
          request.create(body -> body.setBackground(true));
        }
        var temperature = step.path("options").path("temperature");
        if (temperature.isNumber()) {
          request.create(body -> body.setTemperature(temperature.asDouble()));
        }
        var stream = responses.create(request.build(), step.path("idempotency_key").asText());
        var read = new Read(stream, new ArrayList<>());
        known.put(step.get("response").asText(), read);
        read(read, step, client);
      }
      case "follow" -> {
        var stream =
            step.path("after_last").asBoolean(false)
                ? responses.stream(id, before.stream().lastSequenceNumber().orElseThrow())
                : responses.stream(id);
        var events = new ArrayList<Event>(step.path("together").asBoolean(false) ? before.events() : List.of());
        read(new Read(stream, events), step, client);
      }
      case "get" -> {
        var response = responses.get(id);
        Compare.equal("status", step.path("status").asText(), response.getStatus());
        if (step.has("text")) {
          var text = response.getOutput(0).getMessage().getContent(0).getOutputText().getText();
          Compare.equal("text", step.get("text").asText(), text);
        }
      }
      case "delete" -> responses.delete(id);
      case "cancel_response" ->
          Compare.equal("status", step.path("status").asText(), responses.cancel(id).getStatus());
      case "input_items" -> {
        var order = Responses.Order.valueOf(step.path("order").asText("desc").toUpperCase(Locale.ROOT));
        var texts =
            responses
                .inputItems(id, order, step.path("limit").asInt(20))
                .map(item -> text(item.getMessage()))
                .toList();
        Compare.equal("texts", strings(step.path("texts")), texts);
      }
      case "count" -> {
        var request = TurnRequest.builder().model("gpt-5.5").input(input.apply(step.get("input"))).build();
        Compare.equal("enough tokens", true, responses.countInputTokens(request) >= step.get("at_least").asLong());
      }
      default ->
          Compare.equal(
              "models",
              strings(step.path("ids")),
              responses.models().stream().map(dev.responsesgateway.v1.Model::getId).toList());
    }
  }

  private static void read(Read read, JsonNode step, Client client) {
    var seen = 0;
    for (var event : read.stream()) {
      read.events().add(event);
      seen++;
      if (seen == step.path("read").asInt(-1)) {
        read.stream().close();
        return;
      }
      if (seen == step.path("close_client_after").asInt(-1)) {
        client.close();
      }
    }
    Compare.result(step, read.stream().result(), read.events());
  }

  private static String text(Message message) {
    return message.getContentCount() > 0 ? message.getContent(0).getInputText().getText() : message.getText();
  }

  private static List<String> strings(JsonNode list) {
    var texts = new ArrayList<String>();
    list.forEach(each -> texts.add(each.asText()));
    return texts;
  }
}
