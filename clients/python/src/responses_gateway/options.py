"""How a client connects and what a session asks for."""

from __future__ import annotations

import ipaddress
import os
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any, TypeAlias, TypedDict

import grpc

from .errors import inferred
from .gen import session_pb2
from .reasons import Reason
from .types import Event, GoAway

#: Where a gateway listens that was started with its defaults.
DEFAULT_ADDRESS = "127.0.0.1:50051"
#: Largest message that is taken. Single events with images reach tens of MB; gRPC's default of 4 MiB would end the
#: stream on them.
DEFAULT_MAX_RECEIVE_BYTES = 64 << 20
#: What a session holds of events that nobody has read yet: seconds of the fastest models.
DEFAULT_MAX_BUFFERED_BYTES = 4 << 20
#: What a session holds of turns that could not be sent yet: three of the largest.
DEFAULT_MAX_QUEUED_BYTES = 64 << 20
#: Seconds that close waits for the gateway to end the stream: a few round trips.
DEFAULT_CLOSE_TIMEOUT = 3.0

#: Seconds between heartbeats: below the time-outs of proxies, which count messages. A gateway may ask for less.
DEFAULT_HEARTBEAT = 15.0
#: Seconds that opening a session takes at most.
DEFAULT_CONNECT_TIMEOUT = 10.0

#: A token, or what is asked for it each time a stream is opened. Coroutine functions are for the asyncio client.
Token: TypeAlias = "str | Callable[[], str | Awaitable[str]]"

# A fixed window keeps what is in flight below the gateway's resume buffer (2 MiB of upstream JSON, some five times what
# the same events are here): grpcio drops what had arrived when a stream breaks.
_STREAM_WINDOW_BYTES = 128 << 10
# The newest since_revision of the generated code: what is newer comes as raw JSON.
_SCHEMA_REVISION = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientOptions:
    """`address`: "host:port", "https://host:port" (TLS), "http://host:port" (plain) or "unix:/path". Without a scheme,
    loopback is plain and all else TLS. Defaults: RESPONSES_GATEWAY_ADDR, RESPONSES_GATEWAY_TOKEN."""

    address: str
    token: Token | None
    metadata: Sequence[tuple[str, str]]
    credentials: grpc.ChannelCredentials | None
    max_receive_bytes: int
    channel_options: Mapping[str, Any]

    @staticmethod
    def resolve(
        address: str | None,
        token: Token | None,
        metadata: Sequence[tuple[str, str]],
        credentials: grpc.ChannelCredentials | None,
        max_receive_bytes: int,
        channel_options: Mapping[str, Any] | None,
    ) -> ClientOptions:
        return ClientOptions(
            address=address or os.environ.get("RESPONSES_GATEWAY_ADDR") or DEFAULT_ADDRESS,
            token=token or os.environ.get("RESPONSES_GATEWAY_TOKEN") or None,
            metadata=tuple(metadata),
            credentials=credentials,
            max_receive_bytes=max_receive_bytes,
            channel_options=channel_options or {},
        )

    def target(self) -> tuple[str, grpc.ChannelCredentials | None]:
        """The address and its credentials; None is plain."""
        target, plain = parse_address(self.address)
        if self.credentials is not None:
            return target, self.credentials
        return target, None if plain else grpc.ssl_channel_credentials()

    def grpc_options(self) -> list[tuple[str, Any]]:
        options: dict[str, Any] = {
            "grpc.max_receive_message_length": self.max_receive_bytes,
            "grpc.max_send_message_length": -1,
            "grpc.http2.lookahead_bytes": _STREAM_WINDOW_BYTES,
            "grpc.http2.bdp_probe": 0,
            "grpc.keepalive_time_ms": 30_000,
            "grpc.keepalive_timeout_ms": 10_000,
            "grpc.initial_reconnect_backoff_ms": 100,
            # The time of an attempt, in spite of its name: too short, and a busy gateway is never reached.
            "grpc.min_reconnect_backoff_ms": 5_000,
            "grpc.max_reconnect_backoff_ms": 3_000,
            # A channel of its own: several clients of a process do not share a connection by chance.
            "grpc.use_local_subchannel_pool": 1,
            **self.channel_options,
        }
        return list(options.items())

    def call_metadata(self, token: str | None) -> list[tuple[str, str]]:
        if not token:
            return list(self.metadata)
        if not isinstance(token, str) or not all(" " <= each <= "~" for each in token):
            raise inferred("UNAUTHENTICATED", Reason.TOKEN_SOURCE_FAILED, "the token is nothing that a header can carry")
        return [*self.metadata, ("authorization", f"Bearer {token}")]


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """What a session may use in its life. What does not fit fails with LIMIT_EXCEEDED; metadata says what is left."""

    #: Input and output; None: no limit.
    tokens: int | None = None
    #: In the currency of the gateway's price table.
    money: Decimal | None = None
    turns: int | None = None

    def message(self) -> session_pb2.Budget:
        money = "" if self.money is None else format(self.money, "f")
        return session_pb2.Budget(tokens=self.tokens or 0, money=money, turns=self.turns or 0)


