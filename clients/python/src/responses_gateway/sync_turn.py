"""Lanes and turns of a blocking session."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from typing import TYPE_CHECKING, Any, TypeVar

from .core import retry_delay
from .errors import TurnError, WaitTimeoutError
from .gen import items_pb2
from .loop import LoopOptions, ToolCall, ToolLoop, as_request, may_help, refusal_of, with_format
from .request import Input, Request
from .threads import in_thread
from .tools import Function, as_functions, error_result, text_of
from .tracing import tool_span
from .turns import LaneCore, Reader, TurnCore
from .types import Event, Parsed, Result

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from .sync import Session

T = TypeVar("T")


class Lane:
    """One line of conversation in a session: its turns run one after the other, lanes run side by side."""

    def __init__(self, session: Session, core: LaneCore) -> None:
        self._session = session
        self._core = core

    @property
    def id(self) -> str:
        return self._core.id

    @property
    def last_response_id(self) -> str:
        """The response that the lane's next turn continues from, as far as the client has heard."""
        return self._core.last_response

    def start(self, request: Request | Input, *, timeout: float | None = None) -> Turn:
        """Queues a turn and returns; waits while too much is queued, for `timeout` seconds at most. Turns of one lane
        run in the order of their starts. The current OpenTelemetry span becomes the turn's parent."""
        session = self._session
        with session._lock:
            session._wait_for_room(timeout)
            return Turn(session, self, session._core.start(self._core, as_request(request)))

    def run(self, request: Request | Input, *, attempts: int = 3) -> Result:
        """Starts a turn and reads it to its end. A turn that certainly did not run is started again, up to `attempts` times
        in all, after the time that the gateway told or growing waits."""
        for attempt in range(1, attempts + 1):
            try:
                return self.start(request).final()
            except TurnError as error:
                if error.replay != "safe" or attempt == attempts or not may_help(error):
                    raise
                time.sleep(retry_delay(attempt, error.retry_after))
        raise ValueError("attempts must be positive")

    def parse(self, request: Request | Input, kind: type[T]) -> Parsed[T]:
        """Runs a turn whose answer is a `kind`, a dataclass or pydantic model."""
        return self.run(with_format(request, kind)).parse(kind)

    def steer(self, input: Input, *, timeout: float | None = None) -> None:
        """Adds user input to whatever turn runs on the lane. Waits as `start` does."""
        with self._session._lock:
            self._session._wait_for_room(timeout)
            self._session._core.steer(self.id, "", input)

    def fork(self, lane_id: str) -> Lane:
        """The lane of this name, whose first turn continues from this lane's last response as it is now."""
        with self._session._lock:
            return Lane(self._session, self._session._core.fork(self._core, lane_id))

    def run_tools(
        self,
        request: Request | Input,
        functions: Sequence[Function | Callable[..., Any]],
        **options: Unpack[LoopOptions],
    ) -> Result:
        """Runs turns until the model answers without calling a function. The calls of a turn run side by side, in
        threads. An unknown function or an exception goes to the model as a result {"error": …}. The result's usage is
        that of all turns. Raises LoopLimitError at a limit; what runs then is cancelled."""
        loop = ToolLoop(as_request(request), as_functions(functions), options)
        result: Result | None = None
        turns = self._turns_of(loop)
        try:
            for turn in turns:
                result = loop.total(turn.final())
        finally:
            turns.close()
        assert result is not None
        return result

    def tool_turns(
        self,
        request: Request | Input,
        functions: Sequence[Function | Callable[..., Any]],
        **options: Unpack[LoopOptions],
    ) -> Iterator[Turn]:
        """`run_tools` turn by turn: each turn may be iterated before the next one is asked for. A turn that runs when the
        loop is left is cancelled."""
        return self._turns_of(ToolLoop(as_request(request), as_functions(functions), options))

    def _turns_of(self, loop: ToolLoop) -> Generator[Turn, None, None]:
        session, turn = self._session, None
        try:
            while True:
                with session._lock:
                    try:
                        session._wait_for_room(loop.time_left())
                    except WaitTimeoutError:
                        raise loop.out_of_time(loop.last) from None
                    core = session._core.start(self._core, loop.request, in_loop=True, given=loop.answers)
                turn = Turn(session, self, core)
                turn._loop = loop
                yield turn
                _, calls = loop.finished(turn.final())
                if not calls:
                    return
                outputs = self._answers(loop, calls)
                with session._lock:
                    loop.advance(calls, outputs)
                    self._core.answer(loop.answers)
        finally:
            if turn is not None:
                turn._abandon()

    def _answers(self, loop: ToolLoop, calls: Sequence[items_pb2.FunctionCall]) -> list[str]:
        """Makes the calls side by side, within the loop's limits."""
        options = loop.options
        most, tool_timeout = options.get("max_concurrency") or len(calls), options.get("tool_timeout")
        outputs = [""] * len(calls)
        waiting = list(enumerate(calls))[::-1]
        running: dict[Future[Any], tuple[int, float]] = {}
        while waiting or running:
            while waiting and len(running) < most:
                index, call = waiting.pop()
                running[in_thread(lambda call=call: _invoke(loop, call), "responses-gateway-tool")] = (  # type: ignore[misc]
                    index,
                    time.monotonic(),
                )
            until = [loop.deadline] if loop.deadline is not None else []
            if tool_timeout is not None:
                until.append(min(began for _, began in running.values()) + tool_timeout)
            wait(running, max(min(until) - time.monotonic(), 0) if until else None, FIRST_COMPLETED)
            now = time.monotonic()
            for future, (index, began) in list(running.items()):
                late = tool_timeout is not None and now - began >= tool_timeout
                if future.done() or late:
                    del running[future]
                    told = self._told(loop, calls[index], future if future.done() else None, now - began)
                    with self._session._lock:
                        outputs[index] = loop.bounded(told, len(calls), self._session._core.limits())
                        # In case the loop ends before it can bring the result.
                        self._core.answer_one(calls[index].call_id, outputs[index])
            if running and loop.deadline is not None and now >= loop.deadline:
                open_calls = [calls[index] for index, _ in running.values()] + [call for _, call in waiting]
                raise loop.out_of_time(loop.last, open_calls)
        return outputs

    def _told(self, loop: ToolLoop, call: items_pb2.FunctionCall, done: Future[Any] | None, seconds: float) -> str:
        error: BaseException | None = TimeoutError("the call took too long") if done is None else done.exception()
        output = ""
        if error is None and done is not None:
            try:
                output = text_of(done.result())
            except Exception as problem:
                error = problem
        if error is not None:
            output = error_result(error)
        on_call = loop.options.get("on_call")
        if on_call is not None:
            try:
                on_call(ToolCall(call.name, call.call_id, call.arguments, output, error, seconds))
            except Exception as problem:
                self._session._report(problem)
        return output


