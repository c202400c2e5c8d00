package dev.responsesgateway.client;

import dev.responsesgateway.v1.ConnectRequest;
import dev.responsesgateway.v1.ConnectResponse;
import dev.responsesgateway.v1.ResponsesServiceGrpc;
import io.grpc.CallOptions;
import io.grpc.Channel;
import io.grpc.ClientInterceptors;
import io.grpc.Metadata;
import io.grpc.stub.ClientCallStreamObserver;
import io.grpc.stub.ClientCalls;
import io.grpc.stub.ClientResponseObserver;
import io.grpc.stub.MetadataUtils;

/** One gRPC call of a session. Messages are received one by one, each when it is asked for. */
final class Call {
  private final Listener listener;
  private volatile ClientCallStreamObserver<ConnectRequest> requests;

  /** Hears of the call, in order, from one thread at a time. */
  interface Listener {
    void onMessage(Call call, ConnectResponse response);

    /** The call is over; null stands for OK. */
    void onEnd(Call call, StreamException error);

    /** The transport takes more. */
    void onReady(Call call);
  }

  Call(Listener listener) {
    this.listener = listener;
  }

  /** Sends Open; the first message will be asked for. */
  void open(Channel channel, boolean waitForReady, Metadata headers, ConnectRequest open) {
    var options = waitForReady ? CallOptions.DEFAULT.withWaitForReady() : CallOptions.DEFAULT;
    var called = ClientInterceptors.intercept(channel, MetadataUtils.newAttachHeadersInterceptor(headers));
    ClientCalls.asyncBidiStreamingCall(
        called.newCall(ResponsesServiceGrpc.getConnectMethod(), options), new Responses());
    requests.onNext(open);
  }

  boolean waitsForToken() {
    return requests == null;
  }

  boolean isReady() {
    return requests.isReady();
  }

  void send(ConnectRequest message) {
    requests.onNext(message);
  }

  void request() {
    requests.request(1);
  }

  void halfClose() {
    requests.onCompleted();
  }

  /** Does nothing to a call that waits for its token: nobody opens it any more. */
  void cancel() {
    if (requests != null) {
      requests.cancel("the client ended the stream", null);
    }
  }

  private final class Responses implements ClientResponseObserver<ConnectRequest, ConnectResponse> {
    @Override
    public void beforeStart(ClientCallStreamObserver<ConnectRequest> stream) {
      requests = stream;
      stream.disableAutoRequestWithInitial(1);
      stream.setOnReadyHandler(() -> listener.onReady(Call.this));
    }

    @Override
    public void onNext(ConnectResponse response) {
      listener.onMessage(Call.this, response);
    }

    @Override
    public void onError(Throwable error) {
      listener.onEnd(Call.this, StreamException.of(error));
    }

    @Override
    public void onCompleted() {
      listener.onEnd(Call.this, null);
    }
  }
}
