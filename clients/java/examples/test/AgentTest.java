import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertTrue;

import dev.responsesgateway.client.SessionOptions;
import dev.responsesgateway.testing.FakeGateway;
import java.io.ByteArrayOutputStream;
import java.io.PrintStream;
import java.nio.charset.StandardCharsets;
import java.time.Duration;
import org.junit.jupiter.api.BeforeAll;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;

/** How a program is tested without a gateway. */
@Timeout(300)
class AgentTest {
  private final ByteArrayOutputStream printed = new ByteArrayOutputStream();

  /** The first session loads gRPC's classes, which takes its time on a busy machine. */
  @BeforeAll
  static void loadClasses() {
    try (var gateway = FakeGateway.start();
        var client = gateway.client()) {
      client.connect(SessionOptions.builder().connectTimeout(Duration.ofMinutes(4)).build()).close();
    }
  }

  @Test
  void asksItsToolsAndBringsTheModelTheirResults() {
    try (var gateway = FakeGateway.start();
        var client = gateway.client()) {
      gateway.calls(
          new FakeGateway.Call("weather", "{\"city\":\"Oslo\"}"), new FakeGateway.Call("time", "{\"zone\":\"nowhere\"}"));
      gateway.answer("21 degrees", ", and I know no clock there.");
      Agent.ask(client, "How warm is it in Oslo, and how late?", new PrintStream(printed, true, StandardCharsets.UTF_8));
      assertTrue(printed.toString(StandardCharsets.UTF_8).endsWith("21 degrees, and I know no clock there.\n"));
      var outputs = gateway.turns().get(1).callOutputs();
      assertEquals("{\"city\":\"Oslo\",\"celsius\":21,\"sky\":\"clear\"}".length(), outputs.get(0).length());
      assertTrue(outputs.get(1).startsWith("{\"error\":"), outputs.get(1));
    }
  }
}
