"""One case being run."""

from __future__ import annotations

import re
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

import responses_gateway as gateway
from responses_gateway.gen import create_pb2, tools_pb2

from .bridge import AsyncBridge

STEP_SECONDS = 30.0
_NO_RESULT = gateway.Result(lane_id="", turn_id="", outcome="", responses=(), items=())


class Played:
    """A turn with what was read of it."""

    def __init__(self, turn: Any) -> None:
        self.turn = turn
        self.types: Counter[str] = Counter()
        self.json: dict[str, str] = {}
        self.result = _NO_RESULT


class Run:
    def __init__(self, address: str, control: Callable[[Any], Any], bridge: AsyncBridge | None) -> None:
        self._address = address
        self._control = control
        self._bridge = bridge
        self._client: Any = None
        self._session: Any = None
        self._turns: dict[str, Played] = {}
        self._seen: list[gateway.Event] = []
        self._go_aways: list[gateway.GoAway] = []

    def close(self) -> None:
        for one in (self._session, self._client):
            if one is not None:
                one.close()

    def step(self, kind: str, fields: Any) -> None:
        if kind == "control":
            self._control(fields)
            return
        if self._session is None and kind != "connect":
            self._connect({"model": "gpt-5.5"})
        getattr(self, f"_{kind}")(fields)

    def _connect(self, step: dict[str, Any]) -> None:
        make = gateway.Client if self._bridge is None else self._bridge.client
        self._client = make(self._address, token=step.get("token"))
        options = {name: step[name] for name in _SESSION_OPTIONS if name in step}

        def connect() -> None:
            self._session = self._client.connect(
                client_name="conformance", on_event=self._seen.append, on_go_away=self._go_aways.append, **options
            )

        _expect(step.get("error"), connect)

    def _start(self, step: dict[str, Any]) -> None:
        create = create_pb2.CreateBody(extra_json=step.get("extra_json", "").encode())
        for name in ("temperature", "max_output_tokens"):
            if name in step:
                setattr(create, name, step[name])
        came_from = step.get("from")
        if came_from in self._turns:
            came_from = self._turns[came_from].result.response_id
        request = gateway.Request(
            input=self._input(step.get("input", "")),
            model=step.get("model"),
            instructions=step.get("instructions"),
            tools=[_tool(name) for name in step["tools"]] if "tools" in step else None,
            store=step.get("store"),
            create=create,
            previous_response_id=came_from,
            new_conversation=step.get("new_conversation", False),
            full_history=step.get("full_history", False),
            timeout=step["timeout_ms"] / 1000 if "timeout_ms" in step else None,
            wait_on_rate_limit=step.get("wait_on_rate_limit", False),
            turn_id=step.get("turn_id"),
            warm_up=step.get("warm_up", False),
        )

        def start() -> None:
            self._turns[step["turn"]] = Played(self._session.lane(step.get("lane", "")).start(request))

        _expect(step.get("error"), start)

    def _input(self, given: Any) -> gateway.Input:
        if isinstance(given, str):
            return given
        if isinstance(given, dict):
            return str(given["repeat"]) * int(given["times"])
        return [self._item(part) for part in given]

    def _item(self, part: dict[str, Any]) -> gateway.Item:
        if "answer_of" in part:
            return gateway.message("assistant", self._turns[part["answer_of"]].result.text)
        if "call_id" in part:
            return gateway.call_output(part["call_id"], part["output"])
        return gateway.message(part["role"], part["text"])

    def _fork(self, step: dict[str, Any]) -> None:
        self._session.lane(step["lane"]).fork(step["to"])

    def _until(self, step: dict[str, Any]) -> None:
        played, left = self._turns[step["turn"]], step.get("count", 1)
        for event in played.turn.events(timeout=STEP_SECONDS):
            self._note(played, event)
            left -= event.type == step["type"]
            if left == 0:
                return
            assert event.outcome == "", f"the turn ended with {event.outcome}"
        raise AssertionError("the turn has no more events")

    def _final(self, step: dict[str, Any]) -> None:
        played = self._turns[step["turn"]]

        def read() -> None:
            try:
                for event in played.turn.events(timeout=STEP_SECONDS):
                    self._note(played, event)
            except gateway.TurnError:
                pass  # final says it again.
            try:
                played.turn.final(timeout=STEP_SECONDS)
            finally:
                played.result = played.turn.result

        _expect(step.get("error"), read)
        _compare(step, played)

    def _note(self, played: Played, event: gateway.Event) -> None:
        played.types[event.type] += 1
        if 0 < len(event.json) < 1 << 16:
            played.json[event.type] = event.json.decode()
        if event.notice is not None or event.type == "gateway.request.rejected":
            self._seen.append(event)

    def _steer(self, step: dict[str, Any]) -> None:
        target = self._turns[step["turn"]].turn if "turn" in step else self._session.lane(step["lane"])
        target.steer(step["text"])

    def _cancel(self, step: dict[str, Any]) -> None:
        self._turns[step["turn"]].turn.cancel()

    def _tools(self, step: dict[str, Any]) -> None:
        made: list[str] = []
        functions = [_function(name, wanted, made) for name, wanted in step["functions"].items()]
        played = Played(None)

        def run() -> None:
            request = gateway.Request(input=self._input(step["input"]))
            lane = self._session.lane(step.get("lane", ""))
            limit = {"max_turns": step["max_turns"]} if "max_turns" in step else {}
            played.result = lane.run_tools(request, functions, **limit)

        if step.get("limit_reached"):
            try:
                run()
            except gateway.TurnLimitError:
                pass
            else:
                raise AssertionError("it did not end at the limit")
        else:
            _expect(step.get("error"), run)
            _compare(step, played)
        assert len(made) == step.get("calls", len(made)), f"{len(made)} calls"

    def _notice(self, step: dict[str, Any]) -> None:
        def fits(event: gateway.Event) -> bool:
            notice = event.notice
            return notice is not None and notice.kind == step["kind"] and step.get("reason", notice.reason) == notice.reason

        _wait(lambda: any(fits(event) for event in self._seen))

    def _rejected(self, step: dict[str, Any]) -> None:
        def fits(event: gateway.Event) -> bool:
            failure = event.failure
            return event.type == "gateway.request.rejected" and failure is not None and failure.reason == step["reason"]

        _wait(lambda: any(fits(event) for event in self._seen))

    def _go_away(self, step: dict[str, Any]) -> None:
        _wait(lambda: any(told.draining == step["draining"] for told in self._go_aways))

    def _session_over(self, step: dict[str, Any]) -> None:
        self._session.wait(timeout=STEP_SECONDS)
        error = self._session.error
        assert error is not None and error.reason == step["reason"], f"the session is over for {error}"

    def _stats(self, step: dict[str, Any]) -> None:
        stats = self._session.stats
        assert stats.resumes == step.get("resumes", stats.resumes), f"{stats.resumes} resumes"
        most = step.get("max_buffered_at_most", stats.max_buffered_bytes)
        assert stats.max_buffered_bytes <= most, f"{stats.max_buffered_bytes} bytes were buffered"

    def _close(self, _: dict[str, Any]) -> None:
        self._session.close()


