"""The public fake, and what users see of the client through it."""

from __future__ import annotations

import asyncio
import copy
import gc
import importlib
import json
import pickle
import pkgutil
import runpy
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pydantic
import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

import responses_gateway as gateway
from responses_gateway import Client, Reason, Session, aio, gen
from responses_gateway.testing import FakeGateway

EXAMPLES = Path(__file__).parent.parent / "examples"


@pytest.fixture
def fake() -> Iterator[FakeGateway]:
    with FakeGateway() as served:
        yield served


@pytest.fixture
def session(fake: FakeGateway) -> Iterator[Session]:
    with Client(fake.address) as client, client.connect(model="m") as opened:
        yield opened


def weather(city: str) -> dict[str, object]:
    """Weather of a city."""
    return {"city": city, "celsius": 21}


def test_a_tool_loop(fake: FakeGateway, session: Session) -> None:
    fake.call("weather", {"city": "Oslo"}, ("weather", {"city": "Rome"}))
    fake.answer("21 ", "degrees")
    calls: list[gateway.ToolCall] = []
    result = session.lane("a").run_tools("Weather?", [weather], on_call=calls.append)
    assert (result.text, result.usage.total_tokens) == ("21 degrees", 30)
    assert [item.function_call_output.output for item in fake.turns[1].input] == [
        '{"city":"Oslo","celsius":21}',
        '{"city":"Rome","celsius":21}',
    ]
    assert [call.name for call in calls] == ["weather", "weather"] and all(call.error is None for call in calls)


def test_a_cut_stream_is_resumed(fake: FakeGateway, session: Session) -> None:
    fake.hang("one ")
    turn = session.start("hi")
    next(iter(turn.events(timeout=10)))
    fake.cut()
    fake.answer("two")
    assert session.lane("b").start("hi").final(timeout=10).text == "two"
    turn.cancel()
    with pytest.raises(gateway.TurnError) as failure:
        turn.final(timeout=10)
    assert failure.value.reason == Reason.TURN_CANCELLED
    assert failure.value.result is not None and failure.value.result.text == "one "
    assert session.stats.resumes == 1


def test_errors_survive_pickle_copy_and_json(fake: FakeGateway, session: Session) -> None:
    fake.fail("UPSTREAM_OVERLOADED", after="half", retry_after=1.5)
    with pytest.raises(gateway.TurnError) as failure:
        session.start("hi").final(timeout=10)
    error = failure.value
    for other in (pickle.loads(pickle.dumps(error)), copy.copy(error), copy.deepcopy(error)):
        assert type(other) is gateway.TurnError and str(other) == str(error)
        assert (other.reason, other.replay, other.retry_after) == ("UPSTREAM_OVERLOADED", "safe", 1.5)
        assert other.result.text == "half"
    assert json.loads(json.dumps(error.to_dict()))["reason"] == "UPSTREAM_OVERLOADED"
    assert error.status_code.name == "UNAVAILABLE"
    busy, late = gateway.TurnBusyError(), gateway.WaitTimeoutError("late")
    assert isinstance(busy, RuntimeError) and isinstance(late, TimeoutError)
    assert pickle.loads(pickle.dumps(late)).reason == Reason.WAIT_TIMEOUT


def test_a_lane_stands_where_it_stood_after_a_turn_that_failed(fake: FakeGateway, session: Session) -> None:
    session.lane("a").start("one").final(timeout=10)
    branch = session.lane("a").fork("b")
    fake.fail("UPSTREAM_OVERLOADED")
    with pytest.raises(gateway.TurnError):
        branch.start("two").final(timeout=10)
    branch.start("two again").final(timeout=10)
    assert [turn.start.previous_response_id for turn in fake.turns] == ["", "resp_1", "resp_1"]


def test_lanes_that_nobody_uses_are_forgotten(fake: FakeGateway, session: Session) -> None:
    for number in range(1000):
        session.lane(f"named-{number}")
    assert len(session._core._live_lanes) < 10 and len(session._core.lanes) == 0


def test_tools_have_the_callers_trace_and_a_span_of_their_own(fake: FakeGateway, session: Session) -> None:
    exporter, provider = InMemorySpanExporter(), TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    trace.set_tracer_provider(provider)
    seen: list[int] = []

    def look() -> str:
        seen.append(trace.get_current_span().get_span_context().trace_id)
        return "seen"

    fake.call("look", {})
    with provider.get_tracer("test").start_as_current_span("caller") as caller:
        session.lane("t").run_tools("go", [look])
    assert seen == [caller.get_span_context().trace_id]
    span = next(span for span in exporter.get_finished_spans() if span.name == "execute_tool look")
    assert span.parent is not None and span.parent.span_id == caller.get_span_context().span_id
    assert span.attributes is not None and span.attributes["gen_ai.tool.name"] == "look"


