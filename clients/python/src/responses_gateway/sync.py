"""The blocking client. Its twin for asyncio is aio.py; what they share is in core.py."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType
from typing import Any

import grpc

from .core import ATTEMPT_TIMEOUT, HalfClose, LaneCore, SessionCore, TurnCore, retry_delay
from .errors import (
    STREAM_LOST,
    SessionError,
    TurnBusyError,
    TurnLimitError,
    inferred,
    stream_error,
)
from .gen import service_pb2_grpc, session_pb2
from .options import DEFAULT_MAX_RECEIVE_BYTES, ClientOptions, SessionOptions
from .tools import DEFAULT_MAX_TURNS, Function, ToolRound, as_functions
from .types import Event, GoAway, Input, Limits, Request, Result, Stats

DEFAULT_CONNECT_TIMEOUT = 10.0


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
            grpc.insecure_channel(target, options) if creds is None else grpc.secure_channel(target, creds, options)
        )
        #: The generated client over the same connection, for calls without a session.
        self.stub = service_pb2_grpc.ResponsesServiceStub(self._channel)

    def metadata(self) -> list[tuple[str, str]]:
        """Token and metadata, for calls of `stub`."""
        return self._options.call_metadata()

    def connect(self, *, timeout: float = DEFAULT_CONNECT_TIMEOUT, **options: Any) -> Session:
        """Opens a session. The options are those of `SessionOptions`; `timeout` in seconds."""
        session = Session(self, SessionOptions(**options))
        session._open(timeout)
        return session

    def close(self) -> None:
        """Closes the connection. Close the sessions first: those that are still open end with an error."""
        self._channel.close()

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class Session:
    """One stream to the gateway with its own upstream connection. A lost stream is resumed by itself. All methods may be
    called from any thread."""

    def __init__(self, client: Client, options: SessionOptions) -> None:
        self._client = client
        self._core = SessionCore(options)
        self._lock = threading.RLock()
        self._changed = threading.Condition(self._lock)
        self._core.wake_writer = self._changed.notify_all
        self._stream: _Stream | None = None
        self._done = threading.Event()
        self._giving_up = threading.Event()

    @property
    def id(self) -> str:
        """Names the session in logs and traces; no secret."""
        return self._core.opened.session_id

    @property
    def limits(self) -> Limits:
        with self._lock:
            return self._core.limits()

    @property
    def stats(self) -> Stats:
        with self._lock:
            return self._core.stats()

    @property
    def error(self) -> SessionError | None:
        """Why the session is over: None while it lives and after close."""
        return self._core.error

    def wait(self, timeout: float | None = None) -> bool:
        """Waits until the session is over."""
        return self._done.wait(timeout)

    def lane(self, lane_id: str = "") -> Lane:
        """The lane of this name; "" is the default lane. Names are up to 256 of A-Z a-z 0-9 _ . -"""
        with self._lock:
            return Lane(self, self._core.lane(lane_id))

    def start(self, request: Request | Input, *, timeout: float | None = None) -> Turn:
        """Starts a turn on the default lane. See `Lane.start`."""
        return self.lane().start(request, timeout=timeout)

    def close(self) -> None:
        """Cancels what still runs, ends the stream and waits until nothing of the session is left."""
        with self._lock:
            if self._core.close():
                self._giving_up.set()
                if not self._core.connected and self._stream is not None:
                    self._stream.cancel()
        if not self._done.wait(self._core.options.close_timeout) and self._stream is not None:
            self._stream.cancel()
        self._done.wait()

    def __enter__(self) -> Session:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def _open(self, timeout: float) -> None:
        stream = _Stream(self, resume=False)
        stream.accept(timeout)
        self._stream = stream
        threading.Thread(target=self._run, args=(stream,), name="responses-gateway", daemon=True).start()

    def _run(self, stream: _Stream) -> None:
        """One stream after the other, until the session is over."""
        while True:
            replaced, ended = self._read(stream)
            stream.cancel()
            with self._lock:
                failure = self._core.verdict(ended, replaced=replaced)
            if failure is None:
                try:
                    stream = self._stream = self._resume()
                    continue
                except SessionError as error:
                    failure = error
            with self._lock:
                self._core.finish(failure)
                self._changed.notify_all()
            self._done.set()
            return

    def _read(self, stream: _Stream) -> tuple[bool, SessionError | None]:
        """Whether the stream is to be replaced, and how it ended; None is OK."""
        try:
            while True:
                with self._lock:
                    # The backpressure: while nothing is received, HTTP/2 holds the gateway up.
                    self._changed.wait_for(self._core.has_room_to_receive)
                response = stream.receive()
                if response is None:
                    return False, None
                with self._lock:
                    told = self._core.receive(response)
                if self._tell(told):
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
            with self._lock:
                self._core.set_drained_by(time.monotonic(), one)
                replace = self._core.replaces(one)
            if options.on_go_away is not None:
                options.on_go_away(one)
            if replace:
                return True
        return False

    def _resume(self) -> _Stream:
        deadline = self._core.resume_deadline(time.monotonic())
        attempt = 0
        while True:
            try:
                stream = self._stream = _Stream(self, resume=True)
                stream.accept(min(ATTEMPT_TIMEOUT, max(deadline - time.monotonic(), 0.001)))
                return stream
            except SessionError as error:
                if not error.resumable:
                    raise
                wait = retry_delay(attempt, error.retry_after)
                if self._giving_up.is_set() or time.monotonic() + wait > deadline:
                    lost = inferred("UNAVAILABLE", STREAM_LOST, "the stream could not be resumed in time")
                    raise lost from error
            self._giving_up.wait(wait)
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

    def start(self, request: Request | Input, *, timeout: float | None = None) -> Turn:
        """Queues a turn and returns; waits while too much is queued, for `timeout` seconds at most. Turns of one lane
        run in the order of their starts. The current OpenTelemetry span becomes the turn's parent."""
        session = self._session
        with session._lock:
            if not session._changed.wait_for(session._core.has_room_to_send, timeout):
                raise TimeoutError("too much is queued")
            core = session._core.start(self._core, _request(request))
            return Turn(session, self, core)

    def steer(self, input: Input) -> None:
        """Adds user input to whatever turn runs on the lane."""
        with self._session._lock:
            self._session._core.steer(self.id, "", input)

    def fork(self, lane_id: str) -> Lane:
        """The lane of this name, whose first turn continues from this lane's last response as it is now."""
        with self._session._lock:
            fork = self._session.lane(lane_id)
            fork._core.fork_from = self._core.last_response
            return fork

    def run_tools(
        self,
        request: Request | Input,
        functions: Sequence[Function | Callable[..., Any]],
        *,
        max_turns: int = DEFAULT_MAX_TURNS,
    ) -> Result:
        """Runs turns until the model answers without calling a function. The calls of a turn run side by side, in
        threads. An unknown function or an exception goes to the model as a result {"error": …}."""
        result: Result | None = None
        for turn in self.tool_turns(request, functions, max_turns=max_turns):
            result = turn.final()
        assert result is not None
        return result

    def tool_turns(
        self,
        request: Request | Input,
        functions: Sequence[Function | Callable[..., Any]],
        *,
        max_turns: int = DEFAULT_MAX_TURNS,
    ) -> Iterator[Turn]:
        """`run_tools` turn by turn: each turn may be iterated before the next one is asked for."""
        round = ToolRound(_request(request), as_functions(functions), max_turns)
        while True:
            turn = self.start(round.request)
            yield turn
            calls = round.calls_of(turn.final())
            if not calls:
                return
            if round.is_last:
                raise TurnLimitError("CANCELLED", "", f"the model still calls functions after {max_turns} turns")
            with ThreadPoolExecutor(max_workers=len(calls)) as pool:
                outputs = list(pool.map(round.call, calls))
            round.advance(calls, outputs)


