package dev.responsesgateway.testing;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import dev.responsesgateway.client.Client;
import dev.responsesgateway.client.Event;
import dev.responsesgateway.client.Outcome;
import dev.responsesgateway.client.Reasons;
import dev.responsesgateway.client.Replay;
import dev.responsesgateway.client.Retry;
import dev.responsesgateway.client.SessionOptions;
import dev.responsesgateway.client.StreamException;
import dev.responsesgateway.client.Tool;
import dev.responsesgateway.client.ToolLoop;
import dev.responsesgateway.client.TurnException;
import dev.responsesgateway.client.TurnRequest;
import dev.responsesgateway.v1.InputItem;
import io.grpc.Status;
import java.time.Duration;
import java.util.List;
import java.util.Map;
import java.util.concurrent.CompletableFuture;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.BeforeAll;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;

@Timeout(300)
class FakeGatewayTest {
  private final FakeGateway gateway = FakeGateway.start();
  private final Client client = gateway.client();

  record City(String city) {}

  /** The first session loads gRPC's classes, which takes its time on a busy machine. */
  @BeforeAll
  static void loadClasses() {
    try (var gateway = FakeGateway.start();
        var client = gateway.client()) {
      client.connect(SessionOptions.builder().connectTimeout(Duration.ofMinutes(4)).build()).close();
    }
  }

  @AfterEach
  void close() {
    client.close();
    gateway.close();
  }

  @Test
  void playsAToolLoop() {
    gateway.calls(
        new FakeGateway.Call("weather", "{\"city\":\"Oslo\"}"), new FakeGateway.Call("weather", "{\"city\":\"Rome\"}"));
    gateway.answer("21 ", "degrees");
    var weather = Tool.of("weather", "Tells the weather.", City.class, input -> Map.of("city", input.city()));
    try (var session = client.connect()) {
      var result = session.lane("agent").runTools(TurnRequest.of("How warm?"), ToolLoop.of(weather));
      assertEquals("21 degrees", result.text());
      assertEquals(30, result.usage().totalTokens());
      assertEquals("How warm?", gateway.turns().get(0).text());
      assertEquals(List.of("{\"city\":\"Oslo\"}", "{\"city\":\"Rome\"}"), gateway.turns().get(1).callOutputs());
    }
  }

  @Test
  void streamsDeltasRefusesAndAnswersOkWhereNothingIsLeft() {
    gateway.answer("one ", "two").refuse("no");
    try (var session = client.connect()) {
      var deltas =
          session.start("a").stream()
              .filter(event -> event instanceof Event.TextDelta)
              .map(event -> ((Event.TextDelta) event).text())
              .toList();
      assertEquals(List.of("one ", "two"), deltas);
      assertEquals("no", session.start("b").result().refusal());
      assertEquals("ok", session.start("c").result().text());
    }
  }

  @Test
  void aCutStreamIsResumedWithoutLoss() {
    gateway.hang("one ").answer("two");
    try (var session = client.connect()) {
      var turn = session.start("hi");
      var events = turn.iterator();
      events.next();
      gateway.cut();
      assertEquals("two", session.lane("b").start("hi").result().text());
      turn.cancel();
      var failure = assertThrows(TurnException.class, turn::result);
      assertEquals(Reasons.TURN_CANCELLED, failure.reason());
      assertEquals("one ", failure.result().orElseThrow().text());
      assertEquals(1, session.stats().resumes());
      assertEquals(2, gateway.opens().size());
      assertTrue(gateway.turns().get(0).cancelled());
    }
  }

  @Test
  void turnsOfALaneRunOneAfterTheOther() {
    gateway.hang("first").answer("second");
    try (var session = client.connect()) {
      var first = session.start("one");
      var second = session.start("two");
      first.iterator().next();
      var result = second.resultAsync();
      assertFalse(result.isDone());
      first.cancel();
      assertEquals("second", result.join().text());
    }
  }

  @Test
  void whatFailsSafelyCanBeRunAgain() {
    gateway
        .fail(new FakeGateway.Failure(Reasons.UPSTREAM_OVERLOADED).retryAfter(Duration.ofMillis(1)))
        .fail(new FakeGateway.Failure("SOMETHING").code(Status.Code.INTERNAL).replay(Replay.UNSAFE).after("half"));
    try (var session = client.connect()) {
      var failure = assertThrows(TurnException.class, () -> Retry.whenSafe(() -> session.start("hi").result()));
      assertEquals(Status.Code.INTERNAL, failure.code());
      assertEquals("half", failure.result().orElseThrow().text());
      assertEquals(Outcome.COMPLETED, session.start("hi").result().outcome().orElseThrow());
      assertEquals(3, gateway.turns().size());
    }
  }

  @Test
  void sessionsEndAsWithARealGateway() throws Exception {
    gateway.refuseOpen(Status.Code.UNAUTHENTICATED, Reasons.UNAUTHENTICATED);
    var refused = assertThrows(StreamException.class, client::connect);
    assertEquals(Reasons.UNAUTHENTICATED, refused.reason());
    assertFalse(refused.inferred());

    var draining = new CompletableFuture<Boolean>();
    var options = SessionOptions.builder().onGoAway(away -> draining.complete(away.draining())).build();
    try (var session = client.connect(options)) {
      gateway.drain(Duration.ofSeconds(5));
      assertTrue(draining.get());
      assertEquals(
          Reasons.DRAINING, assertThrows(TurnException.class, () -> session.start("more")).reason());
    }
    var gone = client.connect();
    gateway.forget();
    assertEquals(Reasons.SESSION_EXPIRED, gone.closed().get().orElseThrow().reason());
  }

  @Test
  void tellsWhatItWasSent() {
    gateway.hang("a");
    var options = SessionOptions.builder().model("m").build();
    try (var session = client.connect(options)) {
      var turn = session.start(TurnRequest.builder().input("hi").turnId("mine").build());
      turn.iterator().next();
      turn.steer("rather this");
      turn.cancel();
      assertThrows(TurnException.class, turn::result);
      var seen = gateway.turns().get(0);
      assertEquals("mine", seen.turnId());
      assertEquals(List.of("hi"), seen.input().stream().map(InputItem::getMessage).map(each -> each.getText()).toList());
      assertEquals("rather this", seen.steers().get(0).getInput(0).getMessage().getText());
      assertEquals("m", gateway.opens().get(0).getModel());
    }
  }
}
