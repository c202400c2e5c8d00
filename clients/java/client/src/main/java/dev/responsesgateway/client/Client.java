package dev.responsesgateway.client;

import dev.responsesgateway.v1.ResponsesServiceGrpc;
import io.grpc.ChannelCredentials;
import io.grpc.Grpc;
import io.grpc.InsecureChannelCredentials;
import io.grpc.ManagedChannel;
import io.grpc.ManagedChannelBuilder;
import io.grpc.Status;
import io.grpc.TlsChannelCredentials;
import java.lang.reflect.InvocationTargetException;
import java.util.HashSet;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.Executor;
import java.util.concurrent.TimeUnit;
import java.util.function.Consumer;
import java.util.function.Supplier;

/**
 * Says where the gateway is and who calls. Each session has a connection of its own: on a shared one, a session that
 * nobody reads would use up the connection's window and hold up the others.
 */
public final class Client implements AutoCloseable {
  /** Where a gateway listens that was started with its defaults. */
  public static final String DEFAULT_ADDRESS = "127.0.0.1:50051";

  /** Single events with images reach tens of MB; gRPC's own limit of 4 MiB would end the stream on them. */
  public static final int DEFAULT_MAX_RECEIVE_BYTES = 64 << 20;

  /**
   * Fixed, so that what is in flight when a stream is lost fits the gateway's resume buffer: 2 MiB of upstream JSON, some
   * five times what the same events take on the wire.
   */
  private static final int STREAM_WINDOW_BYTES = 128 << 10;

  private static final long KEEPALIVE_TIME_SECONDS = 30;
  private static final long KEEPALIVE_TIMEOUT_SECONDS = 10;

  private final Supplier<ManagedChannel> channels;
  private final Headers headers;
  private final Executor executor;
  private final int maxReceiveBytes;
  private final Set<SessionCore> sessions = new HashSet<>();
  private final CompletableFuture<Void> closing = new CompletableFuture<>();
  private ManagedChannel own;
  private boolean closed;

  Client(Supplier<ManagedChannel> channels, Builder builder) {
    this.channels = channels;
    this.headers = new Headers(builder.token, Map.copyOf(builder.metadata), closing);
    this.executor = builder.executor;
    this.maxReceiveBytes = builder.maxReceiveBytes;
  }

  /** A client from the environment: {@code RESPONSES_GATEWAY_ADDR} and {@code RESPONSES_GATEWAY_TOKEN}. */
  public static Client create() {
    return builder().build();
  }

  /** Starts a client. */
  public static Builder builder() {
    return new Builder();
  }

  /** Opens a session with default options. */
  public Session connect() {
    return connect(SessionOptions.builder().build());
  }

  /**
   * Opens a session.
   *
   * @throws StreamException if the gateway refuses, cannot be reached (UNREACHABLE) or does not answer in time
   *     (CONNECT_TIMEOUT)
   */
  public Session connect(SessionOptions options) {
    return Waits.join(connectAsync(options));
  }

  /**
   * Opens a session without a thread that waits. The future completes on a thread of the executor: what follows it may
   * block.
   */
  public CompletableFuture<Session> connectAsync(SessionOptions options) {
    SessionCore core;
    synchronized (sessions) {
      if (closed) {
        return CompletableFuture.failedFuture(clientClosed());
      }
      core = SessionCore.connect(channels, headers, executor, options, maxReceiveBytes);
      sessions.add(core);
    }
    core.closed()
        .whenComplete(
            (reason, problem) -> {
              synchronized (sessions) {
                sessions.remove(core);
              }
            });
    var session = core.ready().thenApply(Session::new);
    session.whenComplete(
        (made, problem) -> {
          // Whoever cancels the future gets no session to close.
          if (session.isCancelled()) {
            core.execute(core::close);
          }
        });
    return session;
  }

  /** Turns without a session, and what the upstream keeps of responses. */
  public Responses responses() {
    return new Responses(this);
  }

  /**
   * The generated stub, with this client's token, metadata and trace context, for calls without a session. Unary calls are
   * sent again by themselves where the gateway says that nothing was done.
   */
  public ResponsesServiceGrpc.ResponsesServiceBlockingV2Stub stub() {
    synchronized (sessions) {
      if (closed) {
        throw clientClosed();
      }
      if (own == null) {
        own = channels.get();
      }
      return ResponsesServiceGrpc.newBlockingV2Stub(own).withInterceptors(headers, new UnaryRetry());
    }
  }

  /**
   * Ends the sessions that are still open, or being opened, with reason CLIENT_CLOSED, and closes what {@link #stub} uses.
   * Turns that run are cancelled, as by {@link Session#close}.
   */
  @Override
  public void close() {
    List<SessionCore> open;
    synchronized (sessions) {
      closed = true;
      open = List.copyOf(sessions);
      if (own != null) {
        own.shutdownNow();
        own = null;
      }
    }
    closing.complete(null);
    open.forEach(session -> session.shut(clientClosed()));
    var began = System.nanoTime();
    open.forEach(session -> session.await(began));
  }

