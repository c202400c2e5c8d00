package dev.responsesgateway.client;

import io.grpc.CallOptions;
import io.grpc.Channel;
import io.grpc.ClientCall;
import io.grpc.ClientInterceptor;
import io.grpc.Metadata;
import io.grpc.MethodDescriptor;
import io.grpc.MethodDescriptor.MethodType;
import io.grpc.Status;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.Executor;
import java.util.concurrent.TimeUnit;

/**
 * Sends a unary call again that the gateway says was not done. gRPC's own retry policy knows only codes, and UNAVAILABLE
 * is also what a connection says that broke in the middle of the work.
 */
final class UnaryRetry implements ClientInterceptor {
  private static final int MAX_ATTEMPTS = 4;

  @Override
  public <Q, P> ClientCall<Q, P> interceptCall(MethodDescriptor<Q, P> method, CallOptions options, Channel next) {
    return method.getType() == MethodType.UNARY
        ? new Attempts<>(method, options, next)
        : next.newCall(method, options);
  }

  /** One call after the other, as one. */
  private static final class Attempts<Q, P> extends ClientCall<Q, P> {
    private final MethodDescriptor<Q, P> method;
    private final CallOptions options;
    private final Channel channel;

    // Guarded by this object.
    private ClientCall<Q, P> call;
    private Listener<P> listener;
    private Metadata headers;
    private Q message;
    private int requested;
    private boolean halfClosed;
    private boolean cancelled;
    private volatile boolean failed;
    private int attempts;

    Attempts(MethodDescriptor<Q, P> method, CallOptions options, Channel channel) {
      this.method = method;
      this.options = options;
      this.channel = channel;
      this.call = channel.newCall(method, options);
    }

    @Override
    public synchronized void start(Listener<P> listener, Metadata headers) {
      this.listener = listener;
      this.headers = headers;
      begin();
    }

    private void begin() {
      attempts++;
      var own = new Metadata();
      own.merge(headers);
      call.start(new Attempt(), own);
    }

    @Override
    public synchronized void request(int messages) {
      requested += messages;
      call.request(messages);
    }

    @Override
    public synchronized void sendMessage(Q message) {
      this.message = message;
      call.sendMessage(message);
    }

    @Override
    public synchronized void halfClose() {
      halfClosed = true;
      call.halfClose();
    }

    @Override
    public synchronized void cancel(String why, Throwable cause) {
      cancelled = true;
      call.cancel(why, cause);
    }

    /** In milliseconds; negative if the failure is final. */
    private synchronized long waitBefore(Status status, Metadata trailers) {
      if (status.isOk() || cancelled || !halfClosed || attempts >= MAX_ATTEMPTS) {
        return -1;
      }
      var failure = StreamException.of(status.asRuntimeException(trailers));
      if (!failure.neverRan() || !Retry.mayHelp(failure)) {
        return -1;
      }
      var millis = Retry.waitMillis(failure, attempts);
      var deadline = options.getDeadline();
      var late = deadline != null && deadline.timeRemaining(TimeUnit.MILLISECONDS) <= millis;
      return late || millis > Retry.MAX_TOLD_WAIT_MILLIS ? -1 : millis;
    }

    private synchronized void again(Status status, Metadata trailers) {
      if (cancelled) {
        listener.onClose(status, trailers);
        return;
      }
      try {
        call = channel.newCall(method, options);
        begin();
        call.request(requested);
        call.sendMessage(message);
        call.halfClose();
      } catch (RuntimeException problem) {
        // Nobody else would tell the caller, for instance that there is no token.
        failed = true;
        call.cancel("the call could not be sent again", problem);
        listener.onClose(Status.fromThrowable(problem), new Metadata());
      }
    }

    /** The call's own, on which its caller may be waiting. */
    private Executor after(long millis) {
      var executor = options.getExecutor();
      return executor == null
          ? CompletableFuture.delayedExecutor(millis, TimeUnit.MILLISECONDS)
          : CompletableFuture.delayedExecutor(millis, TimeUnit.MILLISECONDS, executor);
    }

    private final class Attempt extends Listener<P> {
      private Metadata answered;

      @Override
      public void onHeaders(Metadata headers) {
        // Told once, with the answer.
        answered = headers;
      }

      @Override
      public void onMessage(P reply) {
        tellHeaders();
        listener.onMessage(reply);
      }

      @Override
      public void onClose(Status status, Metadata trailers) {
        if (failed) {
          return;
        }
        var millis = waitBefore(status, trailers);
        if (millis < 0) {
          tellHeaders();
          listener.onClose(status, trailers);
        } else {
          after(millis).execute(() -> again(status, trailers));
        }
      }

      @Override
      public void onReady() {
        listener.onReady();
      }

      private void tellHeaders() {
        if (answered != null) {
          listener.onHeaders(answered);
          answered = null;
        }
      }
    }
  }
}
