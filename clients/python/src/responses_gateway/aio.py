"""The asyncio client. Its twin for threads is sync.py; what they share is in core.py.

Cancelling a task that waits here loses nothing: neither events nor the turn.
"""

from __future__ import annotations

import asyncio
import inspect
import time
from collections.abc import AsyncIterator, Callable, Generator, Mapping, Sequence
from typing import Any

import grpc
import grpc.aio

from .core import ATTEMPT_TIMEOUT, HalfClose, LaneCore, SessionCore, TurnCore, retry_delay
from .errors import (
    STREAM_LOST,
    SessionError,
    TurnBusyError,
    TurnLimitError,
    inferred,
    stream_error,
)
from .gen import items_pb2, service_pb2_grpc, session_pb2
from .options import DEFAULT_MAX_RECEIVE_BYTES, ClientOptions, SessionOptions
from .sync import DEFAULT_CONNECT_TIMEOUT
from .tools import DEFAULT_MAX_TURNS, Function, ToolRound, as_functions, error_result, text_of
from .types import Event, GoAway, Input, Limits, Request, Result, Stats


class Client:
    """Holds the connection to a gateway, for any number of sessions. It connects when first used.

    Defaults of `address` and `token`: RESPONSES_GATEWAY_ADDR and RESPONSES_GATEWAY_TOKEN. Without a scheme (http://,
    https://), loopback addresses are plain and all others TLS. `token` may be a function, asked for each stream.
    """

    def __init__(
        self,
        address: str | None = None,
        *,
        token: str | Callable[[], str] | None = None,
        metadata: Sequence[tuple[str, str]] = (),
        credentials: grpc.ChannelCredentials | None = None,
        max_receive_bytes: int = DEFAULT_MAX_RECEIVE_BYTES,
        channel_options: Mapping[str, Any] | None = None,
    ) -> None:
        self._options = ClientOptions.resolve(address, token, metadata, credentials, max_receive_bytes, channel_options)
        target, creds = self._options.target()
        options = self._options.grpc_options()
        self._channel = (
            grpc.aio.insecure_channel(target, options) if creds is None else grpc.aio.secure_channel(target, creds, options)
        )
        #: The generated client over the same connection, for calls without a session.
        self.stub: Any = service_pb2_grpc.ResponsesServiceStub(self._channel)

    def metadata(self) -> list[tuple[str, str]]:
        """Token and metadata, for calls of `stub`."""
        return self._options.call_metadata()

    def connect(self, *, timeout: float = DEFAULT_CONNECT_TIMEOUT, **options: Any) -> _Connecting:
        """Opens a session: `async with client.connect() as session`, or `session = await client.connect()`. The options
        are those of `SessionOptions`; `timeout` in seconds."""
        return _Connecting(Session(self, SessionOptions(**options)), timeout)

    async def close(self) -> None:
        """Closes the connection. Close the sessions first: those that are still open end with an error."""
        await self._channel.close()

    async def __aenter__(self) -> Client:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()


class _Connecting:
    def __init__(self, session: Session, timeout: float) -> None:
        self._session = session
        self._timeout = timeout

    def __await__(self) -> Generator[Any, None, Session]:
        return self._open().__await__()

    async def __aenter__(self) -> Session:
        return await self._open()

    async def __aexit__(self, *_: object) -> None:
        await self._session.close()

    async def _open(self) -> Session:
        await self._session._open(self._timeout)
        return self._session


