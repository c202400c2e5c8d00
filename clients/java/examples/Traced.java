import com.fasterxml.jackson.annotation.JsonPropertyDescription;
import dev.responsesgateway.client.Client;
import dev.responsesgateway.client.SessionOptions;
import dev.responsesgateway.client.Tool;
import dev.responsesgateway.client.ToolLoop;
import dev.responsesgateway.client.TurnRequest;
import io.opentelemetry.api.GlobalOpenTelemetry;
import io.opentelemetry.api.trace.SpanKind;
import io.opentelemetry.exporter.otlp.trace.OtlpGrpcSpanExporter;
import io.opentelemetry.sdk.OpenTelemetrySdk;
import io.opentelemetry.sdk.trace.SdkTracerProvider;
import io.opentelemetry.sdk.trace.export.BatchSpanProcessor;
import java.util.Map;

/**
 * Lets the model call a function within a span. The span is the parent of what the gateway does for each turn and of the
 * function's call; all of it goes to a collector.
 *
 * <pre>
 * npm start                                     # a gateway with its simulator
 * OTEL_EXPORTER_OTLP_ENDPOINT=http://localhost:4317 clients/java/run.sh examples/Traced.java
 * </pre>
 */
public class Traced {
  record City(@JsonPropertyDescription("Name of the city") String city) {}

  public static void main(String[] args) {
    var collector =
        System.getenv().getOrDefault("OTEL_EXPORTER_OTLP_ENDPOINT", "http://localhost:4317");
    var exporter = OtlpGrpcSpanExporter.builder().setEndpoint(collector).build();
    var processor = BatchSpanProcessor.builder(exporter).build();
    var provider = SdkTracerProvider.builder().addSpanProcessor(processor).build();
    try (var telemetry = OpenTelemetrySdk.builder().setTracerProvider(provider).build()) {
      // Where the client's tool loop finds it.
      GlobalOpenTelemetry.set(telemetry);
      // A client's span: service graphs draw an edge from it to the gateway's spans below it.
      var span =
          telemetry
              .getTracer("traced-example")
              .spanBuilder("question")
              .setSpanKind(SpanKind.CLIENT)
              .startSpan();
      try (var scope = span.makeCurrent()) {
        ask();
        System.out.println("trace " + span.getSpanContext().getTraceId());
      } finally {
        span.end();
      }
    }
  }

  private static void ask() {
    var weather =
        Tool.of(
            "weather",
            "Tells the weather of a city.",
            City.class,
            input -> Map.of("city", input.city(), "sky", "clear"));
    var options = SessionOptions.builder().model("gpt-5.5").program("traced-example", "1").build();
    try (var client = Client.create();
        var session = client.connect(options)) {
      var request = TurnRequest.builder().input("What is the weather in Oslo?").build();
      var result = ToolLoop.of(weather).run(session.lane(""), request);
      System.out.println(result.text());
    }
  }
}
