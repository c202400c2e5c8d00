"""One case being run."""

from __future__ import annotations

import _thread
import asyncio
import contextlib
import dataclasses
import logging
import re
import threading
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import Future
from decimal import Decimal
from typing import Any

import pydantic

import responses_gateway as gateway
from responses_gateway.gen import create_pb2, tools_pb2
from responses_gateway.threads import in_thread

from . import stored
from .bridge import AsyncBridge

STEP_SECONDS = 30.0
_NO_RESULT = gateway.Result(lane_id="", turn_id="", outcome="", responses=(), items=())


@dataclasses.dataclass
class Weather:
    city: str
    celsius: float


class WeatherModel(pydantic.BaseModel):
    city: str
    celsius: float


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
        self._connecting: Future[None] = Future()
        self._turns: dict[str, Played] = {}
        self._stored = stored.Stored(self._input, self._note, _compare, Played)
        self._seen: list[gateway.Event] = []
        self._go_aways: list[gateway.GoAway] = []
        self._more: list[Any] = []
        self._log: list[str] = []
        self._logger = logging.getLogger(f"conformance.{id(self)}")
        self._logger.propagate = False
        self._kept = _Kept(self._log)
        self._logger.addHandler(self._kept)

    def close(self) -> None:
        for one in (*self._more, self._session, self._client):
            if one is not None:
                one.close()

    def step(self, kind: str, fields: Any) -> None:
        if kind == "control":
            self._control(fields)
            return
        if kind in stored.STEPS:
            if self._client is None:
                make = gateway.Client if self._bridge is None else self._bridge.client
                self._client = make(self._address, logger=self._logger)
            _expect(fields.get("error"), lambda: self._stored.step(self._client, kind, fields))
            return
        if self._session is None and kind not in ("connect", "connected", "close_client"):
            self._connect({"model": "gpt-5.5"})
        getattr(self, f"_{kind}")(fields)

    def _connect(self, step: dict[str, Any]) -> None:
        make = gateway.Client if self._bridge is None else self._bridge.client
        self._kept.raises = step.get("logger") == "raise"
        token = step.get("token")
        if "token_source" in step:
            token = _token_source(list(step["token_source"]))
        self._client = make(self._address, token=token, logger=self._logger)
        options = {name: step[name] for name in _SESSION_OPTIONS if name in step}
        if "heartbeat_ms" in step:
            options["heartbeat"] = step["heartbeat_ms"] / 1000
        if "budget" in step:
            money = step["budget"].get("money")
            limits = {**step["budget"], "money": None if money is None else Decimal(money)}
            options["budget"] = gateway.Budget(**limits)
        if "close_timeout_ms" in step:
            options["close_timeout"] = step["close_timeout_ms"] / 1000
        timeout = {"timeout": step["timeout_ms"] / 1000} if "timeout_ms" in step else {}

        def on_event(event: gateway.Event) -> Any:
            self._seen.append(event)
            if step.get("callbacks") == "raise":
                raise RuntimeError("a bug in a callback")
            if step.get("callbacks") == "close":
                return self._session.close() if self._bridge is None else self._session._target.close()
            return None

        def connect() -> None:
            connecting = self._client.connect(
                client_name="conformance", on_event=on_event, on_go_away=self._go_aways.append, **timeout, **options
            )
            # The asyncio client opens when it is waited for.
            self._session = connecting

        if step.get("later"):
            self._connecting = in_thread(connect, "conformance-connect")
        else:
            _expect(step.get("error"), connect)

    def _connected(self, step: dict[str, Any]) -> None:
        _expect(step.get("error"), lambda: self._connecting.result(STEP_SECONDS))

    def _connect_more(self, step: dict[str, Any]) -> None:
        for _ in range(step["count"]):
            self._more.append(self._client.connect(client_name="conformance"))

    def _close_client(self, _: dict[str, Any]) -> None:
        self._client.close()

    def _closed(self, _: dict[str, Any]) -> None:
        self._session.wait(timeout=STEP_SECONDS)
        assert self._session.stats.running_turns == 0
        assert self._session.error is None, f"the session is over for {self._session.error}"

    def _reported(self, step: dict[str, Any]) -> None:
        _wait(lambda: any(step["text"] in line for line in self._log))

    def _second_reader(self, step: dict[str, Any]) -> None:
        turn = self._turns[step["turn"]].turn
        # The first one waits, in a thread or task of its own.
        first = threading.Thread(target=_swallow, args=(lambda: turn.final(timeout=STEP_SECONDS),), daemon=True)
        first.start()
        _wait(lambda: turn._core.waiting_since is not None)
        _expect(step["error"], lambda: turn.final(timeout=STEP_SECONDS))

    def _dropped_reader(self, step: dict[str, Any]) -> None:
        next(iter(self._turns[step["turn"]].turn.events(timeout=STEP_SECONDS)))

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
        request = dataclasses.replace(request, **step.get("options", {}))

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
        if "parts" in part:
            parts = [one if isinstance(one, str) else gateway.image(one["image_url"]) for one in part["parts"]]
            return gateway.message(part["role"], parts)
        return gateway.message(part["role"], part["text"])

    def _fork(self, step: dict[str, Any]) -> None:
        self._session.lane(step["lane"]).fork(step["to"])

    def _until(self, step: dict[str, Any]) -> None:
        if "error" in step:
            _expect(step["error"], lambda: self._read_until({**step, "error": None}))
        else:
            self._read_until(step)

    def _read_until(self, step: dict[str, Any]) -> None:
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
                for event in played.turn.events(timeout=STEP_SECONDS) if not step.get("result_only") else ():
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
        text = self._input(step["text"])
        if not step.get("timed_out"):
            target.steer(text)
            return
        # The first ones may still have found a stream that nobody knew to be lost.
        for _ in range(20):
            try:
                target.steer(text, timeout=step["timeout_ms"] / 1000)
            except (TimeoutError, asyncio.TimeoutError):
                return
        raise AssertionError("it did not wait")

    def _cancel(self, step: dict[str, Any]) -> None:
        self._turns[step["turn"]].turn.cancel()

    def _tools(self, step: dict[str, Any]) -> None:
        calls = Calls(self._closes())
        functions = [calls.function(name, wanted) for name, wanted in step["functions"].items()]
        played = self._turns[step["turn"]] = Played(None)
        create = create_pb2.CreateBody(tools=[_tool(name) for name in step.get("create_tools", ())])
        request = gateway.Request(input=self._input(step["input"]), create=create)
        lane = self._session.lane(step.get("lane", ""))
        options: dict[str, Any] = {}
        for name, unit in (("max_turns", 1), ("max_tokens", 1), ("max_concurrency", 1), ("max_time_ms", 1000)):
            if name in step:
                options[name.removesuffix("_ms")] = step[name] / unit
        if "tool_timeout_ms" in step:
            options["tool_timeout"] = step["tool_timeout_ms"] / 1000
        raise_in = step.get("raise_in", ())

        def bug(hook: str) -> None:
            if hook in raise_in:
                raise RuntimeError("a bug in a hook")

        def approve(call: Any) -> bool:
            bug("approve")
            return call.name not in step.get("deny", ())

        def price(usage: gateway.Usage) -> float:
            bug("price")
            return usage.total_tokens

        options |= {"approve": approve, "on_call": lambda _: bug("on_call"), "price": price}
        if "max_cost" in step:
            options["max_cost"] = step["max_cost"]
        if "max_concurrency" in options:
            options["max_concurrency"] = int(options["max_concurrency"])

        def run() -> None:
            if "leave_after" in step or step.get("by_turn"):
                self._leave(lane, request, functions, step.get("leave_after"), options)
            elif step.get("cancel_in_call"):
                self._cancelled(lane, request, functions, calls, options)
            else:
                played.result = lane.run_tools(request, functions, **options)

        wanted = step.get("error")
        if step.get("limit_reached"):
            wanted = {"reason": "LOOP_TURN_LIMIT", **(wanted or {})}
        if step.get("raises"):
            try:
                run()
            except RuntimeError as error:
                assert str(error) == "a bug in a hook", f"it raised {error!r}"
            else:
                raise AssertionError("nothing was raised")
        else:
            _expect(wanted, run)
        if wanted is None and not {"raises", "by_turn", "leave_after", "cancel_in_call"} & step.keys():
            _compare(step, played)
        assert len(calls.made) == step.get("calls", len(calls.made)), f"{len(calls.made)} calls"
        most = step.get("max_concurrency")
        assert most is None or calls.most <= most, f"{calls.most} calls at the same time"

    def _closes(self) -> dict[str, Callable[[], None]]:
        return {"session": lambda: self._session.close(), "client": lambda: self._client.close()}

    def _leave(self, lane: Any, request: Any, functions: Any, after: int | None, options: Any) -> None:
        """Reads turn by turn, and leaves the loop after the first event of a turn."""
        if self._bridge is None:
            for number, turn in enumerate(lane.tool_turns(request, functions, **options), 1):
                for _ in turn:
                    if number == after:
                        break
                if number == after:
                    break
            return

        async def leave() -> None:
            number = 0
            async with contextlib.aclosing(lane._target.tool_turns(request, functions, **options)) as turns:
                async for turn in turns:
                    number += 1
                    async for _ in turn:
                        if number == after:
                            break
                    if number == after:
                        break

        self._bridge.call(leave)

    def _cancelled(self, lane: Any, request: Any, functions: Any, calls: Calls, options: Any) -> None:
        """Ends the wait for the loop while the first call runs: by cancelling its task, or as Ctrl-C does."""
        if self._bridge is None:
            calls.interrupts = True
            try:
                lane.run_tools(request, functions, **options)
            except KeyboardInterrupt:
                return
            raise AssertionError("the loop went on")

        async def cancelled() -> None:
            task = asyncio.ensure_future(lane._target.run_tools(request, functions, **options))
            while not calls.began.is_set():
                await asyncio.sleep(0.002)
            task.cancel()
            await asyncio.wait([task])
            assert task.cancelled()

        self._bridge.call(cancelled)

    def _parse(self, step: dict[str, Any]) -> None:
        for kind in (Weather, WeatherModel):
            answer = self._session.lane(kind.__name__).parse(step["input"], kind)
            parsed = None if answer.parsed is None else {"city": answer.parsed.city, "celsius": answer.parsed.celsius}
            assert parsed == step.get("parsed"), f"parsed {parsed}"
            assert answer.refusal == step.get("refusal", ""), f"refusal {answer.refusal!r}"
            assert (answer.error is not None) == step.get("unfit", False), f"error {answer.error!r}"
            for name in ("outcome", "text"):
                found = getattr(answer.result, name)
                assert found == step.get(name, found), f"{name} {found!r}"
            if kind is Weather and "parsed" in step:
                return  # The journal is of one request.

    def _run(self, step: dict[str, Any]) -> None:
        played = Played(None)
        played.result = self._session.lane().run(self._input(step["input"]))
        _compare(step, played)

    def _notice(self, step: dict[str, Any]) -> None:
        def fits(event: gateway.Event) -> bool:
            notice = event.notice
            return notice is not None and notice.kind == step["kind"] and step.get("reason", notice.reason) == notice.reason

        _wait(lambda: any(fits(event) for event in self._seen))

    def _rejected(self, step: dict[str, Any]) -> None:
        def fits(event: gateway.Event) -> bool:
            failure = event.failure
            return event.type == "gateway.request.rejected" and failure is not None and failure.reason == step["reason"]

        _wait(lambda: sum(fits(event) for event in self._seen) >= step.get("count", 1))

    def _go_away(self, step: dict[str, Any]) -> None:
        _wait(lambda: any(told.draining == step["draining"] for told in self._go_aways))

    def _session_over(self, step: dict[str, Any]) -> None:
        self._session.wait(timeout=STEP_SECONDS)
        error = self._session.error
        assert error is not None and error.reason == step["reason"], f"the session is over for {error}"

    def _stats(self, step: dict[str, Any]) -> None:
        stats = self._session.stats
        assert stats.resumes == step.get("resumes", stats.resumes), f"{stats.resumes} resumes"
        assert stats.resumes <= step.get("resumes_at_most", stats.resumes), f"{stats.resumes} resumes"
        if "buffered" in step:
            _wait(lambda: self._session.stats.buffered_bytes == step["buffered"])
        if "running" in step:
            _wait(lambda: self._session.stats.running_turns == step["running"])
        most = step.get("max_buffered_at_most", stats.max_buffered_bytes)
        assert stats.max_buffered_bytes <= most, f"{stats.max_buffered_bytes} bytes were buffered"

    def _close(self, _: dict[str, Any]) -> None:
        self._session.close()


