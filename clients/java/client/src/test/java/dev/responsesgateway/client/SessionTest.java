package dev.responsesgateway.client;

import static dev.responsesgateway.client.FakeGateway.answer;
import static dev.responsesgateway.client.FakeGateway.completed;
import static dev.responsesgateway.client.FakeGateway.created;
import static dev.responsesgateway.client.FakeGateway.delta;
import static dev.responsesgateway.client.FakeGateway.event;
import static dev.responsesgateway.client.FakeGateway.failed;
import static dev.responsesgateway.client.FakeGateway.itemDone;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertInstanceOf;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import com.google.protobuf.Any;
import com.google.protobuf.ByteString;
import com.google.rpc.ErrorInfo;
import com.google.rpc.RetryInfo;
import dev.responsesgateway.v1.ActiveTurn;
import dev.responsesgateway.v1.ConnectRequest;
import dev.responsesgateway.v1.ConnectResponse;
import dev.responsesgateway.v1.GoAwayReason;
import dev.responsesgateway.v1.ReplayVerdict;
import dev.responsesgateway.v1.ResumeOutcome;
import dev.responsesgateway.v1.StartTurn;
import dev.responsesgateway.v1.TraceContext;
import dev.responsesgateway.v1.TurnFailed;
import dev.responsesgateway.v1.TurnPhase;
import dev.responsesgateway.v1.UpstreamError;
import io.grpc.Status;
import io.grpc.Status.Code;
import io.grpc.protobuf.StatusProto;
import io.opentelemetry.api.trace.Span;
import io.opentelemetry.api.trace.SpanContext;
import io.opentelemetry.api.trace.TraceFlags;
import io.opentelemetry.api.trace.TraceState;
import java.time.Duration;
import java.util.ArrayList;
import java.util.List;
import java.util.Optional;
import java.util.concurrent.CancellationException;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.TimeoutException;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;

@Timeout(30)
@SuppressWarnings("try") // Closing a session early is what some tests are about.
class SessionTest {
  private static final StartTurn TURN_1 = StartTurn.newBuilder().setTurnId("turn-1").build();

  @Test
  void aTurnStreamsItsEventsAndAccumulatesItsResult() throws Exception {
    try (var gateway =
            new FakeGateway(
                stream -> {
                  var open = stream.accept();
                  assertEquals("m", open.getModel());
                  assertEquals(3, open.getSchemaRevision());
                  var turn = stream.startTurn();
                  stream.events(created(turn, "resp_1"), delta(turn, "Hel"));
                  stream.events(
                      delta(turn, "lo"), itemDone(turn, answer("Hello")), completed(turn, "resp_1"));
                  stream.drain();
                });
        var session = gateway.connect(options -> options.model("m"))) {
      var turn = session.start("hi");
      var text = new StringBuilder();
      for (var event : turn) {
        if (event instanceof Event.TextDelta piece) {
          text.append(piece.text());
        }
      }
      var result = turn.result();
      assertEquals("Hello", text.toString());
      assertEquals("Hello", result.text());
      assertEquals(Optional.of(Outcome.COMPLETED), result.outcome());
      assertEquals(7, result.usage().totalTokens());
      assertEquals("resp_1", turn.lane().lastResponseId());
      assertEquals(new Stats(0, 0, session.stats().maxBufferedBytes(), 0, 0, 5), session.stats());
    }
  }

  @Test
  void aTurnIsReadWithoutAThreadThatWaits() throws Exception {
    try (var gateway =
            new FakeGateway(
                stream -> {
                  stream.accept();
                  var good = stream.startTurn();
                  var bad = stream.startTurn();
                  stream.events(delta(good, "yes"), completed(good, "r", answer("yes")));
                  stream.events(failed(bad, TurnFailed.newBuilder().setCode(14).setReason("UPSTREAM_LINK_LOST")));
                  stream.drain();
                });
        var session = gateway.connect()) {
      var good = session.lane("good").start("hi").resultAsync();
      var badTurn = session.lane("bad").start("hi");
      var bad = badTurn.resultAsync();
      assertEquals("yes", good.get(10, TimeUnit.SECONDS).text());
      var failure = assertThrows(ExecutionException.class, () -> bad.get(10, TimeUnit.SECONDS));
      assertEquals("UPSTREAM_LINK_LOST", assertInstanceOf(TurnException.class, failure.getCause()).reason());
      assertEquals("UPSTREAM_LINK_LOST", assertThrows(TurnException.class, badTurn::result).reason());
      assertEquals(0, session.stats().bufferedBytes());
    }
  }

