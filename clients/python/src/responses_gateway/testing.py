"""A gateway for tests, in this process: scripted turns, faults, lost streams and resumes, without an upstream.

    with FakeGateway() as gateway, Client(gateway.address) as client, client.connect() as session:
        gateway.call("weather", {"city": "Oslo"})
        gateway.answer("21 degrees")
        assert session.lane().run_tools("Weather in Oslo?", [weather]).text == "21 degrees"
        assert gateway.turns[1].input[0].function_call_output.output == '{"celsius":21}'

Both clients work with it. It knows lanes, turns, cancels, acknowledgements and resumes; it checks nothing that the real
gateway checks.
"""

from __future__ import annotations

import json
import threading
import uuid
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import grpc
from google.rpc import error_details_pb2, status_pb2

from .errors import ERROR_DOMAIN
from .gen import content_pb2, event_pb2, items_pb2, service_pb2_grpc, session_pb2
from .types import Outcome

__all__ = ["FakeGateway", "FakeTurn"]

_OUTCOMES: Mapping[Outcome, event_pb2.TurnOutcome.ValueType] = {
    "completed": event_pb2.TURN_OUTCOME_COMPLETED,
    "incomplete": event_pb2.TURN_OUTCOME_INCOMPLETE,
    "failed": event_pb2.TURN_OUTCOME_FAILED,
    "cancelled": event_pb2.TURN_OUTCOME_CANCELLED,
}
_REPLAYS = {
    "safe": event_pb2.REPLAY_VERDICT_SAFE,
    "unsafe": event_pb2.REPLAY_VERDICT_UNSAFE,
    "unknown": event_pb2.REPLAY_VERDICT_UNKNOWN,
}


class FakeTurn:
    """A turn that a client started."""

    def __init__(self, start: session_pb2.StartTurn) -> None:
        #: The whole message.
        self.start = start
        self.cancelled = False
        self.steers: list[session_pb2.SteerTurn] = []

    @property
    def lane_id(self) -> str:
        return self.start.lane_id

    @property
    def input(self) -> Sequence[items_pb2.InputItem]:
        return self.start.create.input

    @property
    def text(self) -> str:
        """The texts of the input's messages."""
        return "\n".join(item.message.text for item in self.input if item.HasField("message"))


Play = Callable[["_Session", FakeTurn], None]


