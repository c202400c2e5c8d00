"""The gRPC calls of a blocking session."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import grpc

from .alarms import Alarm, call_after
from .connections import PATIENCE, Connection
from .core import AFFINITY_HEADER, ATTEMPT_TIMEOUT, HalfClose, given_up, silence
from .errors import SessionError, inferred, stream_error
from .gen import session_pb2
from .reasons import Reason

if TYPE_CHECKING:
    from .sync import Session


def open_stream(session: Session, deadline: float, *, resume: bool = False) -> Stream:
    """Opens a stream until the deadline. An open that nobody answers on a shared connection is tried on a further one:
    its peer may take no more streams."""
    while True:
        stream = Stream(session, deadline, resume=resume)
        left = deadline - time.monotonic()
        impatient = stream.connection.is_shared and left > PATIENCE
        try:
            stream.accept(PATIENCE if impatient else left)
            return stream
        except SessionError as error:
            if not (impatient and error.reason == Reason.CONNECT_TIMEOUT):
                raise
            stream.connection.is_full_without()


def resume_stream(session: Session, ended: SessionError | None) -> Stream:
    """Opens streams until one is accepted or the session's time is up."""
    core = session._core
    failure = ended
    while True:
        with session._lock:
            wait = core.next_attempt(None if failure is None else failure.retry_after)
        if wait is None or session._giving_up.is_set():
            raise given_up(failure) from failure
        if session._giving_up.wait(wait):
            continue
        core.log.info("responses-gateway: resuming session %s after %s", session.id, failure)
        try:
            now = time.monotonic()
            return open_stream(session, min(now + ATTEMPT_TIMEOUT, max(core.resume_deadline, now)), resume=True)
        except SessionError as error:
            if not error.resumable and not core.tries_elsewhere(error):
                raise
            failure = error


class Stream:
    """One gRPC call of a session."""

    def __init__(self, session: Session, deadline: float, *, resume: bool) -> None:
        self._session = session
        self._resume = resume
        self._ended = False
        self._accepted = False
        self._late = False
        self._silent = False
        self._alarm: Alarm | None = None
        client = session._client
        own = client._metadata(max(deadline - time.monotonic(), 0), session._giving_up)
        metadata = (*own, (AFFINITY_HEADER, session._core.affinity))
        self.connection: Connection[grpc.Channel] = client._take()
        self._given_back = False
        # The first attempt fails at once if nobody listens; a resume may wait for the connection.
        try:
            self._call = self.connection.stub.Connect(self._requests(), metadata=metadata, wait_for_ready=resume)
        except BaseException as error:
            self._give_back()
            if not isinstance(error, ValueError):
                raise
            # The channel was closed meanwhile, or an entry of the metadata cannot be sent.
            raise inferred("INVALID_ARGUMENT", Reason.UNREACHABLE, f"the call could not be made: {error}") from error
        with session._lock:
            if session._giving_up.is_set():
                self._call.cancel()
            session._stream = self

    def accept(self, timeout: float) -> None:
        timer = threading.Timer(max(timeout, 0), self._give_up)
        timer.daemon = True
        timer.start()
        try:
            response = self.receive()
            if response is None:
                raise inferred("UNAVAILABLE", Reason.UNREACHABLE, "the stream ended before Opened")
            with self._session._lock:
                self._session._core.accept(response, resume=self._resume)
                self._accepted = True
                self._session._changed.notify_all()
            self._begin_to_beat()
        except BaseException as error:
            self.cancel()
            if self._late:
                raise inferred("DEADLINE_EXCEEDED", Reason.CONNECT_TIMEOUT, "the session was not open in time") from error
            raise
        finally:
            timer.cancel()

    def receive(self) -> session_pb2.ConnectResponse | None:
        """None: the stream ended with OK."""
        try:
            response: session_pb2.ConnectResponse = next(self._call)
            return response
        except StopIteration:
            return None
        except grpc.RpcError as error:
            raise self._error() from error

    def _begin_to_beat(self) -> None:
        session = self._session
        heartbeat = session._core.heartbeat
        if heartbeat is None:
            return

        def beat() -> float | None:
            with session._lock:
                if self._ended:
                    return None
                wait = session._core.beat(heartbeat)
                self._silent = wait is None
            if wait is None:
                # What is dead may be the whole connection.
                self.connection.retired = True
                self._call.cancel()
            return wait

        self._alarm = call_after(max(0.0, heartbeat.due - time.monotonic()), beat)

    def cancel(self) -> None:
        if self._alarm is not None:
            self._alarm.cancel()
        with self._session._lock:
            self._ended = True
            self._session._changed.notify_all()
        self._call.cancel()
        self._give_back()

    def _give_up(self) -> None:
        self._late = True
        self._call.cancel()

    def _give_back(self) -> None:
        if not self._given_back:
            self._given_back = True
            self._session._client._give_back(self.connection)

    def _error(self) -> SessionError:
        if self._silent:
            return silence()
        call: Any = self._call
        trailers = dict(call.trailing_metadata() or ())
        otherwise = Reason.STREAM_LOST if self._accepted else Reason.UNREACHABLE
        return stream_error(call.code(), call.details() or "", trailers.get("grpc-status-details-bin"), otherwise)

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
