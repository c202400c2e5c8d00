import dev.responsesgateway.client.Client;
import dev.responsesgateway.client.Result;
import dev.responsesgateway.client.Session;
import dev.responsesgateway.client.SessionOptions;
import java.util.List;
import java.util.concurrent.CompletableFuture;

/**
 * Eight agents in parallel lanes of one session: one stream, one upstream connection, eight conversations, no thread
 * that waits.
 *
 * <pre>
 * npm start                                     # a gateway with its simulator
 * clients/java/run.sh examples/Parallel.java
 * </pre>
 */
public class Parallel {
  private static final List<String> TOPICS =
      List.of("tides", "glass", "bees", "iron", "salt", "paper", "clouds", "bread");

  public static void main(String[] args) {
    var options = SessionOptions.builder().model("gpt-5.5").program("parallel-example", "1").build();
    try (var client = Client.create();
        var session = client.connect(options)) {
      var answers = TOPICS.stream().map(topic -> agent(session, topic)).toList();
      for (var index = 0; index < answers.size(); index++) {
        System.out.printf("%s: %s%n", TOPICS.get(index), answers.get(index).join().text());
      }
    }
  }

  private static CompletableFuture<Result> agent(Session session, String topic) {
    var lane = session.lane(topic);
    return lane.start("Write one sentence on " + topic + ".")
        .resultAsync()
        // The lane remembers the draft: only the new sentence is sent.
        .thenCompose(draft -> lane.start("Now make it shorter.").resultAsync());
  }
}
