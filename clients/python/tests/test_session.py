"""Both twins against a fake gateway: the asyncio one through the conformance runner's bridge."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterator
from typing import Any

import grpc
import pytest
from opentelemetry import trace
from opentelemetry.trace import NonRecordingSpan, SpanContext, TraceFlags

import responses_gateway as gateway
from conformance.bridge import AsyncBridge
from responses_gateway.gen import event_pb2, session_pb2
from responses_gateway.options import parse_address

from .fake import (
    FakeGateway,
    FakeStream,
    answer,
    completed,
    created,
    delta,
    failed,
    function_call,
)

UNAVAILABLE = grpc.StatusCode.UNAVAILABLE


@pytest.fixture(params=["sync", "asyncio"])
def make_client(request: pytest.FixtureRequest) -> Iterator[Any]:
    bridge = AsyncBridge() if request.param == "asyncio" else None
    clients: list[Any] = []

    def make(served: FakeGateway, **options: Any) -> Any:
        client = (gateway.Client if bridge is None else bridge.client)(served.address, **options)
        clients.append(client)
        return client

    yield make
    for client in clients:
        client.close()
    if bridge is not None:
        bridge.close()


def test_a_turn_streams_and_accumulates(make_client: Any) -> None:
    def serve(stream: FakeStream) -> Iterator[session_pb2.ConnectResponse]:
        assert stream.open.model == "m"
        yield stream.opened()
        turn = stream.start_turn()
        yield stream.events(created(turn), delta(turn, "Hel"))
        yield stream.events(delta(turn, "lo"), completed(turn, answer("Hello")))
        stream.drain()

    with FakeGateway(serve) as served:
        session = make_client(served).connect(model="m")
        turn = session.start("hi")
        assert "".join(event.text_delta for event in turn.events(timeout=10)) == "Hello"
        result = turn.final(timeout=10)
        assert (result.text, result.response_id, result.outcome) == ("Hello", "resp_1", "completed")
        assert result.usage.total_tokens == 7
        assert session.stats.buffered_bytes == 0 and session.stats.last_seq == 4
        assert session.lane().last_response_id == "resp_1"
        session.close()


def test_a_lost_stream_is_resumed_without_sending_the_turn_again(make_client: Any) -> None:
    after: list[session_pb2.ConnectRequest] = []

    def first(stream: FakeStream) -> Iterator[session_pb2.ConnectResponse]:
        yield stream.opened()
        turn = stream.start_turn()
        yield stream.events(created(turn), delta(turn, "one "))
        stream.fail(UNAVAILABLE)

    def second(stream: FakeStream) -> Iterator[session_pb2.ConnectResponse]:
        assert stream.open.resume.token == "token-1" and stream.open.resume.last_seq == 2
        turn = session_pb2.StartTurn(turn_id="turn-1")
        yield stream.opened(active_turns=[session_pb2.ActiveTurn(turn_id="turn-1", phase=event_pb2.TURN_PHASE_CREATED)])
        yield stream.events(delta(turn, "two"), completed(turn))
        after.extend(stream.drain())

    with FakeGateway(first, second) as served:
        session = make_client(served).connect()
        assert session.start("hi").final(timeout=10).text == "one two"
        assert session.stats.resumes == 1
        session.close()
    assert after == []


def test_a_start_that_the_gateway_never_saw_is_sent_again_under_its_id(make_client: Any) -> None:
    def first(stream: FakeStream) -> Iterator[session_pb2.ConnectResponse]:
        yield stream.opened()
        stream.start_turn()
        stream.fail(UNAVAILABLE)

    def second(stream: FakeStream) -> Iterator[session_pb2.ConnectResponse]:
        yield stream.opened()
        turn = stream.start_turn()
        assert turn.turn_id == "mine"
        yield stream.events(completed(turn, answer("yes")))
        stream.drain()

    with FakeGateway(first, second) as served:
        session = make_client(served).connect()
        assert session.start(gateway.Request(input="hi", turn_id="mine")).final(timeout=10).text == "yes"
        session.close()


def test_a_session_that_is_gone_fails_its_turns_with_their_verdicts(make_client: Any) -> None:
    def first(stream: FakeStream) -> Iterator[session_pb2.ConnectResponse]:
        yield stream.opened()
        begun = stream.start_turn()
        stream.start_turn()
        yield stream.events(created(begun))
        stream.fail(UNAVAILABLE)

    def second(stream: FakeStream) -> Iterator[session_pb2.ConnectResponse]:
        yield stream.opened(resume_outcome=session_pb2.RESUME_OUTCOME_GONE)
        stream.drain()

    with FakeGateway(first, second) as served:
        session = make_client(served).connect()
        begun, sent = session.lane("a").start("hi"), session.lane("b").start("hi")
        for turn, replay in ((begun, "unsafe"), (sent, "unknown")):
            with pytest.raises(gateway.TurnError) as failure:
                turn.final(timeout=10)
            assert (failure.value.reason, failure.value.replay) == ("SESSION_EXPIRED", replay)
        session.wait(timeout=10)
        assert session.error is not None and session.error.reason == "SESSION_EXPIRED"
        session.close()


def test_events_that_are_gone_fail_the_turn(make_client: Any) -> None:
    def first(stream: FakeStream) -> Iterator[session_pb2.ConnectResponse]:
        yield stream.opened()
        yield stream.events(created(stream.start_turn()))
        stream.fail(UNAVAILABLE)

    def second(stream: FakeStream) -> Iterator[session_pb2.ConnectResponse]:
        yield stream.opened(resume_outcome=session_pb2.RESUME_OUTCOME_PARTIAL, oldest_seq=9)
        stream.seq = 8
        yield stream.events(completed(stream.start_turn(), answer("fine")))
        stream.drain()

    with FakeGateway(first, second) as served:
        session = make_client(served).connect()
        with pytest.raises(gateway.TurnError, match="EVENTS_LOST"):
            session.start("hi").final(timeout=10)
        assert session.start("again").final(timeout=10).text == "fine"
        session.close()


def test_errors_of_the_gateway_are_typed(make_client: Any) -> None:
    def serve(stream: FakeStream) -> Iterator[session_pb2.ConnectResponse]:
        yield stream.opened()
        turn = stream.start_turn()
        facts = {
            "code": 8,
            "reason": "UPSTREAM_RATE_LIMITED",
            "replay": event_pb2.REPLAY_VERDICT_SAFE,
            "phase": event_pb2.TURN_PHASE_SENT,
            "retry_after": {"seconds": 2},
            "metadata": {"k": "v"},
        }
        yield stream.events(delta(turn, "par"), failed(turn, **facts))
        stream.fail(grpc.StatusCode.PERMISSION_DENIED, "PERMISSION_DENIED", retry_after=1)

    with FakeGateway(serve) as served:
        session = make_client(served).connect()
        turn = session.lane("x").start("hi")
        with pytest.raises(gateway.TurnError) as failure:
            turn.final(timeout=10)
        error = failure.value
        assert (error.code, error.reason, error.replay, error.phase) == (
            "RESOURCE_EXHAUSTED",
            "UPSTREAM_RATE_LIMITED",
            "safe",
            "sent",
        )
        assert (error.retry_after, error.metadata, error.lane_id, error.inferred) == (2.0, {"k": "v"}, "x", False)
        assert (turn.result.text, turn.result.outcome) == ("par", "failed")
        session.wait(timeout=10)
        assert session.error.reason == "PERMISSION_DENIED" and session.error.retry_after == 1.0
        assert session.error.metadata == {"a": "b"} and not session.error.inferred
        session.close()


def test_a_write_that_fails_does_not_hide_why_the_stream_was_refused(
    make_client: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(stream: FakeStream) -> Iterator[session_pb2.ConnectResponse]:
        stream.fail(grpc.StatusCode.UNAUTHENTICATED, "UNAUTHENTICATED")
        yield stream.opened()

    serialize = grpc._common.serialize

    def late(message: Any, *rest: Any) -> Any:
        # Whatever runs the call is busy elsewhere until the refusal has arrived.
        time.sleep(0.3)
        return serialize(message, *rest)

    monkeypatch.setattr(grpc._common, "serialize", late)
    with FakeGateway(refuse, read_open=False) as served:
        with pytest.raises(gateway.SessionError) as refused:
            make_client(served).connect()
    assert (refused.value.code, refused.value.reason) == ("UNAUTHENTICATED", "UNAUTHENTICATED")


def test_unread_events_hold_up_the_gateway_and_nothing_is_lost(make_client: Any) -> None:
    events, size = 400, 16 << 10

    def serve(stream: FakeStream) -> Iterator[session_pb2.ConnectResponse]:
        yield stream.opened()
        turn = stream.start_turn()
        for _ in range(events):
            yield stream.events(delta(turn, "x" * size))
        yield stream.events(completed(turn))
        stream.drain()

    with FakeGateway(serve) as served:
        session = make_client(served).connect(max_buffered_bytes=64 << 10)
        turn = session.start("hi")
        give_up_at = time.monotonic() + 10
        while session.stats.buffered_bytes < 64 << 10 and time.monotonic() < give_up_at:
            time.sleep(0.001)
        assert len(turn.final(timeout=20).text) == events * size
        assert session.stats.max_buffered_bytes < (64 << 10) + 2 * size
        session.close()


def test_cancel_steer_and_fork(make_client: Any) -> None:
    def serve(stream: FakeStream) -> Iterator[session_pb2.ConnectResponse]:
        yield stream.opened()
        yield stream.events(completed(stream.start_turn()))
        fork = stream.start_turn()
        assert (fork.previous_response_id, fork.lane_id) == ("resp_1", "b")
        assert next(stream.requests).steer_turn.turn_id == fork.turn_id
        assert next(stream.requests).cancel_turn.turn_id == fork.turn_id
        yield stream.events(failed(fork, event_pb2.TURN_OUTCOME_CANCELLED, code=1, reason="TURN_CANCELLED"))
        stream.drain()

    with FakeGateway(serve) as served:
        session = make_client(served).connect()
        session.lane("a").start("hi").final(timeout=10)
        turn = session.lane("a").fork("b").start("what if")
        turn.steer("no, so")
        turn.cancel()
        turn.cancel()
        with pytest.raises(gateway.TurnError, match="TURN_CANCELLED"):
            turn.final(timeout=10)
        assert turn.result.outcome == "cancelled"
        session.close()


def test_a_wait_that_ends_loses_nothing(make_client: Any) -> None:
    release = threading.Event()

    def serve(stream: FakeStream) -> Iterator[session_pb2.ConnectResponse]:
        yield stream.opened()
        turn = stream.start_turn()
        yield stream.events(delta(turn, "a"))
        release.wait(10)
        yield stream.events(delta(turn, "b"), completed(turn))
        stream.drain()

    with FakeGateway(serve) as served:
        session = make_client(served).connect()
        turn = session.start("hi")
        with pytest.raises((TimeoutError, asyncio.TimeoutError)):
            turn.final(timeout=0.05)
        release.set()
        for _ in turn.events(timeout=10):
            break
        assert turn.final(timeout=10).text == "ab"
        session.close()


def test_streams_that_go_away(make_client: Any) -> None:
    finish = threading.Event()

    def first(stream: FakeStream) -> Iterator[session_pb2.ConnectResponse]:
        yield stream.opened()
        old = session_pb2.GoAway(reason=session_pb2.GO_AWAY_REASON_MAX_AGE, resume_token="newer")
        yield session_pb2.ConnectResponse(go_away=old)
        stream.drain()

    def second(stream: FakeStream) -> Iterator[session_pb2.ConnectResponse]:
        assert stream.open.resume.token == "newer"
        yield stream.opened()
        turn = stream.start_turn()
        draining = session_pb2.GoAway(reason=session_pb2.GO_AWAY_REASON_DRAINING)
        draining.time_left.seconds = 60
        yield session_pb2.ConnectResponse(go_away=draining)
        finish.wait(10)
        yield stream.events(completed(turn, answer("done")))

    told: list[gateway.GoAway] = []
    with FakeGateway(first, second) as served:
        session = make_client(served).connect(on_go_away=told.append)
        turn = session.start("hi")
        while not any(one.draining for one in told):
            time.sleep(0.001)
        with pytest.raises(gateway.TurnError, match="DRAINING"):
            session.start("more")
        finish.set()
        assert turn.final(timeout=10).text == "done"
        session.wait(timeout=10)
        assert session.error.reason == "DRAINING"
        session.close()


def test_close_cancels_and_leaves_no_thread(make_client: Any) -> None:
    rest: list[session_pb2.ConnectRequest] = []

    def serve(stream: FakeStream) -> Iterator[session_pb2.ConnectResponse]:
        yield stream.opened()
        yield stream.events(created(stream.start_turn()))
        rest.extend(stream.drain())

    with FakeGateway(serve) as served:
        session = make_client(served).connect()
        turn = session.start("hi")
        next(iter(turn.events(timeout=10)))
        session.close()
        with pytest.raises(gateway.TurnError, match="SESSION_CLOSED"):
            turn.final(timeout=10)
        with pytest.raises(gateway.TurnError, match="SESSION_CLOSED"):
            session.start("more")
        assert session.error is None
    assert [message.cancel_turn.turn_id for message in rest] == [turn.id]
    assert not [thread for thread in threading.enumerate() if thread.name == "responses-gateway"]


def test_notices_unknown_events_and_trace_context(make_client: Any) -> None:
    traces: list[event_pb2.TraceContext] = []

    def serve(stream: FakeStream) -> Iterator[session_pb2.ConnectResponse]:
        sent = dict(stream.context.invocation_metadata())
        assert (sent["authorization"], sent["x-team"]) == ("Bearer secret", "blue")
        yield stream.opened()
        turn = stream.start_turn()
        traces.append(turn.trace_context)
        notice = event_pb2.Event(type="gateway.notice", notice=event_pb2.Notice(kind="recovered"))
        future = event_pb2.Event(turn_id=turn.turn_id, type="response.from_the_future", json=b'{"n":1}')
        yield stream.events(notice, future, completed(turn))
        stream.drain()

    told: list[gateway.Event] = []
    span = NonRecordingSpan(SpanContext(1 << 120, 2 << 56, is_remote=False, trace_flags=TraceFlags(1)))
    with FakeGateway(serve) as served:
        client = make_client(served, token=lambda: "secret", metadata=[("x-team", "blue")])
        session = client.connect(on_event=told.append)
        with trace.use_span(span):
            turn = session.start("hi")
        unknown = [event.json for event in turn.events(timeout=10) if event.type == "response.from_the_future"]
        assert unknown == [b'{"n":1}']
        session.close()
        assert told[0].notice is not None and told[0].notice.kind == "recovered"
    assert traces[0].traceparent == "00-01000000000000000000000000000000-0200000000000000-01"


def test_what_is_too_large_is_refused_here_and_what_is_refused_at_once(make_client: Any) -> None:
    def serve(stream: FakeStream) -> Iterator[session_pb2.ConnectResponse]:
        yield stream.opened()
        stream.drain()

    def refuse(stream: FakeStream) -> Iterator[session_pb2.ConnectResponse]:
        stream.fail(grpc.StatusCode.UNAUTHENTICATED, "UNAUTHENTICATED")
        yield stream.opened()

    with FakeGateway(serve, refuse) as served:
        client = make_client(served)
        session = client.connect()
        with pytest.raises(gateway.TurnError, match="MESSAGE_TOO_LARGE") as failure:
            session.start("x" * (1 << 20))
        assert failure.value.replay == "safe" and failure.value.inferred
        with pytest.raises(gateway.SessionError, match="UNAUTHENTICATED"):
            client.connect()
        session.close()


def test_tool_loop(make_client: Any) -> None:
    seen: list[session_pb2.StartTurn] = []

    def serve(stream: FakeStream) -> Iterator[session_pb2.ConnectResponse]:
        yield stream.opened()
        seen.append(stream.start_turn())
        calls = [
            function_call("c1", "weather", '{"city":"Oslo"}'),
            function_call("c2", "weather", '{"city":"Rome"}'),
            function_call("c3", "broken", "{}"),
            function_call("c4", "missing", "{}"),
        ]
        yield stream.events(completed(seen[0], *calls))
        seen.append(stream.start_turn())
        outputs = [item.function_call_output for item in seen[1].create.input]
        text = "; ".join(f"{one.call_id}={one.output}" for one in outputs)
        yield stream.events(completed(seen[1], answer(text), id="resp_2"))
        while True:
            yield stream.events(completed(stream.start_turn(), function_call("c", "broken", "{}")))

    together = threading.Barrier(2, timeout=10)

    def weather(city: str) -> dict[str, str]:
        """Weather of a city."""
        together.wait()  # Each waits for the other: they run at the same time.
        return {"in": city}

    def broken() -> str:
        raise RuntimeError("no luck")

    with FakeGateway(serve) as served:
        session = make_client(served).connect()
        result = session.lane().run_tools(gateway.Request(input="hi", instructions="brief"), [weather, broken])
        assert result.text.split("; ") == [
            'c1={"in":"Oslo"}',
            'c2={"in":"Rome"}',
            'c3={"error":"no luck"}',
            'c4={"error":"there is no function missing"}',
        ]
        assert len(seen[1].create.tools) == 2 and seen[1].create.instructions == "brief"
        with pytest.raises(gateway.TurnLimitError):
            session.lane("b").run_tools("hi", [broken], max_turns=3)
        session.close()


def test_addresses() -> None:
    assert parse_address("127.0.0.1:50051") == ("127.0.0.1:50051", True)
    assert parse_address("localhost:1") == ("localhost:1", True)
    assert parse_address("[::1]:1") == ("[::1]:1", True)
    assert parse_address("gateway.example:443") == ("gateway.example:443", False)
    assert parse_address("http://gateway:50051") == ("gateway:50051", True)
    assert parse_address("https://127.0.0.1:1/") == ("127.0.0.1:1", False)
    assert parse_address("unix:/run/g.sock") == ("unix:/run/g.sock", True)
