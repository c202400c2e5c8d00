"""The gRPC calls of an asyncio session."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any

import grpc
import grpc.aio

from .connections import PATIENCE, Connection
from .core import AFFINITY_HEADER, ATTEMPT_TIMEOUT, HalfClose, given_up, silence
from .errors import SessionError, inferred, stream_error
from .gen import session_pb2
from .reasons import Reason

if TYPE_CHECKING:
    from .aio import Session

#: Code, details and trailing metadata.
_Status = tuple[grpc.StatusCode, Any, Any]

# grpcio's own words when a write fails. It puts them in the place of the peer's status, for good, even if that has
# arrived (read in 1.66 and 1.85.1; findings/grpcio-asyncio-write-hides-status.sh).
_WRITE_FAILED = "Internal error from Core"
#: Seconds.
_STATUS_PATIENCE = 1.0


async def open_stream(session: Session, deadline: float, *, resume: bool = False) -> Stream:
    """Opens a stream until the deadline. An open that nobody answers on a shared connection is tried on a further one:
    its peer may take no more streams."""
    while True:
        metadata = await session._client.metadata(max(deadline - time.monotonic(), 0))
        stream = Stream(session, metadata, resume=resume)
        left = deadline - time.monotonic()
        impatient = stream.connection.is_shared and left > PATIENCE
        try:
            await stream.accept(PATIENCE if impatient else left)
            return stream
        except SessionError as error:
            if not (impatient and error.reason == Reason.CONNECT_TIMEOUT):
                raise
            stream.connection.is_full_without()


async def resume_stream(session: Session, ended: SessionError | None) -> Stream:
    """Opens streams until one is accepted or the session's time is up."""
    core = session._core
    failure = ended
    while True:
        wait = core.next_attempt(None if failure is None else failure.retry_after)
        if wait is None or session._giving_up.is_set():
            raise given_up(failure) from failure
        await asyncio.sleep(wait)
        core.log.info("responses-gateway: resuming session %s after %s", session.id, failure)
        try:
            now = time.monotonic()
            return await open_stream(session, min(now + ATTEMPT_TIMEOUT, max(core.resume_deadline, now)), resume=True)
        except SessionError as error:
            if not error.resumable and not core.tries_elsewhere(error):
                raise
            failure = error