class ConnectOptions(TypedDict, total=False):
    """What `Client.connect` takes; defaults in `SessionOptions`."""

    model: str
    upstream: str
    labels: Mapping[str, str]
    client_name: str
    client_version: str
    recovery: bool
    budget: Budget | None
    resume: bool
    raw_json: bool
    max_buffered_bytes: int
    max_queued_bytes: int
    close_timeout: float
    heartbeat: float
    on_event: Callable[[Event], object] | None
    on_go_away: Callable[[GoAway], object] | None
    on_error: Callable[[BaseException], object] | None


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionOptions:
    """What a session asks for."""

    #: Model of turns that name none. Empty: the upstream decides or refuses.
    model: str = ""
    #: A configured upstream of the gateway. Empty: its default.
    upstream: str = ""
    #: For traces and logs of the gateway; at most 16, no secrets.
    labels: Mapping[str, str] = field(default_factory=dict)
    client_name: str = ""
    client_version: str = ""
    #: Whether the gateway may rebuild lanes that the upstream has lost.
    recovery: bool = True
    #: What the session may use in its life.
    budget: Budget | None = None
    #: Whether a lost stream is resumed.
    resume: bool = True
    #: Delivers the upstream's exact JSON with each event.
    raw_json: bool = False
    #: Bytes of unread events of all turns; above it the session stops receiving.
    max_buffered_bytes: int = DEFAULT_MAX_BUFFERED_BYTES
    #: Bytes of requests that wait to be sent; above it `start` and `steer` wait.
    max_queued_bytes: int = DEFAULT_MAX_QUEUED_BYTES
    #: Seconds that `close` waits for the gateway.
    close_timeout: float = DEFAULT_CLOSE_TIMEOUT
    #: Seconds after which the client says again that it is there, if the gateway agrees; three times as long without an
    #: answer, and the stream is resumed on another connection. 0: never.
    heartbeat: float = DEFAULT_HEARTBEAT
    #: Told events that belong to no turn: notices about the session, refusals of unknown turns.
    on_event: Callable[[Event], object] | None = None
    #: Told that the gateway announces the end of the stream.
    on_go_away: Callable[[GoAway], object] | None = None
    #: Told what the two above raised. It is logged as well.
    on_error: Callable[[BaseException], object] | None = None

    def __post_init__(self) -> None:
        if self.max_buffered_bytes <= 0 or self.max_queued_bytes <= 0:
            raise ValueError("limits in bytes must be positive")
        if self.heartbeat < 0:
            raise ValueError("heartbeat must not be negative")

    def open(self) -> session_pb2.Open:
        opened = session_pb2.Open(
            schema_revision=_SCHEMA_REVISION,
            upstream=self.upstream,
            metadata=self.labels,
            model=self.model,
            client_name=self.client_name,
            client_version=self.client_version,
        )
        if self.heartbeat > 0:
            opened.heartbeat_interval.FromNanoseconds(round(self.heartbeat * 1e9))
        if self.raw_json:
            opened.payload = session_pb2.PAYLOAD_FORMAT_BOTH
        if not self.recovery:
            opened.recovery = False
        if self.budget is not None:
            opened.budget.CopyFrom(self.budget.message())
        return opened


def parse_address(address: str) -> tuple[str, bool]:
    """Splits the scheme off and says whether the connection is plain."""
    for scheme, plain in (("http://", True), ("https://", False)):
        if address.startswith(scheme):
            return address.removeprefix(scheme).rstrip("/"), plain
    if address.startswith("unix:"):
        return address, True
    host = address.rpartition(":")[0].strip("[]")
    try:
        return address, ipaddress.ip_address(host).is_loopback
    except ValueError:
        return address, host == "localhost"
