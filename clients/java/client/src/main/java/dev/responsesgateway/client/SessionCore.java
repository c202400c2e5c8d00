package dev.responsesgateway.client;

import dev.responsesgateway.v1.Ack;
import dev.responsesgateway.v1.ActiveTurn;
import dev.responsesgateway.v1.CancelTurn;
import dev.responsesgateway.v1.ConnectRequest;
import dev.responsesgateway.v1.ConnectResponse;
import dev.responsesgateway.v1.Events;
import dev.responsesgateway.v1.GoAwayReason;
import dev.responsesgateway.v1.Heartbeat;
import dev.responsesgateway.v1.InputItem;
import dev.responsesgateway.v1.Open;
import dev.responsesgateway.v1.Opened;
import dev.responsesgateway.v1.ResumeOutcome;
import dev.responsesgateway.v1.SteerTurn;
import dev.responsesgateway.v1.TurnOutcome;
import dev.responsesgateway.v1.TurnPhase;
import dev.responsesgateway.v1.TraceContext;
import io.grpc.ManagedChannel;
import io.grpc.Metadata;
import io.grpc.Status.Code;
import java.time.Duration;
import java.time.Instant;
import java.util.ArrayList;
import java.util.Comparator;
import java.util.HashMap;
import java.util.HashSet;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.Set;
import java.util.UUID;
import java.util.concurrent.CancellationException;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.Executor;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.TimeoutException;
import java.util.concurrent.locks.Condition;
import java.util.concurrent.locks.ReentrantLock;
import java.util.function.Supplier;

/**
 * The session behind {@link Session}, {@link Lane} and {@link Turn}: one stream after the other, until it is over. One
 * lock guards all of it; what the caller gave (listeners, token sources, what follows futures) runs on other threads.
 */
final class SessionCore implements Call.Listener {
  /** Often enough to keep the gateway's resume buffer (2 MiB) small, rarely enough to cost nothing. */
  private static final int ACK_EVENTS = 512;

  private static final long ACK_BYTES = 256 << 10;

  /** How long a full buffer may keep a reader of another turn waiting. */
  private static final long STALL_PATIENCE_MILLIS = 1_000;

  /** Grace time if the gateway names none. */
  private static final Duration DEFAULT_GRACE = Duration.ofSeconds(60);

  private static final ConnectRequest HEARTBEAT =
      ConnectRequest.newBuilder().setHeartbeat(Heartbeat.getDefaultInstance()).build();

  private static final Metadata.Key<String> AFFINITY =
      Metadata.Key.of("x-responses-session", Metadata.ASCII_STRING_MARSHALLER);

  private enum Phase {
    OPEN,
    /** The gateway goes down: running turns may finish. */
    DRAINING,
    CLOSING,
    OVER
  }

  private final Supplier<ManagedChannel> channels;
  private final Headers headers;
  private final Executor executor;
  private final Callbacks callbacks;
  private final SessionOptions options;
  private final Open open;
  private final Optional<TraceContext> trace = Trace.current();
  private final CompletableFuture<SessionCore> ready = new CompletableFuture<>();
  private final CompletableFuture<Optional<GatewayException>> closed = new CompletableFuture<>();
  private final CountDownLatch over = new CountDownLatch(1);
  private final ReentrantLock lock = new ReentrantLock();
  private final Condition room = lock.newCondition();

  // Guarded by the lock.
  private final Map<String, LaneState> lanes = new HashMap<>();

  /** Turns without an outcome, in the order of their starts. */
  private final Map<String, Turn> turns = new LinkedHashMap<>();

  /** Turns that have ended, with events that nobody has read. */
  private final Set<Turn> unread = new HashSet<>();

  private final Outbox outbox = new Outbox();
  private Phase phase = Phase.OPEN;

  /** Why the program ended the session; null while it did not. */
  private StreamException closing;

  private StreamException error;
  private Opened opened = Opened.getDefaultInstance();
  private String token = "";
  private Instant drainedBy = Instant.MAX;

  private ManagedChannel managed;

  /** Leads to a gateway that goes down: the next stream takes another one. */
  private boolean retired;

