package dev.responsesgateway.client;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import dev.responsesgateway.v1.ContentPart;
import dev.responsesgateway.v1.Message;
import dev.responsesgateway.v1.OutputItem;
import dev.responsesgateway.v1.OutputText;
import dev.responsesgateway.v1.Refusal;
import dev.responsesgateway.v1.TurnFailed;
import java.util.List;
import java.util.Map;
import java.util.concurrent.atomic.AtomicInteger;
import org.junit.jupiter.api.Test;

class RequestTest {
  record Forecast(String city, double celsius, List<String> notes) {}

  @Test
  void plainOptionsBecomeTheUpstreamsRequest() {
    var create =
        TurnRequest.builder()
            .input(
                List.of(
                    Items.message(
                        "user",
                        Parts.text("what is this?"),
                        Parts.image("image/png", new byte[] {1, 2}),
                        Parts.file("a.pdf", "application/pdf", new byte[] {3}))))
            .effort("low")
            .temperature(0)
            .maxOutputTokens(100)
            .format(Forecast.class)
            .verbosity("low")
            .include("reasoning.encrypted_content")
            .metadata(Map.of("job", "1"))
            .cacheKey("k")
            .toolChoice("weather")
            .tools(List.of(Tool.json("{\"type\":\"web_search\"}")))
            .extraJson("{\"new_member\":1}")
            .build()
            .start()
            .getCreate();
    assertEquals("low", create.getReasoning().getEffort());
    assertTrue(create.hasTemperature());
    assertEquals(0, create.getTemperature());
    assertEquals("weather", create.getToolChoice().getFunction().getName());
    var parts = create.getInput(0).getMessage().getContentList();
    assertEquals("data:image/png;base64,AQI=", parts.get(1).getInputImage().getImageUrl());
    assertEquals("a.pdf", parts.get(2).getInputFile().getFilename());
    var format = create.getText().getFormat().getJsonSchema();
    assertEquals("Forecast", format.getName());
    assertTrue(format.getStrict());
    assertEquals(
        "{\"type\":\"object\",\"properties\":{\"city\":{\"type\":\"string\"},\"celsius\":{\"type\":\"number\"},"
            + "\"notes\":{\"type\":\"array\",\"items\":{\"type\":\"string\"}}},"
            + "\"required\":[\"city\",\"celsius\",\"notes\"],\"additionalProperties\":false}",
        format.getSchema().toStringUtf8());
  }

  @Test
  void parsingKeepsWhatDoesNotFit() {
    var fits = result(Outcome.COMPLETED, text("{\"city\":\"Oslo\",\"celsius\":3.5,\"notes\":[]}")).parse(Forecast.class);
    assertEquals(3.5, fits.value().orElseThrow().celsius());
    var other = result(Outcome.COMPLETED, text("no JSON")).parse(Forecast.class);
    assertTrue(other.value().isEmpty() && other.problem().isPresent());
    assertEquals("no JSON", other.result().text());
    var refused =
        result(Outcome.COMPLETED, ContentPart.newBuilder().setRefusal(Refusal.newBuilder().setRefusal("no")).build())
            .parse(Forecast.class);
    assertTrue(refused.value().isEmpty() && refused.problem().isEmpty());
    assertEquals("no", refused.result().refusal());
    var half = result(Outcome.INCOMPLETE, text("{\"city\":\"Os")).parse(Forecast.class);
    assertTrue(half.value().isEmpty() && half.problem().isEmpty());
  }

  @Test
  void onlyWhatDidNotRunIsRunAgain() {
    var runs = new AtomicInteger();
    var overloaded = TurnFailed.newBuilder().setReason(Reasons.UPSTREAM_OVERLOADED);
    for (var verdict : Map.of("REPLAY_VERDICT_SAFE", 3, "REPLAY_VERDICT_UNKNOWN", 1).entrySet()) {
      runs.set(0);
      var failed =
          overloaded.setReplay(dev.responsesgateway.v1.ReplayVerdict.valueOf(verdict.getKey())).build();
      var event = dev.responsesgateway.v1.Event.getDefaultInstance();
      assertThrows(
          TurnException.class,
          () ->
              Retry.whenSafe(
                  3,
                  () -> {
                    runs.incrementAndGet();
                    throw TurnException.of(event, failed);
                  }));
      assertEquals(verdict.getValue(), runs.get());
    }
  }

  private static ContentPart text(String text) {
    return ContentPart.newBuilder().setOutputText(OutputText.newBuilder().setText(text)).build();
  }

  private static Result result(Outcome outcome, ContentPart part) {
    var item = OutputItem.newBuilder().setMessage(Message.newBuilder().setRole("assistant").addContent(part)).build();
    return new Result("", "t", outcome, List.of(), List.of(item), "", null);
  }
}
