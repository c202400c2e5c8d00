package dev.responsesgateway.client;

import static dev.responsesgateway.client.FakeGateway.answer;
import static dev.responsesgateway.client.FakeGateway.completed;
import static dev.responsesgateway.client.FakeGateway.functionCall;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import com.fasterxml.jackson.annotation.JsonProperty;
import com.fasterxml.jackson.annotation.JsonPropertyDescription;
import com.fasterxml.jackson.databind.JsonNode;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.atomic.AtomicInteger;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;

@Timeout(30)
class ToolTest {
  enum Colour {
    RED,
    GREEN
  }

  record Inner(int n) {}

  record Everything(
      @JsonProperty("z_last") @JsonPropertyDescription("a text") String text,
      List<Inner> many,
      Optional<Double> maybe,
      Colour colour,
      boolean flag) {}

  record Free(Map<String, String> labels, JsonNode anything) {}

  record Endless(Endless inner) {}

  record Query(String q) {}

  @Test
  void theSchemaListsMembersInTheirOrderAllRequired() {
    var schema = Schema.of(Everything.class);
    assertTrue(schema.strict());
    assertEquals(
        "{\"type\":\"object\",\"properties\":{"
            + "\"z_last\":{\"type\":\"string\",\"description\":\"a text\"},"
            + "\"many\":{\"type\":\"array\",\"items\":{\"type\":\"object\",\"properties\":{\"n\":{\"type\":\"integer\"}},"
            + "\"required\":[\"n\"],\"additionalProperties\":false}},"
            + "\"maybe\":{\"type\":[\"number\",\"null\"]},"
            + "\"colour\":{\"type\":\"string\",\"enum\":[\"RED\",\"GREEN\"]},"
            + "\"flag\":{\"type\":\"boolean\"}},"
            + "\"required\":[\"z_last\",\"many\",\"maybe\",\"colour\",\"flag\"],\"additionalProperties\":false}",
        schema.json());
    assertFalse(Schema.of(Free.class).strict());
    assertThrows(IllegalArgumentException.class, () -> Schema.of(Endless.class));
  }

  @Test
  void callsRunSideBySideAndErrorsBecomeResults() throws Exception {
    var quickRan = new CountDownLatch(1);
    try (var gateway =
            new FakeGateway(
                stream -> {
                  stream.accept();
                  var first = stream.startTurn();
                  assertEquals(3, first.getCreate().getToolsCount());
                  stream.events(
                      completed(
                          first,
                          "r1",
                          functionCall("c1", "slow", "{\"q\":\"a\"}"),
                          functionCall("c2", "quick", "{\"q\":\"b\"}"),
                          functionCall("c3", "bad", "{\"q\":\"c\"}"),
                          functionCall("c4", "missing", "{}"),
                          functionCall("c5", "quick", "{\"other\":1}"),
                          functionCall("c6", "quick", "{}")));
                  var second = stream.startTurn();
                  var results =
                      second.getCreate().getInputList().stream()
                          .map(item -> item.getFunctionCallOutput().getOutput())
                          .toList();
                  assertEquals(
                      List.of(
                          "after",
                          "{\"got\":\"b\"}",
                          "{\"error\":\"no luck\"}",
                          "{\"error\":\"there is no function missing\"}"),
                      results.subList(0, 4));
                  assertTrue(results.get(4).contains("the arguments do not fit the schema"), results.get(4));
                  assertTrue(results.get(5).contains("the arguments do not fit the schema"), results.get(5));
                  assertFalse(second.getCreate().hasToolChoice());
                  stream.events(completed(second, "r2", answer("done")));
                  stream.drain();
                });
        var session = gateway.connect()) {
      var loop =
          ToolLoop.of(
              Tool.of(
                  "slow",
                  "",
                  Query.class,
                  query -> {
                    quickRan.await();
                    return "after";
                  }),
              Tool.of(
                  "quick",
                  "",
                  Query.class,
                  query -> {
                    quickRan.countDown();
                    return Map.of("got", query.q());
                  }),
              Tool.of(
                  "bad",
                  "",
                  Query.class,
                  query -> {
                    throw new Exception("no luck");
                  }));
      var request =
          TurnRequest.builder()
              .input("go")
              .create(create -> create.getToolChoiceBuilder().setMode("required"))
              .build();
      assertEquals("done", session.lane("tools").runTools(request, loop).text());
    }
  }

  @Test
  void theLoopEndsAtItsLimitWithTheLastResult() throws Exception {
    var calls = new AtomicInteger();
    try (var gateway =
            new FakeGateway(
                stream -> {
                  stream.accept();
                  for (var count = 0; count < 3; count++) {
                    var turn = stream.startTurn();
                    stream.events(completed(turn, turn.getTurnId(), functionCall("c", "f", "{\"q\":\"\"}")));
                  }
                  stream.drain();
                });
        var session = gateway.connect()) {
      var loop = ToolLoop.of(Tool.of("f", "", Query.class, query -> calls.incrementAndGet())).maxTurns(3);
      var limit =
          assertThrows(TurnLimitException.class, () -> session.lane("").runTools(TurnRequest.of("go"), loop));
      assertEquals("turn-3", limit.result().responseId());
      assertEquals(2, calls.get());
    }
  }
}
