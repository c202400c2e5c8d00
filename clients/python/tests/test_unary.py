"""Calls without a session are sent again only where the gateway says that nothing was done."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from concurrent import futures
from typing import Any

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration
from google.rpc import error_details_pb2, status_pb2

from responses_gateway import Client, aio
from responses_gateway.errors import ERROR_DOMAIN
from responses_gateway.gen import service_pb2_grpc, unary_pb2

from .fake import serving

UNAVAILABLE = grpc.StatusCode.UNAVAILABLE
#: Of the verdict and the wait in seconds; None: a connection that breaks.
Plan = list[tuple[str, float] | None]
SAFE = ("safe", 0.001)


class Service(service_pb2_grpc.ResponsesServiceServicer):
    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.calls = 0

    def CompactResponse(  # noqa: N802 - the name of the method in the API
        self, request: unary_pb2.CompactResponseRequest, context: grpc.ServicerContext
    ) -> unary_pb2.CompactResponseResponse:
        self.calls += 1
        if self.calls > len(self.plan):
            return unary_pb2.CompactResponseResponse(json=b"done")
        told = self.plan[self.calls - 1]
        if told is not None:
            status = status_pb2.Status(code=UNAVAILABLE.value[0])
            info = error_details_pb2.ErrorInfo(
                reason="UPSTREAM_OVERLOADED", domain=ERROR_DOMAIN, metadata={"replay": told[0]}
            )
            wait = Duration()
            wait.FromMilliseconds(int(told[1] * 1000))
            status.details.add().Pack(info)
            status.details.add().Pack(error_details_pb2.RetryInfo(retry_delay=wait))
            context.set_trailing_metadata((("grpc-status-details-bin", status.SerializeToString()),))
        context.abort(UNAVAILABLE, "as the test wants it")
        raise AssertionError


@pytest.fixture(params=["sync", "asyncio"])
def compact(request: pytest.FixtureRequest) -> Iterator[Any]:
    servers: list[grpc.Server] = []

    def call(plan: Plan, timeout: float = 300.0) -> tuple[bytes | grpc.StatusCode, int]:
        service = Service(plan)
        server = grpc.server(futures.ThreadPoolExecutor(max_workers=2))
        service_pb2_grpc.add_ResponsesServiceServicer_to_server(service, server)
        address = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
        server.start()
        servers.append(server)
        message = unary_pb2.CompactResponseRequest()

        async def asynchronous() -> bytes:
            async with aio.Client(address) as client:
                return (await client.stub.CompactResponse(message, timeout=timeout)).json

        try:
            if request.param == "asyncio":
                return asyncio.run(asynchronous()), service.calls
            with Client(address) as client:
                return client.stub.CompactResponse(message, timeout=timeout).json, service.calls
        except grpc.RpcError as error:
            return error.code(), service.calls  # type: ignore[attr-defined]

    yield call
    for server in servers:
        server.stop(0).wait()


def test_what_was_not_done_is_sent_again(compact: Any) -> None:
    assert compact([SAFE, SAFE]) == (b"done", 3)


def test_it_ends_after_four_attempts(compact: Any) -> None:
    assert compact([SAFE] * 5) == (UNAVAILABLE, 4)


@pytest.mark.parametrize("told", [("unknown", 0.001), None, ("safe", 3600.0)])
def test_what_may_have_been_done_or_waits_long_is_not(compact: Any, told: tuple[str, float] | None) -> None:
    assert compact([told]) == (UNAVAILABLE, 1)


def test_nor_what_would_come_after_the_callers_time(compact: Any) -> None:
    code, calls = compact([("safe", 9.0)], timeout=8.5)
    # On a very busy machine even the first call may come too late.
    assert code in (UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED) and calls <= 1


def test_a_cancelled_task_ends_the_call() -> None:
    ended = threading.Event()

    class Slow(service_pb2_grpc.ResponsesServiceServicer):
        def CompactResponse(self, _: Any, context: grpc.ServicerContext) -> Any:  # noqa: N802
            context.add_callback(ended.set)
            started.set()
            ended.wait(60)
            return unary_pb2.CompactResponseResponse()

    started = threading.Event()

    async def run(address: str) -> None:
        async with aio.Client(address) as client:
            task = asyncio.ensure_future(_await(client.stub.CompactResponse(unary_pb2.CompactResponseRequest())))
            assert await asyncio.to_thread(started.wait, 60)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            # Before the channel is closed, which would end it as well.
            assert await asyncio.to_thread(ended.wait, 20)

    with serving(Slow()) as address:
        asyncio.run(run(address))


async def _await(call: Any) -> Any:
    return await call