class Turn:
    """One response and everything until its end. It has one reader at a time, who iterates over it or takes the `final`
    result; final after some events takes what is left into account."""

    def __init__(self, session: Session, lane: Lane, core: TurnCore) -> None:
        self._session = session
        self._core = core
        self._news = threading.Condition(session._lock)
        core.wake = self._news.notify_all
        self.lane = lane

    @property
    def id(self) -> str:
        return self._core.id

    def __iter__(self) -> Iterator[Event]:
        return self.events()

    def events(self, *, timeout: float | None = None) -> Iterator[Event]:
        """The turn's events, up to the one with an outcome; then TurnError if the turn failed. `timeout` bounds each
        wait in seconds; TimeoutError loses nothing, and an iteration that was left can be gone on with."""
        while (event := self._next(timeout)) is not None:
            yield event

    def final(self, *, timeout: float | None = None) -> Result:
        """Reads the turn to its end. Raises TurnError if it failed; `result` has what there is. An incomplete response is
        no error: see `Result.outcome`."""
        deadline = None if timeout is None else time.monotonic() + timeout
        while self._next(None if deadline is None else max(deadline - time.monotonic(), 0)) is not None:
            pass
        return self.result

    @property
    def result(self) -> Result:
        """What was read so far."""
        with self._session._lock:
            return self._core.accumulator.result(self._core.lane.id, self._core.id)

    def steer(self, input: Input) -> None:
        """Adds user input to the running turn. Acceptance and refusal arrive as events. A steer on its way when the
        stream breaks may be lost; it is never sent twice."""
        with self._session._lock:
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

    def _next(self, timeout: float | None) -> Event | None:
        core, session = self._core, self._session
        with session._lock:
            if core.reading:
                raise TurnBusyError("the turn already has a reader")
            core.reading = True
            try:
                if not self._news.wait_for(lambda: core.queue or core.over, timeout):
                    raise TimeoutError("no event in time")
            finally:
                core.reading = False
            full = not session._core.has_room_to_receive()
            event = session._core.take(core)
            if full and session._core.has_room_to_receive():
                session._changed.notify_all()
            if event is None and core.error is not None:
                raise core.error
            return event