class Turn:
    """One response and everything until its end. It has one reader at a time, who iterates over it or takes the `final`
    result; final after some events takes what is left into account."""

    def __init__(self, session: Session, lane: Lane, core: TurnCore) -> None:
        self._session = session
        self._core = core
        self._news = threading.Condition(session._lock)
        core.wake = self._news.notify_all
        self._loop: ToolLoop | None = None
        self.lane = lane

    @property
    def id(self) -> str:
        return self._core.id

    def __iter__(self) -> Iterator[Event]:
        return self.events()

    def events(self, *, timeout: float | None = None) -> Iterator[Event]:
        """The turn's events, up to the one with an outcome; then TurnError if the turn failed. `timeout` bounds each
        wait in seconds; WaitTimeoutError loses nothing, and an iteration that was left can be gone on with."""
        return _Events(self, timeout)

    def final(self, *, timeout: float | None = None) -> Result:
        """Reads the turn to its end. Raises TurnError if it failed; its `result` has what there is. An incomplete response
        is no error: see `Result.outcome`."""
        deadline = None if timeout is None else time.monotonic() + timeout
        reader = Reader(wants_events=False)
        while self._next(reader, None if deadline is None else max(deadline - time.monotonic(), 0)) is not None:
            pass
        return self.result

    @property
    def result(self) -> Result:
        """What was read so far."""
        with self._session._lock:
            return self._core.result

    def steer(self, input: Input, *, timeout: float | None = None) -> None:
        """Adds user input to the running turn. Waits while too much is queued. Acceptance and refusal arrive as events. A
        steer on its way when the stream breaks may be lost; it is never sent twice."""
        with self._session._lock:
            self._session._wait_for_room(timeout)
            self._session._core.steer(self._core.lane.id, self._core.id, input)

    def cancel(self) -> None:
        """Gives the turn up; its last event, cancelled, arrives at once. Does nothing if the turn has ended."""
        with self._session._lock:
            self._session._core.cancel(self._core)

    def close(self) -> None:
        """Stops listening: further events are dropped. It does not cancel the turn."""
        with self._session._lock:
            self._session._core.detach(self._core)
            self._session._changed.notify_all()

    def _abandon(self) -> None:
        """Nobody wants it any more."""
        with self._session._lock:
            self._session._core.leave(self._core)
            self._session._changed.notify_all()

    def _next(self, reader: Reader, timeout: float | None) -> Event | None:
        core, session, loop = self._core, self._session, self._loop
        owner = threading.get_ident()
        with session._lock:
            full = not session._core.has_room_to_receive()
            ready = session._core.take_next(core, reader, owner)
            if ready is not None:
                if full and session._core.has_room_to_receive():
                    session._changed.notify_all()
                return ready
            core.claim(reader, owner)
            try:
                if not core.has_news(reader):
                    self._wait(reader, timeout)
                full = not session._core.has_room_to_receive()
                event = session._core.take(core, reader)
                if full and session._core.has_room_to_receive():
                    session._changed.notify_all()
                if event is None:
                    core.release()
                    if core.error is not None:
                        raise core.error
                return event
            except TurnError as error:
                core.release()
                error.result = core.result if loop is None else loop.total(core.result)
                raise

    def _wait(self, reader: Reader, timeout: float | None) -> None:
        core, loop = self._core, self._loop
        left = None if loop is None else loop.time_left()
        bounded = timeout if left is None else left if timeout is None else min(left, timeout)
        core.waiting_since = time.monotonic()
        try:
            if self._news.wait_for(lambda: core.has_news(reader), None if bounded is None else max(bounded, 0)):
                return
        finally:
            core.waiting_since = None
        if loop is not None and left is not None and bounded == left:
            late = loop.out_of_time(loop.total(core.result))
            # Not only when the generator of the loop is closed, which may come late.
            self._abandon()
            raise late
        raise WaitTimeoutError("no event in time")


class _Events(Reader, Iterator[Event]):
    def __init__(self, turn: Turn, timeout: float | None) -> None:
        super().__init__(wants_events=True)
        self._turn = turn
        self._timeout = timeout

    def __iter__(self) -> _Events:
        return self

    def __next__(self) -> Event:
        event = self._turn._next(self, self._timeout)
        if event is None:
            raise StopIteration
        return event


def _invoke(loop: ToolLoop, call: items_pb2.FunctionCall) -> Any:
    approve = loop.options.get("approve")
    if approve is not None:
        refusal = refusal_of(approve(call))  # type: ignore[arg-type]
        if refusal is not None:
            raise PermissionError(refusal)
    with tool_span(call.name, call.call_id):
        return loop.invoke(call)
