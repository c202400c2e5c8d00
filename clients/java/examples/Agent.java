import com.fasterxml.jackson.annotation.JsonPropertyDescription;
import dev.responsesgateway.client.Client;
import dev.responsesgateway.client.Event;
import dev.responsesgateway.client.SessionOptions;
import dev.responsesgateway.client.Tool;
import dev.responsesgateway.client.ToolLoop;
import dev.responsesgateway.client.TurnRequest;
import java.io.PrintStream;
import java.time.LocalTime;
import java.time.ZoneId;
import java.util.Map;

/**
 * An agent with two tools. The calls of a turn run side by side; their results are the only input of the next turn.
 *
 * <pre>
 * npm start                                     # a gateway with its simulator
 * clients/java/run.sh examples/Agent.java
 * </pre>
 */
public class Agent {
  record City(@JsonPropertyDescription("Name of the city") String city) {}

  record Zone(@JsonPropertyDescription("IANA name, for instance Europe/Berlin") String zone) {}

  public static void main(String[] args) {
    try (var client = Client.create()) {
      ask(client, "How warm is it in Berlin, and how late?", System.out);
    }
  }

  static void ask(Client client, String question, PrintStream out) {
    var weather =
        Tool.of(
            "weather",
            "Tells the weather of a city.",
            City.class,
            input -> Map.of("city", input.city(), "celsius", 21, "sky", "clear"));
    // A zone that does not exist throws: the model gets the error as the result.
    var time =
        Tool.of(
            "time",
            "Tells the time in a time zone.",
            Zone.class,
            input -> LocalTime.now(ZoneId.of(input.zone())).toString());
    var options = SessionOptions.builder().model("gpt-5.5").program("agent-example", "1").build();
    try (var session = client.connect(options)) {
      var request = TurnRequest.builder().input(question).instructions("Use the tools.").build();
      var loop = ToolLoop.of(weather, time).maxTurns(10);
      loop.run(
          session.lane("agent"),
          request,
          turn -> {
            for (var event : turn) {
              if (event instanceof Event.TextDelta piece) {
                out.print(piece.text());
              } else if (event instanceof Event.ItemDone done && done.item().hasFunctionCall()) {
                var call = done.item().getFunctionCall();
                out.printf("%s(%s)%n", call.getName(), call.getArguments());
              }
            }
          });
      out.println();
    }
  }
}
