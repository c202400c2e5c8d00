package dev.responsesgateway.testing;

import dev.responsesgateway.client.Reasons;
import dev.responsesgateway.client.Replay;
import dev.responsesgateway.v1.ActiveTurn;
import dev.responsesgateway.v1.ConnectResponse;
import dev.responsesgateway.v1.ContentPart;
import dev.responsesgateway.v1.Event;
import dev.responsesgateway.v1.Events;
import dev.responsesgateway.v1.FunctionCall;
import dev.responsesgateway.v1.Limits;
import dev.responsesgateway.v1.Message;
import dev.responsesgateway.v1.Opened;
import dev.responsesgateway.v1.OutputItem;
import dev.responsesgateway.v1.OutputItemDone;
import dev.responsesgateway.v1.OutputText;
import dev.responsesgateway.v1.OutputTextDelta;
import dev.responsesgateway.v1.Refusal;
import dev.responsesgateway.v1.ReplayVerdict;
import dev.responsesgateway.v1.Response;
import dev.responsesgateway.v1.ResponseCompleted;
import dev.responsesgateway.v1.ResponseCreated;
import dev.responsesgateway.v1.ResumeOutcome;
import dev.responsesgateway.v1.SteerTurn;
import dev.responsesgateway.v1.TurnFailed;
import dev.responsesgateway.v1.TurnOutcome;
import dev.responsesgateway.v1.TurnPhase;
import dev.responsesgateway.v1.Usage;
import io.grpc.Status;
import java.time.Duration;
import java.util.ArrayDeque;
import java.util.ArrayList;
import java.util.Deque;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.UUID;
import java.util.stream.Stream;

/** Keeps all its events, so that a resume can have them again. Guarded by its gateway. */
final class FakeSession {
  private static final long GRACE_SECONDS = 10;

  private final String id;
  private final String token = UUID.randomUUID().toString();
  private final Map<String, FakeTurn> turns = new HashMap<>();
  private final Map<String, Deque<Waiting>> waiting = new HashMap<>();

  /** By lane. */
  private final Map<String, FakeTurn> running = new HashMap<>();

  private final List<Event> events = new ArrayList<>();
  private FakeGateway.Stream stream;
  private int responses;

  private record Waiting(FakeTurn turn, FakeGateway.Script script) {}

  FakeSession(String id) {
    this.id = id;
  }

  String token() {
    return token;
  }

  boolean knows(String turnId) {
    return turns.containsKey(turnId);
  }

  void attach(FakeGateway.Stream next, ResumeOutcome outcome, Limits limits, long lastSeq) {
    cut();
    stream = next;
    var opened =
        Opened.newBuilder()
            .setSessionId(id)
            .setResumeToken(token)
            .setResumeOutcome(outcome)
            .setResumeGrace(com.google.protobuf.Duration.newBuilder().setSeconds(GRACE_SECONDS))
            .setLimits(limits);
    for (var turn : running.values()) {
      opened.addActiveTurns(
          ActiveTurn.newBuilder()
              .setLaneId(turn.laneId())
              .setTurnId(turn.turnId())
              .setPhase(TurnPhase.TURN_PHASE_CREATED));
    }
    send(ConnectResponse.newBuilder().setOpened(opened).build());
    if (lastSeq < events.size()) {
      var missed = events.subList((int) lastSeq, events.size());
      send(ConnectResponse.newBuilder().setEvents(Events.newBuilder().addAllEvents(missed)).build());
    }
  }

  void send(ConnectResponse message) {
    if (stream != null) {
      stream.send(message);
    }
  }

  void cut() {
    if (stream != null) {
      stream.end(Status.UNAVAILABLE.withDescription("the stream was cut").asRuntimeException());
      stream = null;
    }
  }

  void start(FakeTurn turn, FakeGateway.Script script) {
    turns.put(turn.turnId(), turn);
    waiting.computeIfAbsent(turn.laneId(), lane -> new ArrayDeque<>()).add(new Waiting(turn, script));
    goOn(turn.laneId());
  }

  void steer(SteerTurn steer) {
    var turn = steer.getTurnId().isEmpty() ? running.get(steer.getLaneId()) : turns.get(steer.getTurnId());
    if (turn != null) {
      turn.steer(steer);
    }
  }

  void cancel(String turnId) {
    var turn = turns.get(turnId);
    if (turn == null || turn.cancelled()) {
      return;
    }
    var waited = waiting.getOrDefault(turn.laneId(), new ArrayDeque<>()).removeIf(one -> one.turn() == turn);
    if (!waited && running.get(turn.laneId()) != turn) {
      return;
    }
    turn.cancel();
    var failure =
        new FakeGateway.Failure(Reasons.TURN_CANCELLED)
            .code(Status.Code.CANCELLED)
            .replay(waited ? Replay.SAFE : Replay.UNSAFE);
    end(turn, TurnOutcome.TURN_OUTCOME_CANCELLED, failure);
  }

