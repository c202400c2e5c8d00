"""The asyncio client. Its twin for threads is sync.py; what they share is in core.py.

Cancelling a task that waits here loses nothing: neither events nor the turn.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
import time
import weakref
from collections.abc import Awaitable, Callable, Coroutine, Generator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import grpc
import grpc.aio

from .aio_responses import Responses, ResponseStream
from .aio_stream import Stream, open_stream, resume_stream
from .aio_turn import Lane, Turn
from .connections import Connection, Connections
from .core import SessionCore, client_closed, session_closed
from .errors import SessionError, inferred, token_source_failed
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
from .threads import in_thread
from .types import Event, GoAway, Limits, Stats
from .unary import AioUnaryRetry

if TYPE_CHECKING:
    from typing_extensions import Unpack

__all__ = ["Client", "Lane", "ResponseStream", "Responses", "Session", "Turn"]

T = TypeVar("T")
# How often a session that does not receive looks whether somebody suffers from it.
_STALL_CHECK = 0.25


class Client:
    """Holds the connections to a gateway, for any number of sessions. It may be made anywhere, also outside of an event
    loop: it connects when first used.

    Defaults of `address` and `token`: RESPONSES_GATEWAY_ADDR and RESPONSES_GATEWAY_TOKEN. Without a scheme (http://,
    https://), loopback addresses are plain and all others TLS. `token` may be a function or a coroutine function, asked
    for each stream. `logger` is logging's "responses_gateway" by default.
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
        interceptors: Sequence[grpc.aio.ClientInterceptor] = (),
        logger: logging.Logger | None = None,
    ) -> None:
        self._options = ClientOptions.resolve(address, token, metadata, credentials, max_receive_bytes, channel_options)
        self._interceptors = interceptors
        self.logger = logger or logging.getLogger("responses_gateway")
        self._log = Log(self.logger)
        # grpc.aio ties a channel to the event loop that it is made in.
        self._connections: Connections[grpc.aio.Channel] | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._closing: set[asyncio.Task[None]] = set()
        self._sessions: weakref.WeakSet[Session] = weakref.WeakSet()
        self._opening: set[asyncio.Future[Any]] = set()
        self._closed = False

    @property
    def responses(self) -> Responses:
        """Turns without a session, and what the upstream keeps of responses."""
        if self._closed:
            raise client_closed()
        return Responses(self)

    @property
    def stub(self) -> Any:
        """The generated client over a connection of its own, for calls without a session. Within an event loop. Unary calls
        are sent again by themselves where the gateway says that nothing was done."""
        if self._closed:
            raise client_closed()
        return self._in_loop().stub

    async def metadata(self, timeout: float = DEFAULT_CONNECT_TIMEOUT) -> list[tuple[str, str]]:
        """Token and metadata, for calls of `stub`. A token source gets `timeout` seconds."""
        token = self._options.token
        if not callable(token):
            return self._options.call_metadata(token)
        try:
            found = await asyncio.wait_for(self._while_open(_asked(token)), timeout)
        except SessionError:
            raise
        except (asyncio.TimeoutError, TimeoutError) as error:
            raise token_source_failed("did not answer in time") from error
        except asyncio.CancelledError:
            raise
        except BaseException as error:
            raise token_source_failed(f"raised {type(error).__name__}") from error
        return self._options.call_metadata(found)

    def connect(self, *, timeout: float = DEFAULT_CONNECT_TIMEOUT, **options: Unpack[ConnectOptions]) -> _Connecting:
        """Opens a session: `async with client.connect() as session`, or `session = await client.connect()`. The options
        are those of `SessionOptions`; `timeout` in seconds."""
        return _Connecting(self, SessionOptions(**options), timeout)

    async def close(self) -> None:
        """Ends the sessions that are still open, or being opened, at once with CLIENT_CLOSED, and closes the connections.
        Their turns are cancelled, as by `Session.close`."""
        self._closed = True
        for opening in list(self._opening):
            opening.cancel()
        await asyncio.gather(*(session._end(client_closed()) for session in list(self._sessions)))
        if self._connections is not None and self._loop is asyncio.get_running_loop():
            for channel in self._connections.all():
                await channel.close()

    async def __aenter__(self) -> Client:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def _while_open(self, work: Coroutine[Any, Any, T]) -> T:
        """Does it in a task of its own, which `close` ends."""
        task = asyncio.ensure_future(work)
        self._opening.add(task)
        try:
            return await task
        except asyncio.CancelledError:
            if task.cancelled() and self._closed:
                raise client_closed() from None
            raise
        finally:
            self._opening.discard(task)

    def _lost(self, error: SessionError) -> SessionError:
        """Why a call without a session failed."""
        return client_closed() if self._closed and error.inferred else error

    def _in_loop(self) -> Connections[grpc.aio.Channel]:
        loop = asyncio.get_running_loop()
        if self._connections is None or self._loop is not loop:
            self._loop, self._connections = loop, Connections(self._channel, self._close_channel)
        return self._connections

    def _channel(self) -> grpc.aio.Channel:
        target, creds = self._options.target()
        options = self._options.grpc_options()
        interceptors = [*self._interceptors, AioUnaryRetry()]
        if creds is None:
            return grpc.aio.insecure_channel(target, options, interceptors=interceptors)
        return grpc.aio.secure_channel(target, creds, options, interceptors=interceptors)

    def _close_channel(self, channel: grpc.aio.Channel) -> None:
        task = asyncio.ensure_future(channel.close())
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)

    def _take(self) -> Connection[grpc.aio.Channel]:
        if self._closed:
            raise client_closed()
        return self._in_loop().take()

    def _give_back(self, connection: Connection[grpc.aio.Channel]) -> None:
        if self._connections is not None:
            self._connections.give_back(connection)