@dataclass
class Place:
    city: str
    days: list[int]


class Trip(pydantic.BaseModel):
    places: list[str]
    note: str | None = None


def test_structured_answers(fake: FakeGateway, session: Session) -> None:
    fake.answer('{"city":"Oslo","days":[1,2]}')
    assert session.lane("p").parse("Where?", Place).parsed == Place("Oslo", [1, 2])
    fake.answer('{"places":["Oslo"],"note":null}')
    answer = session.lane("p").parse("Where?", Trip)
    assert answer.parsed == Trip(places=["Oslo"])
    schema = json.loads(fake.turns[1].start.create.text.format.json_schema.schema)
    assert schema["required"] == ["places", "note"] and schema["additionalProperties"] is False
    fake.refuse("no")
    refused = session.lane("p").parse("Where?", Place)
    assert (refused.parsed, refused.refusal, refused.result.response_id) == (None, "no", "resp_3")


def test_dicts_instead_of_generated_messages(fake: FakeGateway, session: Session) -> None:
    request = gateway.Request(
        input=[{"role": "user", "content": "hi"}],
        tools=[{"type": "web_search"}],
        tool_choice={"type": "web_search"},
        extra={"new_option": 1},
        effort="low",
    )
    session.start(request).final(timeout=10)
    create = fake.turns[0].start.create
    assert json.loads(create.input[0].json) == {"role": "user", "content": "hi"}
    assert json.loads(create.tools[0].json) == {"type": "web_search"} and create.reasoning.effort == "low"
    assert json.loads(create.extra_json) == {"new_option": 1}


def test_one_client_in_two_event_loops(fake: FakeGateway) -> None:
    client = aio.Client(fake.address)

    async def ask() -> str:
        async with client.connect() as session:
            return (await (await session.start("hi")).final()).text

    assert [asyncio.run(ask()), asyncio.run(ask())] == ["ok", "ok"]


@pytest.mark.parametrize("name", ["chat", "agent", "lanes", "traced"])
def test_examples(name: str, fake: FakeGateway, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    lines = iter(["Hello"])

    def typed(_: str) -> str:
        for line in lines:
            return line
        raise EOFError

    monkeypatch.setenv("RESPONSES_GATEWAY_ADDR", fake.address)
    monkeypatch.setattr("builtins.input", typed)
    if name == "agent":
        fake.call("weather", {"city": "Oslo"}, ("clock", {"city": "Oslo"}))
        fake.answer("It is warm.")
    runpy.run_path(str(EXAMPLES / f"{name}.py"), run_name="__main__")
    assert ("It is warm." if name == "agent" else "ok") in capsys.readouterr().out


class Passing(grpc.aio.StreamStreamClientInterceptor):
    async def intercept_stream_stream(self, continuation: Any, details: Any, requests: Any) -> Any:
        return await continuation(details, requests)


def test_interceptors_leave_nothing_to_complain_of(fake: FakeGateway, caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        async with aio.Client(fake.address, interceptors=[Passing()]) as client:
            for _ in range(3):
                fake.refuse_open(Reason.UNAUTHENTICATED, grpc.StatusCode.UNAUTHENTICATED)
                with pytest.raises(gateway.SessionError) as refused:
                    await client.connect()
                assert refused.value.reason == Reason.UNAUTHENTICATED
                del refused
                gc.collect()
            async with client.connect() as session:
                assert (await session.lane().run("hi")).text == "ok"
                fake.cut()
                assert (await session.lane().run("hi")).text == "ok" and session.stats.resumes == 1
        left = asyncio.all_tasks() - {asyncio.current_task()}
        if left:
            await asyncio.wait(left, timeout=20)
        gc.collect()
        await asyncio.sleep(0)

    asyncio.run(main())
    gc.collect()
    assert [record.getMessage() for record in caplog.records if record.name == "asyncio"] == []


def test_every_message_survives_pickle_and_copy() -> None:
    for found in pkgutil.iter_modules(gen.__path__):
        if not found.name.endswith("_pb2"):
            continue
        module = importlib.import_module(f"{gen.__name__}.{found.name}")
        for name in module.DESCRIPTOR.message_types_by_name:
            message = getattr(module, name)()
            assert pickle.loads(pickle.dumps(message)) == message, name
            assert copy.deepcopy([message]) == [message], name
