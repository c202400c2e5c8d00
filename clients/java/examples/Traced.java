import dev.responsesgateway.client.Client;
import dev.responsesgateway.client.SessionOptions;
import io.opentelemetry.exporter.logging.LoggingSpanExporter;
import io.opentelemetry.sdk.OpenTelemetrySdk;
import io.opentelemetry.sdk.trace.SdkTracerProvider;
import io.opentelemetry.sdk.trace.export.SimpleSpanProcessor;

/**
 * One traced call: the span that is current when a turn starts becomes the parent of the gateway's span.
 *
 * <pre>
 * npm start                                     # a gateway with its simulator
 * clients/java/run.sh examples/Traced.java
 * </pre>
 */
public class Traced {
  public static void main(String[] args) {
    var processor = SimpleSpanProcessor.create(LoggingSpanExporter.create());
    var options = SessionOptions.builder().model("gpt-5.5").program("traced-example", "1").build();
    var provider = SdkTracerProvider.builder().addSpanProcessor(processor).build();
    try (var telemetry = OpenTelemetrySdk.builder().setTracerProvider(provider).build();
        var client = Client.create();
        var session = client.connect(options)) {
      var span = telemetry.getTracer("traced-example").spanBuilder("question").startSpan();
      try (var scope = span.makeCurrent()) {
        System.out.println(session.start("Hello").result().text());
        System.out.println("trace " + span.getSpanContext().getTraceId());
      } finally {
        span.end();
      }
    }
  }
}
