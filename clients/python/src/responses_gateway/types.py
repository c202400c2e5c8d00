"""Events and results."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import astuple, dataclass, field
from typing import Generic, Literal, TypeAlias, TypeVar

from .errors import TurnError, turn_error
from .gen import event_pb2, items_pb2, response_pb2
from .schema import parse_json

T = TypeVar("T")

#: "" on events that end nothing.
Outcome: TypeAlias = Literal["", "completed", "incomplete", "failed", "cancelled", "deadline_exceeded"]

_OUTCOMES: Mapping[int, Outcome] = {
    event_pb2.TURN_OUTCOME_UNSPECIFIED: "",
    event_pb2.TURN_OUTCOME_COMPLETED: "completed",
    event_pb2.TURN_OUTCOME_INCOMPLETE: "incomplete",
    event_pb2.TURN_OUTCOME_CANCELLED: "cancelled",
    event_pb2.TURN_OUTCOME_DEADLINE_EXCEEDED: "deadline_exceeded",
}


@dataclass(frozen=True, slots=True)
class Event:
    """One thing that happened, to a turn or to the session."""

    #: The whole message; the typed payloads are there.
    proto: event_pb2.Event

    @property
    def seq(self) -> int:
        """Counts the session's events: 1, 2, 3 … also across reconnects."""
        return self.proto.seq

    @property
    def lane_id(self) -> str:
        return self.proto.lane_id

    @property
    def turn_id(self) -> str:
        """Empty for events about the whole session."""
        return self.proto.turn_id

    @property
    def type(self) -> str:
        """The upstream's name, or gateway.turn.failed, gateway.request.rejected, gateway.notice. Pass over those
        that you do not know."""
        return self.proto.type

    @property
    def json(self) -> bytes:
        """The upstream's exact JSON: with raw_json, and where an event has no typed payload."""
        return self.proto.json

    @property
    def outcome(self) -> Outcome:
        """Set on the last event of a turn, and only there."""
        # What is newer than this client has ended, and is not known to be well.
        return _OUTCOMES.get(self.proto.outcome, "failed")

    @property
    def text_delta(self) -> str:
        """The piece of visible answer that the event brings; "" for other events."""
        return self.proto.output_text_delta.delta if self.proto.HasField("output_text_delta") else ""

    @property
    def notice(self) -> event_pb2.Notice | None:
        return self.proto.notice if self.proto.HasField("notice") else None

    @property
    def failure(self) -> TurnError | None:
        """Why the turn failed, or a request about it was refused."""
        return turn_error(self.proto) if self.proto.HasField("turn_failed") else None


@dataclass(frozen=True, slots=True)
class GoAway:
    """The gateway announces the end of the stream."""

    #: The gateway shuts down; otherwise the stream is old and is replaced by itself.
    draining: bool
    #: Seconds that running turns may still take.
    time_left: float
    #: The session goes on at another gateway by itself: new turns wait until it is there.
    movable: bool = False


@dataclass(frozen=True, slots=True)
class Limits:
    """What the gateway granted. Sizes are bytes; 0 means no limit of the gateway's own."""

    max_message_bytes: int
    max_frame_bytes: int
    max_buffered_bytes: int
    max_resume_bytes: int
    max_lanes: int
    max_turns_in_flight: int
    max_queued_turns_per_lane: int
    #: Seconds that the gateway keeps the session after a lost stream.
    resume_grace: float


@dataclass(frozen=True, slots=True)
class Stats:
    """Numbers about a session, for logs and metrics."""

    resumes: int
    buffered_bytes: int
    #: The most that ever waited for readers.
    max_buffered_bytes: int
    queued_bytes: int
    running_turns: int
    last_seq: int


@dataclass(frozen=True, slots=True)
class Usage:
    input_tokens: int = 0
    cached_input_tokens: int = 0
    output_tokens: int = 0
    reasoning_tokens: int = 0
    total_tokens: int = 0

    def __add__(self, other: Usage) -> Usage:
        return Usage(*(mine + theirs for mine, theirs in zip(astuple(self), astuple(other), strict=True)))


@dataclass(frozen=True, slots=True)
class Parsed(Generic[T]):
    """A structured answer. Refusals, incomplete answers and texts that do not fit leave `parsed` empty."""

    result: Result
    parsed: T | None
    #: Why the text of a completed answer does not fit.
    error: Exception | None = None

    @property
    def refusal(self) -> str:
        """The model's refusal; "" if it did not refuse."""
        return self.result.refusal