_SESSION_OPTIONS = ("model", "upstream", "raw_json", "resume", "recovery", "max_buffered_bytes")


def _tool(name: str) -> tools_pb2.Tool:
    schema = b'{"type":"object","properties":{"query":{"type":"string"}}}'
    return tools_pb2.Tool(function=tools_pb2.FunctionTool(name=name, parameters=schema, strict=False))


def _function(name: str, wanted: dict[str, str], made: list[str]) -> gateway.Function:
    def call(query: str) -> str:
        made.append(query)
        if "error" in wanted:
            raise RuntimeError(wanted["error"])
        return wanted["result"]

    call.__name__ = name
    return gateway.function(call)


def _expect(wanted: dict[str, Any] | None, work: Callable[[], None]) -> None:
    if wanted is None:
        work()
        return
    try:
        work()
    except gateway.GatewayError as error:
        _compare_error(wanted, error)
    else:
        raise AssertionError(f"no error instead of {wanted}")


def _compare_error(wanted: dict[str, Any], error: gateway.GatewayError) -> None:
    upstream: Any = getattr(error, "upstream", None)
    found = {
        "reason": error.reason,
        "code": error.code,
        "replay": getattr(error, "replay", None),
        "phase": getattr(error, "phase", None),
        "inferred": error.inferred,
        "retry_after": error.retry_after is not None,
        "upstream_code": getattr(upstream, "code", None),
        "upstream_status": getattr(upstream, "status", None),
    }
    for name, value in wanted.items():
        if name == "metadata":
            assert value.items() <= error.metadata.items(), f"metadata {error.metadata}"
            continue
        allowed = value if isinstance(value, list) else [value]
        assert found[name] in allowed, f"{name} {found[name]!r} instead of {value!r}: {error}"


def _compare(step: dict[str, Any], played: Played) -> None:
    result = played.result
    text = result.text
    found = {
        "outcome": result.outcome,
        "text": text,
        "text_length": len(text.encode()),
        "refusal": result.refusal,
        "responses": len(result.responses),
        "function_calls": [call.name for call in result.function_calls],
        "usage": result.usage.total_tokens > 0,
    }
    for name, value in found.items():
        if name in step:
            assert value == step[name], f"{name} {str(value)[:200]!r} instead of {step[name]!r}"
    if "text_matches" in step:
        assert re.search(step["text_matches"], text), f"text {text[:200]!r} does not match {step['text_matches']!r}"
    for name in step.get("types", ()):
        assert played.types[name], f"no event {name}"
    if "json_of" in step:
        json = played.json.get(step["json_of"]["type"], "")
        assert step["json_of"]["contains"] in json, f"JSON {json!r}"


def _wait(test: Callable[[], bool]) -> None:
    give_up_at = time.monotonic() + STEP_SECONDS
    while not test():
        assert time.monotonic() < give_up_at, "it did not come"
        time.sleep(0.002)
