package dev.responsesgateway.client;

import dev.responsesgateway.v1.Budget;
import dev.responsesgateway.v1.Open;
import dev.responsesgateway.v1.PayloadFormat;
import java.math.BigDecimal;
import java.time.Duration;
import java.util.Map;
import java.util.function.Consumer;

/** What a session asks for and how it behaves. Immutable. */
public final class SessionOptions {
  /** Seconds of the fastest models, and as much as the gateway itself holds. */
  public static final long DEFAULT_MAX_BUFFERED_BYTES = 4L << 20;

  /** Three of the largest requests. */
  public static final long DEFAULT_MAX_QUEUED_BYTES = 64L << 20;

  /** Name resolution, connection, TLS, a token. */
  public static final Duration DEFAULT_CONNECT_TIMEOUT = Duration.ofSeconds(10);

  /** Below the time-outs of proxies, which count messages; a gateway may ask for less. */
  public static final Duration DEFAULT_HEARTBEAT = Duration.ofSeconds(15);

  /** A few round trips. */
  public static final Duration DEFAULT_CLOSE_TIMEOUT = Duration.ofSeconds(3);

  /** The newest {@code since_revision} of the generated code: what is newer comes as raw JSON. */
  private static final int SCHEMA_REVISION = 3;

  final Open open;
  final boolean resume;
  final long maxBufferedBytes;
  final long maxQueuedBytes;
  final Duration connectTimeout;
  final Duration closeTimeout;
  final Consumer<Event> onEvent;
  final Consumer<GoAway> onGoAway;

  private SessionOptions(Builder builder) {
    open = builder.open.build();
    resume = builder.resume;
    maxBufferedBytes = builder.maxBufferedBytes;
    maxQueuedBytes = builder.maxQueuedBytes;
    connectTimeout = builder.connectTimeout;
    closeTimeout = builder.closeTimeout;
    onEvent = builder.onEvent;
    onGoAway = builder.onGoAway;
  }

  /** Starts options. */
  public static Builder builder() {
    return new Builder();
  }

  /** Builds options. */
  public static final class Builder {
    private final Open.Builder open =
        Open.newBuilder()
            .setSchemaRevision(SCHEMA_REVISION)
            .setHeartbeatInterval(Times.of(DEFAULT_HEARTBEAT));
    private boolean resume = true;
    private long maxBufferedBytes = DEFAULT_MAX_BUFFERED_BYTES;
    private long maxQueuedBytes = DEFAULT_MAX_QUEUED_BYTES;
    private Duration connectTimeout = DEFAULT_CONNECT_TIMEOUT;
    private Duration closeTimeout = DEFAULT_CLOSE_TIMEOUT;
    private Consumer<Event> onEvent = event -> {};
    private Consumer<GoAway> onGoAway = goAway -> {};

    private Builder() {}

    /** Model of turns that name none. */
    public Builder model(String model) {
      open.setModel(model);
      return this;
    }

    /** A configured upstream of the gateway, by name. */
    public Builder upstream(String upstream) {
      open.setUpstream(upstream);
      return this;
    }

    /** Labels for traces and logs of the gateway; at most 16, no secrets. */
    public Builder labels(Map<String, String> labels) {
      open.clearMetadata().putAllMetadata(labels);
      return this;
    }

    /** Tells the gateway's logs which program this is. */
    public Builder program(String name, String version) {
      open.setClientName(name).setClientVersion(version);
      return this;
    }

    /**
     * What the session may use in its life; 0 is no limit. A turn that does not fit fails with LIMIT_EXCEEDED, whose
     * metadata has what is left.
     *
     * @param tokens input and output
     * @param money in the currency of the gateway's price table; null is no limit
     */
    public Builder budget(long tokens, BigDecimal money, int turns) {
      open.setBudget(
          Budget.newBuilder()
              .setTokens(tokens)
              .setMoney(money == null ? "" : money.toPlainString())
              .setTurns(turns));
      return this;
    }

    /** Whether the gateway may rebuild lanes that the upstream has lost. Default: true. */
    public Builder recovery(boolean recovery) {
      open.setRecovery(recovery);
      return this;
    }

    /** Whether a lost stream is resumed. Default: true. */
    public Builder resume(boolean resume) {
      this.resume = resume;
      return this;
    }

    /** Delivers the upstream's exact JSON with each event, besides its typed form. Default: false. */
    public Builder rawJson(boolean rawJson) {
      open.setPayload(
          rawJson ? PayloadFormat.PAYLOAD_FORMAT_BOTH : PayloadFormat.PAYLOAD_FORMAT_UNSPECIFIED);
      return this;
    }

    /**
     * Bounds the events that wait for their readers, over all turns of the session. Above it the session stops
     * reading, and so finally do the gateway and the upstream. While the reader of another turn waits, the events that
     * nobody reads are folded into their turns' results instead: see {@link Turn#iterator}. One event may exceed the
     * bound. Default: {@link #DEFAULT_MAX_BUFFERED_BYTES}.
     */
    public Builder maxBufferedBytes(long bytes) {
      maxBufferedBytes = positive(bytes);
      return this;
    }

    /** Bounds the requests that wait to be sent; above it {@code start} and {@code steer} wait. */
    public Builder maxQueuedBytes(long bytes) {
      maxQueuedBytes = positive(bytes);
      return this;
    }

    /**
     * How long opening the session may take; then it fails with reason CONNECT_TIMEOUT. Default: {@link
     * #DEFAULT_CONNECT_TIMEOUT}.
     */
    public Builder connectTimeout(Duration timeout) {
      if (timeout.isZero() || timeout.isNegative()) {
        throw new IllegalArgumentException("must be positive: " + timeout);
      }
      connectTimeout = timeout;
      return this;
    }

    /**
     * How often the client says that it is there, if the gateway agrees; three times as long without an answer, and the
     * stream is resumed on another connection. Zero: never. Default: {@link #DEFAULT_HEARTBEAT}.
     */
    public Builder heartbeat(Duration interval) {
      if (interval.isNegative()) {
        throw new IllegalArgumentException("must not be negative: " + interval);
      }
      open.setHeartbeatInterval(Times.of(interval));
      return this;
    }

    /** How long {@code close} waits for the gateway to end the stream. */
    public Builder closeTimeout(Duration timeout) {
      closeTimeout = timeout;
      return this;
    }

    /**
     * Is told events that belong to no turn of this client: notices about the session, refusals of unknown turns. It
     * runs apart from the session, in order: it may block, and use or close the session. What it throws is logged.
     */
    public Builder onEvent(Consumer<Event> listener) {
      onEvent = listener;
      return this;
    }

    /**
     * Is told when the gateway announces the end of the stream. A stream that has grown old is replaced by itself;
     * when the gateway shuts down, running turns finish and new ones need a new session, unless another gateway goes on
     * with it.
     */
    public Builder onGoAway(Consumer<GoAway> listener) {
      onGoAway = listener;
      return this;
    }

    /** The options. */
    public SessionOptions build() {
      return new SessionOptions(this);
    }

    private static long positive(long bytes) {
      if (bytes <= 0) {
        throw new IllegalArgumentException("must be positive: " + bytes);
      }
      return bytes;
    }
  }
}
