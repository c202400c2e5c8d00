package dev.responsesgateway.client;

import dev.responsesgateway.v1.FunctionCall;
import dev.responsesgateway.v1.TraceContext;
import io.opentelemetry.api.GlobalOpenTelemetry;
import io.opentelemetry.api.baggage.propagation.W3CBaggagePropagator;
import io.opentelemetry.api.trace.StatusCode;
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

  /** The work with the caller's context, on whatever thread it runs. */
  static Runnable carried(Runnable work) {
    return AVAILABLE ? OpenTelemetry.carried(work) : work;
  }

  /** A span for one call of a function by a tool loop, if the program has an OpenTelemetry of its own. */
  static ToolSpan tool(FunctionCall call) {
    return AVAILABLE ? OpenTelemetry.tool(call) : ToolSpan.NONE;
  }

  /** Of one call of a function; closed when that has answered. */
  interface ToolSpan extends AutoCloseable {
    ToolSpan NONE =
        new ToolSpan() {
          @Override
          public void failed() {}

          @Override
          public void close() {}
        };

    void failed();

    @Override
    void close();
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

    static Runnable carried(Runnable work) {
      return Context.current().wrap(work);
    }

    /** By the semantic conventions for generative AI. */
    static ToolSpan tool(FunctionCall call) {
      // Asking for the global instance would set it for good.
      if (!GlobalOpenTelemetry.isSet()) {
        return ToolSpan.NONE;
      }
      var span =
          GlobalOpenTelemetry.getTracer("dev.responsesgateway.client")
              .spanBuilder("execute_tool " + call.getName())
              .setAttribute("gen_ai.operation.name", "execute_tool")
              .setAttribute("gen_ai.tool.name", call.getName())
              .setAttribute("gen_ai.tool.call.id", call.getCallId())
              .setAttribute("gen_ai.tool.type", "function")
              .startSpan();
      var scope = span.makeCurrent();
      return new ToolSpan() {
        @Override
        public void failed() {
          // Its text may hold content of the conversation.
          span.setStatus(StatusCode.ERROR, "the function failed");
          span.setAttribute("error.type", "tool_error");
        }

        @Override
        public void close() {
          scope.close();
          span.end();
        }
      };
    }

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
