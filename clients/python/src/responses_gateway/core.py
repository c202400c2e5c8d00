"""What a session is, without IO: both twins feed it and do what it says. Not thread-safe: its owner locks."""

from __future__ import annotations

import random
import time
import uuid
from collections import OrderedDict, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal
from weakref import WeakValueDictionary

from .errors import SessionError, inferred, turn_error
from .gen import event_pb2, items_pb2, session_pb2
from .heartbeat import Heartbeat
from .log import Log
from .options import SessionOptions
from .reasons import Reason
from .request import Input, Request, input_items
from .tracing import current_trace
from .turns import NOTED, LaneCore, Reader, TurnCore, for_turn
from .types import Event, GoAway, Limits, Stats

# Waits between attempts to resume. The first comes at once: most streams break with a gateway that is already replaced.
MIN_RETRY_DELAY = 0.1
MAX_RETRY_DELAY = 3.0
#: One attempt to resume takes no longer, so that a dead address does not use up the grace time.
ATTEMPT_TIMEOUT = 10.0
_DEFAULT_GRACE = 60.0
#: For balancers that hash on it: a session's streams reach the same gateway where that is possible.
AFFINITY_HEADER = "x-responses-session"
#: A resumed stream that stood so long was no lost attempt, though nothing came on it.
STEADY_AFTER = 10.0
# A start that was lost so often in a row never gets through: something on the way does not take its size.
_MAX_LOSSES = 4
#: How long unread events may hold up the readers of other turns.
STALL_AFTER = 1.0
# More than a gateway allows in a session's life by default.
_MAX_REMEMBERED_LANES = 8192
# Often enough to keep the gateway's resume buffer (2 MiB) small, rarely enough to cost nothing.
_ACK_EVENTS = 512
_ACK_BYTES = 256 << 10

# Of these, RECOVERED came from the record of another gateway.
_GOES_ON = (session_pb2.RESUME_OUTCOME_RESUMED, session_pb2.RESUME_OUTCOME_RECOVERED)

Phase = Literal["open", "draining", "closing", "over"]


class HalfClose:
    """The last thing to send: nothing more."""


@dataclass(slots=True)
class _Outgoing:
    message: session_pb2.ConnectRequest | None
    turn: TurnCore | None = None
    size: int = 0
    #: The turn that it cancels or steers: it must not come before its start.
    about: TurnCore | None = None
    is_beat: bool = False


