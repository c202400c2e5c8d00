package dev.responsesgateway.testing;

import com.google.protobuf.Any;
import com.google.rpc.ErrorInfo;
import dev.responsesgateway.client.Client;
import dev.responsesgateway.client.Reasons;
import dev.responsesgateway.client.Replay;
import dev.responsesgateway.v1.ConnectRequest;
import dev.responsesgateway.v1.ConnectResponse;
import dev.responsesgateway.v1.GoAway;
import dev.responsesgateway.v1.GoAwayReason;
import dev.responsesgateway.v1.Limits;
import dev.responsesgateway.v1.Open;
import dev.responsesgateway.v1.ResponsesServiceGrpc;
import dev.responsesgateway.v1.ResumeOutcome;
import dev.responsesgateway.v1.StartTurn;
import io.grpc.ManagedChannel;
import io.grpc.Server;
import io.grpc.Status;
import io.grpc.StatusRuntimeException;
import io.grpc.inprocess.InProcessChannelBuilder;
import io.grpc.inprocess.InProcessServerBuilder;
import io.grpc.protobuf.StatusProto;
import io.grpc.stub.ServerCallStreamObserver;
import io.grpc.stub.StreamObserver;
import java.io.IOException;
import java.io.UncheckedIOException;
import java.time.Duration;
import java.util.ArrayDeque;
import java.util.ArrayList;
import java.util.Deque;
import java.util.HashMap;
import java.util.List;
import java.util.Map;

/**
 * A gateway in the test's process: no port, no upstream. It plays one script for each turn that a program starts, in the
 * order of the scripts; a turn for which none is left is answered with "ok".
 *
 * <pre>{@code
 * try (var gateway = FakeGateway.start(); var client = gateway.client(); var session = client.connect()) {
 *   gateway.call("weather", "{\"city\":\"Oslo\"}");
 *   gateway.answer("21 ", "degrees");
 *   var result = session.lane("agent").runTools(TurnRequest.of("How warm is it?"), ToolLoop.of(weather));
 *   assertEquals("21 degrees", result.text());
 *   assertEquals(List.of("{\"celsius\":21}"), gateway.turns().get(1).callOutputs());
 * }
 * }</pre>
 *
 * Sessions can be resumed, lanes run side by side and the turns of a lane one after the other, as with a real gateway.
 * All methods may be called from any thread.
 */
public final class FakeGateway implements AutoCloseable {
  private static final int MAX_MESSAGE_BYTES = 16 << 20;
  private static final String DOMAIN = "responses-gateway";

  private final String name = InProcessServerBuilder.generateName();
  private final Server server;

  // Guarded by this object, sessions included.
  private final Deque<Script> scripts = new ArrayDeque<>();
  private final Deque<StatusRuntimeException> refusals = new ArrayDeque<>();
  private final Map<String, FakeSession> sessions = new HashMap<>();
  private final List<FakeTurn> turns = new ArrayList<>();
  private final List<Open> opens = new ArrayList<>();
  private Limits limits = Limits.newBuilder().setMaxMessageBytes(MAX_MESSAGE_BYTES).build();
  private int numbers;

  /** Plays a turn, with the gateway's lock. */
  interface Script {
    void play(FakeSession session, FakeTurn turn);
  }

  /** A function call of the model; the arguments are JSON. */
  public record Call(String name, String arguments) {}

  private FakeGateway() {
    try {
      server = InProcessServerBuilder.forName(name).addService(new Service()).build().start();
    } catch (IOException impossible) {
      throw new UncheckedIOException(impossible);
    }
  }

  /** Starts a gateway; close it at the end of the test. */
  public static FakeGateway start() {
    return new FakeGateway();
  }

  /** A client of this gateway with default options. */
  public Client client() {
    return clientBuilder().build();
  }

  /** For a client of this gateway with options. */
  public Client.Builder clientBuilder() {
    return Client.builder().channels(this::channel);
  }

  /** A channel to this gateway, for other stubs. */
  public ManagedChannel channel() {
    return InProcessChannelBuilder.forName(name).disableRetry().build();
  }

  /** The limits that sessions are told from now on. Default: messages of 16 MiB. */
  public synchronized FakeGateway limits(Limits limits) {
    this.limits = limits;
    return this;
  }

  /** The next turn answers with these texts together, each in a delta of its own. */
  public FakeGateway answer(String... deltas) {
    return add((session, turn) -> session.answer(turn, deltas));
  }

  /** The next turn calls a function; the arguments are JSON. */
  public FakeGateway call(String name, String arguments) {
    return calls(new Call(name, arguments));
  }

  /** The next turn calls functions side by side. */
  public FakeGateway calls(Call... calls) {
    return add((session, turn) -> session.call(turn, calls));
  }

  /** The model refuses the next turn. */
  public FakeGateway refuse(String text) {
    return add((session, turn) -> session.refuse(turn, text));
  }

  /** The next turn fails with this reason (see {@link Reasons}) and UNAVAILABLE; it certainly did not run. */
  public FakeGateway fail(String reason) {
    return fail(new Failure(reason));
  }

  /** The next turn fails. */
  public FakeGateway fail(Failure failure) {
    return add((session, turn) -> session.fail(turn, failure));
  }

  /** The next turn begins with these deltas, and ends only when it is cancelled. */
  public FakeGateway hang(String... deltas) {
    return add((session, turn) -> session.begin(turn, deltas));
  }