class FakeGateway(service_pb2_grpc.ResponsesServiceServicer):
    """Plays one script for each turn, in the order of the scripts; "ok" is the answer where there is none left."""

    def __init__(self, *, limits: Mapping[str, int] | None = None) -> None:
        #: All turns that were started, in order.
        self.turns: list[FakeTurn] = []
        #: All Open messages, resumes included.
        self.opens: list[session_pb2.Open] = []
        self._limits = dict(limits or {})
        self._scripts: deque[Play] = deque()
        self._refusals: deque[tuple[grpc.StatusCode, str]] = deque()
        self._sessions: dict[str, _Session] = {}
        self._lock = threading.Lock()
        self._server = grpc.server(ThreadPoolExecutor(max_workers=64, thread_name_prefix="fake-gateway"))
        service_pb2_grpc.add_ResponsesServiceServicer_to_server(self, self._server)
        self.address = f"127.0.0.1:{self._server.add_insecure_port('127.0.0.1:0')}"

    # What the next turns do.

    def answer(self, *pieces: str) -> None:
        """The next turn answers with this text, in as many deltas as there are pieces."""

        def play(session: _Session, turn: FakeTurn) -> None:
            item = _message(content_pb2.ContentPart(output_text=content_pb2.OutputText(text="".join(pieces))))
            session.respond(turn, "completed", [item], pieces)

        self._scripts.append(play)

    def call(self, name: str, arguments: Mapping[str, Any], *more: tuple[str, Mapping[str, Any]]) -> None:
        """The next turn calls functions: one, and those of `more` beside it."""

        def play(session: _Session, turn: FakeTurn) -> None:
            calls = [
                items_pb2.OutputItem(
                    function_call=items_pb2.FunctionCall(
                        call_id=f"call_{uuid.uuid4().hex[:8]}", name=one, arguments=json.dumps(given)
                    )
                )
                for one, given in ((name, arguments), *more)
            ]
            session.respond(turn, "completed", calls, ())

        self._scripts.append(play)

    def refuse(self, text: str) -> None:
        """The model refuses the next turn."""

        def play(session: _Session, turn: FakeTurn) -> None:
            item = _message(content_pb2.ContentPart(refusal=content_pb2.Refusal(refusal=text)))
            session.respond(turn, "completed", [item], ())

        self._scripts.append(play)

    def fail(
        self,
        reason: str,
        *,
        code: str = "UNAVAILABLE",
        replay: str = "safe",
        retry_after: float | None = None,
        after: str = "",
    ) -> None:
        """The next turn fails, after this much of an answer."""

        def play(session: _Session, turn: FakeTurn) -> None:
            if after:
                session.begin(turn, [after])
            session.fail(turn, "failed", code, reason, "as the test wants it", replay, retry_after)

        self._scripts.append(play)

    def hang(self, *pieces: str) -> None:
        """The next turn begins, and ends only when it is cancelled."""

        def play(session: _Session, turn: FakeTurn) -> None:
            session.begin(turn, pieces)

        self._scripts.append(play)

    # What happens to sessions.

    def refuse_open(self, reason: str, code: grpc.StatusCode = grpc.StatusCode.UNAVAILABLE) -> None:
        """The next stream is refused."""
        self._refusals.append((code, reason))

    def cut(self) -> None:
        """Ends all streams as if the network did. Their sessions can be resumed, and what they are told until then is not
        lost."""
        for session in list(self._sessions.values()):
            session.cut()

    def forget(self) -> None:
        """Ends all streams and forgets the sessions: a resume finds nothing."""
        sessions, self._sessions = list(self._sessions.values()), {}
        for session in sessions:
            session.cut()

    def drain(self, seconds: int = 10) -> None:
        """Announces that the gateway goes down."""
        away = session_pb2.GoAway(reason=session_pb2.GO_AWAY_REASON_DRAINING)
        away.time_left.seconds = seconds
        for session in list(self._sessions.values()):
            session.send(session_pb2.ConnectResponse(go_away=away))

    def close(self) -> None:
        self.forget()
        self._server.stop(0).wait()

    def __enter__(self) -> FakeGateway:
        self._server.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def Connect(  # noqa: N802 - the name of the method in the API
        self, request_iterator: Iterator[session_pb2.ConnectRequest], context: grpc.ServicerContext
    ) -> Iterator[session_pb2.ConnectResponse]:
        opened = next(request_iterator).open
        self.opens.append(opened)
        if self._refusals:
            _abort(context, *self._refusals.popleft())
        session = self._sessions.get(opened.resume.token) if opened.HasField("resume") else None
        outcome = session_pb2.RESUME_OUTCOME_RESUMED
        if session is None:
            outcome = session_pb2.RESUME_OUTCOME_GONE if opened.HasField("resume") else session_pb2.RESUME_OUTCOME_NEW
            session = _Session(f"session-{len(self.opens)}")
            self._sessions[session.token] = session
        stream = session.attach(opened.resume.last_seq)
        yield session_pb2.ConnectResponse(opened=session.opened(outcome, self._limits))
        threading.Thread(target=self._read, args=(session, stream, request_iterator), daemon=True).start()
        while (message := stream.next()) is not None:
            yield message
        if stream.is_cut:
            context.abort(grpc.StatusCode.UNAVAILABLE, "the stream was cut")

    def _read(self, session: _Session, stream: _Stream, requests: Iterator[session_pb2.ConnectRequest]) -> None:
        try:
            for request in requests:
                self._take(session, request)
        except Exception:  # The call is over.
            pass
        stream.end()

    def _take(self, session: _Session, request: session_pb2.ConnectRequest) -> None:
        kind = request.WhichOneof("message")
        if kind == "start_turn":
            if request.start_turn.turn_id in session.turns:
                return  # Sent again after a resume.
            turn = FakeTurn(request.start_turn)
            with self._lock:
                self.turns.append(turn)
                play = self._scripts.popleft() if self._scripts else _ok
            session.start(turn, play)
        elif kind == "cancel_turn":
            session.cancel(request.cancel_turn.turn_id)
        elif kind == "steer_turn":
            found = session.turns.get(request.steer_turn.turn_id)
            if found is not None:
                found.steers.append(request.steer_turn)


@dataclass
class _Stream:
    messages: deque[session_pb2.ConnectResponse] = field(default_factory=deque)
    changed: threading.Condition = field(default_factory=threading.Condition)
    over: bool = False
    is_cut: bool = False

    def send(self, message: session_pb2.ConnectResponse) -> None:
        with self.changed:
            self.messages.append(message)
            self.changed.notify_all()

    def end(self, *, cut: bool = False) -> None:
        with self.changed:
            self.is_cut = self.is_cut or (cut and not self.over)
            self.over = True
            self.changed.notify_all()

    def next(self) -> session_pb2.ConnectResponse | None:
        with self.changed:
            self.changed.wait_for(lambda: self.messages or self.over)
            return self.messages.popleft() if self.messages and not self.is_cut else None