class SessionCore:
    def __init__(self, options: SessionOptions, log: Log) -> None:
        self.options = options
        self.log = log
        self.phase: Phase = "open"
        self.error: SessionError | None = None
        #: Why the program ended the session.
        self.closing: SessionError | None = None
        self.opened = session_pb2.Opened()
        self.token = ""
        # Lanes that somebody holds, and those that a later `lane` has to know, the longest unused first.
        self._live_lanes: WeakValueDictionary[str, LaneCore] = WeakValueDictionary()
        self.lanes: OrderedDict[str, LaneCore] = OrderedDict()
        self.turns: dict[str, TurnCore] = {}
        self.connected = True
        self.drained_by: float | None = None
        self.buffered = 0
        self.max_buffered = 0
        # Turns that hold unread events, and since when there has been too much of that.
        self._unread: set[TurnCore] = set()
        self._full_since: float | None = None
        self._started = 0
        self._resumes = 0
        self._last_seq = 0
        self._last_commit = 0
        #: Names the session to balancers: the same for all its streams.
        self.affinity = uuid.uuid4().hex
        #: The session is to go on at another gateway once nothing runs: starts wait.
        self.moving = False
        #: Whether another gateway can go on with the session.
        self.durable = False
        self._unacked_events = 0
        self._unacked_bytes = 0
        self._outbox: deque[_Outgoing] = deque()
        #: Of the stream that is in use; None: the gateway agreed to none.
        self.heartbeat: Heartbeat | None = None
        self._beat_waits = False
        #: Largest message that the calls take.
        self.max_receive_bytes = 0
        self._queued_bytes = 0
        self._accepted_at = 0.0
        self._attempts = 0
        self._resume_until: float | None = None
        #: Called when there is something to send.
        self.wake_writer: Callable[[], None] = lambda: None

    # What the caller does.

    def lane(self, lane_id: str) -> LaneCore:
        lane = self._live_lanes.get(lane_id)
        if lane is None:
            lane = self._live_lanes[lane_id] = LaneCore(lane_id)
        return lane

    def fork(self, lane: LaneCore, lane_id: str) -> LaneCore:
        other = self.lane(lane_id)
        lane.fork_to(other)
        self._remember(other)
        return other

    def has_room_to_send(self) -> bool:
        return self._queued_bytes < self.options.max_queued_bytes or self.phase == "over"

    def start(
        self,
        lane: LaneCore,
        request: Request,
        *,
        in_loop: bool = False,
        given: Sequence[items_pb2.InputItem] = (),
    ) -> TurnCore:
        """Queues a turn. `given` are the results of calls of the lane's last response that the input brings."""
        turn_id = request.turn_id or f"turn-{self._started + 1}"
        unusable = self.unusable()
        if unusable is not None:
            raise for_turn(unusable, lane.id, turn_id, "safe") from unusable
        if turn_id in self.turns:
            reused = inferred("FAILED_PRECONDITION", Reason.TURN_ID_REUSED, "a turn of this id is running")
            raise for_turn(reused, lane.id, turn_id, "safe")
        start = request.start_turn(lane.id, turn_id, current_trace())
        goes_on, answers = start.WhichOneof("chain") is None, given
        left = lane.left if goes_on and not request.full_history else None
        if left is not None:
            _begin_before(left, start)
            answers = given or list(left.answers)
        elif goes_on and not answers and not request.full_history:
            answers = list(lane.owed())
        if answers is not given:
            own = list(start.create.input)
            del start.create.input[:]
            start.create.input.extend([*answers, *own])
        if goes_on and left is None and lane.fork_from:
            start.previous_response_id = lane.fork_from
        message = session_pb2.ConnectRequest(start_turn=start)
        too_large = self._too_large(message)
        if too_large is not None:
            raise for_turn(too_large, lane.id, turn_id, "safe")
        self._started += 1
        turn = TurnCore(lane, turn_id, start, in_loop=in_loop)
        turn.base, turn.forks, turn.before = lane.continues_from, bool(lane.fork_from), lane.last_response
        turn.answers = answers if goes_on else list(lane.owed())
        if left is not None:
            turn.base, turn.forks = left.goes_back_to, left.forks
            left.superseded, lane.left = True, None
        lane.fork_from = ""
        lane.owe("", ())
        self._remember(lane)
        self.turns[turn_id] = turn
        self._send(_Outgoing(message, turn))
        return turn

    def steer(self, lane_id: str, turn_id: str, input: Input) -> None:
        unusable = self.unusable()
        # While the gateway drains, running turns may be steered.
        if unusable is not None and self.phase != "draining":
            raise unusable
        items: list[items_pb2.InputItem] = list(input_items(input))
        steer = session_pb2.SteerTurn(lane_id=lane_id, turn_id=turn_id, input=items)
        message = session_pb2.ConnectRequest(steer_turn=steer)
        too_large = self._too_large(message)
        if too_large is not None:
            raise too_large
        self._send(_Outgoing(message, about=self._target(lane_id, turn_id)))

    def _target(self, lane_id: str, turn_id: str) -> TurnCore | None:
        """The turn that a steer is for, as far as the session knows it."""
        if turn_id:
            return self.turns.get(turn_id)
        return next((turn for turn in self.turns.values() if turn.lane.id == lane_id), None)

    def cancel(self, turn: TurnCore) -> None:
        if self.turns.get(turn.id) is not turn or turn.cancel_requested:
            return
        turn.cancel_requested = True
        self._send(_cancel_of(turn))

    def take(self, turn: TurnCore, reader: Reader) -> Event | None:
        """The next event for the turn's reader; None: wait, or the turn is over."""
        if not turn.queue:
            if turn.folded and reader.wants_events:
                slow = inferred("RESOURCE_EXHAUSTED", Reason.READER_TOO_SLOW, "unread events held up other lanes")
                raise for_turn(slow, turn.lane.id, turn.id, turn.replay)
            return None
        event, size = turn.queue.popleft()
        turn.queued_bytes -= size
        if not turn.queue:
            self._unread.discard(turn)
        self.buffered -= size
        if self._full_since is not None:
            self._release(0)
        turn.accumulator.add(event)
        if event.proto.outcome:
            turn.ended_with(event)
        return event

    def take_next(self, turn: TurnCore, reader: Reader, owner: object) -> Event | None:
        """The next event for a reader that had the one before, if it is there."""
        if turn.queue and turn.reader is reader.ref and reader.owner == owner and turn.waiting_since is None:
            return self.take(turn, reader)
        return None

    def detach(self, turn: TurnCore) -> None:
        turn.detached = True
        unread = bool(turn.queue) or not turn.over
        turn.queue.clear()
        self._unread.discard(turn)
        self._release(turn.queued_bytes)
        turn.queued_bytes = 0
        if unread and turn.error is None:
            # It goes on: only its reader has left.
            turn.error = for_turn(_closed_turn(), turn.lane.id, turn.id, turn.replay)
            turn.over = True
            turn.wake()

    def leave(self, turn: TurnCore) -> None:
        """A loop's turn that nobody wants any more."""
        self.cancel(turn)
        self.detach(turn)
        if self.turns.get(turn.id) is turn:
            turn.lane.left = turn

    def relieve(self) -> None:
        """Folds unread turns if they have held up the readers of others for long."""
        now = time.monotonic()
        if self._full_since is None or now - self._full_since < STALL_AFTER:
            return
        waiting = [turn.waiting_since for turn in self.turns.values() if turn.waiting_since is not None]
        if not waiting or now - min(waiting) < STALL_AFTER:
            return
        for turn in sorted(self._unread, key=lambda turn: turn.queued_bytes, reverse=True):
            if self.buffered < self.options.max_buffered_bytes / 2:
                return
            self.log.warning("responses-gateway: the reader of turn %s is too slow; its events are dropped", turn.id)
            for event, _ in turn.queue:
                turn.consume(event)
            turn.queue.clear()
            turn.folded = True
            self._unread.discard(turn)
            self._release(turn.queued_bytes)
            turn.queued_bytes = 0
            turn.wake()

    def _release(self, size: int) -> None:
        self.buffered -= size
        if self.buffered < self.options.max_buffered_bytes / 2:
            self._full_since = None

    def close(self, why: SessionError) -> bool:
        """Turns fail at once. False if there is nothing to close."""
        if self.phase in ("closing", "over"):
            return False
        self.phase, self.closing = "closing", why
        self._outbox.clear()
        self._beat_waits = False
        self._queued_bytes = 0
        for turn in self.turns.values():
            if turn.sent:
                self._send(_cancel_of(turn))
            turn.fail(why)
        self.turns.clear()
        self._send(_Outgoing(None))
        return True

    def unusable(self) -> SessionError | None:
        if self.error is not None:
            return self.error
        if self.phase == "draining":
            return inferred("UNAVAILABLE", Reason.DRAINING, "the gateway shuts down; open a new session")
        return self.closing

    # What the stream does.

    def open_message(self, *, resume: bool) -> session_pb2.ConnectRequest:
        opened = self.options.open()
        opened.max_message_bytes = self.max_receive_bytes
        if resume:
            opened.resume.token = self.token
            opened.resume.last_seq = self._last_seq
            opened.resume.last_commit = self._last_commit
        return session_pb2.ConnectRequest(open=opened)

    def accept(self, response: session_pb2.ConnectResponse, *, resume: bool) -> None:
        """Takes the first message of a stream. Raises if the session cannot go on with it."""
        if not response.HasField("opened"):
            raise inferred("INTERNAL", Reason.PROTOCOL, "the first message was not Opened")
        opened = response.opened
        if resume:
            self._reconcile(opened)
        self.opened = opened
        self.durable, self.moving = opened.durable, False
        self.token = opened.resume_token or self.token
        self.connected = True
        self._accepted_at = time.monotonic()
        interval = opened.heartbeat_interval.seconds + opened.heartbeat_interval.nanos / 1e9
        self.heartbeat = Heartbeat(interval, self._accepted_at) if interval > 0 else None
        self.wake_writer()

    def has_room_to_receive(self) -> bool:
        return self.buffered < self.options.max_buffered_bytes or self.phase in ("closing", "over")

    def receive(self, response: session_pb2.ConnectResponse) -> list[Event | GoAway]:
        """Returns what the session's own callbacks are to be told."""
        if self.heartbeat is not None:
            self.heartbeat.heard(time.monotonic())
        kind = response.WhichOneof("message")
        if kind == "events":
            return self._receive_events(response.events)
        return [self._receive_go_away(response.go_away)] if kind == "go_away" else []

    def resumes_receiving(self) -> None:
        """The stream is read again after a pause."""
        if self.heartbeat is not None:
            self.heartbeat.heard(time.monotonic())

    def beat(self, heartbeat: Heartbeat) -> float | None:
        """Sends what is due. Returns the seconds until the next look; None: nothing was heard for too long."""
        now = time.monotonic()
        if heartbeat.is_silent(now, paused=not self.has_room_to_receive()):
            return None
        # One at a time: where nothing is taken, more would only pile up.
        if heartbeat.sends(now) and not self._beat_waits and self.phase in ("open", "draining"):
            self._beat_waits = True
            message = session_pb2.ConnectRequest(heartbeat=session_pb2.Heartbeat())
            self._outbox.appendleft(_Outgoing(message, is_beat=True))
            self.wake_writer()
        return max(0.0, heartbeat.due - now)

    def next_outgoing(self) -> session_pb2.ConnectRequest | HalfClose | None:
        out = self._next_to_send()
        if out is None:
            return None
        self._queued_bytes -= out.size
        if out.is_beat:
            self._beat_waits = False
        if out.turn is not None:
            # Before it is sent: afterwards nobody could say that it was not.
            out.turn.sent = out.turn.on_stream = True
        return HalfClose() if out.message is None else out.message

    def _next_to_send(self) -> _Outgoing | None:
        if not self.moving:
            return self._outbox.popleft() if self._outbox else None
        for index, out in enumerate(self._outbox):
            if out.turn is None and (out.about is None or out.about.sent):
                del self._outbox[index]
                return out
        return None

    def replaces(self, told: GoAway) -> bool:
        """Whether the stream is to be replaced at once."""
        return not told.draining and self.phase == "open" and self.options.resume

    def moves_now(self) -> bool:
        """Whether nothing runs here any more and the session is to go on elsewhere."""
        return self.moving and self.phase == "open" and not any(turn.sent for turn in self.turns.values())

    def verdict(self, ended: SessionError | None, *, replaced: bool) -> SessionError | None:
        """What the end of a stream means for the session; None: resume. `ended` is None for OK."""
        self.connected = False
        if self.phase == "over" and self.error is not None:
            return self.error
        if self.closing is not None:
            return self.closing
        if replaced:
            if not self.moving:
                self._made_progress()
            return None
        if ended is None and self.phase == "draining":
            return inferred("UNAVAILABLE", Reason.DRAINING, "the gateway shut down")
        failure = ended or inferred("UNAVAILABLE", Reason.STREAM_LOST, "the stream ended")
        if (failure.resumable or self.moving) and self.options.resume and self.token:
            self._lost()
            return None
        return failure

    def _lost(self) -> None:
        if time.monotonic() - self._accepted_at >= STEADY_AFTER:
            self._made_progress()
        for turn in self.turns.values():
            if turn.on_stream and not turn.seen:
                turn.losses += 1
            turn.on_stream = False

    def _made_progress(self) -> None:
        self._attempts, self._resume_until = 0, None

    def next_attempt(self, told: float | None) -> float | None:
        """Seconds to wait before the next attempt to resume; None: give up. `told` is what the gateway asked for. Waits and
        deadline go on until something came on a resumed stream."""
        now = time.monotonic()
        if self._resume_until is None:
            grace = self.opened.resume_grace
            self._resume_until = now + (grace.seconds + grace.nanos / 1e9 or _DEFAULT_GRACE)
        wait = 0.0 if self._attempts == 0 and not told else retry_delay(self._attempts, told)
        if now + wait > self.resume_deadline:
            return None
        self._attempts += 1
        return wait

    @property
    def resume_deadline(self) -> float:
        until = self._resume_until or 0.0
        return min(until, self.drained_by) if self.drained_by is not None else until

    def tries_elsewhere(self, error: SessionError) -> bool:
        """Whether another attempt may reach a gateway that does not go down."""
        return error.reason == Reason.DRAINING and (self.moving or self.durable)

    def abandon(self, error: SessionError) -> None:
        """Ends the session at once."""
        if self.phase != "over":
            self.finish(error)

    def set_drained_by(self, now: float, told: GoAway) -> None:
        if told.draining and not told.movable:
            self.drained_by = now + told.time_left

    def finish(self, error: SessionError) -> None:
        if self.phase == "over":
            return
        if self.closing is None or self.closing.reason == Reason.CLIENT_CLOSED:
            self.error = error = self.closing or error
        self.phase = "over"
        for turn in self.turns.values():
            turn.fail(error)
        self.turns.clear()
        self._outbox.clear()
        self._beat_waits = False
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

    def _remember(self, lane: LaneCore) -> None:
        self.lanes[lane.id] = lane
        self.lanes.move_to_end(lane.id)
        while len(self.lanes) > (self.opened.limits.max_lanes or _MAX_REMEMBERED_LANES):
            self.lanes.popitem(last=False)

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
        return inferred("RESOURCE_EXHAUSTED", Reason.MESSAGE_TOO_LARGE, f"{size} bytes; the gateway takes {limit}")

    def _receive_events(self, events: event_pb2.Events) -> list[Event | GoAway]:
        told: list[Event | GoAway] = []
        last: TurnCore | None = None
        for proto in events.events:
            if proto.seq != self._last_seq + 1:
                raise inferred("INTERNAL", Reason.PROTOCOL, f"event {proto.seq} came after {self._last_seq}")
            if self._attempts:
                self._made_progress()
            self._last_seq = proto.seq
            commit = proto.commit
            if commit > self._last_commit:
                self._last_commit = commit
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
        if self.buffered >= self.options.max_buffered_bytes and self._full_since is None:
            self._full_since = time.monotonic()
        self._unacked_events += len(events.events)
        if self._unacked_events >= _ACK_EVENTS or self._unacked_bytes >= _ACK_BYTES:
            self._unacked_events = self._unacked_bytes = 0
            ack = session_pb2.ConnectRequest(ack=session_pb2.Ack(seq=self._last_seq))
            self._send(_Outgoing(ack))
        return told

    def _route(self, turn: TurnCore, proto: event_pb2.Event, size: int) -> None:
        outcome = proto.outcome
        last = outcome != event_pb2.TURN_OUTCOME_UNSPECIFIED
        if not turn.seen and not last and proto.turn_failed.reason == "TURN_ID_REUSED":
            # The id belongs to an earlier turn, so this one gets no last event of its own.
            del self.turns[turn.id]
            turn.over, turn.error = True, turn_error(proto)
            return
        turn.seen, turn.start = True, None
        if last:
            del self.turns[turn.id]
            turn.over = True
        kind = proto.WhichOneof("payload")
        if last or kind in NOTED:
            turn.note(proto, kind, outcome)
        if turn.folded:
            turn.consume(Event(proto))
        elif not turn.detached:
            if not turn.queue:
                self._unread.add(turn)
            turn.queue.append((Event(proto), size))
            turn.queued_bytes += size
            self.buffered += size

    def _receive_go_away(self, message: session_pb2.GoAway) -> GoAway:
        self.token = message.resume_token or self.token
        left = message.time_left.seconds + message.time_left.nanos / 1e9
        draining = message.reason != session_pb2.GO_AWAY_REASON_MAX_AGE
        told = GoAway(draining=draining, time_left=left, movable=message.movable and self.options.resume)
        if draining and self.phase == "open":
            if told.movable:
                self.moving = True
            else:
                self.phase = "draining"
        return told

    def _reconcile(self, opened: session_pb2.Opened) -> None:
        """Brings turns and outbox in line with what the gateway says after a resume."""
        partial = opened.resume_outcome == session_pb2.RESUME_OUTCOME_PARTIAL
        if not partial and opened.resume_outcome not in _GOES_ON:
            # The new session that the gateway offers has none of the lanes' conversations: a turn sent there would
            # silently begin a new one.
            code, reason = "NOT_FOUND", Reason.SESSION_EXPIRED
            if opened.gone_reason == Reason.ENGINE_LOST_DATA:
                code, reason = "DATA_LOSS", Reason.ENGINE_LOST_DATA
            raise inferred(code, reason, "the gateway no longer has the session")
        self._resumes += 1
        active = {turn.turn_id: turn for turn in opened.active_turns}
        if partial:
            self._lose_events(active)
            self._last_seq = opened.oldest_seq - 1
        self._give_up_undelivered(active)
        # What nobody here knows is of turns that were given up.
        for running in opened.active_turns:
            if running.turn_id not in self.turns:
                cancel = session_pb2.CancelTurn(lane_id=running.lane_id, turn_id=running.turn_id)
                self._send(_Outgoing(session_pb2.ConnectRequest(cancel_turn=cancel)))
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

    def _give_up_undelivered(self, active: dict[str, session_pb2.ActiveTurn]) -> None:
        for turn in self.turns.values():
            if turn.seen or turn.id in active:
                turn.losses = 0
        for turn in list(self.turns.values()):
            if turn.losses < _MAX_LOSSES:
                continue
            del self.turns[turn.id]
            size = 0 if turn.start is None else turn.start.ByteSize()
            lost = inferred(
                "UNAVAILABLE",
                Reason.TURN_UNDELIVERED,
                f"{turn.losses} streams were lost with the turn's start of {size} bytes on them",
            )
            lost.metadata = {"bytes": str(size), "attempts": str(turn.losses)}
            turn.fail(lost)
            # Those behind it never had a chance.
            for other in self.turns.values():
                other.losses = 0
            return

    def _lose_events(self, active: dict[str, session_pb2.ActiveTurn]) -> None:
        lost = inferred("DATA_LOSS", Reason.EVENTS_LOST, "events of the turn are gone")
        for turn in list(self.turns.values()):
            running = active.get(turn.id)
            untouched = running is not None and not turn.seen and running.phase <= event_pb2.TURN_PHASE_SENT
            if not turn.sent or untouched:
                continue
            del self.turns[turn.id]
            if running is not None:
                self._send(_cancel_of(turn))
            turn.fail(lost)


