package dev.responsesgateway.client;

import dev.responsesgateway.v1.CallOptions;
import dev.responsesgateway.v1.CancelResponseRequest;
import dev.responsesgateway.v1.CountBody;
import dev.responsesgateway.v1.CountInputTokensRequest;
import dev.responsesgateway.v1.CreateBody;
import dev.responsesgateway.v1.CreateResponseRequest;
import dev.responsesgateway.v1.CreateResponseResponse;
import dev.responsesgateway.v1.DeleteResponseRequest;
import dev.responsesgateway.v1.GetResponseRequest;
import dev.responsesgateway.v1.InputItem;
import dev.responsesgateway.v1.InputItemPage;
import dev.responsesgateway.v1.ListInputItemsRequest;
import dev.responsesgateway.v1.ListModelsRequest;
import dev.responsesgateway.v1.Model;
import dev.responsesgateway.v1.PayloadFormat;
import dev.responsesgateway.v1.Response;
import dev.responsesgateway.v1.ResponsesServiceGrpc;
import dev.responsesgateway.v1.StreamResponseRequest;
import dev.responsesgateway.v1.StreamResponseResponse;
import io.grpc.StatusException;
import io.grpc.StatusRuntimeException;
import java.time.Duration;
import java.util.List;
import java.util.Locale;
import java.util.stream.Stream;

/**
 * Turns without a session, and what the upstream keeps of responses. It is immutable: the {@code with} methods return a
 * copy. Failures are a {@link StreamException} with the gateway's reason, for instance UNKNOWN_RESPONSE.
 */
public final class Responses {
  /** The order of a list of input items. */
  public enum Order {
    /** The oldest first. */
    ASC,
    /** The newest first. */
    DESC
  }

  private final Client client;
  private final CallOptions options;
  private final List<String> include;

  Responses(Client client) {
    this(client, CallOptions.newBuilder().setPayload(PayloadFormat.PAYLOAD_FORMAT_TYPED).build(), List.of());
  }

  private Responses(Client client, CallOptions options, List<String> include) {
    this.client = client;
    this.options = options;
    this.include = List.copyOf(include);
  }

  /** A configured upstream of the gateway, by name. A stored response is known where it was made. */
  public Responses withUpstream(String upstream) {
    return new Responses(client, options.toBuilder().setUpstream(upstream).build(), include);
  }

  /** Time limit of each call, kept by the gateway. Default: the gateway's. */
  public Responses withTimeout(Duration timeout) {
    return new Responses(client, options.toBuilder().setTimeout(Times.of(timeout)).build(), include);
  }

  /** Asks for more output of what is read, for instance {@code reasoning.encrypted_content}. */
  public Responses withInclude(String... kinds) {
    return new Responses(client, options, List.of(kinds));
  }

  /** Delivers the upstream's exact JSON with each event. */
  public Responses withRawJson() {
    return new Responses(
        client, options.toBuilder().setPayload(PayloadFormat.PAYLOAD_FORMAT_BOTH).build(), include);
  }

  /** Runs one turn; see {@link #create(TurnRequest, String)}. */
  public ResponseStream create(TurnRequest request) {
    return create(request, "");
  }

  /**
   * Runs one turn. One with {@code create(body -> body.setBackground(true))} goes on when nobody reads, see
   * {@link #stream}. What is about lanes in the request has no meaning here.
   *
   * @param idempotencyKey makes the call safe to send again: within a day the same key with the same request gets the
   *     first call's answer, and never runs a second turn. 1 to 256 visible ASCII characters; empty: each call runs
   */
  public ResponseStream create(TurnRequest request, String idempotencyKey) {
    var start = request.start();
    var message =
        CreateResponseRequest.newBuilder()
            .setCreate(single(request))
            .setPayload(options.getPayload())
            .setUpstream(options.getUpstream())
            .setWaitOnRateLimit(start.getWaitOnRateLimit())
            .setIdempotencyKey(idempotencyKey);
    if (options.hasTimeout()) {
      message.setTimeout(options.getTimeout());
    } else if (start.hasTimeout()) {
      message.setTimeout(start.getTimeout());
    }
    return ResponseStream.of(
        client, () -> client.stub().createResponse(message.build()), CreateResponseResponse::getEventsList);
  }