  /** The gateway goes down, and another one will go on with the session. Starts are held until then. */
  private boolean moving;

  /** How far the gateway's record of the session reaches, as far as it was heard. */
  private long lastCommit;

  /** Lets balancers lead all streams of the session to the same place. */
  private final String affinity = UUID.randomUUID().toString();

  /** The stream that is in use or being opened. */
  private Call call;

  private boolean connected;
  private boolean stalled;

  /** Since when the buffer was never below half of its bound; null if it is. */
  private Instant fullSince;

  private boolean makeRoomLater;

  /** Of the stream that is in use; null: there are no heartbeats on it. */
  private Pulse pulse;

  private int waitingStarts;
  private ResumeAttempts attempts;
  private Losses losses = Losses.NONE;
  private Instant streamBegan = Instant.EPOCH;
  private long heard;
  private long started;
  private int resumes;
  private long lastSeq;
  private int unackedEvents;
  private long unackedBytes;
  private long buffered;
  private long mostBuffered;

  /** Work for after the lock was let go of, in order. */
  private final List<Runnable> afterwards = new ArrayList<>();

  private SessionCore(
      Supplier<ManagedChannel> channels,
      Headers headers,
      Executor executor,
      SessionOptions options,
      int maxReceiveBytes) {
    this.channels = channels;
    this.managed = channels.get();
    this.headers = headers;
    this.executor = executor;
    this.callbacks = new Callbacks(executor);
    this.options = options;
    this.open = options.open.toBuilder().setMaxMessageBytes(maxReceiveBytes).build();
  }

  static SessionCore connect(
      Supplier<ManagedChannel> channels,
      Headers headers,
      Executor executor,
      SessionOptions options,
      int maxReceiveBytes) {
    var core = new SessionCore(channels, headers, executor, options, maxReceiveBytes);
    core.locked(() -> core.open(false, ConnectRequest.newBuilder().setOpen(core.open).build()));
    core.later(options.connectTimeout.toMillis(), core::connectTimedOut);
    return core;
  }

  /** Completes when the session is open, on a thread of the executor. */
  CompletableFuture<SessionCore> ready() {
    return ready;
  }

  private void connectTimedOut() {
    if (connected || attempts != null || resumes > 0 || phase != Phase.OPEN) {
      return;
    }
    if (call.waitsForToken()) {
      finish(
          StreamException.inferred(
              Code.UNAUTHENTICATED, Reasons.TOKEN_SOURCE_FAILED, "no token after " + options.connectTimeout));
    } else {
      finish(
          StreamException.inferred(
              Code.DEADLINE_EXCEEDED, Reasons.CONNECT_TIMEOUT, "no session after " + options.connectTimeout));
    }
  }

  /** Opens a stream as soon as there is a token; what becomes of it is heard as a message or as an end. */
  private void open(boolean waitForReady, ConnectRequest open) {
    var opening = new Call(this);
    call = opening;
    execute(
        () -> {
          Metadata metadata;
          try {
            metadata = headers.get(trace);
            metadata.put(AFFINITY, affinity);
          } catch (Throwable problem) {
            onEnd(
                opening,
                StreamException.inferred(
                    Code.UNAUTHENTICATED, Reasons.TOKEN_SOURCE_FAILED, "no token: " + problem, problem));
            return;
          }
          locked(
              () -> {
                if (call == opening) {
                  opening.open(managed, waitForReady, metadata, open);
                }
              });
        });
  }

  /** Runs the program's code, or what leads to it, without the lock. */
  void execute(Runnable work) {
    locked(() -> afterwards.add(() -> executor.execute(work)));
  }

