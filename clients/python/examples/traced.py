"""Lets the model call a function within a span: python examples/traced.py

The span is the parent of what the gateway does for each turn and of the function's call; all of it goes to a collector:
OTEL_EXPORTER_OTLP_ENDPOINT, http://localhost:4317 by default. Needs opentelemetry-sdk and
opentelemetry-exporter-otlp-proto-grpc.
"""

from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor

from responses_gateway import Client


def weather(city: str) -> str:
    """Weather of a city, now."""
    return "sunny"


def main() -> None:
    provider = TracerProvider()
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    trace.set_tracer_provider(provider)
    tracer = trace.get_tracer("traced-example")
    # A client's span: service graphs draw an edge from it to the gateway's spans below it.
    with tracer.start_as_current_span("question", kind=trace.SpanKind.CLIENT) as span:
        with Client() as client, client.connect(model="gpt-5.5") as session:
            result = session.lane().run_tools("What is the weather in Oslo?", [weather])
            print(result.text)
        print("trace", format(span.get_span_context().trace_id, "032x"))
    provider.shutdown()


if __name__ == "__main__":
    main()