  /** Why a call without a session failed: what the client's end has caused says so. */
  StreamException lost(Exception error) {
    if (error.getCause() instanceof StreamException told) {
      return told;
    }
    var failure = StreamException.of(error).because(Reasons.STREAM_LOST);
    return failure.inferred() && closing.isDone() ? clientClosed() : failure;
  }

  static StreamException clientClosed() {
    return StreamException.inferred(Status.Code.CANCELLED, Reasons.CLIENT_CLOSED, "the client was closed");
  }

  /** Builds clients. */
  public static final class Builder {
    private String address = System.getenv().getOrDefault("RESPONSES_GATEWAY_ADDR", "");
    private Supplier<String> token = tokenOf(System.getenv("RESPONSES_GATEWAY_TOKEN"));
    private final Map<String, String> metadata = new LinkedHashMap<>();
    private ChannelCredentials credentials;
    private Executor executor = Callbacks.THREADS;
    private int maxReceiveBytes = DEFAULT_MAX_RECEIVE_BYTES;
    private Consumer<ManagedChannelBuilder<?>> channel = builder -> {};
    private Supplier<ManagedChannel> channels;

    private Builder() {}

    /**
     * {@code host:port}, {@code https://host:port} (TLS) or {@code http://host:port} (plain). Without a scheme,
     * loopback addresses are plain and all others TLS. Default: {@code RESPONSES_GATEWAY_ADDR}, then
     * {@link #DEFAULT_ADDRESS}.
     */
    public Builder address(String address) {
      this.address = address;
      return this;
    }

    /** Sent as {@code authorization: Bearer …}. Default: {@code RESPONSES_GATEWAY_TOKEN}, if set. */
    public Builder token(String token) {
      return token(() -> token);
    }

    /**
     * Asked for the bearer token each time a stream is opened or resumed, on a thread of the executor. What it throws
     * fails {@code connect} with reason TOKEN_SOURCE_FAILED; a resume asks again.
     */
    public Builder token(Supplier<String> token) {
      this.token = token;
      return this;
    }

    /** gRPC metadata added to each call. */
    public Builder metadata(String key, String value) {
      metadata.put(key, value);
      return this;
    }

    /** For instance {@code TlsChannelCredentials} with a client certificate, whatever the address says. */
    public Builder credentials(ChannelCredentials credentials) {
      this.credentials = credentials;
      return this;
    }

    /** Largest message taken. Default: {@link #DEFAULT_MAX_RECEIVE_BYTES}. */
    public Builder maxReceiveBytes(int bytes) {
      maxReceiveBytes = bytes;
      return this;
    }

    /**
     * Runs listeners, token sources and what follows futures. They may block, so it should have threads enough. Default:
     * daemon threads as needed.
     */
    public Builder executor(Executor executor) {
      this.executor = executor;
      return this;
    }

    /**
     * Changes the channels of grpc-java, applied last. The builder is the one of the transport on the class path, for
     * instance {@code NettyChannelBuilder}.
     */
    public Builder channel(Consumer<ManagedChannelBuilder<?>> change) {
      channel = change;
      return this;
    }

    /**
     * Makes the channels, instead of an address: another transport, or a gateway in the same process. Each is asked for
     * once, and shut down by the client. They should not retry ({@link ManagedChannelBuilder#disableRetry}).
     */
    public Builder channels(Supplier<ManagedChannel> channels) {
      this.channels = channels;
      return this;
    }

    /** The client. It does not connect yet: a wrong address shows at {@link Client#connect()}. */
    public Client build() {
      var target = Address.of(address.isEmpty() ? DEFAULT_ADDRESS : address);
      var chosen = credentials;
      if (chosen == null) {
        chosen = target.plain() ? InsecureChannelCredentials.create() : TlsChannelCredentials.create();
      }
      var finalCredentials = chosen;
      return new Client(channels != null ? channels : () -> open(target, finalCredentials), this);
    }

    private ManagedChannel open(Address target, ChannelCredentials chosen) {
      var builder =
          Grpc.newChannelBuilder(target.target(), chosen)
              .maxInboundMessageSize(maxReceiveBytes)
              .keepAliveTime(KEEPALIVE_TIME_SECONDS, TimeUnit.SECONDS)
              .keepAliveTimeout(KEEPALIVE_TIMEOUT_SECONDS, TimeUnit.SECONDS)
              // A turn that may have run is never sent again behind the session's back.
              .disableRetry();
      setWindow(builder);
      channel.accept(builder);
      return builder.build();
    }

    /** Every HTTP/2 transport of grpc-java has this method; the type that they share does not. */
    private static void setWindow(ManagedChannelBuilder<?> builder) {
      try {
        builder.getClass().getMethod("flowControlWindow", int.class).invoke(builder, STREAM_WINDOW_BYTES);
      } catch (NoSuchMethodException | IllegalAccessException other) {
        // A transport of another kind.
      } catch (InvocationTargetException problem) {
        throw new IllegalStateException(problem.getCause());
      }
    }

    private static Supplier<String> tokenOf(String token) {
      return token == null || token.isEmpty() ? () -> "" : () -> token;
    }
  }
}
