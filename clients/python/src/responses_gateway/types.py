"""Events, requests and results."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

from google.protobuf.duration_pb2 import Duration

from .errors import TurnError, turn_error
from .gen import create_pb2, event_pb2, items_pb2, response_pb2, session_pb2, tools_pb2

#: "" on events that end nothing.
Outcome: TypeAlias = Literal["", "completed", "incomplete", "failed", "cancelled", "deadline_exceeded"]
Item: TypeAlias = items_pb2.InputItem
#: A text is one user message.
Input: TypeAlias = "str | Sequence[Item]"

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
    partial_text: str = field(repr=False, default="")

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
        all_of = [response.usage for response in self.responses]
        return Usage(
            input_tokens=sum(usage.input_tokens for usage in all_of),
            cached_input_tokens=sum(usage.input_tokens_details.cached_tokens for usage in all_of),
            output_tokens=sum(usage.output_tokens for usage in all_of),
            reasoning_tokens=sum(usage.output_tokens_details.reasoning_tokens for usage in all_of),
            total_tokens=sum(usage.total_tokens for usage in all_of),
        )


def message(role: str, text: str) -> Item:
    """A message of user, assistant, system or developer."""
    return Item(message=items_pb2.Message(role=role, text=text))


def call_output(call_id: str, output: str) -> Item:
    """The result of a function call."""
    return Item(function_call_output=items_pb2.FunctionCallOutput(call_id=call_id, output=output))


def json_item(json: bytes) -> Item:
    """An input item as the upstream's JSON, for kinds that this client does not know."""
    return Item(json=json)


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What a turn runs. `create` holds everything that has no field here; the fields are put over it."""

    input: Input | None = None
    #: None: the session's.
    model: str | None = None
    #: The system message. Not inherited: give it with each turn.
    instructions: str | None = None
    #: Not inherited either.
    tools: Sequence[tools_pb2.Tool] | None = None
    store: bool | None = None
    create: create_pb2.CreateBody | None = None
    #: Continue from this response id, of whichever lane: a fork.
    previous_response_id: str | None = None
    new_conversation: bool = False
    #: `input` is the whole conversation, and the gateway works out what is new.
    full_history: bool = False
    #: Seconds from acceptance to outcome, kept by the gateway. None: its default, usually no limit.
    timeout: float | None = None
    wait_on_rate_limit: bool = False
    #: Unique in the session, at most 128 visible ASCII characters. None: chosen by the client.
    turn_id: str | None = None
    warm_up: bool = False

    def start_turn(self, lane_id: str, turn_id: str, trace: event_pb2.TraceContext | None) -> session_pb2.StartTurn:
        create = create_pb2.CreateBody()
        if self.create is not None:
            create.CopyFrom(self.create)
        given: dict[str, Any] = {"model": self.model, "instructions": self.instructions, "store": self.store}
        for name, value in given.items():
            if value is not None:
                setattr(create, name, value)
        if self.input is not None:
            del create.input[:]
            create.input.extend(input_items(self.input))
        if self.tools is not None:
            del create.tools[:]
            create.tools.extend(self.tools)
        if self.warm_up:
            create.generate = False
        start = session_pb2.StartTurn(
            lane_id=lane_id,
            turn_id=turn_id,
            create=create,
            wait_on_rate_limit=self.wait_on_rate_limit,
            trace_context=trace,
        )
        if self.previous_response_id:
            start.previous_response_id = self.previous_response_id
        elif self.new_conversation:
            start.new_conversation.SetInParent()
        if self.full_history:
            start.input_mode = session_pb2.INPUT_MODE_FULL_HISTORY
        if self.timeout is not None:
            start.timeout.CopyFrom(Duration(seconds=int(self.timeout), nanos=int(self.timeout % 1 * 1e9)))
        return start


def input_items(input: Input) -> Sequence[Item]:
    return [message("user", input)] if isinstance(input, str) else input


class Accumulator:
    """Builds the result from the events; the one place that knows how."""

    def __init__(self) -> None:
        self._outcome: Outcome = ""
        self._responses: list[response_pb2.Response] = []
        self._items: Sequence[items_pb2.OutputItem] = []
        self._text: list[str] = []

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
            partial_text="".join(self._text),
        )
