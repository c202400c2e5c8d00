package dev.responsesgateway.client;

import dev.responsesgateway.v1.TraceContext;
import io.opentelemetry.api.baggage.propagation.W3CBaggagePropagator;
import io.opentelemetry.api.trace.propagation.W3CTraceContextPropagator;
import io.opentelemetry.context.Context;
import java.util.HashMap;
import java.util.Optional;

/** The caller's span, if OpenTelemetry is there: its API is an optional dependency. */
final class Trace {
  private static final boolean AVAILABLE = available();

  private Trace() {}

  /** The current span and baggage as W3C trace context, which the gateway takes whatever the program's propagator. */
  static Optional<TraceContext> current() {
    return AVAILABLE ? OpenTelemetry.current() : Optional.empty();
  }

  private static boolean available() {
    try {
      Class.forName("io.opentelemetry.api.trace.Span", false, Trace.class.getClassLoader());
      return true;
    } catch (ClassNotFoundException absent) {
      return false;
    }
  }

  /** Loaded only if the API is there. */
  private static final class OpenTelemetry {
    private OpenTelemetry() {}

    static Optional<TraceContext> current() {
      var headers = new HashMap<String, String>();
      W3CTraceContextPropagator.getInstance().inject(Context.current(), headers, HashMap::put);
      W3CBaggagePropagator.getInstance().inject(Context.current(), headers, HashMap::put);
      if (headers.isEmpty()) {
        return Optional.empty();
      }
      return Optional.of(
          TraceContext.newBuilder()
              .setTraceparent(headers.getOrDefault("traceparent", ""))
              .setTracestate(headers.getOrDefault("tracestate", ""))
              .setBaggage(headers.getOrDefault("baggage", ""))
              .build());
    }
  }
}
