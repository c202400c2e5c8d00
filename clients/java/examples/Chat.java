import dev.responsesgateway.client.Client;
import dev.responsesgateway.client.Event;
import dev.responsesgateway.client.GatewayException;
import dev.responsesgateway.client.SessionOptions;
import dev.responsesgateway.client.TurnRequest;
import java.util.Scanner;

/**
 * A chat in the terminal: each line is a turn on the same lane, so only the new line goes to the gateway.
 *
 * <pre>
 * npm start                                     # a gateway with its simulator
 * clients/java/run.sh examples/Chat.java
 * </pre>
 */
public class Chat {
  public static void main(String[] args) {
    var options = SessionOptions.builder().model("gpt-5.5").program("chat-example", "1").build();
    try (var client = Client.create();
        var session = client.connect(options);
        var lines = new Scanner(System.in)) {
      System.out.print("> ");
      while (lines.hasNextLine()) {
        var request = TurnRequest.builder().input(lines.nextLine()).instructions("Answer briefly.").build();
        try {
          var turn = session.start(request);
          for (var event : turn) {
            if (event instanceof Event.TextDelta piece) {
              System.out.print(piece.text());
            }
          }
          System.out.printf("%n(%d tokens)%n> ", turn.soFar().usage().totalTokens());
        } catch (GatewayException error) {
          System.out.printf("%s%n> ", error.getMessage());
        }
      }
    }
  }
}