  @Test
  void aFailedTurnThrowsWhatTheGatewaySaidAfterItsLastEvent() throws Exception {
    try (var gateway =
            new FakeGateway(
                stream -> {
                  stream.accept();
                  stream.events(
                      failed(
                          stream.startTurn(),
                          TurnFailed.newBuilder()
                              .setCode(8)
                              .setReason("UPSTREAM_RATE_LIMITED")
                              .setMessage("slow down")
                              .setReplay(ReplayVerdict.REPLAY_VERDICT_SAFE)
                              .setPhase(TurnPhase.TURN_PHASE_SENT)
                              .setRetryAfter(com.google.protobuf.Duration.newBuilder().setSeconds(7))
                              .putMetadata("a", "b")
                              .setUpstreamError(UpstreamError.newBuilder().setStatus(429))));
                  stream.drain();
                });
        var session = gateway.connect()) {
      var turn = session.start("hi");
      var events = turn.iterator();
      assertInstanceOf(Event.Failure.class, events.next());
      var error = assertThrows(TurnException.class, events::hasNext);
      assertEquals(Code.RESOURCE_EXHAUSTED, error.code());
      assertEquals("UPSTREAM_RATE_LIMITED", error.reason());
      assertEquals(Optional.of(Duration.ofSeconds(7)), error.retryAfter());
      assertEquals(Optional.of(Replay.SAFE), error.replay());
      assertEquals("sent", error.phase());
      assertEquals("b", error.metadata().get("a"));
      assertEquals(429, error.upstream().orElseThrow().getStatus());
      assertFalse(error.inferred());
    }
  }

  @Test
  void aWaitThatEndsLosesNothing() throws Exception {
    var go = new CountDownLatch(1);
    try (var gateway =
            new FakeGateway(
                stream -> {
                  stream.accept();
                  var turn = stream.startTurn();
                  go.await();
                  stream.events(completed(turn, "r", answer("late")));
                  stream.drain();
                });
        var session = gateway.connect()) {
      var turn = session.start("hi");
      assertThrows(TimeoutException.class, () -> turn.result(Duration.ofMillis(5)));
      Thread.currentThread().interrupt();
      assertThrows(CancellationException.class, turn::result);
      assertTrue(Thread.interrupted());
      go.countDown();
      assertEquals("late", turn.result().text());
    }
  }

  @Test
  void unknownEventsAreDeliveredWithTheirJsonAndEndNothing() throws Exception {
    try (var gateway =
            new FakeGateway(
                stream -> {
                  stream.accept();
                  var turn = stream.startTurn();
                  stream.events(
                      event(turn, "response.from_the_future").setJson(ByteString.copyFromUtf8("{\"n\":1}")),
                      completed(turn, "r"));
                  stream.drain();
                });
        var session = gateway.connect()) {
      var events = session.start("hi").stream().toList();
      var unknown = assertInstanceOf(Event.UnknownEvent.class, events.get(0));
      assertEquals("{\"n\":1}", unknown.json().toStringUtf8());
      assertEquals(Optional.empty(), unknown.outcome());
      assertEquals(2, events.size());
    }
  }

  @Test
  void aTurnCarriesTheCurrentSpan() throws Exception {
    var trace = new CompletableFuture<TraceContext>();
    try (var gateway =
            new FakeGateway(
                stream -> {
                  stream.accept();
                  var turn = stream.startTurn();
                  trace.complete(turn.getTraceContext());
                  stream.events(completed(turn, "r"));
                  stream.drain();
                });
        var session = gateway.connect()) {
      var span =
          SpanContext.create(
              "0af7651916cd43dd8448eb211c80319c",
              "b7ad6b7169203331",
              TraceFlags.getSampled(),
              TraceState.getDefault());
      try (var scope = Span.wrap(span).makeCurrent()) {
        assertTrue(scope != null);
        session.start("hi").result();
      }
      assertEquals(
          "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", trace.get().getTraceparent());
    }
  }

  @Test
  void aLostStreamIsResumedWithoutSendingTheTurnAgain() throws Exception {
    var second = new CompletableFuture<List<ConnectRequest>>();
    try (var gateway =
        new FakeGateway(
            stream -> {
              stream.accept();
              var turn = stream.startTurn();
              stream.events(created(turn, "resp_1"), delta(turn, "one "));
              stream.fail(Status.UNAVAILABLE);
            },
            stream -> {
              var open =
                  stream.accept(
                      opened ->
                          opened.addActiveTurns(
                              ActiveTurn.newBuilder()
                                  .setTurnId("turn-1")
                                  .setPhase(TurnPhase.TURN_PHASE_OUTPUT_STARTED)));
              assertEquals("token-1", open.getResume().getToken());
              assertEquals(2, open.getResume().getLastSeq());
              stream.events(delta(TURN_1, "two"), completed(TURN_1, "resp_1"));
              second.complete(stream.drain());
            })) {
      try (var session = gateway.connect()) {
        assertEquals("one two", session.start("hi").result().text());
        assertEquals(1, session.stats().resumes());
      }
      assertEquals(List.of(), second.get(10, TimeUnit.SECONDS));
    }
  }