class Session:
    """One stream to the gateway with its own upstream connection. A lost stream is resumed by itself."""

    def __init__(self, client: Client, options: SessionOptions) -> None:
        self._client = client
        self._core = SessionCore(options)
        self._writable = asyncio.Event()
        self._room = asyncio.Event()
        self._sent = asyncio.Event()
        self._core.wake_writer = self._writable.set
        self._task: asyncio.Task[None] | None = None
        self._giving_up = asyncio.Event()

    @property
    def id(self) -> str:
        """Names the session in logs and traces; no secret."""
        return self._core.opened.session_id

    @property
    def limits(self) -> Limits:
        return self._core.limits()

    @property
    def stats(self) -> Stats:
        return self._core.stats()

    @property
    def error(self) -> SessionError | None:
        """Why the session is over: None while it lives and after close."""
        return self._core.error

    async def wait(self) -> None:
        """Waits until the session is over."""
        if self._task is not None:
            await asyncio.wait([self._task])

    def lane(self, lane_id: str = "") -> Lane:
        """The lane of this name; "" is the default lane. Names are up to 256 of A-Z a-z 0-9 _ . -"""
        return Lane(self, self._core.lane(lane_id))

    async def start(self, request: Request | Input) -> Turn:
        """Starts a turn on the default lane. See `Lane.start`."""
        return await self.lane().start(request)

    async def close(self) -> None:
        """Cancels what still runs, ends the stream and waits until nothing of the session is left."""
        if self._task is None:
            return
        if self._core.close():
            self._giving_up.set()
            self._room.set()
            self._sent.set()
            if not self._core.connected:
                self._task.cancel()
        done, _ = await asyncio.wait([self._task], timeout=self._core.options.close_timeout)
        if not done:
            self._task.cancel()
            await asyncio.wait([self._task])

    async def __aenter__(self) -> Session:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def _open(self, timeout: float) -> None:
        stream = _Stream(self, resume=False)
        await stream.accept(timeout)
        self._task = asyncio.create_task(self._run(stream), name="responses-gateway")

    async def _run(self, stream: _Stream) -> None:
        """One stream after the other, until the session is over."""
        failure: SessionError | None = inferred("CANCELLED", "SESSION_CLOSED", "the session was closed")
        try:
            while True:
                try:
                    replaced, ended = await self._serve(stream)
                finally:
                    stream.cancel()
                verdict = self._core.verdict(ended, replaced=replaced)
                if verdict is None:
                    try:
                        stream = await self._resume()
                        continue
                    except SessionError as error:
                        verdict = error
                failure = verdict
                return
        except asyncio.CancelledError:
            return
        finally:
            assert failure is not None
            self._core.finish(failure)
            self._sent.set()

    async def _serve(self, stream: _Stream) -> tuple[bool, SessionError | None]:
        writer = asyncio.create_task(stream.write_all())
        try:
            return await self._read(stream)
        finally:
            writer.cancel()
            await asyncio.wait([writer])

    async def _read(self, stream: _Stream) -> tuple[bool, SessionError | None]:
        """Whether the stream is to be replaced, and how it ended; None is OK."""
        try:
            while True:
                # The backpressure: while nothing is received, HTTP/2 holds the gateway up.
                while not self._core.has_room_to_receive():
                    self._room.clear()
                    await self._room.wait()
                response = await stream.receive()
                if response is None:
                    return False, None
                if self._tell(self._core.receive(response)):
                    return True, None
        except SessionError as error:
            return False, error

    def _tell(self, told: list[Event | GoAway]) -> bool:
        options = self._core.options
        for one in told:
            if isinstance(one, Event):
                if options.on_event is not None:
                    options.on_event(one)
                continue
            self._core.set_drained_by(time.monotonic(), one)
            if options.on_go_away is not None:
                options.on_go_away(one)
            if self._core.replaces(one):
                return True
        return False

    async def _resume(self) -> _Stream:
        deadline = self._core.resume_deadline(time.monotonic())
        attempt = 0
        while True:
            try:
                stream = _Stream(self, resume=True)
                await stream.accept(min(ATTEMPT_TIMEOUT, max(deadline - time.monotonic(), 0.001)))
                return stream
            except SessionError as error:
                if not error.resumable:
                    raise
                wait = retry_delay(attempt, error.retry_after)
                if self._giving_up.is_set() or time.monotonic() + wait > deadline:
                    lost = inferred("UNAVAILABLE", STREAM_LOST, "the stream could not be resumed in time")
                    raise lost from error
            await asyncio.wait([asyncio.ensure_future(asyncio.sleep(wait))])
            attempt += 1


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
        while not session._core.has_room_to_send():
            session._sent.clear()
            await session._sent.wait()
        return Turn(session, self, session._core.start(self._core, _request(request)))

    async def steer(self, input: Input) -> None:
        """Adds user input to whatever turn runs on the lane."""
        self._session._core.steer(self.id, "", input)

    def fork(self, lane_id: str) -> Lane:
        """The lane of this name, whose first turn continues from this lane's last response as it is now."""
        fork = self._session.lane(lane_id)
        fork._core.fork_from = self._core.last_response
        return fork

    async def run_tools(
        self,
        request: Request | Input,
        functions: Sequence[Function | Callable[..., Any]],
        *,
        max_turns: int = DEFAULT_MAX_TURNS,
    ) -> Result:
        """Runs turns until the model answers without calling a function. The calls of a turn run side by side: coroutine
        functions in the loop, plain ones in threads. An unknown function or an exception goes to the model as a result
        {"error": …}."""
        result: Result | None = None
        async for turn in self.tool_turns(request, functions, max_turns=max_turns):
            result = await turn.final()
        assert result is not None
        return result

    async def tool_turns(
        self,
        request: Request | Input,
        functions: Sequence[Function | Callable[..., Any]],
        *,
        max_turns: int = DEFAULT_MAX_TURNS,
    ) -> AsyncIterator[Turn]:
        """`run_tools` turn by turn: each turn may be iterated before the next one is asked for."""
        round = ToolRound(_request(request), as_functions(functions), max_turns)
        while True:
            turn = await self.start(round.request)
            yield turn
            calls = round.calls_of(await turn.final())
            if not calls:
                return
            if round.is_last:
                raise TurnLimitError("CANCELLED", "", f"the model still calls functions after {max_turns} turns")
            round.advance(calls, await asyncio.gather(*(_call(round, call) for call in calls)))


