"""What a session is, without IO: both twins feed it and do what it says. Not thread-safe: its owner locks."""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from .errors import (
    DRAINING,
    EVENTS_LOST,
    MESSAGE_TOO_LARGE,
    PROTOCOL,
    SESSION_CLOSED,
    SESSION_EXPIRED,
    STREAM_LOST,
    GatewayError,
    Replay,
    SessionError,
    TurnError,
    inferred,
    turn_error,
)
from .gen import event_pb2, items_pb2, session_pb2
from .options import SessionOptions
from .tracing import current_trace
from .types import Accumulator, Event, GoAway, Input, Limits, Request, Stats, input_items

# Waits between attempts to resume. The first comes at once: most streams break with a gateway that is already replaced.
MIN_RETRY_DELAY = 0.1
MAX_RETRY_DELAY = 3.0
#: One attempt to resume takes no longer, so that a dead address does not use up the grace time.
ATTEMPT_TIMEOUT = 10.0
_DEFAULT_GRACE = 60.0
# Often enough to keep the gateway's resume buffer (2 MiB) small, rarely enough to cost nothing.
_ACK_EVENTS = 512
_ACK_BYTES = 256 << 10

Phase = Literal["open", "draining", "closing", "over"]


class HalfClose:
    """The last thing to send: nothing more."""


@dataclass(slots=True)
class _Outgoing:
    message: session_pb2.ConnectRequest | None
    turn: TurnCore | None = None
    size: int = 0


class LaneCore:
    def __init__(self, lane_id: str) -> None:
        self.id = lane_id
        self.fork_from = ""
        self.last_response = ""


class TurnCore:
    """A turn's events that wait for their reader, and what the reader has made of those it took."""

    def __init__(self, lane: LaneCore, turn_id: str, start: session_pb2.StartTurn) -> None:
        self.lane = lane
        self.id = turn_id
        #: Kept until the gateway is known to have it.
        self.start: session_pb2.StartTurn | None = start
        self.sent = False
        self.seen = False
        self.cancel_requested = False
        self.detached = False
        self.reading = False
        self.over = False
        self.error: TurnError | None = None
        self.queue: deque[tuple[Event, int]] = deque()
        self.accumulator = Accumulator()
        #: Called when there is something new for the reader.
        self.wake: Callable[[], None] = lambda: None

    @property
    def replay(self) -> Replay:
        """The verdict on a turn whose end will never be heard."""
        return "unsafe" if self.seen else "unknown" if self.sent else "safe"

    def fail(self, error: GatewayError) -> None:
        if self.over:
            return
        self.over = True
        self.error = for_turn(error, self.lane.id, self.id, self.replay)
        self.wake()


