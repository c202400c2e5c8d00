package dev.responsesgateway.client;

import dev.responsesgateway.v1.TraceContext;
import io.grpc.CallOptions;
import io.grpc.Channel;
import io.grpc.ClientCall;
import io.grpc.ClientInterceptor;
import io.grpc.ForwardingClientCall.SimpleForwardingClientCall;
import io.grpc.Metadata;
import io.grpc.MethodDescriptor;
import java.util.Map;
import java.util.Optional;
import java.util.function.Supplier;

/** Token, metadata and the caller's trace context of each call. */
record Headers(Supplier<String> token, Map<String, String> metadata) implements ClientInterceptor {
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
        headers.merge(get(Trace.current()));
        super.start(listener, headers);
      }
    };
  }

  private static Metadata.Key<String> key(String name) {
    return Metadata.Key.of(name, Metadata.ASCII_STRING_MARSHALLER);
  }
}
