import dev.responsesgateway.client.Client;
import dev.responsesgateway.client.Event;
import dev.responsesgateway.client.SessionOptions;
import dev.responsesgateway.client.Tool;
import dev.responsesgateway.client.ToolLoop;
import dev.responsesgateway.client.TurnRequest;
import java.util.Map;

public class After {
  public record City(String city) {}

  public record Place(String city, String country) {}

  public static void main(String[] args) {
    try (var client = Client.create();
        var session = client.connect(SessionOptions.builder().model("gpt-5.5").build())) {
      // A conversation, streamed.
      for (var event : session.start("Hello")) {
        if (event instanceof Event.TextDelta piece) {
          System.out.print(piece.text());
        }
      }
      System.out.println("\n" + session.start("And shorter?").result().text());

      // A tool loop.
      var weather =
          Tool.of("weather", "Weather of a city", City.class, in -> Map.of("city", in.city(), "celsius", 21));
      var question = TurnRequest.of("How warm is it in Oslo?");
      var result = session.lane("agent").runTools(question, ToolLoop.of(weather));
      System.out.println(!result.text().isEmpty());

      // A structured answer.
      var request = TurnRequest.of("Where is the opera with the white roof?");
      var answer = session.lane("places").parse(request, Place.class);
      System.out.println(answer.value().orElseThrow());
    }
  }
}
