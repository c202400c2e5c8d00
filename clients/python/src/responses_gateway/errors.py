"""What can go wrong, as exceptions."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

import grpc
from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.message import DecodeError
from google.rpc import error_details_pb2, status_pb2

from . import pickling as _  # noqa: F401 - errors hold messages
from .gen import event_pb2
from .path_causes import PATH_CAUSES
from .reasons import Reason

if TYPE_CHECKING:
    from .gen.items_pb2 import FunctionCall
    from .types import Result

Replay = Literal["safe", "unsafe", "unknown"]

ERROR_DOMAIN = "responses-gateway"

_CODES = {code.value[0]: code.name for code in grpc.StatusCode}
# Statuses without details of the gateway's: the transport broke, the session may live.
_LOST = frozenset({"OK", "UNAVAILABLE", "INTERNAL", "UNKNOWN", "CANCELLED", "DEADLINE_EXCEEDED"})
_RESUMABLE_REASONS = frozenset({Reason.SLOW_CONSUMER, Reason.OVERLOADED, Reason.CLIENT_SILENT})


class GatewayError(Exception):
    """Base of all errors of this package. They can be pickled and copied."""

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
        super().__init__(f"{reason}: {message}")
        #: Name of the gRPC code, for instance "RESOURCE_EXHAUSTED".
        self.code = code
        #: Stable name for programs, for instance "UPSTREAM_RATE_LIMITED"; see `Reason`.
        self.reason = str(reason)
        #: For people.
        self.message = message
        #: Small facts, for instance {"field": "start_turn.create.temperature"}.
        self.metadata = dict(metadata or {})
        #: Seconds until a further try may help; None if waiting is not known to help.
        self.retry_after = retry_after
        #: The client concluded it; the gateway did not say it.
        self.inferred = inferred

    @property
    def status_code(self) -> grpc.StatusCode:
        """`code` as grpc's own."""
        return grpc.StatusCode[self.code]

    @property
    def resumable(self) -> bool:
        """Whether the session may still live behind a stream that ended so."""
        if not self.inferred:
            return self.reason in _RESUMABLE_REASONS
        # A token source may do better next time.
        return self.code in _LOST or self.reason == Reason.TOKEN_SOURCE_FAILED

    def to_dict(self) -> dict[str, Any]:
        """The error as plain values, for logs and JSON."""
        return {
            "error": type(self).__name__,
            "code": self.code,
            "reason": self.reason,
            "message": self.message,
            "metadata": self.metadata,
            "retry_after": self.retry_after,
            "inferred": self.inferred,
        }

    def __reduce__(self) -> tuple[Any, ...]:
        return _restored, (type(self), self.args, self.__dict__)


def _restored(kind: type[GatewayError], args: tuple[Any, ...], state: dict[str, Any]) -> GatewayError:
    error = kind.__new__(kind, *args)
    error.args = args
    error.__dict__.update(state)
    return error


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
        #: What had arrived of the turn; None if it did not begin.
        self.result: Result | None = None

    def to_dict(self) -> dict[str, Any]:
        return {
            **super().to_dict(),
            "lane_id": self.lane_id,
            "turn_id": self.turn_id,
            "replay": self.replay,
            "phase": self.phase,
        }


class LoopLimitError(GatewayError):
    """A tool loop reached one of its limits; `reason` says which. The lane can be used: its next turn answers the calls
    that are open."""

    def __init__(self, code: str, reason: str, message: str, *, result: Result, open_calls: Sequence[FunctionCall]) -> None:
        super().__init__(code, reason, message, inferred=True)
        #: What the loop came to so far, with the usage of all its turns.
        self.result = result
        #: Calls of the model that were not made.
        self.open_calls = tuple(open_calls)


class TurnBusyError(GatewayError, RuntimeError):
    """A second reader reads a turn."""

    def __init__(self) -> None:
        super().__init__("FAILED_PRECONDITION", Reason.TURN_BUSY, "the turn already has a reader", inferred=True)


class WaitTimeoutError(GatewayError, TimeoutError):
    """The caller's own wait ran out. Nothing is lost; the work goes on."""

    def __init__(self, message: str) -> None:
        super().__init__("DEADLINE_EXCEEDED", Reason.WAIT_TIMEOUT, message, inferred=True)


#: The name that limits of turns had.
TurnLimitError = LoopLimitError


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


def stream_error(
    code: grpc.StatusCode, message: str, details: bytes | None, otherwise: Reason = Reason.STREAM_LOST
) -> SessionError:
    """The end of a stream as an error; `details` is the grpc-status-details-bin trailer. `otherwise` is the reason if the
    gateway gave none."""
    reason: str = otherwise
    metadata: dict[str, str] = {}
    retry_after, inferred = None, True
    if details:
        status = status_pb2.Status()
        try:
            status.ParseFromString(details)
        except DecodeError:
            pass  # Not the gateway's.
        for detail in status.details:
            info, retry = error_details_pb2.ErrorInfo(), error_details_pb2.RetryInfo()
            if _unpack(detail, info) and info.domain == ERROR_DOMAIN:
                reason, metadata, inferred = info.reason, dict(info.metadata), False
            elif _unpack(detail, retry):
                retry_after = _seconds(retry.retry_delay.seconds, retry.retry_delay.nanos)
    if inferred:
        says, metadata = _path(code.name, message)
        message += says
    return SessionError(code.name, reason, message, metadata=metadata, retry_after=retry_after, inferred=inferred)


# How grpcio and the other libraries write the status of an HTTP answer that is none of gRPC's. grpcio: "http2 header with
# status: 413".
_HTTP_STATUS = re.compile(r"\bstatus(?: code)?(?: received from server)?:? (\d{3})\b", re.IGNORECASE)


def _path(code: str, message: str) -> tuple[str, dict[str, str]]:
    """What something on the way has done, where the gateway has said nothing: a sentence and metadata."""
    found = _HTTP_STATUS.search(message)
    for name, http, text, codes, says in PATH_CAUSES:
        if found is not None:
            if int(found[1]) in http or 0 in http:
                return f" ({says})", {"path": name, "http_status": found[1]}
        elif code in codes or (text and text in message.lower()):
            return f" ({says})", {"path": name}
    return "", {}


def inferred(code: str, reason: Reason, message: str) -> SessionError:
    return SessionError(code, reason, message, inferred=True)


def token_source_failed(why: str) -> SessionError:
    return inferred("UNAUTHENTICATED", Reason.TOKEN_SOURCE_FAILED, f"the token source {why}")


def _unpack(detail: AnyMessage, into: error_details_pb2.ErrorInfo | error_details_pb2.RetryInfo) -> bool:
    return bool(detail.Is(into.DESCRIPTOR) and detail.Unpack(into))


def _seconds(seconds: int, nanos: int) -> float:
    return seconds + nanos / 1e9
