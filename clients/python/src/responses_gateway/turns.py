"""Lanes and turns as their session sees them, without IO."""

from __future__ import annotations

import weakref
from collections import deque
from collections.abc import Callable, Sequence

from .errors import GatewayError, Replay, TurnBusyError, TurnError, inferred
from .gen import event_pb2, items_pb2, response_pb2, session_pb2
from .reasons import Reason
from .request import call_output
from .tools import error_result
from .types import Accumulator, Event, Result

# Outcomes after which the results that the turn brought are still the lane's, and none.
_GOING_ON = (
    event_pb2.TURN_OUTCOME_UNSPECIFIED,
    event_pb2.TURN_OUTCOME_COMPLETED,
    event_pb2.TURN_OUTCOME_INCOMPLETE,
)

#: Payloads that later turns of the lane have to know of.
NOTED = frozenset({"output_item_done", "response_completed", "response_incomplete"})


class LaneCore:
    """What a session knows of a lane."""

    def __init__(self, lane_id: str) -> None:
        self.id = lane_id
        self.fork_from = ""
        self.last_response = ""
        #: Results of calls of `unanswered_for` that the upstream has not been given.
        self.unanswered: list[items_pb2.InputItem] = []
        self.unanswered_for = ""
        #: A loop's turn that was cancelled and whose end is not known yet.
        self.left: TurnCore | None = None

    @property
    def continues_from(self) -> str:
        """The response that the next turn continues from, as far as the client has heard."""
        return self.fork_from or self.last_response

    def owe(self, response_id: str, items: Sequence[items_pb2.InputItem]) -> None:
        self.unanswered_for, self.unanswered = response_id, list(items)

    def owed(self) -> Sequence[items_pb2.InputItem]:
        """What the lane's next turn has to answer before its own input."""
        return self.unanswered if self.unanswered_for == self.continues_from else []

    def answer(self, items: Sequence[items_pb2.InputItem]) -> None:
        """Results of the calls that are open. The next turn brings them, if nobody brings them himself."""
        if self.unanswered:
            self.unanswered = list(items)

    def answer_one(self, call_id: str, output: str) -> None:
        for item in self.unanswered:
            if item.function_call_output.call_id == call_id:
                item.function_call_output.output = output

    def fork_to(self, other: LaneCore) -> None:
        other.fork_from = self.last_response
        other.owe(self.last_response, self.unanswered if self.unanswered_for == self.last_response else [])


class Reader:
    """Who reads a turn: one iteration, or one wait for the result."""

    def __init__(self, *, wants_events: bool) -> None:
        self.wants_events = wants_events
        #: The thread or task that read last.
        self.owner: object = None
        self.ref: weakref.ref[Reader] = weakref.ref(self)


