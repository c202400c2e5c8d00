package dev.responsesgateway.client;

import dev.responsesgateway.v1.TurnFailed;
import dev.responsesgateway.v1.TurnPhase;
import dev.responsesgateway.v1.UpstreamError;
import io.grpc.Status;
import java.util.Locale;
import java.util.Optional;

/** Trouble with one turn; its session lives on, unless {@link #inferred} from the session's end. */
public final class TurnException extends GatewayException {
  private static final long serialVersionUID = 1L;

  private final String laneId;
  private final String turnId;
  private final Replay replay;
  private final String phase;
  private final UpstreamError upstream;
  private Result result;

  TurnException(Facts facts, String laneId, String turnId, Replay replay, String phase, UpstreamError upstream) {
    super(facts);
    this.laneId = laneId;
    this.turnId = turnId;
    this.replay = replay;
    this.phase = phase;
    this.upstream = upstream;
  }

  static TurnException of(dev.responsesgateway.v1.Event event, TurnFailed failed) {
    var facts =
        new Facts(
            Status.fromCodeValue(failed.getCode()).getCode(),
            failed.getReason(),
            failed.getMessage(),
            DOMAIN,
            failed.getMetadataMap(),
            failed.hasRetryAfter() ? Times.of(failed.getRetryAfter()) : null,
            false,
            null);
    var phase =
        failed.getPhase() == TurnPhase.TURN_PHASE_UNSPECIFIED || failed.getPhase() == TurnPhase.UNRECOGNIZED
            ? ""
            : failed.getPhase().name().substring("TURN_PHASE_".length()).toLowerCase(Locale.ROOT);
    return new TurnException(
        facts,
        event.getLaneId(),
        event.getTurnId(),
        Replay.of(failed.getReplay()),
        phase,
        failed.hasUpstreamError() ? failed.getUpstreamError() : null);
  }

  /** The turn's lane. */
  public String laneId() {
    return laneId;
  }

  /** The turn. */
  public String turnId() {
    return turnId;
  }

  @Override
  public Optional<Replay> replay() {
    return Optional.of(replay);
  }

  /** How far the turn had come: not_sent, sent, created, output_started; empty if unknown. */
  public String phase() {
    return phase;
  }

  /** What had arrived of the turn; in a tool loop with all its turns. Empty if nothing ran. */
  public Optional<Result> result() {
    return Optional.ofNullable(result);
  }

  TurnException with(Result soFar) {
    result = soFar;
    return this;
  }

  /** What the upstream said, if anything. */
  public Optional<UpstreamError> upstream() {
    return Optional.ofNullable(upstream);
  }
}
