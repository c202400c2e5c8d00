"""Lanes and turns of an asyncio session."""

from __future__ import annotations

import asyncio
import inspect
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from .core import retry_delay
from .errors import TurnError
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

    from .aio import Session

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

    async def start(self, request: Request | Input) -> Turn:
        """Queues a turn and returns; waits while too much is queued. Turns of one lane run in the order of their
        starts. The current OpenTelemetry span becomes the turn's parent."""
        session = self._session
        await session._wait_for_room()
        return Turn(session, self, session._core.start(self._core, as_request(request)))

    async def run(self, request: Request | Input, *, attempts: int = 3) -> Result:
        """Starts a turn and reads it to its end. A turn that certainly did not run is started again, up to `attempts` times
        in all, after the time that the gateway told or growing waits."""
        for attempt in range(1, attempts + 1):
            try:
                return await (await self.start(request)).final()
            except TurnError as error:
                if error.replay != "safe" or attempt == attempts or not may_help(error):
                    raise
                await asyncio.sleep(retry_delay(attempt, error.retry_after))
        raise ValueError("attempts must be positive")

    async def parse(self, request: Request | Input, kind: type[T]) -> Parsed[T]:
        """Runs a turn whose answer is a `kind`, a dataclass or pydantic model."""
        return (await self.run(with_format(request, kind))).parse(kind)

    async def steer(self, input: Input) -> None:
        """Adds user input to whatever turn runs on the lane. Waits as `start` does."""
        await self._session._wait_for_room()
        self._session._core.steer(self.id, "", input)

    def fork(self, lane_id: str) -> Lane:
        """The lane of this name, whose first turn continues from this lane's last response as it is now."""
        return Lane(self._session, self._session._core.fork(self._core, lane_id))

    async def run_tools(
        self,
        request: Request | Input,
        functions: Sequence[Function | Callable[..., Any]],
        **options: Unpack[LoopOptions],
    ) -> Result:
        """Runs turns until the model answers without calling a function. The calls of a turn run side by side: coroutine
        functions in the loop, plain ones in threads. An unknown function or an exception goes to the model as a result
        {"error": …}. The result's usage is that of all turns. Raises LoopLimitError at a limit; what runs then is
        cancelled, as it is when the task is."""
        loop = ToolLoop(as_request(request), as_functions(functions), options)
        result: Result | None = None
        turns = self._turns_of(loop)
        try:
            async for turn in turns:
                result = loop.total(await turn.final())
        finally:
            await turns.aclose()
        assert result is not None
        return result

    def tool_turns(
        self,
        request: Request | Input,
        functions: Sequence[Function | Callable[..., Any]],
        **options: Unpack[LoopOptions],
    ) -> AsyncGenerator[Turn, None]:
        """`run_tools` turn by turn: each turn may be iterated before the next one is asked for. A turn that runs when the
        loop is left is cancelled; leave it with `aclose` (contextlib.aclosing) to have that at once."""
        return self._turns_of(ToolLoop(as_request(request), as_functions(functions), options))

    async def _turns_of(self, loop: ToolLoop) -> AsyncGenerator[Turn, None]:
        session, turn = self._session, None
        try:
            while True:
                try:
                    await asyncio.wait_for(session._wait_for_room(), loop.time_left())
                except asyncio.TimeoutError:
                    raise loop.out_of_time(loop.last) from None
                core = session._core.start(self._core, loop.request, in_loop=True, given=loop.answers)
                turn = Turn(session, self, core)
                turn._loop = loop
                yield turn
                _, calls = loop.finished(await turn.final())
                if not calls:
                    return
                outputs = await self._answers(loop, calls)
                loop.advance(calls, outputs)
                self._core.answer(loop.answers)
        finally:
            if turn is not None:
                turn._abandon()

    async def _answers(self, loop: ToolLoop, calls: Sequence[items_pb2.FunctionCall]) -> list[str]:
        """Makes the calls side by side, within the loop's limits."""
        places = asyncio.Semaphore(loop.options.get("max_concurrency") or len(calls))
        tasks = [asyncio.ensure_future(self._answer(loop, call, len(calls), places)) for call in calls]
        left = loop.time_left()
        try:
            _, running = await asyncio.wait(tasks, timeout=None if left is None else max(left, 0))
            if running:
                raise loop.out_of_time(
                    loop.last, [call for call, task in zip(calls, tasks, strict=True) if task in running]
                )
            return [task.result() for task in tasks]
        finally:
            for task in tasks:
                task.cancel()

    async def _answer(self, loop: ToolLoop, call: items_pb2.FunctionCall, calls: int, places: asyncio.Semaphore) -> str:
        async with places:
            began = time.monotonic()
            error: BaseException | None = None
            try:
                output = text_of(await asyncio.wait_for(_invoke(loop, call), loop.options.get("tool_timeout")))
            except (asyncio.TimeoutError, TimeoutError) as late:
                error = late if str(late) else TimeoutError("the call took too long")
            except asyncio.CancelledError as cancelled:
                if _is_cancelled():
                    raise
                error = cancelled  # The function's own.
            except BaseException as problem:
                error = problem
            if error is not None:
                output = error_result(error)
            on_call = loop.options.get("on_call")
            if on_call is not None:
                told = ToolCall(call.name, call.call_id, call.arguments, output, error, time.monotonic() - began)
                self._session._call(on_call, told)
            output = loop.bounded(output, calls, self._session._core.limits())
            # In case the loop ends before it can bring the result.
            self._core.answer_one(call.call_id, output)
            return output


