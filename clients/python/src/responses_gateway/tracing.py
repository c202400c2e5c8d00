"""The caller's trace context, if OpenTelemetry is installed."""

from __future__ import annotations

from .gen import event_pb2

try:
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
