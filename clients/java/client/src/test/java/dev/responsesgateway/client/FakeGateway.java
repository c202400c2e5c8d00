package dev.responsesgateway.client;

import dev.responsesgateway.v1.ConnectRequest;
import dev.responsesgateway.v1.ConnectResponse;
import dev.responsesgateway.v1.ContentPart;
import dev.responsesgateway.v1.Events;
import dev.responsesgateway.v1.FunctionCall;
import dev.responsesgateway.v1.Limits;
import dev.responsesgateway.v1.Message;
import dev.responsesgateway.v1.Open;
import dev.responsesgateway.v1.Opened;
import dev.responsesgateway.v1.OutputItem;
import dev.responsesgateway.v1.OutputItemDone;
import dev.responsesgateway.v1.OutputText;
import dev.responsesgateway.v1.OutputTextDelta;
import dev.responsesgateway.v1.Response;
import dev.responsesgateway.v1.ResponseCompleted;
import dev.responsesgateway.v1.ResponseCreated;
import dev.responsesgateway.v1.ResponsesServiceGrpc;
import dev.responsesgateway.v1.ResumeOutcome;
import dev.responsesgateway.v1.StartTurn;
import dev.responsesgateway.v1.TurnFailed;
import dev.responsesgateway.v1.TurnOutcome;
import io.grpc.Server;
import io.grpc.Status;
import io.grpc.inprocess.InProcessChannelBuilder;
import io.grpc.inprocess.InProcessServerBuilder;
import io.grpc.stub.ServerCallStreamObserver;
import io.grpc.stub.StreamObserver;
import java.io.IOException;
import java.util.List;
import java.util.Optional;
import java.util.Queue;
import java.util.concurrent.BlockingQueue;
import java.util.concurrent.ConcurrentLinkedQueue;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import java.util.concurrent.LinkedBlockingQueue;
import java.util.concurrent.TimeUnit;
import java.util.function.Consumer;

/** A gateway of which a test plays each stream itself, over an in-process channel. */
final class FakeGateway implements AutoCloseable {
  /** Plays one stream. */
  interface Scene {
    void play(Stream stream) throws Exception;
  }

  private static final long WAIT_SECONDS = 20;

  private final Queue<Scene> scenes = new ConcurrentLinkedQueue<>();
  private final ExecutorService players = Executors.newCachedThreadPool();
  private final List<Throwable> problems = new java.util.concurrent.CopyOnWriteArrayList<>();
  private final Server server;
  private final String name = InProcessServerBuilder.generateName();

  FakeGateway(Scene... scenes) throws IOException {
    this.scenes.addAll(List.of(scenes));
    server = InProcessServerBuilder.forName(name).addService(new Service()).build().start();
  }

  Client client() {
    return client(builder -> {});
  }

  Client client(Consumer<Client.Builder> change) {
    var builder = Client.builder();
    change.accept(builder);
    return builder.channels(() -> InProcessChannelBuilder.forName(name).disableRetry().build()).build();
  }

  Session connect() {
    return connect(options -> {});
  }

  Session connect(Consumer<SessionOptions.Builder> change) {
    var options = SessionOptions.builder();
    change.accept(options);
    return client().connect(options.build());
  }

  @Override
  public void close() {
    server.shutdownNow();
    players.shutdownNow();
    if (!problems.isEmpty()) {
      throw new AssertionError(problems.get(0));
    }
  }

  private final class Service extends ResponsesServiceGrpc.ResponsesServiceImplBase {
    @Override
    public StreamObserver<ConnectRequest> connect(StreamObserver<ConnectResponse> responses) {
      var stream = new Stream((ServerCallStreamObserver<ConnectResponse>) responses);
      var scene = scenes.poll();
      if (scene == null) {
        responses.onError(Status.FAILED_PRECONDITION.withDescription("more streams than expected").asException());
        return stream;
      }
      players.execute(
          () -> {
            try {
              scene.play(stream);
            } catch (Exception | AssertionError problem) {
              if (!(problem instanceof InterruptedException)) {
                problems.add(problem);
              }
              stream.fail(Status.INTERNAL.withDescription(problem.toString()));
            }
          });
      return stream;
    }
  }

  /** One stream, from the gateway's side. */
  static final class Stream implements StreamObserver<ConnectRequest> {
    private final ServerCallStreamObserver<ConnectResponse> responses;
    private final BlockingQueue<Optional<ConnectRequest>> received = new LinkedBlockingQueue<>();
    private boolean over;
    long seq;

    Stream(ServerCallStreamObserver<ConnectResponse> responses) {
      this.responses = responses;
      responses.setOnCancelHandler(() -> received.add(Optional.empty()));
    }

    @Override
    public void onNext(ConnectRequest request) {
      received.add(Optional.of(request));
    }

    @Override
    public void onError(Throwable error) {
      received.add(Optional.empty());
    }

    @Override
    public void onCompleted() {
      received.add(Optional.empty());
    }

