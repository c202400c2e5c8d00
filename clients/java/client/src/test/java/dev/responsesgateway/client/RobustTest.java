package dev.responsesgateway.client;

import static dev.responsesgateway.client.FakeGateway.answer;
import static dev.responsesgateway.client.FakeGateway.completed;
import static dev.responsesgateway.client.FakeGateway.created;
import static dev.responsesgateway.client.FakeGateway.delta;
import static dev.responsesgateway.client.FakeGateway.event;
import static dev.responsesgateway.client.FakeGateway.functionCall;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertInstanceOf;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import dev.responsesgateway.v1.ConnectResponse;
import dev.responsesgateway.v1.GoAwayReason;
import dev.responsesgateway.v1.Notice;
import dev.responsesgateway.v1.ResumeOutcome;
import dev.responsesgateway.v1.StartTurn;
import dev.responsesgateway.v1.TurnFailed;
import dev.responsesgateway.v1.TurnOutcome;
import io.grpc.Status;
import java.io.ByteArrayInputStream;
import java.io.ByteArrayOutputStream;
import java.io.ObjectInputStream;
import java.io.ObjectOutputStream;
import java.net.ServerSocket;
import java.time.Duration;
import java.util.List;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.ConcurrentLinkedQueue;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.atomic.AtomicInteger;
import java.util.concurrent.atomic.AtomicReference;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;

/** What the program's own code, its pauses and its mistakes do to a session. */
@Timeout(60)
class RobustTest {
  record Nothing() {}

  private static final Status LOST = Status.UNAVAILABLE.withDescription("connection lost");

  @Test
  void aLaneThatNobodyReadsStopsNoOther() throws Exception {
    var pieces = 64;
    try (var gateway =
            new FakeGateway(
                stream -> {
                  stream.accept();
                  var unread = stream.startTurn();
                  for (var count = 0; count < pieces; count++) {
                    stream.events(delta(unread, "x".repeat(4096)));
                  }
                  stream.events(completed(unread, "r1"));
                  stream.events(completed(stream.startTurn(), "r2", answer("fast")));
                  stream.drain();
                });
        var session = gateway.connect(options -> options.maxBufferedBytes(64 << 10))) {
      var unread = session.lane("a").start("hi");
      assertTrue(unread.iterator().hasNext());
      assertEquals("fast", session.lane("b").start("hi").result().text());
      var slow =
          assertThrows(
              TurnException.class,
              () -> {
                for (var each : unread) {
                  assertTrue(each.seq() > 0);
                }
              });
      assertEquals(Reasons.READER_TOO_SLOW, slow.reason());
      assertEquals(pieces << 12, unread.result().text().length());
      assertEquals(0, session.stats().bufferedBytes());
    }
  }

  @Test
  void whatFollowsAFutureMayUseTheSession() throws Exception {
    try (var gateway =
        new FakeGateway(
            stream -> {
              stream.accept();
              stream.events(completed(stream.startTurn(), "r1", answer("one")));
              stream.events(completed(stream.startTurn(), "r2", answer("two")));
              stream.drain();
            })) {
      var text =
          gateway
              .client()
              .connectAsync(SessionOptions.builder().build())
              .thenCompose(
                  session ->
                      session
                          .start("hi")
                          .resultAsync()
                          .thenApply(first -> first.text() + " " + session.start("more").result().text())
                          .whenComplete((done, problem) -> session.close()));
      assertEquals("one two", text.get(20, TimeUnit.SECONDS));
    }
  }

  @Test
  void resultIsThereForTheNextReaderWhenAFutureWasGivenUp() throws Exception {
    var goOn = new CountDownLatch(1);
    try (var gateway =
        new FakeGateway(
            stream -> {
              stream.accept();
              var turn = stream.startTurn();
              stream.events(delta(turn, "one "));
              goOn.await();
              stream.events(delta(turn, "two"), completed(turn, "r1", answer("one two")));
              stream.drain();
            })) {
      try (var client = gateway.client();
          var session = client.connect(SessionOptions.builder().build())) {
        var turn = session.start("hi");
        var given = turn.resultAsync().orTimeout(50, TimeUnit.MILLISECONDS);
        assertThrows(ExecutionException.class, given::get);
        goOn.countDown();
        assertEquals("one two", turn.result().text());
        assertEquals("one two", turn.resultAsync().get(20, TimeUnit.SECONDS).text());
      }
    }
  }

