#!/usr/bin/env bash
# grpcio 1.85.1, asyncio: a write that fails puts INTERNAL in the place of the server's status.
#
# A server may refuse a stream while its client still writes, for example with UNAUTHENTICATED. The write fails then,
# as it should, and raises an AioRpcError. Its code is INTERNAL "Internal error from Core", and from then on the call
# itself says the same for ever: the server's status, details and trailing metadata had arrived, and are replaced.
# So a caller tries again what must not be tried again, and never learns why. It takes a loop that was busy for a
# moment, no more. The synchronous API tells the server's status on the same wire.
#
# What helps: read the status in a done callback. It runs before the failed write replaces it.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check grpcio==1.85.1

cat >check.py <<'PY'
import asyncio
import time
from concurrent import futures

import grpc
import grpc.aio


def refuse(requests, context):
    context.set_trailing_metadata((("why", "no-key"),))
    context.abort(grpc.StatusCode.UNAUTHENTICATED, "who are you?")


def serve():
    server = grpc.server(futures.ThreadPoolExecutor(4))
    handler = grpc.stream_stream_rpc_method_handler(refuse)
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("t.T", {"Talk": handler}),))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    return server, f"127.0.0.1:{port}"


def say(label, code, details, trailers):
    why = dict(trailers or ()).get("why", "-")
    line = f"{label}: {code.name} {details!r} why={why}"
    print(line)
    return line


async def asynchronous(address):
    lines, seen = [], []
    async with grpc.aio.insecure_channel(address) as channel:
        call = channel.stream_stream("/t.T/Talk")()

        def note(done):
            # The status is there already: the coroutine ends without waiting.
            try:
                done.code().send(None)
            except StopIteration as ended:
                seen.append(ended.value.name)

        call.add_done_callback(note)
        await call.wait_for_connection()
        time.sleep(0.5)  # The loop is busy elsewhere; meanwhile the server refuses.
        try:
            await call.write(b"hello")
        except grpc.aio.AioRpcError as error:
            lines.append(say("write raises", error.code(), error.details(), error.trailing_metadata()))
        await asyncio.sleep(0.5)
        lines.append(f"done callback: {seen[0]}")
        print(lines[-1])
        lines.append(say("later", await call.code(), await call.details(), await call.trailing_metadata()))
    return lines


def synchronous(address):
    def late():
        time.sleep(0.5)
        yield b"hello"

    with grpc.insecure_channel(address) as channel:
        try:
            for _ in channel.stream_stream("/t.T/Talk")(late()):
                pass
        except grpc.RpcError as error:
            return [say("synchronous", error.code(), error.details(), error.trailing_metadata())]
    return []


server, address = serve()
lines = asyncio.run(asyncio.wait_for(asynchronous(address), 30)) + synchronous(address)
server.stop(None)
assert lines == [
    "write raises: INTERNAL 'Internal error from Core' why=-",
    "done callback: UNAUTHENTICATED",
    "later: INTERNAL 'Internal error from Core' why=-",
    "synchronous: UNAUTHENTICATED 'who are you?' why=no-key",
], lines
print("as described")
PY
venv/bin/python -c 'import grpc; print("grpcio", grpc.__version__)'
venv/bin/python check.py
