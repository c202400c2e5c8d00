package dev.responsesgateway.client;

import dev.responsesgateway.v1.Ack;
import dev.responsesgateway.v1.ActiveTurn;
import dev.responsesgateway.v1.CancelTurn;
import dev.responsesgateway.v1.ConnectRequest;
import dev.responsesgateway.v1.ConnectResponse;
import dev.responsesgateway.v1.Events;
import dev.responsesgateway.v1.GoAwayReason;
import dev.responsesgateway.v1.InputItem;
import dev.responsesgateway.v1.Opened;
import dev.responsesgateway.v1.ResumeOutcome;
import dev.responsesgateway.v1.SteerTurn;
import dev.responsesgateway.v1.TurnOutcome;
import dev.responsesgateway.v1.TurnPhase;
import io.grpc.Channel;
import io.grpc.ClientInterceptor;
import io.grpc.ClientInterceptors;
import io.grpc.ManagedChannel;
import io.grpc.Status.Code;
import java.time.Duration;
import java.time.Instant;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.concurrent.CancellationException;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.locks.Condition;
import java.util.concurrent.locks.ReentrantLock;

/**
 * The session behind {@link Session}, {@link Lane} and {@link Turn}: one stream after the other, until it is over. One
 * lock guards all of it; what the caller gave (listeners, futures) runs outside of it.
 */
final class SessionCore implements Call.Listener {
  /** Often enough to keep the gateway's resume buffer (2 MiB) small, rarely enough to cost nothing. */
  private static final int ACK_EVENTS = 512;

  private static final long ACK_BYTES = 256 << 10;

  /** Grace time if the gateway names none. */
  private static final Duration DEFAULT_GRACE = Duration.ofSeconds(60);

  private enum Phase {
    OPEN,
    /** The gateway goes down: running turns may finish. */
    DRAINING,
    CLOSING,
    OVER
  }

  private final ManagedChannel managed;
  private final Channel channel;
  private final SessionOptions options;
  private final CompletableFuture<SessionCore> ready = new CompletableFuture<>();
  private final CompletableFuture<Optional<GatewayException>> closed = new CompletableFuture<>();
  private final ReentrantLock lock = new ReentrantLock();
  private final Condition room = lock.newCondition();

  // Guarded by the lock.
  private final Map<String, Lane> lanes = new HashMap<>();

  /** Turns without an outcome, in the order of their starts. */
  private final Map<String, Turn> turns = new LinkedHashMap<>();

  private final Outbox outbox = new Outbox();
  private Phase phase = Phase.OPEN;
  private StreamException error;
  private Opened opened = Opened.getDefaultInstance();
  private String token = "";
  private Instant drainedBy = Instant.MAX;

  /** The stream that is in use or being opened. */
  private Call call;

  private boolean connected;
  private boolean stalled;
  private ResumeAttempts attempts;
  private long started;
  private int resumes;
  private long lastSeq;
  private int unackedEvents;
  private long unackedBytes;
  private long buffered;
  private long mostBuffered;

  /** Work for after the lock was let go of, in order. */
  private final List<Runnable> afterwards = new ArrayList<>();

  private SessionCore(ManagedChannel managed, ClientInterceptor interceptor, SessionOptions options) {
    this.managed = managed;
    this.channel = ClientInterceptors.intercept(managed, interceptor);
    this.options = options;
  }

  static CompletableFuture<SessionCore> connect(
      ManagedChannel channel, ClientInterceptor interceptor, SessionOptions options) {
    var core = new SessionCore(channel, interceptor, options);
    core.locked(
        () -> {
          core.call = new Call(core);
          core.call.open(core.channel, false, ConnectRequest.newBuilder().setOpen(options.open).build());
        });
    core.ready.whenComplete(
        (ok, problem) -> {
          // Nobody will get to know the session: its caller has cancelled, or it was never opened.
          if (problem != null) {
            core.locked(() -> core.finish(StreamException.inferred(Code.CANCELLED, "SESSION_CLOSED", "not opened")));
          }
        });
    return core.ready;
  }

  String id() {
    return get(() -> opened.getSessionId());
  }