  @Test
  void listenersMayThrowAndClose() throws Exception {
    var session = new AtomicReference<Session>();
    var ready = new CountDownLatch(1);
    var closed = new CompletableFuture<Long>();
    try (var gateway =
        new FakeGateway(
            stream -> {
              stream.accept();
              var nobody = StartTurn.getDefaultInstance();
              for (var kind : List.of("first", "second")) {
                stream.events(event(nobody, "gateway.notice").setNotice(Notice.newBuilder().setKind(kind)));
              }
              stream.drain();
            })) {
      session.set(
          gateway.connect(
              options ->
                  options.onEvent(
                      seen -> {
                        if (((Event.Notice) seen).notice().getKind().equals("first")) {
                          throw new AssertionError("a bug of the program");
                        }
                        try {
                          ready.await();
                        } catch (InterruptedException interrupt) {
                          Thread.currentThread().interrupt();
                        }
                        var began = System.nanoTime();
                        session.get().close();
                        closed.complete(System.nanoTime() - began);
                      })));
      ready.countDown();
      assertTrue(closed.get(20, TimeUnit.SECONDS) < TimeUnit.SECONDS.toNanos(3));
      assertTrue(session.get().closed().get(20, TimeUnit.SECONDS).isEmpty());
    }
  }

  @Test
  void aTokenThatFailsOnceDoesNotEndTheSession() throws Exception {
    var asked = new AtomicInteger();
    try (var gateway =
            new FakeGateway(
                stream -> {
                  stream.accept();
                  stream.startTurn();
                  stream.fail(LOST);
                },
                stream -> {
                  stream.accept();
                  stream.events(completed(stream.startTurn(), "r1", answer("here")));
                  stream.drain();
                });
        var client =
            gateway.client(
                builder ->
                    builder.token(
                        () -> {
                          if (asked.incrementAndGet() == 2) {
                            throw new AssertionError("the token endpoint is down");
                          }
                          return "secret";
                        }));
        var session = client.connect()) {
      assertEquals("here", session.start("hi").result().text());
      assertEquals(3, asked.get());
    }
  }

  @Test
  void openingIsBoundedAndHasReasons() throws Exception {
    try (var silent = new ServerSocket(0)) {
      var nobody = new ServerSocket(0);
      nobody.close();
      var quick = SessionOptions.builder().connectTimeout(Duration.ofMillis(500)).build();
      var address = "127.0.0.1:" + silent.getLocalPort();
      var timeout =
          assertThrows(StreamException.class, () -> Client.builder().address(address).build().connect(quick));
      assertEquals(Reasons.CONNECT_TIMEOUT, timeout.reason());
      var long1 = SessionOptions.builder().build();
      var gone = Client.builder().address("127.0.0.1:" + nobody.getLocalPort()).build();
      assertEquals(Reasons.UNREACHABLE, assertThrows(StreamException.class, () -> gone.connect(long1)).reason());
      var broken =
          Client.builder()
              .address(address)
              .token(
                  () -> {
                    throw new IllegalStateException("no token");
                  })
              .build();
      assertEquals(
          Reasons.TOKEN_SOURCE_FAILED, assertThrows(StreamException.class, () -> broken.connect(long1)).reason());
    }
  }

  @Test
  void closingTheClientEndsItsSessions() throws Exception {
    try (var gateway =
        new FakeGateway(
            stream -> {
              stream.accept();
              stream.drain();
            })) {
      var client = gateway.client();
      var session = client.connect();
      var turn = session.start("hi");
      client.close();
      assertEquals(Reasons.CLIENT_CLOSED, assertThrows(TurnException.class, turn::result).reason());
      assertEquals(Reasons.CLIENT_CLOSED, session.closed().get(20, TimeUnit.SECONDS).orElseThrow().reason());
      assertEquals(Reasons.CLIENT_CLOSED, assertThrows(StreamException.class, client::connect).reason());
    }
  }