class _Connecting:
    def __init__(self, client: Client, options: SessionOptions, timeout: float) -> None:
        self._client = client
        self._options = options
        self._timeout = timeout
        self._session: Session | None = None

    def __await__(self) -> Generator[Any, None, Session]:
        return self._open().__await__()

    async def __aenter__(self) -> Session:
        self._session = await self._open()
        return self._session

    async def __aexit__(self, *_: object) -> None:
        if self._session is not None:
            await self._session.close()

    async def _open(self) -> Session:
        client = self._client
        if client._closed:
            raise client_closed()
        session = Session(client, self._options)
        await client._while_open(session._open(self._timeout))
        client._sessions.add(session)
        if client._closed:
            await session._end(client_closed())
            raise client_closed()
        return session


class Session:
    """One stream to the gateway with its own upstream connection. A lost stream is resumed by itself. Callbacks may be
    coroutine functions."""

    def __init__(self, client: Client, options: SessionOptions) -> None:
        self._client = client
        self._core = SessionCore(options, client._log)
        self._core.max_receive_bytes = client._options.max_receive_bytes
        self._writable = asyncio.Event()
        self._room = asyncio.Event()
        self._sent = asyncio.Event()
        self._core.wake_writer = self._writable.set
        self._task: asyncio.Task[None] | None = None
        self._giving_up = asyncio.Event()
        self._callbacks: set[asyncio.Future[Any]] = set()

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
    def durable(self) -> bool:
        """Whether another gateway can go on with the session, should this one fail."""
        return self._core.durable

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
        await self._end(session_closed())

    async def _end(self, why: SessionError) -> None:
        if self._task is None:
            return
        if self._core.close(why):
            self._give_up()
            if not self._core.connected:
                self._task.cancel()
        if self._task is asyncio.current_task():
            return
        done, _ = await asyncio.wait([self._task], timeout=self._core.options.close_timeout)
        if not done:
            self._task.cancel()
            await asyncio.wait([self._task])

    async def __aenter__(self) -> Session:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def _open(self, timeout: float) -> None:
        stream = await open_stream(self, time.monotonic() + timeout)
        self._task = asyncio.create_task(self._run(stream), name="responses-gateway")

    def _give_up(self) -> None:
        self._giving_up.set()
        self._room.set()
        self._sent.set()

    async def _wait_for_room(self) -> None:
        while not self._core.has_room_to_send():
            self._sent.clear()
            await self._sent.wait()

    async def _run(self, stream: Stream) -> None:
        """One stream after the other, until the session is over."""
        failure = inferred("CANCELLED", Reason.SESSION_CLOSED, "the session was closed")
        try:
            while True:
                try:
                    replaced, ended = await self._serve(stream)
                finally:
                    stream.cancel()
                verdict = self._core.verdict(ended, replaced=replaced)
                if verdict is not None:
                    failure = verdict
                    return
                try:
                    stream = await resume_stream(self, ended)
                except SessionError as error:
                    failure = error
                    return
        except asyncio.CancelledError:
            if not self._giving_up.is_set():
                raise
        except Exception as error:
            failure = inferred("INTERNAL", Reason.PROTOCOL, "the client has a bug")
            failure.__cause__ = error
            self._report(error)
        finally:
            self._core.finish(failure)
            self._sent.set()

    async def _serve(self, stream: Stream) -> tuple[bool, SessionError | None]:
        beside = [asyncio.create_task(stream.write_all()), asyncio.create_task(stream.beat())]
        try:
            return await self._read(stream)
        finally:
            for task in beside:
                task.cancel()
            await asyncio.wait(beside)

    async def _read(self, stream: Stream) -> tuple[bool, SessionError | None]:
        """Whether the stream is to be replaced, and how it ended; None is OK."""
        core = self._core
        try:
            while True:
                # The backpressure: while nothing is received, HTTP/2 holds the gateway up.
                core.relieve()
                if not core.has_room_to_receive():
                    await self._wait_for_readers()
                response = await stream.receive()
                if response is None:
                    return False, None
                if self._tell(core.receive(response), stream):
                    return True, None
        except SessionError as error:
            return False, error

    async def _wait_for_readers(self) -> None:
        core = self._core
        while not core.has_room_to_receive():
            self._room.clear()
            try:
                await asyncio.wait_for(self._room.wait(), _STALL_CHECK)
            except asyncio.TimeoutError:
                core.relieve()
        core.resumes_receiving()

    def _tell(self, told: list[Event | GoAway], stream: Stream) -> bool:
        options, replace = self._core.options, False
        for one in told:
            if isinstance(one, Event):
                self._call(options.on_event, one)
                continue
            self._core.set_drained_by(time.monotonic(), one)
            replace = replace or self._core.replaces(one)
            if one.draining:
                stream.connection.retired = True
            self._call(options.on_go_away, one)
        return replace or self._core.moves_now()

    def _call(self, callback: Callable[[Any], object] | None, argument: object) -> None:
        """Calls back from a task of its own, so that a callback may wait, raise and close the session."""
        if callback is None:
            return

        async def call() -> None:
            try:
                value = callback(argument)
                if inspect.isawaitable(value):
                    await value
            except BaseException as error:
                self._report(error)

        task = asyncio.ensure_future(call())
        self._callbacks.add(task)
        task.add_done_callback(self._callbacks.discard)

    def _report(self, error: BaseException) -> None:
        """Tells what the program's own code raised."""
        self._client._log.error("responses-gateway: a callback raised %s", type(error).__name__, exc_info=error)
        on_error = self._core.options.on_error
        if on_error is not None:
            try:
                on_error(error)
            except Exception as worse:
                self._client._log.error("responses-gateway: on_error raised", exc_info=worse)


async def _asked(token: Callable[[], str | Awaitable[str]]) -> Any:
    if inspect.iscoroutinefunction(token):
        found: Any = await token()
    else:
        # It may block: not in the event loop.
        found = await asyncio.wrap_future(in_thread(token, "responses-gateway-token"))
        if inspect.isawaitable(found):
            found = await found
    return found
