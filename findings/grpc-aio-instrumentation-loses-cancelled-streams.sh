#!/bin/sh
# OpenTelemetry's instrumentation of Python's grpc.aio (opentelemetry-instrumentation-grpc 0.66b2, grpcio 1.85.3) and
# streams that their caller cancels. The same stream that the instrumentation of grpc (without aio) reports as an error
# with status 1 (CANCELLED)
#   - has no span at all when it is written and read with write() and read();
#   - has a span of a good call, status 0, when its responses are iterated.
# Streams that end by themselves have one span each, in every way. For long sessions, which end by a cancel when their
# program does, a trace of the client then has a hole, or says that all was well.
set -eu
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check grpcio==1.85.3 opentelemetry-sdk==1.45.2 \
  opentelemetry-instrumentation-grpc==0.66b2
cat >"$work/probe.py" <<'PYTHON'
import asyncio

import grpc
from opentelemetry import trace
from opentelemetry.instrumentation.grpc import GrpcAioInstrumentorClient
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

exporter = InMemorySpanExporter()
provider = TracerProvider()
provider.add_span_processor(SimpleSpanProcessor(exporter))
trace.set_tracer_provider(provider)
GrpcAioInstrumentorClient().instrument()


async def echo(requests, _context):
    async for request in requests:
        yield request


async def written(method, cancels):
    call = method()
    await call.write(b"x")
    await call.read()
    if cancels:
        call.cancel()
    else:
        await call.done_writing()
        await call.read()


async def iterated(method, cancels):
    async def requests():
        yield b"x"
        if cancels:
            await asyncio.Event().wait()

    call = method(requests())
    async for _ in call:
        if cancels:
            call.cancel()


async def main():
    server = grpc.aio.server()
    handler = grpc.stream_stream_rpc_method_handler(echo)
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("example.Echo", {"Talk": handler}),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    for way in (written, iterated):
        for cancels in (False, True):
            exporter.clear()
            async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
                try:
                    await way(channel.stream_stream("/example.Echo/Talk"), cancels)
                except asyncio.CancelledError:
                    pass
                await asyncio.sleep(0.5)
            statuses = [span.attributes.get("rpc.grpc.status_code") for span in exporter.get_finished_spans()]
            print(way.__name__, "cancelled" if cancels else "finished", statuses)
    await server.stop(None)


asyncio.run(main())
PYTHON
found=$("$work/venv/bin/python" "$work/probe.py" 2>/dev/null)
expected='written finished [0]
written cancelled []
iterated finished [0]
iterated cancelled [0]'
echo "$found"
[ "$found" = "$expected" ] || { echo "this has changed; expected:"; echo "$expected"; exit 1; }