  @Test
  void aTurnThatThePathDoesNotCarryFails() throws Exception {
    FakeGateway.Scene dies =
        stream -> {
          stream.accept();
          stream.startTurn();
          stream.fail(LOST);
        };
    try (var gateway =
            new FakeGateway(
                dies,
                dies,
                dies,
                dies,
                stream -> {
                  stream.accept();
                  var next = stream.receive();
                  while (next.isPresent() && !next.get().hasStartTurn()) {
                    next = stream.receive();
                  }
                  stream.events(completed(next.orElseThrow().getStartTurn(), "r1", answer("small")));
                  stream.drain();
                });
        var session = gateway.connect()) {
      var lost = assertThrows(TurnException.class, () -> session.start("x".repeat(500_000)).result());
      assertEquals(Reasons.TURN_UNDELIVERED, lost.reason());
      assertEquals(Replay.UNKNOWN, lost.replay().orElseThrow());
      assertTrue(Integer.parseInt(lost.metadata().get("bytes")) > 500_000);
      assertEquals("small", session.start("hi").result().text());
    }
  }

  @Test
  void exceptionsCanBeSerialisedAndCarryTheResultSoFar() throws Exception {
    try (var gateway =
            new FakeGateway(
                stream -> {
                  stream.accept();
                  var turn = stream.startTurn();
                  stream.events(
                      created(turn, "r1"),
                      delta(turn, "half"),
                      FakeGateway.failed(
                          turn,
                          TurnFailed.newBuilder()
                              .setCode(8)
                              .setReason(Reasons.UPSTREAM_RATE_LIMITED)
                              .putMetadata("k", "v")));
                  stream.drain();
                });
        var session = gateway.connect()) {
      var failure = assertThrows(TurnException.class, () -> session.start("hi").result());
      var bytes = new ByteArrayOutputStream();
      new ObjectOutputStream(bytes).writeObject(failure);
      var back =
          assertInstanceOf(
              TurnException.class, new ObjectInputStream(new ByteArrayInputStream(bytes.toByteArray())).readObject());
      assertEquals(Reasons.UPSTREAM_RATE_LIMITED, back.reason());
      assertEquals("v", back.metadata().get("k"));
      assertEquals("half", back.result().orElseThrow().text());
    }
  }

  @Test
  void aSecondLoopOfAnotherThreadIsRefused() throws Exception {
    try (var gateway =
            new FakeGateway(
                stream -> {
                  stream.accept();
                  var turn = stream.startTurn();
                  stream.events(delta(turn, "a"), delta(turn, "b"), completed(turn, "r1"));
                  stream.drain();
                });
        var session = gateway.connect()) {
      var turn = session.start("hi");
      var loop = turn.iterator();
      loop.next();
      var second = CompletableFuture.supplyAsync(() -> turn.iterator().next());
      var refused = assertThrows(java.util.concurrent.ExecutionException.class, second::get);
      assertEquals(Reasons.TURN_BUSY, assertInstanceOf(TurnBusyException.class, refused.getCause()).reason());
      assertEquals("b", ((Event.TextDelta) loop.next()).text());
    }
  }

  @Test
  void aLoopLeavesItsLaneUsable() throws Exception {
    var seen = new ConcurrentLinkedQueue<StartTurn>();
    FakeGateway.Scene scene =
        stream -> {
          stream.accept();
          for (var message = stream.receive(); message.isPresent(); message = stream.receive()) {
            var turn = message.get().getStartTurn();
            if (message.get().hasStartTurn()) {
              seen.add(turn);
              stream.events(
                  seen.size() == 1
                      ? completed(turn, "r1", functionCall("c1", "work", "{}"))
                      : created(turn, "r" + seen.size()));
            } else if (message.get().hasCancelTurn()) {
              var cancel = message.get().getCancelTurn();
              var cancelled = StartTurn.newBuilder().setLaneId(cancel.getLaneId()).setTurnId(cancel.getTurnId());
              stream.events(
                  FakeGateway.failed(
                          cancelled.build(), TurnFailed.newBuilder().setCode(1).setReason(Reasons.TURN_CANCELLED))
                      .setOutcome(TurnOutcome.TURN_OUTCOME_CANCELLED));
            }
          }
        };
    var work = Tool.of("work", "", Nothing.class, nothing -> "done");
    for (var loop :
        List.of(
            ToolLoop.of(work).maxTurns(1),
            ToolLoop.of(work).maxTokens(7),
            ToolLoop.of(work).maxCost(1, result -> 2),
            ToolLoop.of(work).maxDuration(Duration.ofMillis(500)))) {
      seen.clear();
      try (var gateway = new FakeGateway(scene);
          var session = gateway.connect()) {
        var lane = session.lane("agent");
        var early = assertThrows(LoopException.class, () -> lane.runTools(TurnRequest.of("go"), loop));
        assertTrue(early.reason().startsWith("LOOP_"), early.reason());
        assertEquals(List.of("c1"), early.openCalls().stream().map(call -> call.getCallId()).toList());
        assertEquals(0, session.stats().bufferedBytes());
        assertTrue(lane.start("and now?").iterator().hasNext());
        var input = List.copyOf(seen).get(seen.size() - 1).getCreate().getInputList();
        assertEquals(2, input.size());
        assertEquals("c1", input.get(0).getFunctionCallOutput().getCallId());
      }
    }
  }

