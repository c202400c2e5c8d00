package dev.responsesgateway.client;

import com.google.protobuf.InvalidProtocolBufferException;
import com.google.rpc.ErrorInfo;
import com.google.rpc.RetryInfo;
import io.grpc.Status;
import io.grpc.protobuf.StatusProto;
import java.time.Duration;
import java.util.Map;
import java.util.Optional;
import java.util.Set;

/** Trouble with a whole session. Reasons that the client finds itself stand in {@link Reasons} with a sentence. */
public final class StreamException extends GatewayException {
  /** The gateway ended the stream, and keeps the session. */
  private static final Set<String> GOES_ON =
      Set.of(Reasons.SLOW_CONSUMER, Reasons.OVERLOADED, Reasons.CLIENT_SILENT);

  private static final long serialVersionUID = 1L;

  StreamException(Facts facts) {
    super(facts);
  }

  static StreamException inferred(Status.Code code, String reason, String message) {
    return inferred(code, reason, message, null);
  }

  static StreamException inferred(Status.Code code, String reason, String message, Throwable cause) {
    return new StreamException(Facts.inferred(code, reason, message, cause));
  }

  /** The end of a gRPC call as an error. */
  static StreamException of(Throwable error) {
    var status = Status.fromThrowable(error);
    var reason = "";
    Map<String, String> metadata = Map.of();
    Duration retryAfter = null;
    var own = false;
    var details = StatusProto.fromThrowable(error);
    if (details != null) {
      for (var detail : details.getDetailsList()) {
        try {
          if (detail.is(ErrorInfo.class)) {
            var info = detail.unpack(ErrorInfo.class);
            if (info.getDomain().equals(DOMAIN)) {
              own = true;
              reason = info.getReason();
              metadata = info.getMetadataMap();
            }
          } else if (detail.is(RetryInfo.class)) {
            retryAfter = Times.of(detail.unpack(RetryInfo.class).getRetryDelay());
          }
        } catch (InvalidProtocolBufferException malformed) {
          // A detail that cannot be read tells nothing; the code still does.
          continue;
        }
      }
    }
    var message = status.getDescription() == null ? "" : status.getDescription();
    var path = own ? Optional.<PathCause.Found>empty() : PathCause.find(status.getCode(), message);
    if (path.isPresent()) {
      message += " (" + path.get().cause().says() + ")";
      metadata = path.get().metadata();
    }
    return new StreamException(
        new Facts(status.getCode(), reason, message, own ? DOMAIN : "", metadata, retryAfter, !own, error));
  }

  /** Whether what a call without a session asked for was certainly not done, or may be done again without harm. */
  boolean neverRan() {
    return !inferred() && "safe".equals(metadata().get("replay"));
  }

  /** The session's end as the end of one of its turns. */
  TurnException forTurn(String laneId, String turnId, Replay replay) {
    return new TurnException(facts().asInferred(), laneId, turnId, replay, "", null);
  }

  /**
   * Whether the session may still live behind a stream that ended so: the transport broke, or the gateway cut a slow
   * reader or is short of room. Whatever else the gateway says is meant.
   */
  boolean resumable() {
    if (reason().equals(Reasons.TOKEN_SOURCE_FAILED)) {
      return true;
    }
    if (!inferred()) {
      return GOES_ON.contains(reason());
    }
    return switch (code()) {
      case OK, UNAVAILABLE, INTERNAL, UNKNOWN, CANCELLED, DEADLINE_EXCEEDED -> true;
      default -> false;
    };
  }

  /** The same with a reason, if it had none. */
  StreamException because(String reason) {
    return reason().isEmpty() ? new StreamException(facts().withReason(reason)) : this;
  }

  @Override
  public Optional<Replay> replay() {
    return Optional.empty();
  }
}
