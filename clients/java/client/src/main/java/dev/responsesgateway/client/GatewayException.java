package dev.responsesgateway.client;

import io.grpc.Status;
import io.grpc.StatusException;
import io.grpc.StatusRuntimeException;
import java.io.IOException;
import java.io.Serializable;
import java.time.Duration;
import java.util.Map;
import java.util.Optional;

/**
 * Trouble with a turn ({@link TurnException}), with a whole session ({@link StreamException}) or the end of a tool loop
 * ({@link LoopException}). All can be serialised.
 */
public abstract sealed class GatewayException extends RuntimeException
    permits TurnException, StreamException, LoopException {
  private static final long serialVersionUID = 1L;

  /** Whose {@code reason} it is. */
  static final String DOMAIN = "responses-gateway";

  private final Facts facts;

  /** What every error tells. */
  record Facts(
      Status.Code code,
      String reason,
      String message,
      String domain,
      Map<String, String> metadata,
      Duration retryAfter,
      boolean inferred,
      Throwable cause)
      implements Serializable {
    Facts {
      // Maps of messages cannot be serialised.
      metadata = Map.copyOf(metadata);
      cause = portable(cause);
    }

    /** gRPC's exceptions cannot be serialised: what they say is kept. */
    private static Throwable portable(Throwable cause) {
      if (!(cause instanceof StatusRuntimeException) && !(cause instanceof StatusException)) {
        return cause;
      }
      var copy = new IOException(cause.getMessage(), cause.getCause());
      copy.setStackTrace(cause.getStackTrace());
      return copy;
    }

    static Facts inferred(Status.Code code, String reason, String message, Throwable cause) {
      return new Facts(code, reason, message, DOMAIN, Map.of(), null, true, cause);
    }

    Facts asInferred() {
      return new Facts(code, reason, message, domain, metadata, retryAfter, true, cause);
    }

    Facts withReason(String other) {
      return new Facts(code, other, message, DOMAIN, metadata, retryAfter, inferred, cause);
    }

    Facts withMetadata(Map<String, String> other) {
      return new Facts(code, reason, message, domain, other, retryAfter, inferred, cause);
    }
  }

  GatewayException(Facts facts) {
    super(facts.reason().isEmpty() ? facts.message() : facts.reason() + ": " + facts.message(), facts.cause());
    this.facts = facts;
  }

  Facts facts() {
    return facts;
  }

  /** The gRPC code. */
  public Status.Code code() {
    return facts.code();
  }

  /** Stable and meant for programs, for instance {@link Reasons#UPSTREAM_RATE_LIMITED}. */
  public String reason() {
    return facts.reason();
  }

  /** Whose {@link #reason} it is. */
  public String domain() {
    return facts.domain();
  }

  /** Small facts, for instance {@code field = create.temperature}. */
  public Map<String, String> metadata() {
    return facts.metadata();
  }

  /** Earliest time to try again, from now; empty when waiting is not known to help. */
  public Optional<Duration> retryAfter() {
    return Optional.ofNullable(facts.retryAfter());
  }

  /** The client concluded it; the gateway did not say it. */
  public boolean inferred() {
    return facts.inferred();
  }

  /** Whether what failed may be sent again; empty for sessions. */
  public abstract Optional<Replay> replay();
}