  @Test
  void everyCallIsAnsweredWhateverItsFunctionDoes() throws Exception {
    try (var gateway =
            new FakeGateway(
                stream -> {
                  stream.accept();
                  stream.events(
                      completed(
                          stream.startTurn(),
                          "r1",
                          functionCall("c1", "crashes", "{}"),
                          functionCall("c2", "hangs", "{}"),
                          functionCall("c3", "denied", "{}"),
                          functionCall("c4", "huge", "{}"),
                          functionCall("c5", "fine", "{}")));
                  var second = stream.startTurn();
                  var outputs =
                      second.getCreate().getInputList().stream()
                          .map(item -> item.getFunctionCallOutput().getOutput())
                          .toList();
                  assertEquals("{\"error\":\"boom\"}", outputs.get(0));
                  assertEquals("{\"error\":\"the function did not answer within 50 ms\"}", outputs.get(1));
                  assertEquals("{\"error\":\"the call was denied\"}", outputs.get(2));
                  assertTrue(outputs.get(3).contains("too large"), () -> outputs.get(3).substring(0, 100));
                  assertEquals("fine", outputs.get(4));
                  stream.events(completed(second, "r2", answer("done")));
                  stream.drain();
                });
        var session = gateway.connect()) {
      var reports = new ConcurrentLinkedQueue<CallReport>();
      var loop =
          ToolLoop.of(
                  Tool.of(
                      "crashes",
                      "",
                      Nothing.class,
                      nothing -> {
                        throw new StackOverflowError("boom");
                      }),
                  Tool.of(
                          "hangs",
                          "",
                          Nothing.class,
                          nothing -> {
                            new CountDownLatch(1).await();
                            return "";
                          })
                      .timeout(Duration.ofMillis(50)),
                  Tool.of("denied", "", Nothing.class, nothing -> "made"),
                  Tool.of("huge", "", Nothing.class, nothing -> "x".repeat(2 << 20)),
                  Tool.of("fine", "", Nothing.class, nothing -> "fine"))
              .maxConcurrency(2)
              .approval(call -> !call.getName().equals("denied"))
              .onCall(reports::add);
      var result = session.lane("").runTools(TurnRequest.of("go"), loop);
      assertEquals("done", result.text());
      assertEquals(14, result.usage().totalTokens());
      assertEquals(5, reports.size());
    }
  }

  @Test
  void aMovableSessionGoesOnElsewhere() throws Exception {
    var finish = new CountDownLatch(1);
    var goAways = new ConcurrentLinkedQueue<GoAway>();
    try (var gateway =
            new FakeGateway(
                stream -> {
                  stream.accept(opened -> opened.setDurable(true));
                  var turn = stream.startTurn();
                  stream.events(created(turn, "r1"));
                  stream.send(
                      ConnectResponse.newBuilder()
                          .setGoAway(
                              dev.responsesgateway.v1.GoAway.newBuilder()
                                  .setReason(GoAwayReason.GO_AWAY_REASON_DRAINING)
                                  .setMovable(true))
                          .build());
                  finish.await();
                  stream.events(completed(turn, "r1", answer("done")).setCommit(7));
                  stream.drain();
                },
                stream -> {
                  var open =
                      stream.accept(opened -> opened.setResumeOutcome(ResumeOutcome.RESUME_OUTCOME_RECOVERED));
                  assertEquals(2, open.getResume().getLastSeq());
                  assertEquals(7, open.getResume().getLastCommit());
                  stream.events(completed(stream.startTurn(), "r2", answer("elsewhere")));
                  stream.drain();
                });
        var session = gateway.connect(options -> options.onGoAway(goAways::add))) {
      var first = session.start("hi");
      while (goAways.isEmpty()) {
        Thread.sleep(1);
      }
      var held = session.start("more");
      finish.countDown();
      assertEquals("done", first.result().text());
      assertEquals("elsewhere", held.result().text());
    }
  }
}