@dataclass(frozen=True, slots=True)
class Result:
    """What a turn came to."""

    lane_id: str
    turn_id: str
    #: "" if the turn ended without a last event.
    outcome: Outcome
    #: All responses of the turn, in order. A steered turn has several.
    responses: Sequence[response_pb2.Response]
    #: Output items of the last response that are complete.
    items: Sequence[items_pb2.OutputItem]
    #: What the turn cost by the gateway's price table; None without one.
    cost: event_pb2.Cost | None = None
    partial_text: str = field(repr=False, default="")
    #: Of the turns before, in a tool loop.
    earlier_usage: Usage = field(repr=False, default=Usage())

    @property
    def response(self) -> response_pb2.Response | None:
        return self.responses[-1] if self.responses else None

    @property
    def response_id(self) -> str:
        return self.responses[-1].id if self.responses else ""

    @property
    def text(self) -> str:
        """The visible answer. Of a turn that broke off, it is what had arrived."""
        parts = [
            part.output_text.text
            for item in self.items
            if item.HasField("message")
            for part in item.message.content
            if part.HasField("output_text")
        ]
        whole = "".join(parts)
        return whole if len(whole) >= len(self.partial_text) else self.partial_text

    @property
    def refusal(self) -> str:
        return "".join(
            part.refusal.refusal
            for item in self.items
            if item.HasField("message")
            for part in item.message.content
            if part.HasField("refusal")
        )

    @property
    def function_calls(self) -> list[items_pb2.FunctionCall]:
        return [item.function_call for item in self.items if item.HasField("function_call")]

    @property
    def usage(self) -> Usage:
        """What it cost, over all its responses; of a tool loop's result, over all its turns."""
        all_of = [response.usage for response in self.responses]
        return self.earlier_usage + Usage(
            input_tokens=sum(usage.input_tokens for usage in all_of),
            cached_input_tokens=sum(usage.input_tokens_details.cached_tokens for usage in all_of),
            output_tokens=sum(usage.output_tokens for usage in all_of),
            reasoning_tokens=sum(usage.output_tokens_details.reasoning_tokens for usage in all_of),
            total_tokens=sum(usage.total_tokens for usage in all_of),
        )

    def parse(self, kind: type[T]) -> Parsed[T]:
        """The answer as `kind`, a dataclass or pydantic model; ask for it with `Request.text_format`."""
        if self.outcome != "completed" or self.refusal:
            return Parsed(self, None)
        try:
            return Parsed(self, parse_json(kind, self.text))
        except Exception as error:
            return Parsed(self, None, error)


class Accumulator:
    """Builds the result from the events; the one place that knows how."""

    def __init__(self) -> None:
        self._outcome: Outcome = ""
        self._responses: list[response_pb2.Response] = []
        self._items: Sequence[items_pb2.OutputItem] = []
        self._text: list[str] = []
        self._cost: event_pb2.Cost | None = None

    def add(self, event: Event) -> None:
        proto = event.proto
        kind = proto.WhichOneof("payload")
        if kind == "output_text_delta":
            self._text.append(proto.output_text_delta.delta)
        elif kind == "output_item_done":
            self._items = [*self._items, proto.output_item_done.item]
        elif kind == "response_created":
            self._responses.append(proto.response_created.response)
            self._items, self._text = [], []
        elif kind == "response_completed":
            self._finish(proto.response_completed.response)
        elif kind == "response_incomplete":
            self._finish(proto.response_incomplete.response)
        elif kind == "response_failed":
            self._finish(proto.response_failed.response)
        if proto.outcome:
            self._outcome = event.outcome
            if proto.HasField("cost"):
                self._cost = proto.cost

    def _finish(self, response: response_pb2.Response) -> None:
        if self._responses and self._responses[-1].id == response.id:
            self._responses[-1] = response
        else:
            # A sparse upstream has left response.created out: what came so far belongs to this response.
            self._responses.append(response)
        # The finished response may list no output: the items then came alone.
        if len(response.output) > len(self._items):
            self._items = list(response.output)

    def result(self, lane_id: str, turn_id: str) -> Result:
        return Result(
            lane_id=lane_id,
            turn_id=turn_id,
            outcome=self._outcome,
            responses=tuple(self._responses),
            items=tuple(self._items),
            cost=self._cost,
            partial_text="".join(self._text),
        )