def given_up(last: SessionError | None) -> SessionError:
    """No stream could be resumed; `last` is how the last attempt ended."""
    why = "" if last is None else f": {last.message}"
    lost = inferred("UNAVAILABLE", Reason.STREAM_LOST, f"the stream could not be resumed in time{why}")
    lost.metadata = {} if last is None else dict(last.metadata)
    return lost


def session_closed() -> SessionError:
    return inferred("CANCELLED", Reason.SESSION_CLOSED, "the session was closed")


def client_closed() -> SessionError:
    return inferred("CANCELLED", Reason.CLIENT_CLOSED, "the client was closed")


def silence() -> SessionError:
    return inferred("UNAVAILABLE", Reason.STREAM_LOST, "nothing was heard for three heartbeats")


def retry_delay(attempt: int, told: float | None) -> float:
    delay = min(MIN_RETRY_DELAY * float(1 << min(attempt, 10)), MAX_RETRY_DELAY)
    if attempt == 0:
        delay = MIN_RETRY_DELAY / 2
    return max(delay * random.uniform(0.5, 1), told or 0)


def _cancel_of(turn: TurnCore) -> _Outgoing:
    cancel = session_pb2.CancelTurn(lane_id=turn.lane.id, turn_id=turn.id)
    return _Outgoing(session_pb2.ConnectRequest(cancel_turn=cancel), about=turn)


def _closed_turn() -> SessionError:
    return inferred("CANCELLED", Reason.TURN_CLOSED, "the turn was closed")


def _begin_before(left: TurnCore, start: session_pb2.StartTurn) -> None:
    """Nobody knows yet whether a cancelled turn came to a response with calls: what follows begins from before it."""
    if left.goes_back_to:
        start.previous_response_id = left.goes_back_to
    else:
        start.new_conversation.SetInParent()
