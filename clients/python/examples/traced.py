"""Makes one call within a span, which becomes the parent of the gateway's: python examples/traced.py

Needs opentelemetry-sdk.
"""

from opentelemetry.sdk.trace import TracerProvider

from responses_gateway import Client


def main() -> None:
    provider = TracerProvider()  # Give it your exporter: provider.add_span_processor(…).
    tracer = provider.get_tracer("example")
    with Client() as client, client.connect(model="gpt-5.5") as session:
        with tracer.start_as_current_span("ask") as span:
            turn = session.start("Hello")
        print(turn.final().text)
        print("trace", format(span.get_span_context().trace_id, "032x"))
    provider.shutdown()


if __name__ == "__main__":
    main()