class Turn:
    """One response and everything until its end. It has one reader at a time, who iterates over it or takes the `final`
    result; final after some events takes what is left into account."""

    def __init__(self, session: Session, lane: Lane, core: TurnCore) -> None:
        self._session = session
        self._core = core
        self._news = asyncio.Event()
        core.wake = self._news.set
        self.lane = lane

    @property
    def id(self) -> str:
        return self._core.id

    def __aiter__(self) -> AsyncIterator[Event]:
        """The turn's events, up to the one with an outcome; then TurnError if the turn failed. An iteration that was left
        can be gone on with."""
        return self

    async def __anext__(self) -> Event:
        event = await self._next()
        if event is None:
            raise StopAsyncIteration
        return event

    async def final(self) -> Result:
        """Reads the turn to its end. Raises TurnError if it failed; `result` has what there is. An incomplete response is
        no error: see `Result.outcome`."""
        while await self._next() is not None:
            pass
        return self.result

    @property
    def result(self) -> Result:
        """What was read so far."""
        return self._core.accumulator.result(self._core.lane.id, self._core.id)

    async def steer(self, input: Input) -> None:
        """Adds user input to the running turn. Acceptance and refusal arrive as events. A steer on its way when the
        stream breaks may be lost; it is never sent twice."""
        self._session._core.steer(self._core.lane.id, self._core.id, input)

    async def cancel(self) -> None:
        """Gives the turn up; its last event, cancelled, arrives at once. Does nothing if the turn has ended."""
        self._session._core.cancel(self._core)

    def close(self) -> None:
        """Stops listening: further events are dropped. It does not cancel the turn."""
        self._session._core.detach(self._core)
        self._session._room.set()

    async def _next(self) -> Event | None:
        core, session = self._core, self._session
        if core.reading:
            raise TurnBusyError("the turn already has a reader")
        while not core.queue and not core.over:
            self._news.clear()
            core.reading = True
            try:
                await self._news.wait()
            finally:
                core.reading = False
        event = session._core.take(core)
        if session._core.has_room_to_receive():
            session._room.set()
        if event is None and core.error is not None:
            raise core.error
        return event


class _Stream:
    """One gRPC call of a session."""

    def __init__(self, session: Session, *, resume: bool) -> None:
        self._session = session
        self._resume = resume
        client = session._client
        # The first attempt fails at once if nobody listens; a resume may wait for the connection.
        self._call = client.stub.Connect(metadata=client.metadata(), wait_for_ready=resume)

    async def accept(self, timeout: float) -> None:
        core = self._session._core
        try:
            response = await asyncio.wait_for(self._handshake(), timeout)
            if response is None:
                raise inferred("UNAVAILABLE", "", "the stream ended before Opened")
            core.accept(response, resume=self._resume)
        except asyncio.TimeoutError as error:
            self.cancel()
            raise inferred("DEADLINE_EXCEEDED", "", "the gateway did not answer in time") from error
        except BaseException:
            self.cancel()
            raise

    async def receive(self) -> session_pb2.ConnectResponse | None:
        """None: the stream ended with OK."""
        try:
            response = await self._call.read()
        except grpc.aio.AioRpcError as error:
            raise _error_of(error) from error
        except asyncio.CancelledError:
            # grpc says so too when the call was cancelled, and not the task.
            task = asyncio.current_task()
            if self._call.done() and task is not None and not _is_cancelling(task):
                raise inferred("CANCELLED", "", "the call was cancelled") from None
            raise
        if response is grpc.aio.EOF:
            code = await self._call.code()
            if code is not grpc.StatusCode.OK:
                details = dict(await self._call.trailing_metadata() or ())
                message = await self._call.details() or ""
                raise stream_error(code, message, details.get("grpc-status-details-bin"))
            return None
        assert isinstance(response, session_pb2.ConnectResponse)
        return response

    async def write_all(self) -> None:
        session = self._session
        while True:
            out = session._core.next_outgoing()
            if out is None:
                session._writable.clear()
                await session._writable.wait()
                continue
            session._sent.set()
            try:
                if isinstance(out, HalfClose):
                    await self._call.done_writing()
                else:
                    await self._call.write(out)
            except (grpc.aio.AioRpcError, asyncio.InvalidStateError):
                # The reader hears why, and what was lost is sorted out when the session is resumed.
                return

    def cancel(self) -> None:
        self._call.cancel()

    async def _handshake(self) -> session_pb2.ConnectResponse | None:
        try:
            await self._call.write(self._session._core.open_message(resume=self._resume))
        except (grpc.aio.AioRpcError, asyncio.InvalidStateError):
            pass  # read() says why.
        return await self.receive()


async def _call(round: ToolRound, call: items_pb2.FunctionCall) -> str:
    try:
        value = await asyncio.to_thread(round.invoke, call)
        return text_of(await value if inspect.isawaitable(value) else value)
    except Exception as error:
        return error_result(error)


def _request(request: Request | Input) -> Request:
    return request if isinstance(request, Request) else Request(input=request)


def _is_cancelling(task: asyncio.Task[Any]) -> bool:
    # Task.cancelling is new in 3.11; without it, a cancelled call counts as a cancelled task.
    cancelling = getattr(task, "cancelling", None)
    return True if cancelling is None else cancelling() > 0


def _error_of(error: grpc.aio.AioRpcError) -> SessionError:
    trailers = dict(error.trailing_metadata() or ())
    details: Any = trailers.get("grpc-status-details-bin")
    return stream_error(error.code(), error.details() or "", details)
