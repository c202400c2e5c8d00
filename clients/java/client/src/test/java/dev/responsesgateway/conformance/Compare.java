package dev.responsesgateway.conformance;

import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import dev.responsesgateway.client.Event;
import dev.responsesgateway.client.GatewayException;
import dev.responsesgateway.client.Result;
import dev.responsesgateway.client.TurnException;
import dev.responsesgateway.v1.UpstreamError;
import java.util.List;
import java.util.Locale;
import java.util.Objects;
import java.util.Optional;
import java.util.regex.Pattern;

final class Compare {
  static final ObjectMapper JSON = new ObjectMapper();

  private Compare() {}

  static void error(JsonNode wanted, GatewayException error) {
    var turn = error instanceof TurnException is ? Optional.of(is) : Optional.<TurnException>empty();
    oneOf("reason", wanted.path("reason"), error.reason());
    oneOf("code", wanted.path("code"), error.code().name());
    oneOf("replay", wanted.path("replay"), error.replay().map(Compare::lower).orElse(""));
    oneOf("phase", wanted.path("phase"), turn.map(TurnException::phase).orElse(""));
    if (wanted.has("inferred")) {
      equal("inferred", wanted.get("inferred").asBoolean(), error.inferred());
    }
    if (wanted.has("retry_after")) {
      equal("retry_after", wanted.get("retry_after").asBoolean(), error.retryAfter().isPresent());
    }
    var upstream = turn.flatMap(TurnException::upstream);
    oneOf("upstream_code", wanted.path("upstream_code"), upstream.map(UpstreamError::getCode).orElse(""));
    if (wanted.has("upstream_status")) {
      equal("upstream_status", wanted.get("upstream_status").asInt(), upstream.map(UpstreamError::getStatus).orElse(0));
    }
    if (wanted.has("result_text")) {
      equal(
          "result so far",
          wanted.get("result_text").asText(),
          turn.flatMap(TurnException::result).map(Result::text).orElse(null));
    }
    for (var key : wanted.path("metadata_keys")) {
      equal("metadata " + key, true, error.metadata().containsKey(key.asText()));
    }
    for (var entry : wanted.path("metadata").properties()) {
      equal("metadata " + entry.getKey(), entry.getValue().asText(), error.metadata().get(entry.getKey()));
    }
  }

  static void result(JsonNode fields, Result result, List<Event> events) {
    oneOf("outcome", fields.path("outcome"), result.outcome().map(Compare::lower).orElse(""));
    oneOf("text", fields.path("text"), result.text());
    oneOf("refusal", fields.path("refusal"), result.refusal());
    if (fields.has("text_matches") && !Pattern.compile(fields.get("text_matches").asText()).matcher(result.text()).find()) {
      throw new AssertionError("text: " + result.text() + " does not match " + fields.get("text_matches"));
    }
    if (fields.has("text_length")) {
      equal("text_length", fields.get("text_length").asInt(), result.text().length());
    }
    if (fields.has("responses")) {
      equal("responses", fields.get("responses").asInt(), result.responses().size());
    }
    if (fields.has("function_calls")) {
      var names = JSON.createArrayNode();
      result.functionCalls().forEach(call -> names.add(call.getName()));
      equal("function_calls", fields.get("function_calls"), names);
    }
    if (fields.path("usage").asBoolean(false)) {
      equal("usage", true, result.usage().totalTokens() > 0);
    }
    if (fields.path("usage_of_all_turns").asBoolean(false)) {
      var turns = result.turns();
      equal(
          "usage of all turns",
          true,
          turns.size() > 1 && result.usage().totalTokens() > turns.get(turns.size() - 1).usage().totalTokens());
    }
    if (fields.has("cost")) {
      var told =
          result
              .cost()
              .map(
                  cost ->
                      (JsonNode)
                          JSON.createObjectNode()
                              .put("amount", cost.getAmount())
                              .put("currency", cost.getCurrency())
                              .put("prices_as_of", cost.getPricesAsOf()))
              .orElse(JSON.nullNode());
      equal("cost", fields.get("cost"), told);
    }
    if (fields.has("deltas")) {
      equal(
          "deltas",
          fields.get("deltas").asLong(),
          events.stream().filter(event -> event instanceof Event.TextDelta).count());
    }
    for (var type : fields.path("types")) {
      if (events.stream().noneMatch(event -> event.type().equals(type.asText()))) {
        throw new AssertionError("no event of type " + type);
      }
    }
    var jsonOf = fields.path("json_of");
    if (jsonOf.isObject()
        && events.stream()
            .noneMatch(
                event ->
                    event.type().equals(jsonOf.get("type").asText())
                        && event.rawJson().toStringUtf8().contains(jsonOf.get("contains").asText()))) {
      throw new AssertionError("no event with " + jsonOf);
    }
  }

  static void equal(String what, Object wanted, Object found) {
    if (!Objects.equals(wanted, found)) {
      throw new AssertionError(what + ": " + found + " instead of " + wanted);
    }
  }

  private static void oneOf(String what, JsonNode wanted, String found) {
    if (wanted.isTextual()) {
      equal(what, wanted.asText(), found);
    } else if (wanted.isArray()) {
      for (var each : wanted) {
        if (each.asText().equals(found)) {
          return;
        }
      }
      throw new AssertionError(what + ": " + found + " instead of one of " + wanted);
    }
  }

  private static String lower(Enum<?> value) {
    return value.name().toLowerCase(Locale.ROOT);
  }
}