class TurnCore:
    """A turn's events that wait for their reader, and what was made of those that do not wait any more."""

    def __init__(self, lane: LaneCore, turn_id: str, start: session_pb2.StartTurn, *, in_loop: bool) -> None:
        self.lane = lane
        self.id = turn_id
        #: Kept until the gateway is known to have it.
        self.start: session_pb2.StartTurn | None = start
        self.in_loop = in_loop
        #: Another turn has begun from before it: its end is nothing to its lane.
        self.superseded = False
        #: The response it continues from, and the results of calls that it brings.
        self.base = ""
        self.forks = False
        #: The lane's last response when it was started.
        self.before = ""
        self.answers: Sequence[items_pb2.InputItem] = ()
        self.sent = False
        self.seen = False
        #: Streams that were lost with the start on them, before the gateway was known to have it.
        self.losses = 0
        self.on_stream = False
        self.cancel_requested = False
        self.detached = False
        #: Its events are dropped as its reader held up others; the result goes on.
        self.folded = False
        self.reader: weakref.ref[Reader] | None = None
        #: Since when a reader has waited, on the monotonic clock.
        self.waiting_since: float | None = None
        self.over = False
        self.error: TurnError | None = None
        self.queue: deque[tuple[Event, int]] = deque()
        self.queued_bytes = 0
        self.accumulator = Accumulator()
        #: Called when there is something new for the reader.
        self.wake: Callable[[], None] = lambda: None
        self._open_calls: list[str] = []

    @property
    def replay(self) -> Replay:
        """The verdict on a turn whose end will never be heard."""
        return "unsafe" if self.seen else "unknown" if self.sent else "safe"

    @property
    def result(self) -> Result:
        return self.accumulator.result(self.lane.id, self.id)

    def has_news(self, reader: Reader) -> bool:
        return bool(self.queue) or self.over or (self.folded and reader.wants_events)

    def claim(self, reader: Reader, owner: object) -> None:
        """Refuses a second reader while the first is still there. An iteration that was left is not."""
        other = None if self.reader is None else self.reader()
        if other is reader and self.waiting_since is None:
            reader.owner = owner
            return
        taken = other is not None and other is not reader and other.owner != owner
        if taken or self.waiting_since is not None:
            raise TurnBusyError()
        reader.owner = owner
        self.reader = reader.ref

    def release(self) -> None:
        self.reader = None

    def fail(self, error: GatewayError) -> None:
        if self.over:
            return
        self.over = True
        self.error = for_turn(error, self.lane.id, self.id, self.replay)
        self._give_back()
        self.wake()

    def consume(self, event: Event) -> None:
        """Makes the event a part of the result."""
        self.accumulator.add(event)
        if event.proto.outcome:
            self.ended_with(event)

    def ended_with(self, event: Event) -> None:
        if event.outcome not in ("completed", "incomplete") and self.error is None:
            lost = inferred("UNKNOWN", Reason.PROTOCOL, "the turn failed without a reason")
            self.error = event.failure or for_turn(lost, self.lane.id, self.id, "unknown")

    @property
    def goes_back_to(self) -> str:
        """Where the lane stands without this turn."""
        return self.base if self.lane.last_response == self.before else self.lane.last_response

    def note(self, proto: event_pb2.Event, kind: str | None, outcome: int) -> None:
        """Keeps what later turns of the lane have to know, of the last event and of those that are NOTED."""
        if outcome and self.lane.left is self:
            self.lane.left = None
        if self.superseded:
            return
        if kind == "output_item_done" and self.in_loop:
            item = proto.output_item_done.item
            if item.HasField("function_call"):
                self._open_calls.append(item.function_call.call_id)
        elif kind == "response_completed":
            self._continue_from(proto.response_completed.response)
        elif kind == "response_incomplete":
            self._continue_from(proto.response_incomplete.response)
        if outcome not in _GOING_ON:
            self._give_back()

    def _continue_from(self, response: response_pb2.Response) -> None:
        lane = self.lane
        lane.last_response = response.id or lane.last_response
        if not self.in_loop:
            return
        # Whatever becomes of the loop: until it brings results, the lane's next turn has to answer these calls.
        listed = [item.function_call.call_id for item in response.output if item.HasField("function_call")]
        calls = listed if len(listed) >= len(self._open_calls) else self._open_calls
        left = error_result("the call was not answered: the tool loop ended before it")
        lane.owe(lane.last_response, [call_output(call, left) for call in calls])

    def _give_back(self) -> None:
        """A turn that failed leaves its lane as it was, and the calls open that it was to answer."""
        if self.lane.last_response == self.before and not self.superseded:
            if self.forks:
                self.lane.fork_from = self.base
            if self.answers:
                self.lane.owe(self.base, self.answers)
        self.answers = ()


def for_turn(error: GatewayError, lane_id: str, turn_id: str, replay: Replay) -> TurnError:
    """The session's error as the end of one of its turns."""
    return TurnError(
        error.code,
        error.reason,
        error.message,
        lane_id=lane_id,
        turn_id=turn_id,
        replay=replay,
        metadata=error.metadata,
        retry_after=error.retry_after,
        inferred=True,
    )