class _Session:
    """Keeps all its events, so that a resume can have them again."""

    def __init__(self, session_id: str) -> None:
        self.id = session_id
        self.token = uuid.uuid4().hex
        self.turns: dict[str, FakeTurn] = {}
        self._waiting: dict[str, deque[tuple[FakeTurn, Play]]] = {}
        self._running: dict[str, FakeTurn] = {}
        self._events: list[event_pb2.Event] = []
        self._responses = 0
        self._lock = threading.RLock()
        self._stream: _Stream | None = None

    def opened(self, outcome: session_pb2.ResumeOutcome.ValueType, limits: Mapping[str, int]) -> session_pb2.Opened:
        opened = session_pb2.Opened(session_id=self.id, resume_token=self.token, resume_outcome=outcome)
        opened.resume_grace.seconds = 10
        opened.limits.MergeFrom(session_pb2.Limits(**{"max_message_bytes": 16 << 20, **limits}))
        for turn in self._running.values():
            opened.active_turns.add(lane_id=turn.lane_id, turn_id=turn.start.turn_id, phase=event_pb2.TURN_PHASE_CREATED)
        return opened

    def attach(self, last_seq: int) -> _Stream:
        with self._lock:
            if self._stream is not None:
                self._stream.end()
            self._stream = _Stream()
            missed = self._events[last_seq:]
            if missed:
                self._stream.send(session_pb2.ConnectResponse(events=event_pb2.Events(events=missed)))
            return self._stream

    def send(self, message: session_pb2.ConnectResponse) -> None:
        with self._lock:
            if self._stream is not None:
                self._stream.send(message)

    def cut(self) -> None:
        with self._lock:
            stream, self._stream = self._stream, None
        if stream is not None:
            stream.end(cut=True)

    def start(self, turn: FakeTurn, play: Play) -> None:
        with self._lock:
            self.turns[turn.start.turn_id] = turn
            self._waiting.setdefault(turn.lane_id, deque()).append((turn, play))
            self._go_on(turn.lane_id)

    def cancel(self, turn_id: str) -> None:
        with self._lock:
            turn = self.turns.get(turn_id)
            if turn is None or turn.cancelled:
                return
            waiting = self._waiting.get(turn.lane_id, deque())
            isn = [one for one in waiting if one[0] is turn]
            if not isn and self._running.get(turn.lane_id) is not turn:
                return
            for one in isn:
                waiting.remove(one)
            turn.cancelled = True
            self.fail(turn, "cancelled", "CANCELLED", "TURN_CANCELLED", "the turn was cancelled", "unsafe", None)

    def begin(self, turn: FakeTurn, pieces: Sequence[str]) -> str:
        with self._lock:
            self._responses += 1
            response_id = f"resp_{self._responses}"
            self._tell(turn, "response.created", response_created={"response": {"id": response_id}})
            for piece in pieces:
                self._tell(turn, "response.output_text.delta", output_text_delta={"delta": piece})
            return response_id

    def respond(
        self, turn: FakeTurn, outcome: Outcome, items: Sequence[items_pb2.OutputItem], pieces: Sequence[str]
    ) -> None:
        with self._lock:
            response_id = self.begin(turn, pieces)
            usage = {"input_tokens": 10, "output_tokens": 5, "total_tokens": 15}
            response = {"response": {"id": response_id, "output": items, "usage": usage}}
            self._end(turn, "response.completed", outcome, response_completed=response)

    def fail(
        self, turn: FakeTurn, outcome: Outcome, code: str, reason: str, said: str, replay: str, retry_after: float | None
    ) -> None:
        number = grpc.StatusCode[code].value[0]
        facts = event_pb2.TurnFailed(code=number, reason=reason, message=said, replay=_REPLAYS[replay])
        if retry_after is not None:
            facts.retry_after.FromMilliseconds(int(retry_after * 1000))
        with self._lock:
            self._end(turn, "gateway.turn.failed", outcome, turn_failed=facts)

    def _end(self, turn: FakeTurn, kind: str, outcome: Outcome, **payload: Any) -> None:
        self._tell(turn, kind, outcome=_OUTCOMES[outcome], **payload)
        if self._running.get(turn.lane_id) is turn:
            del self._running[turn.lane_id]
        self._go_on(turn.lane_id)

    def _go_on(self, lane_id: str) -> None:
        waiting = self._waiting.get(lane_id)
        if lane_id in self._running or not waiting:
            return
        turn, play = waiting.popleft()
        self._running[lane_id] = turn
        play(self, turn)

    def _tell(self, turn: FakeTurn, kind: str, **payload: Any) -> None:
        event = event_pb2.Event(
            seq=len(self._events) + 1, lane_id=turn.lane_id, turn_id=turn.start.turn_id, type=kind, **payload
        )
        self._events.append(event)
        self.send(session_pb2.ConnectResponse(events=event_pb2.Events(events=[event])))


def _message(part: content_pb2.ContentPart) -> items_pb2.OutputItem:
    return items_pb2.OutputItem(message=items_pb2.Message(role="assistant", content=[part]))


def _ok(session: _Session, turn: FakeTurn) -> None:
    item = _message(content_pb2.ContentPart(output_text=content_pb2.OutputText(text="ok")))
    session.respond(turn, "completed", [item], ["ok"])


def _abort(context: grpc.ServicerContext, code: grpc.StatusCode, reason: str) -> None:
    status = status_pb2.Status(code=code.value[0], message="as the test wants it")
    status.details.add().Pack(error_details_pb2.ErrorInfo(reason=reason, domain=ERROR_DOMAIN))
    context.set_trailing_metadata((("grpc-status-details-bin", status.SerializeToString()),))
    context.abort(code, "as the test wants it")
