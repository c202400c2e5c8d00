"""The events of one response without a session."""

from __future__ import annotations

import asyncio
import sys
import threading
from collections.abc import Iterator
from typing import Any

import grpc
import pytest

from responses_gateway import Client, SessionError, TurnError, aio
from responses_gateway.gen import event_pb2, service_pb2_grpc, unary_pb2

from .fake import serving

DELTA = event_pb2.Event(type="response.output_text.delta", output_text_delta={"delta": "half of it", "sequence_number": 7})
#: Of no response, and so without a number.
REFUSED = event_pb2.Event(type="error", error={"code": "server_error", "message": "broken"})
FAILED = event_pb2.Event(
    type="gateway.turn.failed", outcome=event_pb2.TURN_OUTCOME_FAILED, turn_failed={"reason": "UPSTREAM_ERROR"}
)


class Service(service_pb2_grpc.ResponsesServiceServicer):
    def __init__(self, *events: event_pb2.Event, stays: bool = False) -> None:
        self.events = events
        self.stays = stays

    def CreateResponse(  # noqa: N802 - the name of the method in the API
        self, request: unary_pb2.CreateResponseRequest, context: grpc.ServicerContext
    ) -> Iterator[unary_pb2.CreateResponseResponse]:
        over = threading.Event()
        context.add_callback(over.set)
        yield unary_pb2.CreateResponseResponse(events=self.events)
        if self.stays:
            over.wait(60)


@pytest.fixture(params=["sync", "asyncio"])
def read(request: pytest.FixtureRequest) -> Any:
    """Reads a response twice, and says what came and how it ended."""

    def blocking(address: str) -> tuple[list[str], list[Exception], int | None]:
        seen: list[str] = []
        errors: list[Exception] = []
        with Client(address) as client:
            stream = client.responses.create("go")
            for _ in range(2):
                try:
                    for event in stream:
                        seen.append(event.type)
                    stream.final()
                except (SessionError, TurnError) as error:
                    errors.append(error)
            return seen, errors, stream.last_sequence_number

    async def asynchronous(address: str) -> tuple[list[str], list[Exception], int | None]:
        seen: list[str] = []
        errors: list[Exception] = []
        async with aio.Client(address) as client:
            stream = client.responses.create("go")
            for _ in range(2):
                try:
                    async for event in stream:
                        seen.append(event.type)
                    await stream.final()
                except (SessionError, TurnError) as error:
                    errors.append(error)
            return seen, errors, stream.last_sequence_number

    def run(*events: event_pb2.Event) -> Any:
        with serving(Service(*events)) as address:
            return blocking(address) if request.param == "sync" else asyncio.run(asynchronous(address))

    return run


def test_a_failure_follows_its_event_and_stays(read: Any) -> None:
    seen, errors, last = read(DELTA, REFUSED, FAILED)
    assert seen == ["response.output_text.delta", "error", "gateway.turn.failed"]
    assert [type(error) for error in errors] == [TurnError, TurnError]
    assert errors[0].result.text == "half of it"
    # An error without a number does not begin anew.
    assert last == 7


def test_a_lost_response_stays_lost(read: Any) -> None:
    seen, errors, _ = read(DELTA)
    assert seen == ["response.output_text.delta"]
    assert [error.reason for error in errors] == ["PROTOCOL", "PROTOCOL"]


@pytest.mark.skipif(sys.version_info < (3, 11), reason="who was cancelled, call or task, is not known")
def test_a_reader_hears_that_another_task_closed_the_stream() -> None:
    async def run(address: str) -> None:
        async with aio.Client(address) as client:
            stream = client.responses.create("go")
            await stream.__anext__()
            reader = asyncio.ensure_future(stream.final())
            await asyncio.sleep(0.2)
            stream.close()
            with pytest.raises(SessionError, match="the call was cancelled"):
                await reader

    with serving(Service(DELTA, stays=True)) as address:
        asyncio.run(run(address))