    /** The next message; empty when the client has ended its side or is gone. */
    Optional<ConnectRequest> receive() throws InterruptedException {
      var next = received.poll(WAIT_SECONDS, TimeUnit.SECONDS);
      if (next == null) {
        throw new AssertionError("nothing came");
      }
      return next;
    }

    Open accept() throws InterruptedException {
      return accept(opened -> {});
    }

    /** Reads Open and answers it. */
    Open accept(Consumer<Opened.Builder> change) throws InterruptedException {
      var open = receive().orElseThrow().getOpen();
      var opened =
          Opened.newBuilder()
              .setSessionId("session-1")
              .setResumeToken(open.hasResume() ? open.getResume().getToken() + "+" : "token-1")
              .setResumeGrace(com.google.protobuf.Duration.newBuilder().setSeconds(5))
              .setResumeOutcome(
                  open.hasResume() ? ResumeOutcome.RESUME_OUTCOME_RESUMED : ResumeOutcome.RESUME_OUTCOME_NEW)
              .setLimits(Limits.newBuilder().setMaxMessageBytes(1 << 20));
      seq = open.getResume().getLastSeq();
      change.accept(opened);
      responses.onNext(ConnectResponse.newBuilder().setOpened(opened).build());
      return open;
    }

    /** Waits for a StartTurn and passes over acknowledgements. */
    StartTurn startTurn() throws InterruptedException {
      while (true) {
        var message = receive().orElseThrow(() -> new AssertionError("StartTurn expected, the end came"));
        if (message.hasStartTurn()) {
          return message.getStartTurn();
        }
        if (!message.hasAck()) {
          throw new AssertionError("StartTurn expected, came " + message);
        }
      }
    }

    /** Numbers events and sends them in one batch. */
    void events(dev.responsesgateway.v1.Event.Builder... events) {
      var batch = Events.newBuilder();
      for (var event : events) {
        batch.addEvents(event.setSeq(++seq));
      }
      send(ConnectResponse.newBuilder().setEvents(batch).build());
    }

    void send(ConnectResponse response) {
      responses.onNext(response);
    }

    boolean isReady() {
      return responses.isReady();
    }

    void fail(Status status) {
      if (!over) {
        over = true;
        responses.onError(status.asException());
      }
    }

    void fail(Exception error) {
      over = true;
      responses.onError(error);
    }

    /** Ends with OK when the client has ended its side; returns what came until then. */
    List<ConnectRequest> drain() throws InterruptedException {
      var messages = new java.util.ArrayList<ConnectRequest>();
      for (var message = receive(); message.isPresent(); message = receive()) {
        messages.add(message.get());
      }
      if (!responses.isCancelled()) {
        over = true;
        responses.onCompleted();
      }
      return messages;
    }
  }

  static dev.responsesgateway.v1.Event.Builder created(StartTurn turn, String id) {
    return event(turn, "response.created")
        .setResponseCreated(ResponseCreated.newBuilder().setResponse(Response.newBuilder().setId(id)));
  }

  static dev.responsesgateway.v1.Event.Builder delta(StartTurn turn, String text) {
    return event(turn, "response.output_text.delta")
        .setOutputTextDelta(OutputTextDelta.newBuilder().setDelta(text));
  }

  static dev.responsesgateway.v1.Event.Builder itemDone(StartTurn turn, OutputItem item) {
    return event(turn, "response.output_item.done").setOutputItemDone(OutputItemDone.newBuilder().setItem(item));
  }

  static dev.responsesgateway.v1.Event.Builder completed(StartTurn turn, String id, OutputItem... output) {
    var response = Response.newBuilder().setId(id).addAllOutput(List.of(output));
    response.getUsageBuilder().setInputTokens(3).setOutputTokens(4).setTotalTokens(7);
    return event(turn, "response.completed")
        .setOutcome(TurnOutcome.TURN_OUTCOME_COMPLETED)
        .setResponseCompleted(ResponseCompleted.newBuilder().setResponse(response));
  }

  static dev.responsesgateway.v1.Event.Builder failed(StartTurn turn, TurnFailed.Builder failure) {
    return event(turn, "gateway.turn.failed")
        .setOutcome(TurnOutcome.TURN_OUTCOME_FAILED)
        .setTurnFailed(failure);
  }

  static dev.responsesgateway.v1.Event.Builder event(StartTurn turn, String type) {
    return dev.responsesgateway.v1.Event.newBuilder()
        .setLaneId(turn.getLaneId())
        .setTurnId(turn.getTurnId())
        .setType(type);
  }

  static OutputItem answer(String text) {
    return OutputItem.newBuilder()
        .setMessage(
            Message.newBuilder()
                .setRole("assistant")
                .addContent(ContentPart.newBuilder().setOutputText(OutputText.newBuilder().setText(text))))
        .build();
  }

  static OutputItem functionCall(String id, String name, String arguments) {
    return OutputItem.newBuilder()
        .setFunctionCall(FunctionCall.newBuilder().setCallId(id).setName(name).setArguments(arguments))
        .build();
  }
}
