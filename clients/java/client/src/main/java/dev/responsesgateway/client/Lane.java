package dev.responsesgateway.client;

import dev.responsesgateway.v1.InputItem;
import java.util.List;
import java.util.concurrent.TimeoutException;

/**
 * One line of conversation in a session: its turns run one after the other, lanes run side by side. It costs nothing
 * until its first turn. An upstream connection carries some 32 named lanes in its life; the gateway opens more as
 * needed.
 */
public final class Lane {
  private final SessionCore session;
  private final String id;

  Lane(SessionCore session, String id) {
    this.session = session;
    this.id = id;
  }

  /** The lane's name; empty is the default lane. */
  public String id() {
    return id;
  }

  /** Starts a turn of one user message. See {@link #start(TurnRequest)}. */
  public Turn start(String text) {
    return start(TurnRequest.of(text));
  }

  /**
   * Starts a turn and returns when it is queued for sending; waits while too much is queued. Turns of one lane run in
   * the order of their starts. The current OpenTelemetry span becomes the turn's parent.
   *
   * @throws TurnException with replay SAFE
   */
  public Turn start(TurnRequest request) {
    return session.start(this, request);
  }

  /** The same, waiting no longer than to a time by {@code System.nanoTime}. */
  Turn start(TurnRequest request, long deadlineNanos) throws TimeoutException {
    return session.start(this, request, deadlineNanos);
  }

  /** Runs a turn whose answer has the form of a record. See {@link Result#parse}. */
  public <T extends Record> Parsed<T> parse(TurnRequest request, Class<T> type) {
    return start(request.toBuilder().format(type).build()).result().parse(type);
  }

  /**
   * Prepares instructions, tools and input upstream without producing output, so that the next turn answers sooner.
   * Where the upstream cannot, the turn fails with reason NOT_SUPPORTED_BY_UPSTREAM.
   */
  public Turn warmUp(TurnRequest request) {
    return start(request.toBuilder().create(create -> create.setGenerate(false)).build());
  }

  /** Adds user input to whatever turn runs on the lane. See {@link Turn#steer(List)}. */
  public void steer(List<InputItem> input) {
    session.steer(id, "", input);
  }

  /** Adds one user message to whatever turn runs on the lane. */
  public void steer(String text) {
    steer(Items.text(text));
  }

  /**
   * The lane of this name, whose first turn continues from the last response of this lane as it is now. Both then go
   * their own ways.
   */
  public Lane fork(String name) {
    return session.fork(this, name);
  }

  /** The response that the lane's next turn continues from, as far as the client has heard; empty if none. */
  public String lastResponseId() {
    return session.lastResponseId(id);
  }

  /** Remembers that a tool loop has ended and nobody answers the calls of this response. */
  void leaveOpen(String responseId, List<InputItem> outputs) {
    session.leaveOpen(id, responseId, outputs);
  }

  /** Runs turns until the model answers without calling a function. See {@link ToolLoop}. */
  public Result runTools(TurnRequest request, ToolLoop loop) {
    return loop.run(this, request, turn -> {});
  }
}
