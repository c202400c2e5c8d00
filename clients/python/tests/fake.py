"""A gateway of which a test plays each stream itself."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent import futures
from contextlib import contextmanager

import grpc
from google.rpc import error_details_pb2, status_pb2

from responses_gateway.gen import event_pb2, items_pb2, service_pb2_grpc, session_pb2

Serve = Callable[["FakeStream"], Iterator[session_pb2.ConnectResponse]]


@contextmanager
def serving(service: service_pb2_grpc.ResponsesServiceServicer) -> Iterator[str]:
    """The address of a gateway with this service."""
    server = grpc.server(futures.ThreadPoolExecutor(max_workers=2))
    service_pb2_grpc.add_ResponsesServiceServicer_to_server(service, server)
    address = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    server.start()
    try:
        yield address
    finally:
        server.stop(0).wait()


class FakeStream:
    def __init__(
        self, requests: Iterator[session_pb2.ConnectRequest], context: grpc.ServicerContext, read_open: bool
    ) -> None:
        self.requests = requests
        self.context = context
        self.open = next(requests).open if read_open else session_pb2.Open()
        self.seq = self.open.resume.last_seq

    def opened(self, **fields: object) -> session_pb2.ConnectResponse:
        resumed = self.open.HasField("resume")
        opened = session_pb2.Opened(
            session_id="session-1",
            resume_token="token-2" if resumed else "token-1",
            resume_outcome=session_pb2.RESUME_OUTCOME_RESUMED if resumed else session_pb2.RESUME_OUTCOME_NEW,
            limits=session_pb2.Limits(max_message_bytes=1 << 20),
        )
        opened.resume_grace.seconds = 5
        opened.MergeFrom(session_pb2.Opened(**fields))
        return session_pb2.ConnectResponse(opened=opened)

    def start_turn(self) -> session_pb2.StartTurn:
        return next(message.start_turn for message in self.requests if message.HasField("start_turn"))

    def events(self, *events: event_pb2.Event) -> session_pb2.ConnectResponse:
        for event in events:
            self.seq += 1
            event.seq = self.seq
        return session_pb2.ConnectResponse(events=event_pb2.Events(events=events))

    def drain(self) -> list[session_pb2.ConnectRequest]:
        return list(self.requests)

    def fail(self, code: grpc.StatusCode, reason: str = "", retry_after: int = 0) -> None:
        if reason:
            status = status_pb2.Status(code=code.value[0], message="said the gateway")
            info = error_details_pb2.ErrorInfo(reason=reason, domain="responses-gateway", metadata={"a": "b"})
            status.details.add().Pack(info)
            if retry_after:
                retry = error_details_pb2.RetryInfo()
                retry.retry_delay.seconds = retry_after
                status.details.add().Pack(retry)
            self.context.set_trailing_metadata((("grpc-status-details-bin", status.SerializeToString()),))
        self.context.abort(code, "said the gateway")


class FakeGateway(service_pb2_grpc.ResponsesServiceServicer):
    """Plays one function a stream, in order."""

    def __init__(self, *streams: Serve, read_open: bool = True) -> None:
        self._streams = list(streams)
        self._read_open = read_open
        self._server = grpc.server(futures.ThreadPoolExecutor(max_workers=4))
        service_pb2_grpc.add_ResponsesServiceServicer_to_server(self, self._server)
        self.address = f"127.0.0.1:{self._server.add_insecure_port('127.0.0.1:0')}"

    def Connect(  # noqa: N802 - the name of the method in the API
        self, request_iterator: Iterator[session_pb2.ConnectRequest], context: grpc.ServicerContext
    ) -> Iterator[session_pb2.ConnectResponse]:
        yield from self._streams.pop(0)(FakeStream(request_iterator, context, self._read_open))

    def __enter__(self) -> FakeGateway:
        self._server.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.stop(None).wait()


def _event(turn: session_pb2.StartTurn, type: str, **fields: object) -> event_pb2.Event:
    return event_pb2.Event(lane_id=turn.lane_id, turn_id=turn.turn_id, type=type, **fields)


def created(turn: session_pb2.StartTurn, id: str = "resp_1") -> event_pb2.Event:
    return _event(turn, "response.created", response_created={"response": {"id": id}})


def delta(turn: session_pb2.StartTurn, text: str) -> event_pb2.Event:
    return _event(turn, "response.output_text.delta", output_text_delta={"delta": text})


def completed(turn: session_pb2.StartTurn, *output: items_pb2.OutputItem, id: str = "resp_1") -> event_pb2.Event:
    usage = {"input_tokens": 3, "output_tokens": 4, "total_tokens": 7}
    response = {"response": {"id": id, "output": output, "usage": usage}}
    outcome = event_pb2.TURN_OUTCOME_COMPLETED
    return _event(turn, "response.completed", outcome=outcome, response_completed=response)


def failed(turn: session_pb2.StartTurn, outcome: int = event_pb2.TURN_OUTCOME_FAILED, **facts: object) -> event_pb2.Event:
    return _event(turn, "gateway.turn.failed", outcome=outcome, turn_failed=event_pb2.TurnFailed(**facts))


def answer(text: str) -> items_pb2.OutputItem:
    return items_pb2.OutputItem(message={"role": "assistant", "content": [{"output_text": {"text": text}}]})


def function_call(id: str, name: str, arguments: str) -> items_pb2.OutputItem:
    return items_pb2.OutputItem(function_call={"call_id": id, "name": name, "arguments": arguments})