  Limits limits() {
    return get(
        () -> {
          var limits = opened.getLimits();
          return new Limits(
              limits.getMaxMessageBytes(),
              limits.getMaxFrameBytes(),
              limits.getMaxBufferedBytes(),
              limits.getMaxResumeBytes(),
              limits.getMaxLanes(),
              limits.getMaxTurnsInFlight(),
              limits.getMaxQueuedTurnsPerLane(),
              grace());
        });
  }

  Stats stats() {
    return get(() -> new Stats(resumes, buffered, mostBuffered, outbox.bytes(), turns.size(), lastSeq));
  }

  CompletableFuture<Optional<GatewayException>> closed() {
    return closed;
  }

  Lane lane(String id) {
    return get(() -> lanes.computeIfAbsent(id, name -> new Lane(this, name)));
  }

  Lane fork(Lane from, String id) {
    return get(
        () -> {
          var lane = lanes.computeIfAbsent(id, name -> new Lane(this, name));
          lane.forkFrom = from.lastResponseId;
          return lane;
        });
  }

  String lastResponseId(Lane lane) {
    return get(() -> lane.lastResponseId);
  }

  Turn start(Lane lane, TurnRequest request) {
    var trace = Trace.current();
    return get(
        () -> {
          while (outbox.bytes() >= options.maxQueuedBytes && phase == Phase.OPEN) {
            try {
              room.await();
            } catch (InterruptedException interrupt) {
              Thread.currentThread().interrupt();
              throw new CancellationException("interrupted while waiting to start a turn");
            }
          }
          var start = request.start().toBuilder().setLaneId(lane.id());
          if (start.getTurnId().isEmpty()) {
            start.setTurnId("turn-" + (started + 1));
          }
          trace.ifPresent(start::setTraceContext);
          var turn = new Turn(this, lane, start.getTurnId(), started + 1);
          unusable().ifPresent(problem -> refuse(problem, turn));
          if (turns.containsKey(turn.id())) {
            refuse(
                StreamException.inferred(
                    Code.FAILED_PRECONDITION, "TURN_ID_REUSED", "a turn of this id is running"),
                turn);
          }
          if (start.getChainCase().getNumber() == 0 && !lane.forkFrom.isEmpty()) {
            start.setPreviousResponseId(lane.forkFrom);
          }
          turn.start = ConnectRequest.newBuilder().setStartTurn(start).build();
          tooLarge(turn.start).ifPresent(problem -> refuse(problem, turn));
          started++;
          lane.forkFrom = "";
          turns.put(turn.id(), turn);
          outbox.add(turn.start, turn);
          write();
          return turn;
        });
  }

  void steer(String laneId, String turnId, List<InputItem> input) {
    var steer = SteerTurn.newBuilder().setLaneId(laneId).setTurnId(turnId).addAllInput(input);
    var message = ConnectRequest.newBuilder().setSteerTurn(steer).build();
    locked(
        () -> {
          unusable().or(() -> tooLarge(message)).ifPresent(SessionCore::raise);
          outbox.add(message, null);
          write();
        });
  }

  void cancelTurn(Turn turn) {
    locked(
        () -> {
          if (turns.get(turn.id()) != turn || turn.cancelRequested) {
            return;
          }
          turn.cancelRequested = true;
          outbox.add(cancelMessage(turn), null);
          write();
        });
  }

  /** Gives back room for events. */
  void release(long bytes) {
    if (bytes == 0) {
      return;
    }
    locked(
        () -> {
          buffered -= bytes;
          if (stalled && buffered < options.maxBufferedBytes && connected) {
            stalled = false;
            call.request();
          }
        });
  }

  void close() {
    locked(this::beginClose);
    Waits.join(closed.copy().completeOnTimeout(Optional.empty(), options.closeTimeout.toMillis(), TimeUnit.MILLISECONDS));
    locked(() -> finish(sessionClosed()));
    try {
      // Takes no longer than the transport's goodbye.
      managed.awaitTermination(options.closeTimeout.toMillis(), TimeUnit.MILLISECONDS);
    } catch (InterruptedException interrupt) {
      Thread.currentThread().interrupt();
    }
  }

  private void beginClose() {
    if (phase != Phase.OPEN && phase != Phase.DRAINING) {
      return;
    }
    phase = Phase.CLOSING;
    outbox.clear();
    for (var turn : turns.values()) {
      if (turn.sent) {
        outbox.add(cancelMessage(turn), null);
      }
      turn.fail(sessionClosed().forTurn(turn.lane().id(), turn.id(), turn.replay()), afterwards);
    }
    turns.clear();
    outbox.add(null, null);
    room.signalAll();
    if (!connected) {
      finish(sessionClosed());
      return;
    }
    write();
    if (stalled) {
      // Nobody reads any more: what still comes is dropped.
      stalled = false;
      call.request();
    }
  }