  private void later(long millis, Runnable work) {
    CompletableFuture.delayedExecutor(millis, TimeUnit.MILLISECONDS).execute(() -> locked(work));
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

  boolean connected() {
    return get(() -> connected);
  }

  CompletableFuture<Optional<GatewayException>> closed() {
    return closed;
  }

  Lane fork(Lane from, String id) {
    return get(
        () -> {
          var state = lanes.get(from.id());
          if (state != null && !state.lastResponseId.isEmpty()) {
            var fork = state(id);
            fork.forkFrom = state.lastResponseId;
            fork.open = state.open;
          }
          return new Lane(this, id);
        });
  }

  String lastResponseId(String laneId) {
    return get(() -> lanes.containsKey(laneId) ? lanes.get(laneId).lastResponseId : "");
  }

  void leaveOpen(String laneId, String responseId, List<InputItem> outputs) {
    locked(
        () -> {
          var state = lanes.get(laneId);
          if (state != null && state.lastResponseId.equals(responseId)) {
            state.open = new LaneState.OpenCalls(responseId, outputs);
          }
        });
  }

  /** The program's tool loop has given the turn up; should it complete, its calls are answered by the next turn. */
  void abandoned(Turn turn) {
    locked(
        () -> {
          turn.orphan = turns.get(turn.id()) == turn;
          if (turn.orphan && !turn.answers) {
            state(turn.lane().id()).undecided++;
          }
          turn.dismiss("its tool loop has given the turn up", true);
          if (!turn.orphan) {
            settleOrphan(turn);
          }
        });
  }

  /** Nothing of an ended turn waits for a reader any more. */
  void forget(Turn turn) {
    locked(() -> unread.remove(turn));
  }

  private LaneState state(String laneId) {
    return lanes.computeIfAbsent(laneId, name -> new LaneState());
  }

  private void settleOrphan(Turn turn) {
    var result = turn.soFar();
    var outputs = ToolLoop.unanswered(result.functionCalls());
    var state = lanes.get(turn.lane().id());
    if (state != null && !outputs.isEmpty() && state.lastResponseId.equals(result.responseId())) {
      state.open = new LaneState.OpenCalls(result.responseId(), outputs);
    }
  }

  private void endTurn(Turn turn) {
    if (turns.remove(turn.id(), turn)) {
      var state = lanes.get(turn.lane().id());
      state.running--;
      if (turn.orphan || turn.answers) {
        state.undecided--;
        room.signalAll();
      }
      if (state.forgettable()) {
        lanes.remove(turn.lane().id());
      }
    }
  }

  /**
   * Waits while too much is queued, or a turn of the lane has to end first; null stands for no lane. False if there is no
   * room until the deadline.
   */
  private boolean awaitRoom(String laneId, String what, long deadlineNanos) {
    waitingStarts++;
    try {
      while (phase == Phase.OPEN || phase == Phase.DRAINING) {
        var lane = laneId == null ? null : lanes.get(laneId);
        if (outbox.bytes() < options.maxQueuedBytes && (lane == null || lane.undecided == 0)) {
          return true;
        }
        if (deadlineNanos == Long.MAX_VALUE) {
          room.await();
        } else if (room.awaitNanos(deadlineNanos - System.nanoTime()) <= 0) {
          return false;
        }
      }
      return true;
    } catch (InterruptedException interrupt) {
      Thread.currentThread().interrupt();
      throw new CancellationException("interrupted while waiting to " + what);
    } finally {
      waitingStarts--;
    }
  }

  Turn start(Lane lane, TurnRequest request) {
    try {
      return start(lane, request, Long.MAX_VALUE);
    } catch (TimeoutException impossible) {
      throw new IllegalStateException(impossible);
    }
  }

  /** Waits for room until the deadline, by {@code System.nanoTime}. */
  Turn start(Lane lane, TurnRequest request, long deadlineNanos) throws TimeoutException {
    var current = Trace.current();
    var turn = begin(lane, request, deadlineNanos, current);
    if (turn == null) {
      throw new TimeoutException("too much is queued");
    }
    return turn;
  }

  private Turn begin(Lane lane, TurnRequest request, long deadlineNanos, Optional<TraceContext> current) {
    return get(
        () -> {
          if (!awaitRoom(lane.id(), "start a turn", deadlineNanos)) {
            return null;
          }
          var start = request.start().toBuilder().setLaneId(lane.id());
          if (start.getTurnId().isEmpty()) {
            start.setTurnId("turn-" + (started + 1));
          }
          current.ifPresent(start::setTraceContext);
          var turn = new Turn(this, lane, start.getTurnId(), started + 1);
          unusable().ifPresent(problem -> refuse(problem, turn));
          if (turns.containsKey(turn.id())) {
            refuse(
                StreamException.inferred(
                    Code.FAILED_PRECONDITION, Reasons.TURN_ID_REUSED, "a turn of this id is running"),
                turn);
          }
          var known = lanes.get(lane.id());
          var forked = false;
          if (known != null) {
            if (start.getChainCase().getNumber() == 0 && !known.forkFrom.isEmpty()) {
              start.setPreviousResponseId(known.forkFrom);
              forked = true;
            }
            turn.answers = known.answer(start);
          }
          turn.start = ConnectRequest.newBuilder().setStartTurn(start).build();
          tooLarge(turn.start).ifPresent(problem -> refuse(problem, turn));
          started++;
          var state = state(lane.id());
          state.running++;
          if (turn.answers) {
            state.undecided++;
          }
          if (forked) {
            state.forkFrom = "";
          }
          turns.put(turn.id(), turn);
          outbox.add(new Outbox.Outgoing(turn.start, turn, null));
          write();
          return turn;
        });
  }

  void steer(String laneId, String turnId, List<InputItem> input) {
    var steer = SteerTurn.newBuilder().setLaneId(laneId).setTurnId(turnId).addAllInput(input);
    var message = ConnectRequest.newBuilder().setSteerTurn(steer).build();
    locked(
        () -> {
          awaitRoom(null, "steer", Long.MAX_VALUE);
          if (phase != Phase.DRAINING) {
            // While the gateway drains, running turns may be steered.
            unusable().ifPresent(SessionCore::raise);
          }
          tooLarge(message).ifPresent(SessionCore::raise);
          outbox.add(new Outbox.Outgoing(message, null, target(laneId, turnId)));
          write();
        });
  }

  /** The turn that a steer is for, as far as the session knows it; or null. */
  private Turn target(String laneId, String turnId) {
    if (!turnId.isEmpty()) {
      return turns.get(turnId);
    }
    return turns.values().stream().filter(turn -> turn.lane().id().equals(laneId)).findFirst().orElse(null);
  }

  void cancelTurn(Turn turn) {
    locked(
        () -> {
          if (turns.get(turn.id()) != turn || turn.cancelRequested) {
            return;
          }
          turn.cancelRequested = true;
          outbox.add(cancel(turn));
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
            continueReceiving();
          }
        });
  }

