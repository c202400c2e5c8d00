"""The caller's trace context, if OpenTelemetry is installed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from .gen import event_pb2

try:
    from opentelemetry import trace
    from opentelemetry.baggage.propagation import W3CBaggagePropagator
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
except ImportError:  # pragma: no cover - the extra is not installed
    _propagators = None
else:
    # The API takes W3C trace context, whatever propagator the program has set.
    _propagators = (TraceContextTextMapPropagator(), W3CBaggagePropagator())


def current_trace() -> event_pb2.TraceContext | None:
    if _propagators is None:
        return None
    carrier: dict[str, str] = {}
    for propagator in _propagators:
        propagator.inject(carrier)
    if not carrier:
        return None
    return event_pb2.TraceContext(
        traceparent=carrier.get("traceparent", ""),
        tracestate=carrier.get("tracestate", ""),
        baggage=carrier.get("baggage", ""),
    )


@contextmanager
def tool_span(name: str, call_id: str) -> Iterator[None]:
    """A span around the call of a function, by the conventions of GenAI."""
    if _propagators is None:
        yield
        return
    attributes = {
        "gen_ai.operation.name": "execute_tool",
        "gen_ai.tool.name": name,
        "gen_ai.tool.call.id": call_id,
        "gen_ai.tool.type": "function",
    }
    with trace.get_tracer("responses_gateway").start_as_current_span(f"execute_tool {name}", attributes=attributes):
        yield
