import com.fasterxml.jackson.databind.ObjectMapper;
import com.openai.client.okhttp.OpenAIOkHttpClient;
import com.openai.core.JsonValue;
import com.openai.helpers.ResponseAccumulator;
import com.openai.models.responses.FunctionTool;
import com.openai.models.responses.Response;
import com.openai.models.responses.ResponseCreateParams;
import com.openai.models.responses.ResponseInputItem;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.stream.Collectors;

public class Before {
  static final String MODEL = "gpt-5.5";

  public record Place(String city, String country) {}

  static String textOf(Response response) {
    return response.output().stream()
        .flatMap(item -> item.message().stream())
        .flatMap(message -> message.content().stream())
        .flatMap(part -> part.outputText().stream())
        .map(part -> part.text())
        .collect(Collectors.joining());
  }

  public static void main(String[] args) throws Exception {
    var client = OpenAIOkHttpClient.fromEnv();

    // A conversation, streamed.
    var accumulator = ResponseAccumulator.create();
    var hello = ResponseCreateParams.builder().model(MODEL).input("Hello").build();
    try (var stream = client.responses().createStreaming(hello)) {
      stream.stream()
          .peek(accumulator::accumulate)
          .flatMap(event -> event.outputTextDelta().stream())
          .forEach(delta -> System.out.print(delta.delta()));
    }
    var second =
        client
            .responses()
            .create(
                ResponseCreateParams.builder()
                    .model(MODEL)
                    .input("And shorter?")
                    .previousResponseId(accumulator.response().id())
                    .build());
    System.out.println("\n" + textOf(second));

    // A tool loop.
    var json = new ObjectMapper();
    var tool =
        FunctionTool.builder()
            .name("weather")
            .description("Weather of a city")
            .strict(true)
            .parameters(
                FunctionTool.Parameters.builder()
                    .putAdditionalProperty("type", JsonValue.from("object"))
                    .putAdditionalProperty("properties", JsonValue.from(Map.of("city", Map.of("type", "string"))))
                    .putAdditionalProperty("required", JsonValue.from(List.of("city")))
                    .putAdditionalProperty("additionalProperties", JsonValue.from(false))
                    .build())
            .build();
    var request = ResponseCreateParams.builder().model(MODEL).addTool(tool).input("How warm is it in Oslo?");
    var response = client.responses().create(request.build());
    while (true) {
      var outputs = new ArrayList<ResponseInputItem>();
      for (var item : response.output()) {
        if (item.functionCall().isEmpty()) {
          continue;
        }
        var call = item.asFunctionCall();
        var city = json.readTree(call.arguments()).get("city").asText();
        outputs.add(
            ResponseInputItem.ofFunctionCallOutput(
                ResponseInputItem.FunctionCallOutput.builder()
                    .callId(call.callId())
                    .output(json.writeValueAsString(Map.of("city", city, "celsius", 21)))
                    .build()));
      }
      if (outputs.isEmpty()) {
        break;
      }
      response =
          client
              .responses()
              .create(request.inputOfResponse(outputs).previousResponseId(response.id()).build());
    }
    System.out.println(!textOf(response).isEmpty());

    // A structured answer.
    var parsed =
        client
            .responses()
            .create(
                ResponseCreateParams.builder()
                    .model(MODEL)
                    .input("Where is the opera with the white roof?")
                    .text(Place.class)
                    .build());
    parsed.output().stream()
        .flatMap(item -> item.message().stream())
        .flatMap(message -> message.content().stream())
        .flatMap(part -> part.outputText().stream())
        .forEach(System.out::println);
  }
}
