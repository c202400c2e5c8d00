package dev.responsesgateway.client;

import dev.responsesgateway.v1.TraceContext;
import io.grpc.CallOptions;
import io.grpc.Channel;
import io.grpc.ClientCall;
import io.grpc.ClientInterceptor;
import io.grpc.ForwardingClientCall.SimpleForwardingClientCall;
import io.grpc.Metadata;
import io.grpc.MethodDescriptor;
import io.grpc.Status;
import java.util.Map;
import java.util.Optional;
import java.util.concurrent.CancellationException;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.CompletionException;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.TimeoutException;
import java.util.function.Supplier;

/**
 * Token, metadata and the caller's trace context of each call.
 *
 * @param closing completes when the client is closed
 */
record Headers(Supplier<String> token, Map<String, String> metadata, CompletableFuture<Void> closing)
    implements ClientInterceptor {
  /** Asks the program for the token; what that throws is thrown. */
  Metadata get(Optional<TraceContext> trace) {
    var headers = new Metadata();
    metadata.forEach((key, value) -> headers.put(key(key), value));
    trace.ifPresent(
        context -> {
          headers.put(key("traceparent"), context.getTraceparent());
          if (!context.getTracestate().isEmpty()) {
            headers.put(key("tracestate"), context.getTracestate());
          }
        });
    var bearer = token.get();
    if (!bearer.isEmpty()) {
      if (!bearer.chars().allMatch(each -> each >= ' ' && each <= '~')) {
        throw new IllegalArgumentException("the token has characters that a header cannot carry");
      }
      headers.put(key("authorization"), "Bearer " + bearer);
    }
    return headers;
  }

  @Override
  public <Q, P> ClientCall<Q, P> interceptCall(MethodDescriptor<Q, P> method, CallOptions options, Channel next) {
    return new SimpleForwardingClientCall<>(next.newCall(method, options)) {
      @Override
      public void start(Listener<P> listener, Metadata headers) {
        headers.merge(inTime(Trace.current()));
        super.start(listener, headers);
      }
    };
  }

  /** The same, for a thread that waits no longer than opening a session takes. */
  private Metadata inTime(Optional<TraceContext> trace) {
    var asked = CompletableFuture.supplyAsync(() -> get(trace), Callbacks.THREADS);
    try {
      CompletableFuture.anyOf(asked, closing)
          .get(SessionOptions.DEFAULT_CONNECT_TIMEOUT.toMillis(), TimeUnit.MILLISECONDS);
      if (!asked.isDone()) {
        throw Client.clientClosed();
      }
      return asked.join();
    } catch (TimeoutException late) {
      throw failed("the token source did not answer in time", late);
    } catch (ExecutionException | CompletionException problem) {
      throw failed("no token: " + problem.getCause(), problem.getCause());
    } catch (InterruptedException interrupt) {
      Thread.currentThread().interrupt();
      throw new CancellationException("interrupted while waiting for the token");
    }
  }

  private static StreamException failed(String why, Throwable cause) {
    return StreamException.inferred(Status.Code.UNAUTHENTICATED, Reasons.TOKEN_SOURCE_FAILED, why, cause);
  }

  private static Metadata.Key<String> key(String name) {
    return Metadata.Key.of(name, Metadata.ASCII_STRING_MARSHALLER);
  }
}
