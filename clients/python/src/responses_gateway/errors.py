"""What can go wrong, as exceptions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import grpc
from google.protobuf.any_pb2 import Any as AnyMessage
from google.rpc import error_details_pb2, status_pb2

from .gen import event_pb2

Replay = Literal["safe", "unsafe", "unknown"]

ERROR_DOMAIN = "responses-gateway"

# Reasons that the client finds itself (`inferred` is true). SESSION_EXPIRED, DRAINING and MESSAGE_TOO_LARGE may also
# come from the gateway.
SESSION_CLOSED = "SESSION_CLOSED"
STREAM_LOST = "STREAM_LOST"
EVENTS_LOST = "EVENTS_LOST"
SESSION_EXPIRED = "SESSION_EXPIRED"
MESSAGE_TOO_LARGE = "MESSAGE_TOO_LARGE"
DRAINING = "DRAINING"
PROTOCOL = "PROTOCOL"

_CODES = {code.value[0]: code.name for code in grpc.StatusCode}
# Statuses without details of the gateway's: the transport broke, the session may live.
_LOST = frozenset({"OK", "UNAVAILABLE", "INTERNAL", "UNKNOWN", "CANCELLED", "DEADLINE_EXCEEDED"})
_RESUMABLE_REASONS = frozenset({"SLOW_CONSUMER", "OVERLOADED"})


class GatewayError(Exception):
    """Base of all errors of this package."""

    def __init__(
        self,
        code: str,
        reason: str,
        message: str,
        *,
        metadata: Mapping[str, str] | None = None,
        retry_after: float | None = None,
        inferred: bool = False,
    ) -> None:
        super().__init__(f"{reason or code}: {message}")
        #: Name of the gRPC code, for instance "RESOURCE_EXHAUSTED".
        self.code = code
        #: Stable name for programs, for instance "UPSTREAM_RATE_LIMITED"; "" if nobody gave one.
        self.reason = reason
        #: For people.
        self.message = message
        #: Small facts, for instance {"field": "start_turn.create.temperature"}.
        self.metadata = dict(metadata or {})
        #: Seconds until a further try may help; None if waiting is not known to help.
        self.retry_after = retry_after
        #: The client concluded it; the gateway did not say it.
        self.inferred = inferred

    @property
    def resumable(self) -> bool:
        """Whether the session may still live behind a stream that ended so."""
        return self.code in _LOST if self.inferred else self.reason in _RESUMABLE_REASONS


class SessionError(GatewayError):
    """The session is over, or could not be opened."""


class TurnError(GatewayError):
    """A turn failed; its session goes on, unless the reason says otherwise."""

    def __init__(
        self,
        code: str,
        reason: str,
        message: str,
        *,
        lane_id: str,
        turn_id: str,
        replay: Replay,
        phase: str = "",
        upstream: event_pb2.UpstreamError | None = None,
        metadata: Mapping[str, str] | None = None,
        retry_after: float | None = None,
        inferred: bool = False,
    ) -> None:
        super().__init__(code, reason, message, metadata=metadata, retry_after=retry_after, inferred=inferred)
        self.lane_id = lane_id
        self.turn_id = turn_id
        #: Whether the turn may be sent again without running twice.
        self.replay = replay
        #: How far it had come: not_sent, sent, created, output_started; "" if unknown.
        self.phase = phase
        #: What the upstream said, if anything.
        self.upstream = upstream


class TurnLimitError(GatewayError):
    """The model still called tools in the last turn that a tool loop was allowed."""


class TurnBusyError(RuntimeError):
    """A second reader reads a turn."""


def turn_error(event: event_pb2.Event) -> TurnError:
    """The failure that an event brings."""
    failed = event.turn_failed
    replay: Replay = "unknown"
    if failed.replay == event_pb2.REPLAY_VERDICT_SAFE:
        replay = "safe"
    elif failed.replay == event_pb2.REPLAY_VERDICT_UNSAFE:
        replay = "unsafe"
    phase = event_pb2.TurnPhase.Name(failed.phase) if failed.phase in event_pb2.TurnPhase.values() else ""
    return TurnError(
        _CODES.get(failed.code, "UNKNOWN"),
        failed.reason,
        failed.message,
        lane_id=event.lane_id,
        turn_id=event.turn_id,
        replay=replay,
        phase="" if failed.phase == 0 else phase.removeprefix("TURN_PHASE_").lower(),
        upstream=failed.upstream_error if failed.HasField("upstream_error") else None,
        metadata=failed.metadata,
        retry_after=_seconds(failed.retry_after.seconds, failed.retry_after.nanos)
        if failed.HasField("retry_after")
        else None,
    )


def stream_error(code: grpc.StatusCode, message: str, details: bytes | None) -> SessionError:
    """The end of a stream as an error; `details` is the grpc-status-details-bin trailer."""
    reason, metadata, retry_after, inferred = "", {}, None, True
    if details:
        status = status_pb2.Status()
        status.ParseFromString(details)
        for detail in status.details:
            info, retry = error_details_pb2.ErrorInfo(), error_details_pb2.RetryInfo()
            if _unpack(detail, info) and info.domain == ERROR_DOMAIN:
                reason, metadata, inferred = info.reason, dict(info.metadata), False
            elif _unpack(detail, retry):
                retry_after = _seconds(retry.retry_delay.seconds, retry.retry_delay.nanos)
    return SessionError(code.name, reason, message, metadata=metadata, retry_after=retry_after, inferred=inferred)


def inferred(code: str, reason: str, message: str) -> SessionError:
    return SessionError(code, reason, message, inferred=True)


def _unpack(detail: AnyMessage, into: error_details_pb2.ErrorInfo | error_details_pb2.RetryInfo) -> bool:
    return bool(detail.Is(into.DESCRIPTOR) and detail.Unpack(into))


def _seconds(seconds: int, nanos: int) -> float:
    return seconds + nanos / 1e9