  String begin(FakeTurn turn, String... deltas) {
    var responseId = "resp_" + ++responses;
    var created = ResponseCreated.newBuilder().setResponse(Response.newBuilder().setId(responseId));
    tell(turn, "response.created", Event.newBuilder().setResponseCreated(created));
    for (var delta : deltas) {
      var text = OutputTextDelta.newBuilder().setDelta(delta);
      tell(turn, "response.output_text.delta", Event.newBuilder().setOutputTextDelta(text));
    }
    return responseId;
  }

  void answer(FakeTurn turn, String... deltas) {
    var responseId = begin(turn, deltas);
    var text = OutputText.newBuilder().setText(String.join("", deltas));
    complete(turn, responseId, List.of(message(ContentPart.newBuilder().setOutputText(text))));
  }

  void refuse(FakeTurn turn, String text) {
    var refusal = ContentPart.newBuilder().setRefusal(Refusal.newBuilder().setRefusal(text));
    complete(turn, begin(turn), List.of(message(refusal)));
  }

  void call(FakeTurn turn, FakeGateway.Call... calls) {
    var responseId = begin(turn);
    var items =
        Stream.of(calls)
            .map(
                call ->
                    OutputItem.newBuilder()
                        .setFunctionCall(
                            FunctionCall.newBuilder()
                                .setCallId("call_" + UUID.randomUUID())
                                .setName(call.name())
                                .setArguments(call.arguments()))
                        .build())
            .toList();
    complete(turn, responseId, items);
  }

  void fail(FakeTurn turn, FakeGateway.Failure failure) {
    if (!failure.after().isEmpty()) {
      begin(turn, failure.after());
    }
    end(turn, TurnOutcome.TURN_OUTCOME_FAILED, failure);
  }

  private static OutputItem message(ContentPart.Builder part) {
    return OutputItem.newBuilder()
        .setMessage(Message.newBuilder().setRole("assistant").addContent(part))
        .build();
  }

  private void complete(FakeTurn turn, String responseId, List<OutputItem> items) {
    for (var item : items) {
      var done = OutputItemDone.newBuilder().setItem(item);
      tell(turn, "response.output_item.done", Event.newBuilder().setOutputItemDone(done));
    }
    var usage = Usage.newBuilder().setInputTokens(10).setOutputTokens(5).setTotalTokens(15);
    var response = Response.newBuilder().setId(responseId).addAllOutput(items).setUsage(usage);
    var completed = ResponseCompleted.newBuilder().setResponse(response);
    var last = Event.newBuilder().setResponseCompleted(completed).setOutcome(TurnOutcome.TURN_OUTCOME_COMPLETED);
    tell(turn, "response.completed", last);
    over(turn);
  }

  private void end(FakeTurn turn, TurnOutcome outcome, FakeGateway.Failure failure) {
    var failed =
        TurnFailed.newBuilder()
            .setCode(failure.code().value())
            .setReason(failure.reason())
            .setMessage("as the test wants it")
            .setReplay(verdict(failure.replay()));
    if (failure.retryAfter() != null) {
      failed.setRetryAfter(proto(failure.retryAfter()));
    }
    tell(turn, "gateway.turn.failed", Event.newBuilder().setTurnFailed(failed).setOutcome(outcome));
    over(turn);
  }

  private void over(FakeTurn turn) {
    running.remove(turn.laneId(), turn);
    goOn(turn.laneId());
  }

  private void goOn(String laneId) {
    var next = waiting.getOrDefault(laneId, new ArrayDeque<>());
    if (!running.containsKey(laneId) && !next.isEmpty()) {
      var one = next.remove();
      running.put(laneId, one.turn());
      one.script().play(this, one.turn());
    }
  }

  private void tell(FakeTurn turn, String type, Event.Builder event) {
    var told =
        event
            .setSeq(events.size() + 1L)
            .setLaneId(turn.laneId())
            .setTurnId(turn.turnId())
            .setType(type)
            .build();
    events.add(told);
    send(ConnectResponse.newBuilder().setEvents(Events.newBuilder().addEvents(told)).build());
  }

  private static ReplayVerdict verdict(Replay replay) {
    return switch (replay) {
      case SAFE -> ReplayVerdict.REPLAY_VERDICT_SAFE;
      case UNSAFE -> ReplayVerdict.REPLAY_VERDICT_UNSAFE;
      case UNKNOWN -> ReplayVerdict.REPLAY_VERDICT_UNKNOWN;
    };
  }

  private static com.google.protobuf.Duration proto(Duration time) {
    return com.google.protobuf.Duration.newBuilder().setSeconds(time.toSeconds()).setNanos(time.getNano()).build();
  }
}