class _Stream:
    """One gRPC call of a session."""

    def __init__(self, session: Session, *, resume: bool) -> None:
        self._session = session
        self._resume = resume
        self._ended = False
        self._accepted = False
        client = session._client
        # The first attempt fails at once if nobody listens; a resume may wait for the connection.
        self._call = client.stub.Connect(self._requests(), metadata=tuple(client.metadata()), wait_for_ready=resume)

    def accept(self, timeout: float) -> None:
        timer = threading.Timer(timeout, self._call.cancel)
        timer.start()
        try:
            response = self.receive()
            if response is None:
                raise inferred("UNAVAILABLE", "", "the stream ended before Opened")
            with self._session._lock:
                self._session._core.accept(response, resume=self._resume)
                self._accepted = True
                self._session._changed.notify_all()
        except BaseException:
            self.cancel()
            raise
        finally:
            timer.cancel()

    def receive(self) -> session_pb2.ConnectResponse | None:
        """None: the stream ended with OK."""
        try:
            return next(self._call)
        except StopIteration:
            return None
        except grpc.RpcError as error:
            raise _error_of(self._call) from error

    def cancel(self) -> None:
        with self._session._lock:
            self._ended = True
            self._session._changed.notify_all()
        self._call.cancel()

    def _requests(self) -> Iterator[session_pb2.ConnectRequest]:
        """gRPC takes the messages from here, in a thread of its own."""
        session = self._session
        with session._lock:
            first = session._core.open_message(resume=self._resume)
        yield first
        while True:
            with session._lock:
                out = None
                while out is None:
                    if self._ended:
                        return
                    out = session._core.next_outgoing() if self._accepted else None
                    if out is None:
                        session._changed.wait()
                session._changed.notify_all()
            if isinstance(out, HalfClose):
                return
            yield out


def _request(request: Request | Input) -> Request:
    return request if isinstance(request, Request) else Request(input=request)


def _error_of(call: Any) -> SessionError:
    trailers = dict(call.trailing_metadata() or ())
    return stream_error(call.code(), call.details() or "", trailers.get("grpc-status-details-bin"))