_SESSION_OPTIONS = ("model", "upstream", "raw_json", "resume", "recovery", "max_buffered_bytes", "max_queued_bytes")


def _tool(name: str) -> tools_pb2.Tool:
    schema = b'{"type":"object","properties":{"query":{"type":"string"}}}'
    return tools_pb2.Tool(function=tools_pb2.FunctionTool(name=name, parameters=schema, strict=False))


class Calls:
    """The functions of a tool loop and what became of them."""

    def __init__(self, closes: dict[str, Callable[[], None]]) -> None:
        self._closes = closes
        self.made: list[str] = []
        self.most = 0
        self.began = threading.Event()
        #: A call interrupts the main thread, where the runner is.
        self.interrupts = False
        self._lock = threading.Lock()
        self._running = 0

    def function(self, name: str, wanted: dict[str, Any]) -> gateway.Function:
        def call(query: str) -> str:
            with self._lock:
                self.made.append(query)
                self._running += 1
                self.most = max(self.most, self._running)
            self.began.set()
            if self.interrupts:
                _thread.interrupt_main()
            try:
                if "close" in wanted:
                    self._closes[wanted["close"]]()
                if "hang" in wanted:
                    time.sleep(STEP_SECONDS)
                if "crash" in wanted:
                    raise SystemExit(wanted["crash"])
                if "error" in wanted:
                    raise RuntimeError(wanted["error"])
                if "bytes" in wanted:
                    return "x" * int(wanted["bytes"])
                return str(wanted.get("result", ""))
            finally:
                with self._lock:
                    self._running -= 1

        call.__name__ = name
        return gateway.function(call)