  void close() {
    locked(() -> beginClose(sessionClosed()));
    await(System.nanoTime());
    locked(() -> finish(sessionClosed()));
    try {
      // Takes no longer than the transport's goodbye.
      get(() -> managed).awaitTermination(options.closeTimeout.toMillis(), TimeUnit.MILLISECONDS);
    } catch (InterruptedException interrupt) {
      Thread.currentThread().interrupt();
    }
  }

  /** Begins the end: turns fail at once. */
  void shut(StreamException why) {
    locked(() -> beginClose(why));
  }

  /** Waits for the end that was begun then, and makes it if it does not come in time. */
  void await(long beganNanos) {
    try {
      var left = options.closeTimeout.toNanos() - (System.nanoTime() - beganNanos);
      if (over.await(left, TimeUnit.NANOSECONDS)) {
        return;
      }
    } catch (InterruptedException interrupt) {
      Thread.currentThread().interrupt();
    }
    locked(() -> finish(closing));
  }

  private void beginClose(StreamException why) {
    if (phase != Phase.OPEN && phase != Phase.DRAINING) {
      return;
    }
    phase = Phase.CLOSING;
    closing = why;
    outbox.clear();
    for (var turn : turns.values()) {
      if (turn.sent) {
        outbox.add(cancel(turn));
      }
      turn.fail(why.forTurn(turn.lane().id(), turn.id(), turn.replay()));
    }
    turns.clear();
    outbox.halfClose();
    room.signalAll();
    if (!connected) {
      finish(why);
      return;
    }
    write();
    if (stalled) {
      // Nobody reads any more: what still comes is dropped.
      continueReceiving();
    }
  }