class Stream:
    """One gRPC call of a session."""

    def __init__(self, session: Session, metadata: list[tuple[str, str]], *, resume: bool) -> None:
        self._session = session
        self._resume = resume
        self._accepted = False
        self._over = False
        self._silent = False
        self._said: _Status | None = None
        client = session._client
        self._requests = _Requests() if client._interceptors else None
        self.connection: Connection[grpc.aio.Channel] = client._take()
        try:
            # The first attempt fails at once if nobody listens; a resume may wait for the connection.
            metadata = [*metadata, (AFFINITY_HEADER, session._core.affinity)]
            taken = None if self._requests is None else self._requests.all()
            self._call = self.connection.stub.Connect(taken, metadata=metadata, wait_for_ready=resume)
        except BaseException as error:
            client._give_back(self.connection)
            if not isinstance(error, (ValueError, TypeError, grpc.aio.UsageError)):
                raise
            raise inferred("INVALID_ARGUMENT", Reason.UNREACHABLE, f"the call could not be made: {error}") from error
        self._call.add_done_callback(self._note_status)

    async def accept(self, timeout: float) -> None:
        core = self._session._core
        try:
            response = await asyncio.wait_for(self._handshake(), max(timeout, 0.001))
            if response is None:
                raise inferred("UNAVAILABLE", Reason.UNREACHABLE, "the stream ended before Opened")
            core.accept(response, resume=self._resume)
            self._accepted = True
        except asyncio.TimeoutError as error:
            self.cancel()
            raise inferred("DEADLINE_EXCEEDED", Reason.CONNECT_TIMEOUT, "the session was not open in time") from error
        except BaseException:
            self.cancel()
            raise

    async def receive(self) -> session_pb2.ConnectResponse | None:
        """None: the stream ended with OK."""
        try:
            response = await self._call.read()
        except grpc.aio.AioRpcError as error:
            raise await self._error(error) from error
        except asyncio.CancelledError:
            # grpc says so too when the call was cancelled, and not the task.
            task = asyncio.current_task()
            if self._silent and not self._session._giving_up.is_set():
                # The heartbeat has cancelled it. Without Task.cancelling, nothing else would tell.
                raise silence() from None
            if self._call.done() and task is not None and not _is_cancelling(task):
                raise inferred("CANCELLED", Reason.STREAM_LOST, "the call was cancelled") from None
            raise
        if response is grpc.aio.EOF:
            code = await self._call.code()
            if code is not grpc.StatusCode.OK:
                raise await self._error(None)
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
                    await self._done_writing()
                else:
                    await self._write(out)
            except (grpc.aio.AioRpcError, asyncio.InvalidStateError):
                # The reader hears why, and what was lost is sorted out when the session is resumed.
                return

    async def beat(self) -> None:
        """Sends heartbeats, and ends the call when nothing is heard any more."""
        core = self._session._core
        heartbeat = core.heartbeat
        if heartbeat is None:
            return
        wait = core.beat(heartbeat)
        while wait is not None:
            await asyncio.sleep(wait)
            wait = core.beat(heartbeat)
        self._silent = True
        # What is dead may be the whole connection.
        self.connection.retired = True
        self._call.cancel()

    def cancel(self) -> None:
        # First: a call that is over does not end by being cancelled what waits for its next message.
        if self._requests is not None:
            self._requests.end()
        self._call.cancel()
        if not self._over:
            self._over = True
            self._session._client._give_back(self.connection)

    async def _handshake(self) -> session_pb2.ConnectResponse | None:
        try:
            await self._write(self._session._core.open_message(resume=self._resume))
        except (grpc.aio.AioRpcError, asyncio.InvalidStateError):
            pass  # read() says why.
        return await self.receive()

    async def _write(self, message: session_pb2.ConnectRequest) -> None:
        await (self._call.write(message) if self._requests is None else self._requests.put(message))

    async def _done_writing(self) -> None:
        if self._requests is None:
            await self._call.done_writing()
        else:
            await self._requests.put(None)

    async def _error(self, error: grpc.aio.AioRpcError | None) -> SessionError:
        if self._silent:
            return silence()
        otherwise = Reason.STREAM_LOST if self._accepted else Reason.UNREACHABLE
        code, said, trailers = _status_of(error) if error is not None else await self._status()
        if said == _WRITE_FAILED:
            code, said, trailers = await self._status_behind_the_write()
        # Pair by pair: older versions of grpcio cannot make a dict of it.
        details: Any = next((value for key, value in trailers or () if key == "grpc-status-details-bin"), None)
        return stream_error(code, said or "", details, otherwise)

    async def _status(self) -> _Status:
        return await self._call.code(), await self._call.details(), await self._call.trailing_metadata()

    async def _status_behind_the_write(self) -> _Status:
        """The peer's status, which came just before the write failed, or comes just after."""
        give_up_at = time.monotonic() + _STATUS_PATIENCE
        while True:
            status = self._said or await self._status()
            if status[1] != _WRITE_FAILED or time.monotonic() > give_up_at:
                return status
            await asyncio.sleep(0.01)

    def _note_status(self, _: object) -> None:
        # The status is there: the coroutine ends without waiting.
        try:
            self._status().send(None)
        except StopIteration as ended:
            if ended.value[1] != _WRITE_FAILED:
                self._said = ended.value
        except BaseException:
            pass  # With interceptors, the call may end by an exception, which read() raises as well.


class _Requests:
    """What a call with interceptors takes its messages from. grpcio's own way of writing to one leaves a task behind that
    waits for the next message for ever, and complains of it."""

    def __init__(self) -> None:
        # One at a time: what is not taken holds up who writes.
        self._waiting: asyncio.Queue[session_pb2.ConnectRequest | None] = asyncio.Queue(1)

    async def all(self) -> AsyncIterator[session_pb2.ConnectRequest]:
        while (message := await self._waiting.get()) is not None:
            yield message

    async def put(self, message: session_pb2.ConnectRequest | None) -> None:
        await self._waiting.put(message)

    def end(self) -> None:
        # What waits is of a call that is over.
        if self._waiting.full():
            self._waiting.get_nowait()
        self._waiting.put_nowait(None)


def _status_of(error: grpc.aio.AioRpcError) -> _Status:
    return error.code(), error.details(), error.trailing_metadata()


def _is_cancelling(task: asyncio.Task[Any]) -> bool:
    # Task.cancelling is new in 3.11; without it, a cancelled call counts as a cancelled task.
    cancelling = getattr(task, "cancelling", None)
    return True if cancelling is None else cancelling() > 0
