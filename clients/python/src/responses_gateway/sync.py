"""The blocking client. Its twin for asyncio is aio.py; what they share is in core.py."""

from __future__ import annotations

import logging
import threading
import time
import weakref
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any

import grpc

from .connections import Connection, Connections
from .core import SessionCore, client_closed, session_closed
from .errors import SessionError, WaitTimeoutError, inferred, token_source_failed
from .log import Log
from .options import (
    DEFAULT_CONNECT_TIMEOUT,
    DEFAULT_MAX_RECEIVE_BYTES,
    ClientOptions,
    ConnectOptions,
    SessionOptions,
    Token,
)
from .reasons import Reason
from .request import Input, Request
from .sync_responses import Responses, ResponseStream
from .sync_stream import Stream, open_stream, resume_stream
from .sync_turn import Lane, Turn
from .threads import Callbacks, Ending, in_thread
from .types import Event, GoAway, Limits, Stats
from .unary import RetryingChannel

if TYPE_CHECKING:
    from typing_extensions import Unpack

__all__ = ["Client", "Lane", "ResponseStream", "Responses", "Session", "Turn"]

# How often a session that does not receive looks whether somebody suffers from it.
_STALL_CHECK = 0.25


class Client:
    """Holds the connections to a gateway, for any number of sessions. It connects when first used.

    Defaults of `address` and `token`: RESPONSES_GATEWAY_ADDR and RESPONSES_GATEWAY_TOKEN. Without a scheme (http://,
    https://), loopback addresses are plain and all others TLS. `token` may be a function, asked for each stream.
    `logger` is logging's "responses_gateway" by default.
    """

    def __init__(
        self,
        address: str | None = None,
        *,
        token: Token | None = None,
        metadata: Sequence[tuple[str, str]] = (),
        credentials: grpc.ChannelCredentials | None = None,
        max_receive_bytes: int = DEFAULT_MAX_RECEIVE_BYTES,
        channel_options: Mapping[str, Any] | None = None,
        interceptors: Sequence[Any] = (),
        logger: logging.Logger | None = None,
    ) -> None:
        self._options = ClientOptions.resolve(address, token, metadata, credentials, max_receive_bytes, channel_options)
        self._interceptors = interceptors
        self.logger = logger or logging.getLogger("responses_gateway")
        self._log = Log(self.logger)
        self._lock = threading.Lock()
        self._connections: Connections[grpc.Channel] = Connections(
            self._channel, lambda channel: channel.close(), RetryingChannel
        )
        self._sessions: weakref.WeakSet[Session] = weakref.WeakSet()
        self._opening: set[Session] = set()
        self._ending = Ending()
        self._closed = False

    @property
    def responses(self) -> Responses:
        """Turns without a session, and what the upstream keeps of responses."""
        if self._closed:
            raise client_closed()
        return Responses(self)

    @property
    def stub(self) -> Any:
        """The generated client over a connection of its own, for calls without a session. Unary calls are sent again by
        themselves where the gateway says that nothing was done."""
        with self._lock:
            if self._closed:
                raise client_closed()
            return self._connections.stub

    def metadata(self, timeout: float = DEFAULT_CONNECT_TIMEOUT) -> list[tuple[str, str]]:
        """Token and metadata, for calls of `stub`. A token source gets `timeout` seconds."""
        token = self._options.token
        if not callable(token):
            return self._options.call_metadata(token)
        try:
            return self._metadata(timeout, self._ending)
        except SessionError as error:
            raise self._lost(error) from error

    def _lost(self, error: SessionError) -> SessionError:
        """Why a call without a session failed."""
        return client_closed() if self._closed and error.inferred else error

    def _metadata(self, timeout: float, ending: Ending) -> list[tuple[str, str]]:
        token = self._options.token
        if not callable(token):
            return self._options.call_metadata(token)
        asked = in_thread(token, "responses-gateway-token")
        if not ending.wait_for(asked, timeout):
            raise token_source_failed("did not answer in time")
        problem = asked.exception()
        if problem is not None:
            raise token_source_failed(f"raised {type(problem).__name__}") from problem
        found: Any = asked.result()
        return self._options.call_metadata(found)

    def connect(self, *, timeout: float = DEFAULT_CONNECT_TIMEOUT, **options: Unpack[ConnectOptions]) -> Session:
        """Opens a session. The options are those of `SessionOptions`; `timeout` in seconds."""
        session = Session(self, SessionOptions(**options))
        with self._lock:
            if self._closed:
                raise client_closed()
            self._opening.add(session)
        try:
            session._open(timeout)
            with self._lock:
                self._sessions.add(session)
                closed = self._closed
        finally:
            with self._lock:
                self._opening.discard(session)
        if closed:
            session._begin_close(client_closed())
            session._await_end()
            raise client_closed()
        return session

    def close(self) -> None:
        """Ends the sessions that are still open, or being opened, at once with CLIENT_CLOSED, and closes the connections.
        Their turns are cancelled, as by `Session.close`."""
        with self._lock:
            self._closed = True
            self._ending.set()
            opening, sessions = list(self._opening), list(self._sessions)
        for session in opening:
            session._abandon(client_closed())
        for session in sessions:
            session._begin_close(client_closed())
        for session in sessions:
            session._await_end()
        with self._lock:
            channels = self._connections.all()
        for channel in channels:
            channel.close()

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _channel(self) -> grpc.Channel:
        target, creds = self._options.target()
        options = self._options.grpc_options()
        plain = grpc.insecure_channel(target, options) if creds is None else grpc.secure_channel(target, creds, options)
        return grpc.intercept_channel(plain, *self._interceptors) if self._interceptors else plain

    def _take(self) -> Connection[grpc.Channel]:
        with self._lock:
            if self._closed:
                raise client_closed()
            return self._connections.take()

    def _give_back(self, connection: Connection[grpc.Channel]) -> None:
        with self._lock:
            self._connections.give_back(connection)