  @Override
  public void onMessage(Call from, ConnectResponse response) {
    locked(
        () -> {
          if (from != call) {
            return;
          }
          if (pulse != null) {
            pulse.heard();
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
            lost(StreamException.inferred(Code.INTERNAL, Reasons.PROTOCOL, "the first message was not Opened"));
          } else if (buffered >= options.maxBufferedBytes && phase != Phase.CLOSING) {
            // The backpressure: while nothing is asked for, HTTP/2 holds the gateway up.
            stalled = true;
            if (fullSince == null) {
              fullSince = Instant.now();
            }
            if (!makeRoomLater) {
              makeRoomLater = true;
              later(STALL_PATIENCE_MILLIS / 5, this::makeRoom);
            }
          } else {
            if (buffered < options.maxBufferedBytes / 2) {
              fullSince = null;
            }
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
    return event.hasTurnFailed() && event.getTurnFailed().getReason().equals(Reasons.TURN_ID_REUSED);
  }

  private void continueReceiving() {
    stalled = false;
    if (pulse != null) {
      pulse.heard();
    }
    call.request();
  }

  /** Folds turns, those that nobody reads first and then the largest, if the reader of another one waits. */
  private void makeRoom() {
    makeRoomLater = false;
    if (fullSince == null || !connected || phase == Phase.CLOSING) {
      return;
    }
    if (buffered < options.maxBufferedBytes / 2) {
      fullSince = null;
      return;
    }
    makeRoomLater = true;
    later(STALL_PATIENCE_MILLIS / 5, this::makeRoom);
    if (Duration.between(fullSince, Instant.now()).toMillis() < STALL_PATIENCE_MILLIS) {
      return;
    }
    record Full(Turn turn, Turn.Load load) {}
    var waits = waitingStarts > 0;
    var full = new ArrayList<Full>();
    for (var group : List.of(turns.values(), unread)) {
      for (var turn : group) {
        var load = turn.load(TimeUnit.MILLISECONDS.toNanos(STALL_PATIENCE_MILLIS));
        waits |= load.readerWaits();
        if (load.bytes() > 0) {
          full.add(new Full(turn, load));
        }
      }
    }
    if (waits) {
      full.sort(
          Comparator.comparing((Full each) -> each.load().wasRead())
              .thenComparing(each -> each.load().bytes(), Comparator.reverseOrder()));
      for (var each : full) {
        if (buffered <= options.maxBufferedBytes / 2) {
          break;
        }
        buffered -= each.turn().fold();
        unread.remove(each.turn());
      }
    }
    if (stalled && buffered < options.maxBufferedBytes) {
      continueReceiving();
    }
  }

  private void begin(Opened message) {
    streamBegan = Instant.now();
    heard = lastSeq;
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
    execute(() -> ready.complete(this));
    beginToBeat(message);
    write();
  }

  private void beginToBeat(Opened message) {
    var interval = Times.of(message.getHeartbeatInterval());
    pulse = interval.isZero() || interval.isNegative() ? null : new Pulse(interval.toNanos());
    if (pulse != null) {
      beatLater(call, pulse);
    }
  }

  private void beatLater(Call beating, Pulse beat) {
    later(
        beat.millisUntilDue(),
        () -> {
          if (call != beating || pulse != beat) {
            return;
          }
          if (beat.isSilent(stalled)) {
            beating.cancel();
            // What is dead may be the whole connection.
            retired = true;
            lost(
                StreamException.inferred(
                    Code.UNAVAILABLE, Reasons.STREAM_LOST, "nothing was heard for three heartbeats"));
            return;
          }
          if (beat.sends() && phase != Phase.CLOSING) {
            outbox.beat(HEARTBEAT);
            write();
          }
          beatLater(beating, beat);
        });
  }

  /** Hands to the transport what it takes. */
  private void write() {
    while (connected && call.isReady()) {
      var outgoing = outbox.take();
      if (outgoing == null) {
        return;
      }
      room.signalAll();
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
                Code.INTERNAL, Reasons.PROTOCOL, "event " + event.getSeq() + " came after " + lastSeq));
        return;
      }
      lastSeq = event.getSeq();
      lastCommit = Math.max(lastCommit, event.getCommit());
      route(event);
    }
    moveIfIdle();
    if (call == null) {
      return;
    }
    mostBuffered = Math.max(mostBuffered, buffered);
    unackedEvents += batch.getEventsCount();
    unackedBytes += bytes;
    if ((unackedEvents >= ACK_EVENTS || unackedBytes >= ACK_BYTES) && phase != Phase.CLOSING) {
      unackedEvents = 0;
      unackedBytes = 0;
      outbox.add(ConnectRequest.newBuilder().setAck(Ack.newBuilder().setSeq(lastSeq)).build());
      write();
    }
  }