  @Override
  public void onMessage(Call from, ConnectResponse response) {
    locked(
        () -> {
          if (from != call) {
            return;
          }
          switch (response.getMessageCase()) {
            case OPENED -> begin(response.getOpened());
            case EVENTS -> takeEvents(response.getEvents(), response.getSerializedSize());
            case GO_AWAY -> takeGoAway(response.getGoAway());
            default -> {}
          }
          if (from != call) {
            return;
          }
          if (!connected) {
            from.cancel();
            lost(StreamException.inferred(Code.INTERNAL, "PROTOCOL", "the first message was not Opened"));
          } else if (buffered >= options.maxBufferedBytes && phase != Phase.CLOSING) {
            // The backpressure: while nothing is asked for, HTTP/2 holds the gateway up.
            stalled = true;
          } else {
            call.request();
          }
        });
  }

  @Override
  public void onEnd(Call from, StreamException problem) {
    locked(
        () -> {
          if (from == call) {
            lost(problem);
          }
        });
  }

  @Override
  public void onReady(Call from) {
    locked(
        () -> {
          if (from == call) {
            write();
          }
        });
  }

  /** Whether the event refuses a start whose id another turn had: it has no outcome, that turn had one. */
  static boolean refusesReusedId(dev.responsesgateway.v1.Event event) {
    return event.hasTurnFailed() && event.getTurnFailed().getReason().equals("TURN_ID_REUSED");
  }

  private void begin(Opened message) {
    if (attempts == null) {
      opened = message;
      token = message.getResumeToken();
    } else {
      attempts.stop();
      attempts = null;
      var failure = reconcile(message);
      if (failure.isPresent()) {
        finish(failure.get());
        return;
      }
    }
    connected = true;
    stalled = false;
    afterwards.add(() -> ready.complete(this));
    write();
  }

  /** Hands to the transport what it takes. */
  private void write() {
    while (connected && call.isReady()) {
      var outgoing = outbox.take();
      if (outgoing == null) {
        return;
      }
      room.signal();
      if (outgoing.message() == null) {
        call.halfClose();
        return;
      }
      if (outgoing.turn() != null) {
        outgoing.turn().sent = true;
      }
      call.send(outgoing.message());
    }
  }

  private void takeEvents(Events batch, int bytes) {
    for (var event : batch.getEventsList()) {
      if (event.getSeq() != lastSeq + 1) {
        call.cancel();
        lost(
            StreamException.inferred(
                Code.INTERNAL, "PROTOCOL", "event " + event.getSeq() + " came after " + lastSeq));
        return;
      }
      lastSeq = event.getSeq();
      route(event);
    }
    mostBuffered = Math.max(mostBuffered, buffered);
    unackedEvents += batch.getEventsCount();
    unackedBytes += bytes;
    if ((unackedEvents >= ACK_EVENTS || unackedBytes >= ACK_BYTES) && phase != Phase.CLOSING) {
      unackedEvents = 0;
      unackedBytes = 0;
      outbox.add(ConnectRequest.newBuilder().setAck(Ack.newBuilder().setSeq(lastSeq)).build(), null);
      write();
    }
  }

  private void route(dev.responsesgateway.v1.Event event) {
    var turn = event.getTurnId().isEmpty() ? null : turns.get(event.getTurnId());
    if (turn == null) {
      if (phase != Phase.CLOSING) {
        afterwards.add(() -> options.onEvent.accept(Event.of(event)));
      }
      return;
    }
    turn.seen = true;
    turn.start = null;
    if (event.getOutcome() != TurnOutcome.TURN_OUTCOME_UNSPECIFIED || refusesReusedId(event)) {
      turns.remove(turn.id());
    }
    if (event.hasResponseCompleted()) {
      turn.lane().lastResponseId = event.getResponseCompleted().getResponse().getId();
    } else if (event.hasResponseIncomplete()) {
      turn.lane().lastResponseId = event.getResponseIncomplete().getResponse().getId();
    }
    var size = event.getSerializedSize();
    if (turn.push(event, size, afterwards)) {
      buffered += size;
    }
  }

