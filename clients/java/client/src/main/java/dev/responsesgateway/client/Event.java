package dev.responsesgateway.client;

import com.google.protobuf.ByteString;
import dev.responsesgateway.v1.OutputItem;
import dev.responsesgateway.v1.Response;
import java.util.Optional;

/**
 * One thing that happened, to a turn or to the session. The kinds that most programs look at are records of their own;
 * the typed content of all others is in {@link #message}.
 */
public sealed interface Event {
  /** The whole message. */
  dev.responsesgateway.v1.Event message();

  /** A piece of the visible answer. */
  record TextDelta(dev.responsesgateway.v1.Event message, String text) implements Event {}

  /** A piece of a reasoning summary or of raw reasoning. */
  record ReasoningDelta(dev.responsesgateway.v1.Event message, String text) implements Event {}

  /** A piece of a function call's arguments, a fragment of JSON text. */
  record ArgumentsDelta(dev.responsesgateway.v1.Event message, String itemId, String json) implements Event {}

  /** An output item is complete. */
  record ItemDone(dev.responsesgateway.v1.Event message, OutputItem item) implements Event {}

  /** The upstream has accepted the turn, or a steered turn goes on with another response. */
  record ResponseStarted(dev.responsesgateway.v1.Event message, Response response) implements Event {}

  /** A response is complete, stopped early or failed; {@link Event#outcome} says whether the turn is over. */
  record ResponseEnded(dev.responsesgateway.v1.Event message, Response response) implements Event {}

  /** The turn failed, or a request about it was refused (then without an outcome). */
  record Failure(dev.responsesgateway.v1.Event message, TurnException error) implements Event {}

  /** The gateway did something worth knowing. It ends nothing. */
  record Notice(dev.responsesgateway.v1.Event message, dev.responsesgateway.v1.Notice notice) implements Event {}

  /** A known event without a record of its own: its typed content is in the message. */
  record OtherEvent(dev.responsesgateway.v1.Event message) implements Event {}

  /** An event that this client does not know: the upstream's JSON is all there is. Pass over those you do not know. */
  record UnknownEvent(dev.responsesgateway.v1.Event message, ByteString json) implements Event {}

  /** Counts the session's events: 1, 2, 3 … also across reconnects. */
  default long seq() {
    return message().getSeq();
  }

  /** The lane; empty for the default lane. */
  default String laneId() {
    return message().getLaneId();
  }

  /** The turn; empty for events about the whole session. */
  default String turnId() {
    return message().getTurnId();
  }

  /** The upstream's name, for instance {@code response.output_text.delta}, or {@code gateway.…} for the gateway's. */
  default String type() {
    return message().getType();
  }

  /** The upstream's exact JSON: with {@code rawJson}, and where an event has no typed content. Empty otherwise. */
  default ByteString rawJson() {
    return message().getJson();
  }

  /** Set on the last event of a turn, and only there. */
  default Optional<Outcome> outcome() {
    return Outcome.of(message().getOutcome());
  }

  /** Gives a message its kind. */
  static Event of(dev.responsesgateway.v1.Event message) {
    return switch (message.getPayloadCase()) {
      case OUTPUT_TEXT_DELTA -> new TextDelta(message, message.getOutputTextDelta().getDelta());
      case REASONING_SUMMARY_TEXT_DELTA ->
          new ReasoningDelta(message, message.getReasoningSummaryTextDelta().getDelta());
      case REASONING_TEXT_DELTA -> new ReasoningDelta(message, message.getReasoningTextDelta().getDelta());
      case FUNCTION_CALL_ARGUMENTS_DELTA -> {
        var delta = message.getFunctionCallArgumentsDelta();
        yield new ArgumentsDelta(message, delta.getItemId(), delta.getDelta());
      }
      case OUTPUT_ITEM_DONE -> new ItemDone(message, message.getOutputItemDone().getItem());
      case RESPONSE_CREATED -> new ResponseStarted(message, message.getResponseCreated().getResponse());
      case RESPONSE_COMPLETED -> new ResponseEnded(message, message.getResponseCompleted().getResponse());
      case RESPONSE_INCOMPLETE -> new ResponseEnded(message, message.getResponseIncomplete().getResponse());
      case RESPONSE_FAILED -> new ResponseEnded(message, message.getResponseFailed().getResponse());
      case TURN_FAILED -> new Failure(message, TurnException.of(message, message.getTurnFailed()));
      case NOTICE -> new Notice(message, message.getNotice());
      case PAYLOAD_NOT_SET -> new UnknownEvent(message, message.getJson());
      default -> new OtherEvent(message);
    };
  }
}