  /** A stored response; of a background one that runs, as far as it is. */
  public Response get(String responseId) {
    var message =
        GetResponseRequest.newBuilder().setResponseId(responseId).addAllInclude(include).setOptions(typed());
    return call(stub -> stub.getResponse(message.build())).getResponse();
  }

  /** Follows a background response to its end, from its first event on. */
  public ResponseStream stream(String responseId) {
    return follow(StreamResponseRequest.newBuilder().setResponseId(responseId));
  }

  /**
   * Follows a background response to its end, from the event behind a sequence number on. To go on after a lost
   * connection, give {@link ResponseStream#lastSequenceNumber} of what was read before.
   */
  public ResponseStream stream(String responseId, long startingAfter) {
    return follow(
        StreamResponseRequest.newBuilder().setResponseId(responseId).setStartingAfter(startingAfter));
  }

  /** Deletes a stored response. */
  public void delete(String responseId) {
    var message = DeleteResponseRequest.newBuilder().setResponseId(responseId).setOptions(typed()).build();
    call(stub -> stub.deleteResponse(message));
  }

  /** Stops a background response, and returns it as it was left. */
  public Response cancel(String responseId) {
    var message = CancelResponseRequest.newBuilder().setResponseId(responseId).setOptions(typed()).build();
    return call(stub -> stub.cancelResponse(message)).getResponse();
  }

  /** What a stored response was given, the newest first. */
  public Stream<InputItem> inputItems(String responseId) {
    return inputItems(responseId, Order.DESC, 20);
  }

  /** What a stored response was given. Pages of {@code limit} items, 1 to 100, are read as they are needed. */
  public Stream<InputItem> inputItems(String responseId, Order order, int limit) {
    var message =
        ListInputItemsRequest.newBuilder()
            .setResponseId(responseId)
            .addAllInclude(include)
            .setOrder(order.name().toLowerCase(Locale.ROOT))
            .setLimit(limit)
            .setOptions(typed())
            .build();
    return Stream.iterate(page(message), page -> page != null, page -> next(message, page))
        .flatMap(page -> page.getDataList().stream());
  }

  /** How many tokens of input a request has; it does not run. */
  public long countInputTokens(TurnRequest request) {
    var create = single(request);
    var count = CountBody.newBuilder().addAllInput(create.getInputList()).addAllTools(create.getToolsList());
    for (var field : CountBody.getDescriptor().getFields()) {
      var given = CreateBody.getDescriptor().findFieldByName(field.getName());
      if (given != null && !field.isRepeated() && given.hasPresence() && create.hasField(given)) {
        count.setField(field, create.getField(given));
      }
    }
    var message = CountInputTokensRequest.newBuilder().setCount(count).setOptions(typed()).build();
    return call(stub -> stub.countInputTokens(message)).getCount().getInputTokens();
  }

  /** The models that the caller may use. */
  public List<Model> models() {
    var message = ListModelsRequest.newBuilder().setOptions(typed()).build();
    return call(stub -> stub.listModels(message)).getModels().getDataList();
  }

  private ResponseStream follow(StreamResponseRequest.Builder message) {
    message.addAllInclude(include).setOptions(options);
    return ResponseStream.of(
        client, () -> client.stub().streamResponse(message.build()), StreamResponseResponse::getEventsList);
  }

  private InputItemPage page(ListInputItemsRequest message) {
    return call(stub -> stub.listInputItems(message)).getPage();
  }

  private InputItemPage next(ListInputItemsRequest message, InputItemPage page) {
    var isLast = !page.getHasMore() || page.getLastId().isEmpty();
    return isLast ? null : page(message.toBuilder().setAfter(page.getLastId()).build());
  }

  /** JSON goes with events alone. */
  private CallOptions typed() {
    return options.toBuilder().setPayload(PayloadFormat.PAYLOAD_FORMAT_TYPED).build();
  }

  private static CreateBody single(TurnRequest request) {
    var start = request.start();
    return start.hasPreviousResponseId()
        ? start.getCreate().toBuilder().setPreviousResponseId(start.getPreviousResponseId()).build()
        : start.getCreate();
  }

  private interface Method<A> {
    A call(ResponsesServiceGrpc.ResponsesServiceBlockingV2Stub stub) throws StatusException;
  }

  private <A> A call(Method<A> method) {
    var stub = client.stub();
    try {
      return method.call(stub);
    } catch (StatusException | StatusRuntimeException error) {
      throw client.lost(error);
    }
  }
}