  @Test
  void aStartThatTheGatewayNeverSawIsSentAgainUnderItsId() throws Exception {
    try (var gateway =
            new FakeGateway(
                stream -> {
                  stream.accept();
                  stream.startTurn();
                  stream.fail(Status.UNAVAILABLE);
                },
                stream -> {
                  stream.accept();
                  var turn = stream.startTurn();
                  assertEquals("mine", turn.getTurnId());
                  stream.events(completed(turn, "r", answer("yes")));
                  stream.drain();
                });
        var session = gateway.connect()) {
      var turn = session.start(TurnRequest.builder().input("hi").turnId("mine").build());
      assertEquals("yes", turn.result().text());
    }
  }

  @Test
  void aSessionThatIsGoneFailsItsTurnsWithTheirVerdicts() throws Exception {
    try (var gateway =
            new FakeGateway(
                stream -> {
                  stream.accept();
                  var first = stream.startTurn();
                  stream.startTurn();
                  stream.events(created(first, "resp_1"));
                  stream.fail(Status.UNAVAILABLE);
                },
                stream -> {
                  stream.accept(opened -> opened.setResumeOutcome(ResumeOutcome.RESUME_OUTCOME_GONE));
                  stream.drain();
                });
        var session = gateway.connect()) {
      var begun = session.lane("a").start("hi");
      var sent = session.lane("b").start("hi");
      var error = assertThrows(TurnException.class, begun::result);
      assertEquals("SESSION_EXPIRED", error.reason());
      assertEquals(Optional.of(Replay.UNSAFE), error.replay());
      assertTrue(error.inferred());
      assertEquals(Optional.of(Replay.UNKNOWN), assertThrows(TurnException.class, sent::result).replay());
      assertEquals("SESSION_EXPIRED", session.closed().get().orElseThrow().reason());
      var refused = assertThrows(TurnException.class, () -> session.start("more"));
      assertEquals(Optional.of(Replay.SAFE), refused.replay());
    }
  }

  @Test
  void aHoleFailsTheTurnsThatLostEventsAndKeepsTheOthers() throws Exception {
    try (var gateway =
            new FakeGateway(
                stream -> {
                  stream.accept();
                  stream.events(created(stream.startTurn(), "resp_1"));
                  stream.fail(Status.UNAVAILABLE);
                },
                stream -> {
                  stream.accept(
                      opened ->
                          opened.setResumeOutcome(ResumeOutcome.RESUME_OUTCOME_PARTIAL).setOldestSeq(9));
                  stream.seq = 8;
                  stream.events(completed(stream.startTurn(), "resp_2", answer("fine")));
                  stream.drain();
                });
        var session = gateway.connect()) {
      var error = assertThrows(TurnException.class, session.start("hi")::result);
      assertEquals("EVENTS_LOST", error.reason());
      assertEquals(Code.DATA_LOSS, error.code());
      assertEquals("fine", session.start("again").result().text());
    }
  }

  @Test
  void aStreamThatTheGatewayEndsForAReasonIsNotResumed() throws Exception {
    var status =
        com.google.rpc.Status.newBuilder()
            .setCode(10)
            .setMessage("another stream resumed it")
            .addDetails(
                Any.pack(
                    ErrorInfo.newBuilder()
                        .setDomain("responses-gateway")
                        .setReason("SESSION_SUPERSEDED")
                        .putMetadata("by", "another")
                        .build()))
            .addDetails(
                Any.pack(
                    RetryInfo.newBuilder()
                        .setRetryDelay(com.google.protobuf.Duration.newBuilder().setSeconds(2))
                        .build()))
            .build();
    try (var gateway =
            new FakeGateway(
                stream -> {
                  stream.accept();
                  stream.startTurn();
                  stream.fail(StatusProto.toStatusException(status));
                });
        var session = gateway.connect()) {
      var error = assertThrows(TurnException.class, session.start("hi")::result);
      assertEquals("SESSION_SUPERSEDED", error.reason());
      assertEquals(Optional.of(Replay.UNKNOWN), error.replay());
      var reason = session.closed().get().orElseThrow();
      assertEquals(Code.ABORTED, reason.code());
      assertEquals("another", reason.metadata().get("by"));
      assertEquals(Optional.of(Duration.ofSeconds(2)), reason.retryAfter());
      assertFalse(reason.inferred());
    }
  }