  private void route(dev.responsesgateway.v1.Event event) {
    var turn = event.getTurnId().isEmpty() ? null : turns.get(event.getTurnId());
    if (turn == null) {
      if (phase != Phase.CLOSING) {
        callbacks.add(() -> options.onEvent.accept(Event.of(event)));
      }
      return;
    }
    turn.seen = true;
    turn.start = null;
    var last = event.getOutcome() != TurnOutcome.TURN_OUTCOME_UNSPECIFIED || refusesReusedId(event);
    var responseId = "";
    if (event.hasResponseCompleted()) {
      responseId = event.getResponseCompleted().getResponse().getId();
    } else if (event.hasResponseIncomplete()) {
      responseId = event.getResponseIncomplete().getResponse().getId();
    }
    if (!responseId.isEmpty()) {
      var state = state(turn.lane().id());
      state.lastResponseId = responseId;
      state.open = null;
    }
    var waiting = turn.push(event, event.getSerializedSize());
    buffered += waiting;
    if (last && turn.orphan) {
      settleOrphan(turn);
    } else if (last && waiting > 0) {
      unread.add(turn);
    }
    if (last) {
      endTurn(turn);
    }
  }

  private void takeGoAway(dev.responsesgateway.v1.GoAway message) {
    var goAway =
        new GoAway(
            message.getReason() != GoAwayReason.GO_AWAY_REASON_MAX_AGE,
            message.getMovable() && options.resume,
            Times.of(message.getTimeLeft()));
    if (!message.getResumeToken().isEmpty()) {
      token = message.getResumeToken();
    }
    callbacks.add(() -> options.onGoAway.accept(goAway));
    if (goAway.movable() && phase == Phase.OPEN) {
      moving = true;
      retired = true;
      outbox.hold();
      moveIfIdle();
      return;
    }
    if (goAway.draining() && phase == Phase.OPEN) {
      phase = Phase.DRAINING;
      drainedBy = Instant.now().plus(goAway.timeLeft());
      room.signalAll();
    }
    if (!goAway.draining() && phase == Phase.OPEN && options.resume) {
      // The stream has grown old: replace it.
      call.cancel();
      call = null;
      losses = Losses.NONE;
      resume();
    }
  }

  /** Goes on elsewhere, as soon as no turn runs that was sent. */
  private void moveIfIdle() {
    if (moving && call != null && turns.values().stream().noneMatch(turn -> turn.sent)) {
      call.cancel();
      call = null;
      losses = Losses.NONE;
      resume();
    }
  }

  private void lost(StreamException problem) {
    call = null;
    if (attempts != null) {
      attempts.failed(elsewhere(problem == null ? streamLost(null) : problem));
      return;
    }
    if (!connected) {
      // The first stream: the caller of connect waits for the reason.
      var failure = problem == null ? streamLost(null) : problem;
      finish(
          failure.reason().equals(Reasons.STREAM_LOST)
              ? StreamException.inferred(Code.UNAVAILABLE, Reasons.UNREACHABLE, "the stream ended before it was open")
              : failure.because(Reasons.UNREACHABLE));
      return;
    }
    var failure = verdict(problem);
    if (failure.isPresent()) {
      finish(failure.get());
    } else {
      count();
      resume();
    }
  }