  private void takeGoAway(dev.responsesgateway.v1.GoAway message) {
    var goAway =
        new GoAway(
            message.getReason() != GoAwayReason.GO_AWAY_REASON_MAX_AGE, Times.of(message.getTimeLeft()));
    if (!message.getResumeToken().isEmpty()) {
      token = message.getResumeToken();
    }
    if (goAway.draining() && phase == Phase.OPEN) {
      phase = Phase.DRAINING;
      drainedBy = Instant.now().plus(goAway.timeLeft());
      room.signalAll();
    }
    afterwards.add(() -> options.onGoAway.accept(goAway));
    if (!goAway.draining() && phase == Phase.OPEN && options.resume) {
      // The stream has grown old: replace it.
      call.cancel();
      call = null;
      resume();
    }
  }

  private void lost(StreamException problem) {
    call = null;
    if (attempts != null) {
      attempts.failed(problem == null ? streamLost(null) : problem);
      return;
    }
    if (!connected) {
      // The first stream: the caller of connect waits for the reason.
      var failure = problem == null ? streamLost(null) : problem;
      finish(failure);
      return;
    }
    var failure = verdict(problem);
    if (failure.isPresent()) {
      finish(failure.get());
    } else {
      resume();
    }
  }

  /** Empty if the session should be resumed. */
  private Optional<StreamException> verdict(StreamException problem) {
    if (phase == Phase.CLOSING) {
      return Optional.of(sessionClosed());
    }
    if (problem == null && phase == Phase.DRAINING) {
      return Optional.of(StreamException.inferred(Code.UNAVAILABLE, "DRAINING", "the gateway shut down"));
    }
    var failure = problem == null ? streamLost(null) : problem;
    if (!failure.resumable()) {
      return Optional.of(failure);
    }
    if (options.resume && !token.isEmpty()) {
      return Optional.empty();
    }
    return Optional.of(
        failure.reason().isEmpty() ? new StreamException(failure.facts().withReason("STREAM_LOST")) : failure);
  }

  private void resume() {
    connected = false;
    stalled = false;
    var deadline = Instant.now().plus(grace());
    attempts =
        new ResumeAttempts(
            drainedBy.isBefore(deadline) ? drainedBy : deadline,
            this::locked,
            this::attempt,
            this::abandon,
            this::giveUp);
    attempts.begin();
  }

  /** Opens a stream; what becomes of it is heard as a message or as an end. */
  private void attempt() {
    var open = options.open.toBuilder();
    open.getResumeBuilder().setToken(token).setLastSeq(lastSeq);
    call = new Call(this);
    call.open(channel, true, ConnectRequest.newBuilder().setOpen(open).build());
  }

  private void abandon() {
    if (call != null) {
      call.cancel();
      call = null;
    }
  }

  private void giveUp(StreamException reason) {
    attempts = null;
    finish(reason);
  }

  /** Brings turns and outbox in line with what the gateway says after a resume. */
  private Optional<StreamException> reconcile(Opened message) {
    var outcome = message.getResumeOutcome();
    if (outcome != ResumeOutcome.RESUME_OUTCOME_RESUMED && outcome != ResumeOutcome.RESUME_OUTCOME_PARTIAL) {
      // The new session that the gateway offers instead has none of the lanes' conversations: a turn sent there would
      // silently begin a new one.
      return Optional.of(
          StreamException.inferred(
              Code.NOT_FOUND, "SESSION_EXPIRED", "the gateway no longer has the session"));
    }
    resumes++;
    opened = message;
    if (!message.getResumeToken().isEmpty()) {
      token = message.getResumeToken();
    }
    var active = new HashMap<String, ActiveTurn>();
    message.getActiveTurnsList().forEach(turn -> active.put(turn.getTurnId(), turn));
    if (outcome == ResumeOutcome.RESUME_OUTCOME_PARTIAL) {
      loseEvents(active);
      lastSeq = message.getOldestSeq() - 1;
    }
    // What was on its way may have got lost. Repeating a start is safe: the gateway knows its turn ids.
    var again = new ArrayList<Outbox.Outgoing>();
    for (var turn : turns.values()) {
      if (turn.sent && !turn.seen && !active.containsKey(turn.id())) {
        again.add(new Outbox.Outgoing(turn.start, turn));
      }
    }
    for (var turn : turns.values()) {
      if (turn.sent && turn.cancelRequested) {
        again.add(new Outbox.Outgoing(cancelMessage(turn), null));
      }
    }
    outbox.addFirst(again);
    unackedEvents = 0;
    unackedBytes = 0;
    return Optional.empty();
  }

