"""How the sessions of a client share its connections, and what calls without a session have of their own."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Generic, TypeVar

from .gen import service_pb2_grpc

C = TypeVar("C")
#: An open that is not answered so long may wait for a peer that takes no more streams on the connection.
PATIENCE = 1.0
# Below what proxies allow on a connection by default (HAProxy 100, nginx 128), with room for calls without a session.
_MAX_STREAMS = 90


class Connection(Generic[C]):
    def __init__(self, channel: C) -> None:
        self.channel = channel
        of_stub: Any = channel
        self.stub: Any = service_pb2_grpc.ResponsesServiceStub(of_stub)
        self.streams = 0
        #: As many as the peer is known to take.
        self.limit = _MAX_STREAMS
        #: Its gateway goes away: nothing new is opened here.
        self.retired = False

    @property
    def is_shared(self) -> bool:
        return self.streams > 1

    def is_full_without(self) -> None:
        """An open on it was not answered, and has given its place back; the other streams stand."""
        self.limit = max(1, self.streams)


class Connections(Generic[C]):
    """Connections in the order of their making; a further one when the others are full. Not thread-safe. `of_stub` makes
    of a channel what calls without a session call: they have a connection of their own, as a peer's limit of streams would
    otherwise keep them waiting for sessions to end."""

    def __init__(
        self, make: Callable[[], C], close: Callable[[C], Any], of_stub: Callable[[C], Any] = lambda channel: channel
    ) -> None:
        self._make = make
        self._close = close
        self._of_stub = of_stub
        self._all: list[Connection[C]] = []
        self._apart: C | None = None
        self._stub: Any = None

    @property
    def stub(self) -> Any:
        """For calls without a session."""
        if self._apart is None:
            self._apart = self._make()
            self._stub = service_pb2_grpc.ResponsesServiceStub(self._of_stub(self._apart))
        return self._stub

    def _further(self) -> Connection[C]:
        self._all.append(Connection(self._make()))
        return self._all[-1]

    def __len__(self) -> int:
        return len(self._all)

    def take(self) -> Connection[C]:
        """One with room for a stream, which `give_back` gives back."""
        found = next((one for one in self._all if one.streams < one.limit and not one.retired), None)
        if found is None:
            found = self._further()
        found.streams += 1
        return found

    def give_back(self, connection: Connection[C]) -> None:
        connection.streams -= 1
        if connection.streams > 0:
            return
        connection.limit = _MAX_STREAMS
        if connection in self._all and (connection.retired or connection is not self._all[0]):
            self._all.remove(connection)
            self._close(connection.channel)

    def all(self) -> list[C]:
        channels = [one.channel for one in self._all]
        return channels if self._apart is None else [*channels, self._apart]