  /** The next stream is refused, for example with UNAUTHENTICATED. */
  public synchronized FakeGateway refuseOpen(Status.Code code, String reason) {
    refusals.add(refused(code, reason));
    return this;
  }

  /** Ends all streams as if the network did. Sessions can be resumed, and what they are told until then is not lost. */
  public synchronized void cut() {
    sessions.values().forEach(FakeSession::cut);
  }

  /** Ends all streams and forgets the sessions: a resume finds nothing. */
  public synchronized void forget() {
    cut();
    sessions.clear();
  }

  /** Tells all sessions that the gateway goes down within this time. */
  public synchronized void drain(Duration timeLeft) {
    var left =
        com.google.protobuf.Duration.newBuilder().setSeconds(timeLeft.toSeconds()).setNanos(timeLeft.getNano());
    var away = GoAway.newBuilder().setReason(GoAwayReason.GO_AWAY_REASON_DRAINING).setTimeLeft(left);
    sessions.values().forEach(session -> session.send(ConnectResponse.newBuilder().setGoAway(away).build()));
  }

  /** All turns that were started, in order. */
  public synchronized List<FakeTurn> turns() {
    return List.copyOf(turns);
  }

  /** The first message of each stream, resumes included. */
  public synchronized List<Open> opens() {
    return List.copyOf(opens);
  }

  /** Ends all streams for good. */
  @Override
  public void close() {
    forget();
    server.shutdownNow();
  }

  /** How a turn fails: UNAVAILABLE, safe to send again and without output, if nothing else is said. */
  public record Failure(String reason, Status.Code code, Replay replay, Duration retryAfter, String after) {
    public Failure(String reason) {
      this(reason, Status.Code.UNAVAILABLE, Replay.SAFE, null, "");
    }

    public Failure code(Status.Code code) {
      return new Failure(reason, code, replay, retryAfter, after);
    }

    public Failure replay(Replay replay) {
      return new Failure(reason, code, replay, retryAfter, after);
    }

    public Failure retryAfter(Duration wait) {
      return new Failure(reason, code, replay, wait, after);
    }

    /** It fails after so much of an answer. */
    public Failure after(String text) {
      return new Failure(reason, code, replay, retryAfter, text);
    }
  }

  private synchronized FakeGateway add(Script script) {
    scripts.add(script);
    return this;
  }

  private final class Service extends ResponsesServiceGrpc.ResponsesServiceImplBase {
    @Override
    public StreamObserver<ConnectRequest> connect(StreamObserver<ConnectResponse> responses) {
      return new Stream((ServerCallStreamObserver<ConnectResponse>) responses);
    }
  }

  /** One stream of a session; guarded by the gateway. */
  final class Stream implements StreamObserver<ConnectRequest> {
    private final ServerCallStreamObserver<ConnectResponse> responses;
    private FakeSession session;
    private boolean over;

    Stream(ServerCallStreamObserver<ConnectResponse> responses) {
      this.responses = responses;
      responses.setOnCancelHandler(this::ended);
    }

    @Override
    public void onNext(ConnectRequest request) {
      synchronized (FakeGateway.this) {
        if (over) {
          return;
        }
        switch (request.getMessageCase()) {
          case OPEN -> open(request.getOpen());
          case START_TURN -> startTurn(session, request.getStartTurn());
          case STEER_TURN -> session.steer(request.getSteerTurn());
          case CANCEL_TURN -> session.cancel(request.getCancelTurn().getTurnId());
          default -> {
            // Acknowledgements and heartbeats need no answer here.
          }
        }
      }
    }

    @Override
    public void onError(Throwable error) {
      ended();
    }

    @Override
    public void onCompleted() {
      synchronized (FakeGateway.this) {
        if (!over) {
          over = true;
          responses.onCompleted();
        }
      }
    }

    void send(ConnectResponse message) {
      if (!over) {
        responses.onNext(message);
      }
    }

    void end(StatusRuntimeException how) {
      if (!over) {
        over = true;
        responses.onError(how);
      }
    }

    private void ended() {
      synchronized (FakeGateway.this) {
        over = true;
      }
    }

    private void open(Open open) {
      opens.add(open);
      var refusal = refusals.poll();
      if (refusal != null) {
        end(refusal);
        return;
      }
      session = open.hasResume() ? sessions.get(open.getResume().getToken()) : null;
      var outcome = ResumeOutcome.RESUME_OUTCOME_RESUMED;
      if (session == null) {
        outcome = open.hasResume() ? ResumeOutcome.RESUME_OUTCOME_GONE : ResumeOutcome.RESUME_OUTCOME_NEW;
        session = new FakeSession("session-" + ++numbers);
        sessions.put(session.token(), session);
      }
      session.attach(this, outcome, limits, open.getResume().getLastSeq());
    }
  }

  private void startTurn(FakeSession session, StartTurn start) {
    if (session.knows(start.getTurnId())) {
      return; // Sent again after a resume.
    }
    var turn = new FakeTurn(start);
    turns.add(turn);
    var script = scripts.poll();
    session.start(turn, script != null ? script : (one, its) -> one.answer(its, "ok"));
  }

  private static StatusRuntimeException refused(Status.Code code, String reason) {
    var info = ErrorInfo.newBuilder().setReason(reason).setDomain(DOMAIN);
    return StatusProto.toStatusRuntimeException(
        com.google.rpc.Status.newBuilder()
            .setCode(code.value())
            .setMessage("as the test wants it")
            .addDetails(Any.pack(info.build()))
            .build());
  }
}
