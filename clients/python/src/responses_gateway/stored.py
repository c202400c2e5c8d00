"""What the blocking and the asyncio client share for calls without a session: their messages and their errors."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import grpc
from google.protobuf.duration_pb2 import Duration

from .errors import SessionError, TurnError, inferred, stream_error
from .gen import event_pb2, resource_pb2, session_pb2, unary_pb2
from .reasons import Reason
from .request import Input, Request
from .types import Accumulator, Event, Result

Order: TypeAlias = Literal["asc", "desc"]
#: Fields of a create that counting knows too.
_COUNTED = (
    "model",
    "instructions",
    "previous_response_id",
    "conversation_id",
    "conversation",
    "tool_choice",
    "parallel_tool_calls",
    "reasoning",
    "text",
    "truncation",
)


@dataclass(frozen=True, slots=True)
class Call:
    """What all calls without a session take."""

    upstream: str | None = None
    timeout: float | None = None

    def options(self, *, raw_json: bool = False) -> resource_pb2.CallOptions:
        options = resource_pb2.CallOptions(payload=_payload(raw_json), upstream=self.upstream or "")
        if self.timeout is not None:
            options.timeout.CopyFrom(_duration(self.timeout))
        return options


def create_request(
    request: Request | Input, call: Call, idempotency_key: str | None, raw_json: bool
) -> unary_pb2.CreateResponseRequest:
    given = request if isinstance(request, Request) else Request(input=request)
    message = unary_pb2.CreateResponseRequest(
        create=given.body(),
        payload=_payload(raw_json),
        upstream=call.upstream or "",
        wait_on_rate_limit=given.wait_on_rate_limit,
        idempotency_key=idempotency_key or "",
    )
    timeout = call.timeout if call.timeout is not None else given.timeout
    if timeout is not None:
        message.timeout.CopyFrom(_duration(timeout))
    return message


def stream_request(
    response_id: str, call: Call, starting_after: int | None, include: Sequence[str], raw_json: bool
) -> resource_pb2.StreamResponseRequest:
    return resource_pb2.StreamResponseRequest(
        response_id=response_id, starting_after=starting_after, include=include, options=call.options(raw_json=raw_json)
    )


def page_request(
    response_id: str, call: Call, after: str | None, limit: int | None, order: Order | None, include: Sequence[str]
) -> resource_pb2.ListInputItemsRequest:
    return resource_pb2.ListInputItemsRequest(
        response_id=response_id, after=after, limit=limit, order=order, include=include, options=call.options()
    )


def count_request(request: Request | Input, call: Call) -> resource_pb2.CountInputTokensRequest:
    given = request if isinstance(request, Request) else Request(input=request)
    create = given.body()
    count = resource_pb2.CountBody(input=create.input, tools=create.tools)
    for name in _COUNTED:
        if not create.HasField(name):  # type: ignore[arg-type]
            continue
        value: Any = getattr(create, name)
        if hasattr(value, "CopyFrom"):
            getattr(count, name).CopyFrom(value)
        else:
            setattr(count, name, value)
    return resource_pb2.CountInputTokensRequest(count=count, options=call.options())


def call_error(error: Any) -> SessionError:
    """The end of a call as an error; `error` is that of grpc or grpc.aio."""
    if not isinstance(error, grpc.RpcError):
        # An entry of the metadata cannot be sent, or the channel was closed meanwhile.
        return inferred("INVALID_ARGUMENT", Reason.UNREACHABLE, f"the call could not be made: {error}")
    call: Any = error
    details = next((value for key, value in call.trailing_metadata() or () if key == "grpc-status-details-bin"), None)
    return stream_error(call.code(), call.details() or "", details, Reason.STREAM_LOST)


def ended() -> SessionError:
    return inferred("INTERNAL", Reason.PROTOCOL, "the stream ended before the response")


class Read:
    """What was read of a stream of events."""

    def __init__(self) -> None:
        self._result = Accumulator()
        self._last_sequence_number: int | None = None
        self._over = False
        self._lost: SessionError | TurnError | None = None

    @property
    def result(self) -> Result:
        """What has been read so far."""
        return self._result.result("", "")

    @property
    def last_sequence_number(self) -> int | None:
        """Of the last event that was read, for `starting_after`; None before the first."""
        return self._last_sequence_number

    def _take(self, message: event_pb2.Event) -> Event:
        event = Event(message)
        self._result.add(event)
        number = _sequence_number(message)
        if number is not None:
            self._last_sequence_number = number
        if event.outcome != "":
            self._over = True
            failure = event.failure
            if failure is not None:
                failure.result = self.result
                self._lost = failure
        return event

    def _fail(self, error: SessionError) -> SessionError:
        """Keeps how the call failed: every later step says it again."""
        self._over = True
        self._lost = error
        return error


class Batches:
    """Events of batches, one by one."""

    def __init__(self) -> None:
        self._waiting: list[event_pb2.Event] = []

    def add(self, events: Iterable[event_pb2.Event]) -> None:
        self._waiting.extend(events)

    def next(self) -> event_pb2.Event | None:
        return self._waiting.pop(0) if self._waiting else None


def _sequence_number(message: event_pb2.Event) -> int | None:
    kind = message.WhichOneof("payload")
    payload: Any = None if kind is None else getattr(message, kind)
    field = payload.DESCRIPTOR.fields_by_name.get("sequence_number") if hasattr(payload, "DESCRIPTOR") else None
    if field is None or (field.has_presence and not payload.HasField("sequence_number")):
        return None
    number: int = payload.sequence_number
    return number


def _payload(raw_json: bool) -> session_pb2.PayloadFormat.ValueType:
    return session_pb2.PAYLOAD_FORMAT_BOTH if raw_json else session_pb2.PAYLOAD_FORMAT_TYPED


def _duration(seconds: float) -> Duration:
    return Duration(seconds=int(seconds), nanos=int(seconds % 1 * 1e9))