class _Kept(logging.Handler):
    def __init__(self, lines: list[str]) -> None:
        super().__init__()
        self._lines = lines
        self.raises = False

    def emit(self, record: logging.LogRecord) -> None:
        self._lines.append(self.format(record))
        if self.raises:
            raise RuntimeError("a bug in the logger")


def _token_source(plan: list[str]) -> Callable[[], str]:
    def token() -> str:
        todo = plan.pop(0) if len(plan) > 1 else plan[0]
        if todo == "raise":
            raise RuntimeError("no token")
        if todo == "hang":
            time.sleep(STEP_SECONDS)
        return "to\nken" if todo == "broken" else "token"

    return token


def _swallow(work: Callable[[], Any]) -> None:
    try:
        work()
    except Exception:
        pass


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
        if name == "metadata_keys":
            assert set(value) <= error.metadata.keys(), f"metadata {error.metadata}"
            continue
        if name == "result_text":
            text = error.result.text  # type: ignore[attr-defined]
            assert text == value, f"the error's result has the text {text!r} instead of {value!r}"
            continue
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
    if step.get("usage_of_all_turns"):
        last = sum(response.usage.total_tokens for response in result.responses)
        assert result.usage.total_tokens > last > 0, f"usage {result.usage}, of the last turn alone {last}"
    if "cost" in step:
        cost = result.cost
        told = None if cost is None else {name: getattr(cost, name) for name in ("amount", "currency", "prices_as_of")}
        assert told == step["cost"], f"cost {told}"
    if "deltas" in step:
        deltas = played.types["response.output_text.delta"]
        assert deltas == step["deltas"], f"{deltas} deltas instead of {step['deltas']}"
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