class SessionCore:
    def __init__(self, options: SessionOptions) -> None:
        self.options = options
        self.phase: Phase = "open"
        self.error: SessionError | None = None
        self.opened = session_pb2.Opened()
        self.token = ""
        self.lanes: dict[str, LaneCore] = {}
        self.turns: dict[str, TurnCore] = {}
        self.connected = True
        self.drained_by: float | None = None
        self.buffered = 0
        self.max_buffered = 0
        self._started = 0
        self._resumes = 0
        self._last_seq = 0
        self._unacked_events = 0
        self._unacked_bytes = 0
        self._outbox: deque[_Outgoing] = deque()
        self._queued_bytes = 0
        #: Called when there is something to send.
        self.wake_writer: Callable[[], None] = lambda: None

    # What the caller does.

    def lane(self, lane_id: str) -> LaneCore:
        return self.lanes.setdefault(lane_id, LaneCore(lane_id))

    def has_room_to_send(self) -> bool:
        return self._queued_bytes < self.options.max_queued_bytes or self.phase == "over"

    def start(self, lane: LaneCore, request: Request) -> TurnCore:
        turn_id = request.turn_id or f"turn-{self._started + 1}"
        unusable = self.unusable()
        if unusable is not None:
            raise for_turn(unusable, lane.id, turn_id, "safe") from unusable
        if turn_id in self.turns:
            reused = inferred("FAILED_PRECONDITION", "TURN_ID_REUSED", "a turn of this id is running")
            raise for_turn(reused, lane.id, turn_id, "safe")
        start = request.start_turn(lane.id, turn_id, current_trace())
        if start.WhichOneof("chain") is None and lane.fork_from:
            start.previous_response_id = lane.fork_from
        message = session_pb2.ConnectRequest(start_turn=start)
        too_large = self._too_large(message)
        if too_large is not None:
            raise for_turn(too_large, lane.id, turn_id, "safe")
        self._started += 1
        lane.fork_from = ""
        turn = TurnCore(lane, turn_id, start)
        self.turns[turn_id] = turn
        self._send(_Outgoing(message, turn))
        return turn

    def steer(self, lane_id: str, turn_id: str, input: Input) -> None:
        unusable = self.unusable()
        if unusable is not None:
            raise unusable
        items: list[items_pb2.InputItem] = list(input_items(input))
        steer = session_pb2.SteerTurn(lane_id=lane_id, turn_id=turn_id, input=items)
        message = session_pb2.ConnectRequest(steer_turn=steer)
        too_large = self._too_large(message)
        if too_large is not None:
            raise too_large
        self._send(_Outgoing(message))

    def cancel(self, turn: TurnCore) -> None:
        if self.turns.get(turn.id) is not turn or turn.cancel_requested:
            return
        turn.cancel_requested = True
        self._send(_cancel_of(turn))

    def take(self, turn: TurnCore) -> Event | None:
        """The next event for the turn's reader; None: wait, or the turn is over."""
        if not turn.queue:
            return None
        event, size = turn.queue.popleft()
        self.buffered -= size
        turn.accumulator.add(event)
        if event.outcome not in ("", "completed", "incomplete") and turn.error is None:
            lost = inferred("UNKNOWN", PROTOCOL, "the turn failed without a reason")
            turn.error = event.failure or for_turn(lost, turn.lane.id, turn.id, "unknown")
        return event

    def detach(self, turn: TurnCore) -> None:
        turn.detached = True
        self.buffered -= sum(size for _, size in turn.queue)
        turn.queue.clear()
        turn.fail(inferred("CANCELLED", "TURN_CLOSED", "the turn was closed"))

    def close(self) -> bool:
        """False if there is nothing to close."""
        if self.phase in ("closing", "over"):
            return False
        self.phase = "closing"
        self._outbox.clear()
        self._queued_bytes = 0
        closed = inferred("CANCELLED", SESSION_CLOSED, "the session was closed")
        for turn in self.turns.values():
            if turn.sent:
                self._send(_cancel_of(turn))
            turn.fail(closed)
        self.turns.clear()
        self._send(_Outgoing(None))
        return True

    def unusable(self) -> SessionError | None:
        if self.error is not None:
            return self.error
        if self.phase == "draining":
            return inferred("UNAVAILABLE", DRAINING, "the gateway shuts down; open a new session")
        if self.phase != "open":
            return inferred("CANCELLED", SESSION_CLOSED, "the session was closed")
        return None

    # What the stream does.

    def open_message(self, *, resume: bool) -> session_pb2.ConnectRequest:
        opened = self.options.open()
        if resume:
            opened.resume.token = self.token
            opened.resume.last_seq = self._last_seq
        return session_pb2.ConnectRequest(open=opened)

    def accept(self, response: session_pb2.ConnectResponse, *, resume: bool) -> None:
        """Takes the first message of a stream. Raises if the session cannot go on with it."""
        if not response.HasField("opened"):
            raise inferred("INTERNAL", PROTOCOL, "the first message was not Opened")
        opened = response.opened
        if resume:
            self._reconcile(opened)
        self.opened = opened
        self.token = opened.resume_token or self.token
        self.connected = True
        self.wake_writer()

    def has_room_to_receive(self) -> bool:
        return self.buffered < self.options.max_buffered_bytes or self.phase in ("closing", "over")

    def receive(self, response: session_pb2.ConnectResponse) -> list[Event | GoAway]:
        """Returns what the session's own callbacks are to be told."""
        kind = response.WhichOneof("message")
        if kind == "events":
            return self._receive_events(response.events)
        return [self._receive_go_away(response.go_away)] if kind == "go_away" else []

    def next_outgoing(self) -> session_pb2.ConnectRequest | HalfClose | None:
        if not self._outbox:
            return None
        out = self._outbox.popleft()
        self._queued_bytes -= out.size
        if out.turn is not None:
            # Before it is sent: afterwards nobody could say that it was not.
            out.turn.sent = True
        return HalfClose() if out.message is None else out.message

    def replaces(self, told: GoAway) -> bool:
        """Whether the stream is to be replaced at once."""
        return not told.draining and self.phase == "open" and self.options.resume

    def verdict(self, ended: SessionError | None, *, replaced: bool) -> SessionError | None:
        """What the end of a stream means for the session; None: resume. `ended` is None for OK."""
        self.connected = False
        if self.phase == "closing":
            return inferred("CANCELLED", SESSION_CLOSED, "the session was closed")
        if replaced:
            return None
        if ended is None and self.phase == "draining":
            return inferred("UNAVAILABLE", DRAINING, "the gateway shut down")
        failure = ended or inferred("UNAVAILABLE", "", "the stream ended")
        if failure.resumable and self.options.resume and self.token:
            return None
        if failure.resumable and not failure.reason:
            return inferred(failure.code, STREAM_LOST, failure.message)
        return failure

    def resume_deadline(self, now: float) -> float:
        grace = self.opened.resume_grace
        deadline = now + (grace.seconds + grace.nanos / 1e9 or _DEFAULT_GRACE)
        return min(deadline, self.drained_by) if self.drained_by is not None else deadline

    def set_drained_by(self, now: float, told: GoAway) -> None:
        if told.draining:
            self.drained_by = now + told.time_left

    def finish(self, error: SessionError) -> None:
        if self.phase != "closing":
            self.error = error
        self.phase = "over"
        for turn in self.turns.values():
            turn.fail(error)
        self.turns.clear()
        self._outbox.clear()
        self._queued_bytes = 0
        self.wake_writer()

    def limits(self) -> Limits:
        granted, grace = self.opened.limits, self.opened.resume_grace
        return Limits(
            max_message_bytes=granted.max_message_bytes,
            max_frame_bytes=granted.max_frame_bytes,
            max_buffered_bytes=granted.max_buffered_bytes,
            max_resume_bytes=granted.max_resume_bytes,
            max_lanes=granted.max_lanes,
            max_turns_in_flight=granted.max_turns_in_flight,
            max_queued_turns_per_lane=granted.max_queued_turns_per_lane,
            resume_grace=grace.seconds + grace.nanos / 1e9,
        )

    def stats(self) -> Stats:
        return Stats(
            resumes=self._resumes,
            buffered_bytes=self.buffered,
            max_buffered_bytes=self.max_buffered,
            queued_bytes=self._queued_bytes,
            running_turns=len(self.turns),
            last_seq=self._last_seq,
        )

    def _send(self, out: _Outgoing, *, first: bool = False) -> None:
        out.size = 0 if out.message is None else out.message.ByteSize()
        self._queued_bytes += out.size
        if first:
            self._outbox.appendleft(out)
        else:
            self._outbox.append(out)
        self.wake_writer()

    def _too_large(self, message: session_pb2.ConnectRequest) -> SessionError | None:
        limit, size = self.opened.limits.max_message_bytes, message.ByteSize()
        if not limit or size <= limit:
            return None
        return inferred("RESOURCE_EXHAUSTED", MESSAGE_TOO_LARGE, f"a message of {size} bytes; the gateway takes {limit}")

    def _receive_events(self, events: event_pb2.Events) -> list[Event | GoAway]:
        told: list[Event | GoAway] = []
        last: TurnCore | None = None
        for proto in events.events:
            if proto.seq != self._last_seq + 1:
                raise inferred("INTERNAL", PROTOCOL, f"event {proto.seq} came after {self._last_seq}")
            self._last_seq = proto.seq
            size = proto.ByteSize()
            self._unacked_bytes += size
            turn = self.turns.get(proto.turn_id) if proto.turn_id else None
            if turn is None:
                if self.phase != "closing":
                    told.append(Event(proto))
                continue
            self._route(turn, proto, size)
            # One signal for a run of events of the same turn.
            if last is not None and last is not turn:
                last.wake()
            last = turn
        if last is not None:
            last.wake()
        self.max_buffered = max(self.max_buffered, self.buffered)
        self._unacked_events += len(events.events)
        if self._unacked_events >= _ACK_EVENTS or self._unacked_bytes >= _ACK_BYTES:
            self._unacked_events = self._unacked_bytes = 0
            ack = session_pb2.ConnectRequest(ack=session_pb2.Ack(seq=self._last_seq))
            self._send(_Outgoing(ack))
        return told

    def _route(self, turn: TurnCore, proto: event_pb2.Event, size: int) -> None:
        last = proto.outcome != event_pb2.TURN_OUTCOME_UNSPECIFIED
        if not turn.seen and not last and proto.turn_failed.reason == "TURN_ID_REUSED":
            # The id belongs to an earlier turn, so this one gets no last event of its own.
            del self.turns[turn.id]
            turn.over, turn.error = True, turn_error(proto)
            return
        turn.seen, turn.start = True, None
        if last:
            del self.turns[turn.id]
            turn.over = True
        turn.lane.last_response = _continued_by(proto) or turn.lane.last_response
        if not turn.detached:
            turn.queue.append((Event(proto), size))
            self.buffered += size

    def _receive_go_away(self, message: session_pb2.GoAway) -> GoAway:
        self.token = message.resume_token or self.token
        left = message.time_left.seconds + message.time_left.nanos / 1e9
        told = GoAway(draining=message.reason != session_pb2.GO_AWAY_REASON_MAX_AGE, time_left=left)
        if told.draining and self.phase == "open":
            self.phase = "draining"
        return told

    def _reconcile(self, opened: session_pb2.Opened) -> None:
        """Brings turns and outbox in line with what the gateway says after a resume."""
        partial = opened.resume_outcome == session_pb2.RESUME_OUTCOME_PARTIAL
        if not partial and opened.resume_outcome != session_pb2.RESUME_OUTCOME_RESUMED:
            # The new session that the gateway offers has none of the lanes' conversations: a turn sent there would
            # silently begin a new one.
            raise inferred("NOT_FOUND", SESSION_EXPIRED, "the gateway no longer has the session")
        self._resumes += 1
        active = {turn.turn_id: turn for turn in opened.active_turns}
        if partial:
            self._lose_events(active)
            self._last_seq = opened.oldest_seq - 1
        # What was on its way may have got lost. Repeating a start is safe: the gateway knows its turn ids.
        again = [
            _Outgoing(session_pb2.ConnectRequest(start_turn=turn.start), turn)
            for turn in self.turns.values()
            if turn.sent and not turn.seen and turn.id not in active
        ]
        again += [_cancel_of(turn) for turn in self.turns.values() if turn.sent and turn.cancel_requested]
        for out in reversed(again):
            self._send(out, first=True)
        self._unacked_events = self._unacked_bytes = 0

    def _lose_events(self, active: dict[str, session_pb2.ActiveTurn]) -> None:
        lost = inferred("DATA_LOSS", EVENTS_LOST, "events of the turn are gone")
        for turn in list(self.turns.values()):
            running = active.get(turn.id)
            untouched = running is not None and not turn.seen and running.phase <= event_pb2.TURN_PHASE_SENT
            if not turn.sent or untouched:
                continue
            del self.turns[turn.id]
            if running is not None:
                self._send(_cancel_of(turn))
            turn.fail(lost)


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


def retry_delay(attempt: int, told: float | None) -> float:
    delay = min(MIN_RETRY_DELAY * float(1 << min(attempt, 10)), MAX_RETRY_DELAY)
    if attempt == 0:
        delay = MIN_RETRY_DELAY / 2
    return max(delay * random.uniform(0.5, 1), told or 0)


def _cancel_of(turn: TurnCore) -> _Outgoing:
    cancel = session_pb2.CancelTurn(lane_id=turn.lane.id, turn_id=turn.id)
    return _Outgoing(session_pb2.ConnectRequest(cancel_turn=cancel))


def _continued_by(proto: event_pb2.Event) -> str:
    """The id of a response that later turns of the lane continue from."""
    kind = proto.WhichOneof("payload")
    if kind == "response_completed":
        return proto.response_completed.response.id
    return proto.response_incomplete.response.id if kind == "response_incomplete" else ""