  /** Fails the turns that have a hole. */
  private void loseEvents(Map<String, ActiveTurn> active) {
    for (var turn : List.copyOf(turns.values())) {
      var running = active.get(turn.id());
      var untouched =
          !turn.sent
              || (running != null && !turn.seen && running.getPhaseValue() <= TurnPhase.TURN_PHASE_SENT_VALUE);
      if (untouched) {
        continue;
      }
      turns.remove(turn.id());
      if (running != null) {
        outbox.add(cancelMessage(turn), null);
      }
      turn.fail(
          StreamException.inferred(Code.DATA_LOSS, "EVENTS_LOST", "events of the turn are gone")
              .forTurn(turn.lane().id(), turn.id(), turn.replay()),
          afterwards);
    }
  }

  /** Ends the session for good. */
  private void finish(StreamException reason) {
    if (phase == Phase.OVER) {
      return;
    }
    var wanted = phase == Phase.CLOSING;
    phase = Phase.OVER;
    error = reason;
    if (attempts != null) {
      attempts.stop();
      attempts = null;
    }
    abandon();
    connected = false;
    for (var turn : turns.values()) {
      turn.fail(reason.forTurn(turn.lane().id(), turn.id(), turn.replay()), afterwards);
    }
    turns.clear();
    outbox.clear();
    room.signalAll();
    afterwards.add(() -> ready.completeExceptionally(reason));
    afterwards.add(managed::shutdownNow);
    afterwards.add(() -> closed.complete(wanted ? Optional.empty() : Optional.of(reason)));
  }

  private Optional<StreamException> unusable() {
    return switch (phase) {
      case OPEN -> Optional.empty();
      case DRAINING ->
          Optional.of(
              StreamException.inferred(
                  Code.UNAVAILABLE, "DRAINING", "the gateway shuts down; open a new session"));
      case CLOSING -> Optional.of(sessionClosed());
      case OVER -> Optional.of(error);
    };
  }

  private Optional<StreamException> tooLarge(ConnectRequest message) {
    var limit = opened.getLimits().getMaxMessageBytes();
    var size = message.getSerializedSize();
    if (limit == 0 || size <= limit) {
      return Optional.empty();
    }
    return Optional.of(
        StreamException.inferred(
            Code.RESOURCE_EXHAUSTED,
            "MESSAGE_TOO_LARGE",
            "a message of " + size + " bytes; the gateway takes " + limit));
  }

  private Duration grace() {
    var grace = Times.of(opened.getResumeGrace());
    return grace.isZero() || grace.isNegative() ? DEFAULT_GRACE : grace;
  }

  private static void refuse(StreamException problem, Turn turn) {
    throw problem.forTurn(turn.lane().id(), turn.id(), Replay.SAFE);
  }

  private static void raise(StreamException problem) {
    throw problem;
  }

  private static StreamException sessionClosed() {
    return StreamException.inferred(Code.CANCELLED, "SESSION_CLOSED", "the session was closed");
  }

  private static StreamException streamLost(Throwable cause) {
    return StreamException.inferred(Code.UNAVAILABLE, "STREAM_LOST", "the stream ended", cause);
  }

  private static ConnectRequest cancelMessage(Turn turn) {
    return ConnectRequest.newBuilder()
        .setCancelTurn(CancelTurn.newBuilder().setLaneId(turn.lane().id()).setTurnId(turn.id()))
        .build();
  }

  private void locked(Runnable work) {
    get(
        () -> {
          work.run();
          return null;
        });
  }

  /** Runs work with the lock, and then what it left for afterwards. */
  private <T> T get(java.util.function.Supplier<T> work) {
    lock.lock();
    List<Runnable> left = List.of();
    try {
      return work.get();
    } finally {
      // The outermost holder of the lock does what is left.
      if (lock.getHoldCount() == 1 && !afterwards.isEmpty()) {
        left = List.copyOf(afterwards);
        afterwards.clear();
      }
      lock.unlock();
      left.forEach(Runnable::run);
    }
  }
}