  /** Adds the loss of a stream; after a few without progress, the first turn that never arrived is given up. */
  private void count() {
    var first = turns.values().stream().filter(turn -> turn.sent && !turn.seen && !turn.delivered).findFirst();
    var steady = Duration.between(streamBegan, Instant.now()).compareTo(Losses.STEADY) >= 0;
    if (lastSeq > heard || (steady && first.isEmpty())) {
      losses = Losses.NONE;
      return;
    }
    losses = losses.more();
    if (losses.count() < Losses.MAX_UNDELIVERED || first.isEmpty()) {
      return;
    }
    var turn = first.get();
    var bytes = turn.start.getSerializedSize();
    var failure =
        StreamException.inferred(
            Code.UNAVAILABLE,
            Reasons.TURN_UNDELIVERED,
            "the stream broke "
                + losses.count()
                + " times after the turn was sent; something on the path may not carry its "
                + bytes
                + " bytes");
    failure =
        new StreamException(
            failure
                .facts()
                .withMetadata(
                    Map.of("bytes", String.valueOf(bytes), "attempts", String.valueOf(losses.count()))));
    endTurn(turn);
    turn.fail(failure.forTurn(turn.lane().id(), turn.id(), Replay.UNKNOWN));
    // Should it have arrived after all, nobody waits for it.
    outbox.add(cancel(turn));
    losses = Losses.NONE;
  }

  /** Where another gateway can go on with the session, one that goes down is only not the right one. */
  private StreamException elsewhere(StreamException problem) {
    if (!problem.reason().equals(Reasons.DRAINING) || !(moving || opened.getDurable())) {
      return problem;
    }
    retired = true;
    return StreamException.inferred(Code.UNAVAILABLE, Reasons.STREAM_LOST, problem.getMessage(), problem);
  }

  /** Empty if the session should be resumed. */
  private Optional<StreamException> verdict(StreamException problem) {
    if (phase == Phase.CLOSING) {
      return Optional.of(closing);
    }
    if (problem == null && moving) {
      return Optional.empty();
    }
    if (problem == null && phase == Phase.DRAINING) {
      return Optional.of(StreamException.inferred(Code.UNAVAILABLE, Reasons.DRAINING, "the gateway shut down"));
    }
    var failure = problem == null ? streamLost(null) : problem;
    if (!failure.resumable()) {
      return Optional.of(failure.because(Reasons.STREAM_LOST));
    }
    if (options.resume && !token.isEmpty()) {
      return Optional.empty();
    }
    return Optional.of(failure.because(Reasons.STREAM_LOST));
  }

  private void resume() {
    connected = false;
    stalled = false;
    var deadline = (losses.since() == null ? Instant.now() : losses.since()).plus(grace());
    attempts =
        new ResumeAttempts(
            drainedBy.isBefore(deadline) ? drainedBy : deadline,
            this::locked,
            this::attempt,
            this::abandon,
            this::giveUp);
    attempts.begin(losses.count());
  }

  /** Opens a stream; what becomes of it is heard as a message or as an end. */
  private void attempt() {
    var resume = open.toBuilder();
    resume.getResumeBuilder().setToken(token).setLastSeq(lastSeq).setLastCommit(lastCommit);
    if (retired) {
      retired = false;
      var old = managed;
      afterwards.add(old::shutdownNow);
      managed = channels.get();
    }
    open(true, ConnectRequest.newBuilder().setOpen(resume).build());
  }

  private void abandon() {
    if (call != null) {
      call.cancel();
      call = null;
    }
  }

  private void giveUp(StreamException reason) {
    attempts = null;
    finish(reason.because(Reasons.STREAM_LOST));
  }