class Turn:
    """One response and everything until its end. It has one reader at a time, who iterates over it or takes the `final`
    result; final after some events takes what is left into account."""

    def __init__(self, session: Session, lane: Lane, core: TurnCore) -> None:
        self._session = session
        self._core = core
        self._news = asyncio.Event()
        core.wake = self._news.set
        self._loop: ToolLoop | None = None
        self.lane = lane

    @property
    def id(self) -> str:
        return self._core.id

    def __aiter__(self) -> AsyncIterator[Event]:
        """The turn's events, up to the one with an outcome; then TurnError if the turn failed. An iteration that was left
        can be gone on with."""
        return _Events(self)

    async def __anext__(self) -> Event:
        return await _Events(self).__anext__()

    async def final(self) -> Result:
        """Reads the turn to its end. Raises TurnError if it failed; its `result` has what there is. An incomplete response
        is no error: see `Result.outcome`."""
        reader = Reader(wants_events=False)
        while await self._next(reader) is not None:
            pass
        return self.result

    @property
    def result(self) -> Result:
        """What was read so far."""
        return self._core.result

    async def steer(self, input: Input) -> None:
        """Adds user input to the running turn. Waits while too much is queued. Acceptance and refusal arrive as events. A
        steer on its way when the stream breaks may be lost; it is never sent twice."""
        await self._session._wait_for_room()
        self._session._core.steer(self._core.lane.id, self._core.id, input)

    async def cancel(self) -> None:
        """Gives the turn up; its last event, cancelled, arrives at once. Does nothing if the turn has ended."""
        self._session._core.cancel(self._core)

    def close(self) -> None:
        """Stops listening: further events are dropped. It does not cancel the turn."""
        self._session._core.detach(self._core)
        self._session._room.set()

    def _abandon(self) -> None:
        """Nobody wants it any more."""
        self._session._core.leave(self._core)
        self._session._room.set()

    async def _next(self, reader: Reader) -> Event | None:
        core, session, loop = self._core, self._session, self._loop
        core.claim(reader, asyncio.current_task())
        try:
            if not core.has_news(reader):
                await self._wait(reader)
            event = session._core.take(core, reader)
            if session._core.has_room_to_receive():
                session._room.set()
            if event is None:
                core.release()
                if core.error is not None:
                    raise core.error
            return event
        except TurnError as error:
            core.release()
            error.result = core.result if loop is None else loop.total(core.result)
            raise

    async def _wait(self, reader: Reader) -> None:
        core, loop = self._core, self._loop
        core.waiting_since = time.monotonic()
        try:
            while not core.has_news(reader):
                self._news.clear()
                left = None if loop is None else loop.time_left()
                if left is None:
                    await self._news.wait()
                    continue
                try:
                    await asyncio.wait_for(self._news.wait(), max(left, 0))
                except asyncio.TimeoutError:
                    assert loop is not None
                    late = loop.out_of_time(loop.total(core.result))
                    # Not only when the generator of the loop is closed, which may come late.
                    self._abandon()
                    raise late from None
        finally:
            core.waiting_since = None


class _Events(Reader):
    def __init__(self, turn: Turn) -> None:
        super().__init__(wants_events=True)
        self._turn = turn

    def __aiter__(self) -> _Events:
        return self

    async def __anext__(self) -> Event:
        turn = self._turn
        shared = turn._session._core
        full = not shared.has_room_to_receive()
        event = shared.take_next(turn._core, self, asyncio.current_task())
        if event is not None:
            if full:
                turn._session._room.set()
            return event
        event = await turn._next(self)
        if event is None:
            raise StopAsyncIteration
        return event


async def _invoke(loop: ToolLoop, call: items_pb2.FunctionCall) -> Any:
    approve = loop.options.get("approve")
    if approve is not None:
        approval = approve(call)
        refusal = refusal_of(await approval if inspect.isawaitable(approval) else approval)
        if refusal is not None:
            raise PermissionError(refusal)
    with tool_span(call.name, call.call_id):
        value = await asyncio.wrap_future(in_thread(lambda: loop.invoke(call), "responses-gateway-tool"))
        return await value if inspect.isawaitable(value) else value


def _is_cancelled() -> bool:
    task = asyncio.current_task()
    # Task.cancelling is new in 3.11; without it, a function's own CancelledError counts as the task's.
    cancelling = getattr(task, "cancelling", None)
    return True if cancelling is None else cancelling() > 0