  @Test
  void anOldStreamIsReplaced() throws Exception {
    var goAways = new ArrayList<GoAway>();
    try (var gateway =
            new FakeGateway(
                stream -> {
                  stream.accept();
                  stream.send(
                      ConnectResponse.newBuilder()
                          .setGoAway(
                              dev.responsesgateway.v1.GoAway.newBuilder()
                                  .setReason(GoAwayReason.GO_AWAY_REASON_MAX_AGE)
                                  .setResumeToken("token-2"))
                          .build());
                  stream.drain();
                },
                stream -> {
                  assertEquals("token-2", stream.accept().getResume().getToken());
                  stream.events(completed(stream.startTurn(), "r", answer("new")));
                  stream.drain();
                });
        var session = gateway.connect(options -> options.onGoAway(goAways::add))) {
      assertEquals("new", session.start("hi").result().text());
      assertEquals(List.of(new GoAway(false, false, Duration.ZERO)), goAways);
    }
  }

  @Test
  void nothingIsReceivedWhileNobodyReadsAndWhatWasTakenIsAcknowledged() throws Exception {
    var text = "x".repeat(20_000);
    var stopped = new CountDownLatch(1);
    var acks = new CompletableFuture<Long>();
    try (var gateway =
            new FakeGateway(
                stream -> {
                  stream.accept();
                  var turn = stream.startTurn();
                  for (var count = 0; count < 500; count++) {
                    if (!stream.isReady()) {
                      stopped.countDown();
                    }
                    stream.events(delta(turn, text));
                  }
                  stream.events(completed(turn, "r"));
                  acks.complete(stream.drain().stream().filter(ConnectRequest::hasAck).count());
                });
        var session = gateway.connect(options -> options.maxBufferedBytes(100_000))) {
      var turn = session.start("hi");
      stopped.await();
      while (session.stats().bufferedBytes() < 100_000) {
        Thread.onSpinWait();
      }
      assertTrue(session.stats().bufferedBytes() < 150_000);
      assertEquals(10_000_000, turn.result().text().length());
      assertTrue(session.stats().maxBufferedBytes() < 150_000);
      assertEquals(0, session.stats().bufferedBytes());
      session.close();
    }
    // The fake counts on a thread of its own.
    assertTrue(acks.get() > 10);
  }

  @Test
  void closingCancelsWhatRunsAndTakesNothingMore() throws Exception {
    var received = new CompletableFuture<List<ConnectRequest>>();
    try (var gateway =
            new FakeGateway(
                stream -> {
                  stream.accept();
                  stream.events(created(stream.startTurn(), "r"));
                  received.complete(stream.drain());
                });
        var session = gateway.connect()) {
      var turn = session.start("hi");
      turn.iterator().next();
      session.close();
      var messages = received.get(10, TimeUnit.SECONDS);
      assertEquals(1, messages.size());
      assertTrue(messages.get(0).hasCancelTurn());
      var error = assertThrows(TurnException.class, turn::result);
      assertEquals("SESSION_CLOSED", error.reason());
      assertEquals(Optional.of(Replay.UNSAFE), error.replay());
      assertThrows(TurnException.class, () -> session.start("more"));
      assertThrows(StreamException.class, () -> session.lane("").steer("more"));
      assertEquals(Optional.empty(), session.closed().get());
    }
  }

  @Test
  void whatTheGatewayWouldNotTakeIsRefused() throws Exception {
    try (var gateway =
            new FakeGateway(
                stream -> {
                  stream.accept();
                  stream.drain();
                });
        var session = gateway.connect()) {
      var error = assertThrows(TurnException.class, () -> session.start("x".repeat(2 << 20)));
      assertEquals("MESSAGE_TOO_LARGE", error.reason());
      assertEquals(Optional.of(Replay.SAFE), error.replay());
      var same = TurnRequest.builder().input("hi").turnId("same").build();
      session.start(same);
      assertEquals(
          "TURN_ID_REUSED", assertThrows(TurnException.class, () -> session.start(same)).reason());
    }
  }

  @Test
  void aForkContinuesFromTheLastResponseOnce() throws Exception {
    try (var gateway =
            new FakeGateway(
                stream -> {
                  stream.accept();
                  stream.events(completed(stream.startTurn(), "resp_1"));
                  var first = stream.startTurn();
                  assertEquals("resp_1", first.getPreviousResponseId());
                  stream.events(completed(first, "resp_2"));
                  var second = stream.startTurn();
                  assertEquals(StartTurn.ChainCase.CHAIN_NOT_SET, second.getChainCase());
                  stream.events(completed(second, "resp_3"));
                  stream.drain();
                });
        var session = gateway.connect()) {
      session.lane("trunk").start("one").result();
      var branch = session.lane("trunk").fork("branch");
      branch.start("two").result();
      branch.start("three").result();
    }
  }

  @Test
  void aSessionThatCannotBeOpenedSaysWhy() throws Exception {
    try (var gateway = new FakeGateway()) {
      var error = assertThrows(StreamException.class, gateway::connect);
      assertEquals(Code.FAILED_PRECONDITION, error.code());
      assertTrue(error.inferred());
    }
  }
}
