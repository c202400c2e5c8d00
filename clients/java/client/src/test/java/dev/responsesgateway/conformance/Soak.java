package dev.responsesgateway.conformance;

import com.fasterxml.jackson.databind.ObjectMapper;
import dev.responsesgateway.client.Client;
import dev.responsesgateway.client.Event;
import dev.responsesgateway.client.GatewayException;
import dev.responsesgateway.client.Result;
import dev.responsesgateway.client.Session;
import dev.responsesgateway.client.SessionOptions;
import dev.responsesgateway.client.Tool;
import dev.responsesgateway.client.ToolLoop;
import dev.responsesgateway.client.TurnRequest;
import java.time.Duration;
import java.util.ArrayList;
import java.util.List;
import java.util.Locale;
import java.util.Map;
import java.util.Random;
import java.util.concurrent.CancellationException;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.TimeoutException;
import java.util.logging.Logger;

/** Runs turns in all ways while the connection is cut: clients/conformance/soak.ts starts it. */
public final class Soak {
  private static final int WORKERS = 8;

  /** One turn, whatever is done with it, ends within this. */
  private static final Duration MOST_TIME = Duration.ofSeconds(60);

  private static final List<String> WAYS =
      List.of(
          "final", "read", "slow", "cancel", "drop", "close", "loop", "raising", "hanging", "limit", "leave", "interrupt",
          "steer", "future");

  /** The arguments of the function. */
  record Query(String query) {}

  /** Thrown to leave a loop. */
  private static final class Left extends RuntimeException {
    private static final long serialVersionUID = 1L;
  }

  private final Map<String, Integer> outcomes = new ConcurrentHashMap<>();
  private final Session session;

  private Soak(Session session) {
    this.session = session;
  }

  /** Runs SOAK_TURNS turns. */
  public static void main(String[] args) throws Exception {
    Logger.getLogger("dev.responsesgateway.client").setUseParentHandlers(false);
    var turns = Integer.parseInt(System.getenv("SOAK_TURNS"));
    var seed = Long.parseLong(System.getenv("SOAK_SEED"));
    var client = Client.create();
    var options =
        SessionOptions.builder()
            .model("gpt-5.5")
            .onEvent(
                event -> {
                  throw new AssertionError("a bug of the program");
                });
    var soak = new Soak(client.connect(options.build()));
    var threads = new ArrayList<Thread>();
    for (var worker = 0; worker < WORKERS; worker++) {
      var number = worker;
      var thread =
          new Thread(
              () -> {
                var chance = new Random(seed + number);
                for (var count = turns / WORKERS + 1; count > 0; count--) {
                  soak.count(chance, number);
                }
              },
              "worker-" + worker);
      thread.start();
      threads.add(thread);
    }
    for (var thread : threads) {
      thread.join();
    }
    var resumes = soak.session.stats().resumes();
    soak.session.close();
    client.close();
    var sum = soak.outcomes.values().stream().mapToInt(Integer::intValue).sum();
    System.out.println(
        new ObjectMapper()
            .writeValueAsString(
                Map.of("turns", sum, "outcomes", soak.outcomes, "resumes", resumes, "left", left())));
    System.exit(0);
  }

  private void count(Random chance, int worker) {
    String outcome;
    try {
      outcome = play(chance, worker);
    } catch (Left left) {
      outcome = "left";
    } catch (GatewayException error) {
      outcome = error.reason();
    } catch (CancellationException interrupted) {
      // The interrupt was meant for that turn alone.
      Thread.interrupted();
      outcome = "interrupted";
    } catch (Exception | AssertionError problem) {
      outcome = problem.toString();
    }
    outcomes.merge(outcome, 1, Integer::sum);
  }

  private String play(Random chance, int worker) throws Exception {
    var way = WAYS.get(chance.nextInt(WAYS.size()));
    var lane = session.lane("lane-" + worker + "-" + chance.nextInt(3));
    var text = "#deltas=" + (5 + chance.nextInt(300));
    var request = TurnRequest.of("#tools=3 " + text);
    switch (way) {
      case "loop", "raising" -> {
        return outcome(lane.runTools(request, ToolLoop.of(way.equals("loop") ? LOOK : BAD).maxDuration(MOST_TIME)));
      }
      case "hanging" -> {
        return outcome(lane.runTools(request, ToolLoop.of(HANGS).callTimeout(Duration.ofMillis(20))));
      }
      case "limit" -> {
        return outcome(lane.runTools(request, ToolLoop.of(LOOK).maxTurns(2)));
      }
      case "leave" ->
          ToolLoop.of(LOOK)
              .run(
                  lane,
                  request,
                  turn -> {
                    throw new Left();
                  });
      case "interrupt" -> {
        var me = Thread.currentThread();
        var ended = new CountDownLatch(1);
        var interrupts =
            new Thread(
                () -> {
                  try {
                    if (!ended.await(chance.nextInt(200), TimeUnit.MILLISECONDS)) {
                      me.interrupt();
                    }
                  } catch (InterruptedException end) {
                    Thread.currentThread().interrupt();
                  }
                });
        interrupts.start();
        try {
          return outcome(lane.runTools(request, ToolLoop.of(LOOK)));
        } finally {
          ended.countDown();
          joined(interrupts);
        }
      }
      default -> {}
    }
    var turn = lane.start(text);
    switch (way) {
      case "drop" -> {
        return "dropped";
      }
      case "final" -> {
        return outcome(turn.result(MOST_TIME));
      }
      case "future" -> {
        return outcome(
            turn.resultAsync()
                .exceptionally(problem -> turn.soFar())
                .get(MOST_TIME.toSeconds(), TimeUnit.SECONDS));
      }
      default -> {}
    }
    var steered = false;
    for (var event : turn) {
      if (way.equals("slow")) {
        TimeUnit.MICROSECONDS.sleep(chance.nextInt(2000));
      }
      if (event instanceof Event.TextDelta) {
        switch (way) {
          case "cancel" -> turn.cancel();
          case "close" -> turn.close();
          case "steer" -> {
            if (!steered) {
              turn.steer("and another thing");
              steered = true;
            }
          }
          default -> {}
        }
      }
    }
    return outcome(turn.result(MOST_TIME));
  }

  private static final Tool LOOK = Tool.of("look", "Looks something up", Query.class, Query::query);

  private static final Tool BAD =
      Tool.of(
          "look",
          "Fails, in one way or another",
          Query.class,
          query -> {
            if (query.query().length() % 2 == 0) {
              throw new StackOverflowError("no luck");
            }
            throw new TimeoutException("no luck");
          });

  private static final Tool HANGS =
      Tool.of(
          "look",
          "Does not answer",
          Query.class,
          query -> {
            new CountDownLatch(1).await();
            return "";
          });

  private static String outcome(Result result) {
    return result.outcome().map(each -> each.name().toLowerCase(Locale.ROOT)).orElse("none");
  }

  private static void joined(Thread thread) {
    while (thread.isAlive()) {
      try {
        thread.join();
      } catch (InterruptedException again) {
        // Counted by the caller, which clears it.
        continue;
      }
    }
  }

  /** The client's threads that do not end; those that wait for further callbacks do by themselves. */
  private static List<String> left() throws InterruptedException {
    var still = List.<String>of();
    for (var attempt = 0; attempt < 100; attempt++) {
      still =
          Thread.getAllStackTraces().keySet().stream()
              .map(Thread::getName)
              .filter(name -> name.startsWith("responses-gateway-tool") || name.startsWith("worker"))
              .toList();
      if (still.isEmpty()) {
        break;
      }
      Thread.sleep(20);
    }
    return still;
  }
}