  /** Brings turns and outbox in line with what the gateway says after a resume. */
  private Optional<StreamException> reconcile(Opened message) {
    var outcome = message.getResumeOutcome();
    if (outcome != ResumeOutcome.RESUME_OUTCOME_RESUMED
        && outcome != ResumeOutcome.RESUME_OUTCOME_PARTIAL
        && outcome != ResumeOutcome.RESUME_OUTCOME_RECOVERED) {
      // The new session that the gateway offers instead has none of the lanes' conversations: a turn sent there would
      // silently begin a new one.
      return Optional.of(
          StreamException.inferred(
              Code.NOT_FOUND,
              message.getGoneReason().isEmpty() ? Reasons.SESSION_EXPIRED : message.getGoneReason(),
              "the gateway no longer has the session"));
    }
    resumes++;
    opened = message;
    if (!message.getResumeToken().isEmpty()) {
      token = message.getResumeToken();
    }
    var active = new HashMap<String, ActiveTurn>();
    for (var running : message.getActiveTurnsList()) {
      active.put(running.getTurnId(), running);
      var turn = turns.get(running.getTurnId());
      if (turn != null && !turn.delivered) {
        turn.delivered = true;
        if (!turn.seen) {
          losses = Losses.NONE;
        }
      }
    }
    if (outcome == ResumeOutcome.RESUME_OUTCOME_PARTIAL) {
      loseEvents(active);
      lastSeq = message.getOldestSeq() - 1;
    }
    for (var running : active.values()) {
      if (!turns.containsKey(running.getTurnId())) {
        // Nobody here waits for it any more.
        outbox.add(cancelMessage(running.getLaneId(), running.getTurnId()));
      }
    }
    // What was on its way may have got lost. Repeating a start is safe: the gateway knows its turn ids.
    var again = new ArrayList<Outbox.Outgoing>();
    for (var turn : turns.values()) {
      if (turn.sent && !turn.seen && !active.containsKey(turn.id())) {
        again.add(new Outbox.Outgoing(turn.start, turn, null));
      }
    }
    for (var turn : turns.values()) {
      if (turn.sent && turn.cancelRequested) {
        again.add(cancel(turn));
      }
    }
    moving = false;
    outbox.letGo();
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
      endTurn(turn);
      if (running != null) {
        outbox.add(cancel(turn));
      }
      turn.fail(
          StreamException.inferred(Code.DATA_LOSS, Reasons.EVENTS_LOST, "events of the turn are gone")
              .forTurn(turn.lane().id(), turn.id(), turn.replay()));
    }
  }

  /** Ends the session for good. */
  private void finish(StreamException reason) {
    if (phase == Phase.OVER) {
      return;
    }
    var wanted = phase == Phase.CLOSING && closing.reason().equals(Reasons.SESSION_CLOSED);
    phase = Phase.OVER;
    error = reason;
    if (attempts != null) {
      attempts.stop();
      attempts = null;
    }
    abandon();
    connected = false;
    for (var turn : turns.values()) {
      turn.fail(reason.forTurn(turn.lane().id(), turn.id(), turn.replay()));
    }
    turns.clear();
    outbox.clear();
    room.signalAll();
    var last = managed;
    afterwards.add(last::shutdownNow);
    afterwards.add(over::countDown);
    execute(
        () -> {
          ready.completeExceptionally(reason);
          closed.complete(wanted ? Optional.empty() : Optional.of(reason));
        });
  }

  private Optional<StreamException> unusable() {
    return switch (phase) {
      case OPEN -> Optional.empty();
      case DRAINING ->
          Optional.of(
              StreamException.inferred(
                  Code.UNAVAILABLE, Reasons.DRAINING, "the gateway shuts down; open a new session"));
      case CLOSING -> Optional.of(closing);
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
            Reasons.MESSAGE_TOO_LARGE,
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
    return StreamException.inferred(Code.CANCELLED, Reasons.SESSION_CLOSED, "the session was closed");
  }

  private static StreamException streamLost(Throwable cause) {
    return StreamException.inferred(Code.UNAVAILABLE, Reasons.STREAM_LOST, "the stream ended", cause);
  }

  private static Outbox.Outgoing cancel(Turn turn) {
    return new Outbox.Outgoing(cancelMessage(turn.lane().id(), turn.id()), null, turn);
  }

  private static ConnectRequest cancelMessage(String laneId, String turnId) {
    return ConnectRequest.newBuilder()
        .setCancelTurn(CancelTurn.newBuilder().setLaneId(laneId).setTurnId(turnId))
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
  private <T> T get(Supplier<T> work) {
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