class Session:
    """One stream to the gateway with its own upstream connection. A lost stream is resumed by itself. All methods may be
    called from any thread, callbacks included."""

    def __init__(self, client: Client, options: SessionOptions) -> None:
        self._client = client
        self._core = SessionCore(options, client._log)
        self._core.max_receive_bytes = client._options.max_receive_bytes
        self._lock = threading.RLock()
        self._changed = threading.Condition(self._lock)
        self._core.wake_writer = self._changed.notify_all
        self._stream: Stream | None = None
        self._done = threading.Event()
        self._giving_up = Ending()
        self._close_until = 0.0
        self._callbacks = Callbacks(self._report)

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
    def durable(self) -> bool:
        """Whether another gateway can go on with the session, should this one fail."""
        return self._core.durable

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
        self._begin_close(session_closed())
        self._await_end()
        self._callbacks.join(self._core.options.close_timeout)

    def __enter__(self) -> Session:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def _wait_for_room(self, timeout: float | None) -> None:
        if not self._changed.wait_for(self._core.has_room_to_send, timeout):
            raise WaitTimeoutError("too much is queued")

    def _begin_close(self, why: SessionError) -> None:
        with self._lock:
            if self._core.close(why):
                self._giving_up.set()
                self._close_until = time.monotonic() + self._core.options.close_timeout
                if not self._core.connected and self._stream is not None:
                    self._stream.cancel()

    def _await_end(self) -> None:
        if not self._done.wait(max(self._close_until - time.monotonic(), 0)) and self._stream is not None:
            self._stream.cancel()
        self._done.wait()

    def _open(self, timeout: float) -> None:
        try:
            stream = open_stream(self, time.monotonic() + timeout)
        except SessionError:
            if self._core.error is not None:
                raise self._core.error from None
            raise
        if self._core.error is not None:
            stream.cancel()
            raise self._core.error
        self._stream = stream
        threading.Thread(target=self._run, args=(stream,), name="responses-gateway", daemon=True).start()

    def _abandon(self, error: SessionError) -> None:
        with self._lock:
            self._core.abandon(error)
            self._giving_up.set()
            self._changed.notify_all()
            stream = self._stream
        if stream is not None:
            stream.cancel()

    def _run(self, stream: Stream) -> None:
        """One stream after the other, until the session is over."""
        failure = inferred("INTERNAL", Reason.PROTOCOL, "the client has a bug")
        try:
            while True:
                replaced, ended = self._read(stream)
                stream.cancel()
                with self._lock:
                    verdict = self._core.verdict(ended, replaced=replaced)
                if verdict is not None:
                    failure = verdict
                    return
                try:
                    stream = resume_stream(self, ended)
                except SessionError as error:
                    failure = error
                    return
        except BaseException as error:
            failure.__cause__ = error
            self._report(error)
        finally:
            with self._lock:
                self._core.finish(failure)
                self._changed.notify_all()
            self._callbacks.end()
            self._done.set()

    def _read(self, stream: Stream) -> tuple[bool, SessionError | None]:
        """Whether the stream is to be replaced, and how it ended; None is OK."""
        try:
            while True:
                with self._lock:
                    # The backpressure: while nothing is received, HTTP/2 holds the gateway up.
                    self._core.relieve()
                    if not self._core.has_room_to_receive():
                        self._wait_for_readers()
                response = stream.receive()
                if response is None:
                    return False, None
                with self._lock:
                    told = self._core.receive(response)
                if self._tell(told, stream):
                    return True, None
        except SessionError as error:
            return False, error

    def _wait_for_readers(self) -> None:
        while not self._core.has_room_to_receive():
            self._changed.wait(_STALL_CHECK)
            self._core.relieve()
        self._core.resumes_receiving()

    def _tell(self, told: list[Event | GoAway], stream: Stream) -> bool:
        options = self._core.options
        replace = False
        for one in told:
            if isinstance(one, Event):
                if options.on_event is not None:
                    self._callbacks.call(options.on_event, one)
                continue
            with self._lock:
                self._core.set_drained_by(time.monotonic(), one)
                replace = replace or self._core.replaces(one)
            if one.draining:
                stream.connection.retired = True
            if options.on_go_away is not None:
                self._callbacks.call(options.on_go_away, one)
        with self._lock:
            return replace or self._core.moves_now()

    def _report(self, error: BaseException) -> None:
        """Tells what the program's own code raised."""
        self._client._log.error("responses-gateway: a callback raised %s", type(error).__name__, exc_info=error)
        on_error = self._core.options.on_error
        if on_error is not None:
            try:
                on_error(error)
            except BaseException as worse:
                self._client._log.error("responses-gateway: on_error raised", exc_info=worse)
