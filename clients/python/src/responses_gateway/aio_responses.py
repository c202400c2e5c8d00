"""Responses without a session, for asyncio. Its twin for threads is sync_responses.py; what they share is in stored.py."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any

import grpc
import grpc.aio

from .aio_stream import _is_cancelling
from .errors import inferred
from .gen import items_pb2, resource_pb2, response_pb2
from .reasons import Reason
from .request import Input, Request
from .stored import (
    Batches,
    Call,
    Order,
    Read,
    call_error,
    count_request,
    create_request,
    ended,
    page_request,
    stream_request,
)
from .types import Event, Result

if TYPE_CHECKING:
    from .aio import Client


class Responses:
    """Turns without a session, and what the upstream keeps of responses. `upstream` names a configured upstream of the
    gateway; a stored response is known where it was made. `timeout` in seconds is kept by the gateway. Failures are a
    `SessionError` with the gateway's reason, for instance UNKNOWN_RESPONSE."""

    def __init__(self, client: Client) -> None:
        self._client = client

    def create(
        self,
        request: Request | Input,
        *,
        idempotency_key: str | None = None,
        raw_json: bool = False,
        upstream: str | None = None,
        timeout: float | None = None,
    ) -> ResponseStream:
        """Runs one turn. A background one (`extra={"background": True}`) goes on when nobody reads, see `stream`.

        The same `idempotency_key` with the same request gets the first call's answer within a day, and never runs a second
        turn: 1 to 256 visible ASCII characters. What is about lanes has no meaning here."""
        message = create_request(request, Call(upstream, timeout), idempotency_key, raw_json)
        return ResponseStream(self._client, "CreateResponse", message)

    async def get(
        self,
        response_id: str,
        *,
        include: Sequence[str] = (),
        upstream: str | None = None,
        timeout: float | None = None,
    ) -> response_pb2.Response:
        """A stored response; of a background one that runs, as far as it is."""
        options = Call(upstream, timeout).options()
        message = resource_pb2.GetResponseRequest(response_id=response_id, include=include, options=options)
        answer: response_pb2.Response = (await self._call("GetResponse", message)).response
        return answer

    def stream(
        self,
        response_id: str,
        *,
        starting_after: int | None = None,
        include: Sequence[str] = (),
        raw_json: bool = False,
        upstream: str | None = None,
        timeout: float | None = None,
    ) -> ResponseStream:
        """Follows a background response to its end, from the event behind `starting_after` on. To go on after a lost
        connection, give `last_sequence_number` of what was read before."""
        message = stream_request(response_id, Call(upstream, timeout), starting_after, include, raw_json)
        return ResponseStream(self._client, "StreamResponse", message)

    async def delete(self, response_id: str, *, upstream: str | None = None, timeout: float | None = None) -> None:
        """Deletes a stored response."""
        options = Call(upstream, timeout).options()
        await self._call("DeleteResponse", resource_pb2.DeleteResponseRequest(response_id=response_id, options=options))

    async def cancel(
        self, response_id: str, *, upstream: str | None = None, timeout: float | None = None
    ) -> response_pb2.Response:
        """Stops a background response, and returns it as it was left."""
        options = Call(upstream, timeout).options()
        message = resource_pb2.CancelResponseRequest(response_id=response_id, options=options)
        answer: response_pb2.Response = (await self._call("CancelResponse", message)).response
        return answer

    async def input_items(
        self,
        response_id: str,
        *,
        after: str | None = None,
        limit: int | None = None,
        order: Order | None = None,
        include: Sequence[str] = (),
        upstream: str | None = None,
        timeout: float | None = None,
    ) -> AsyncIterator[items_pb2.InputItem]:
        """What a stored response was given, page after page. `limit` is that of a page, 1 to 100; the upstream's default
        order is "desc", the newest first."""
        call = Call(upstream, timeout)
        while True:
            message = page_request(response_id, call, after, limit, order, include)
            page: resource_pb2.InputItemPage = (await self._call("ListInputItems", message)).page
            for item in page.data:
                yield item
            if not page.has_more or not page.last_id:
                return
            after = page.last_id

    async def count_input_tokens(
        self, request: Request | Input, *, upstream: str | None = None, timeout: float | None = None
    ) -> int:
        """How many tokens of input a request has; it does not run."""
        message = count_request(request, Call(upstream, timeout))
        count: int = (await self._call("CountInputTokens", message)).count.input_tokens
        return count

    async def models(self, *, upstream: str | None = None, timeout: float | None = None) -> list[resource_pb2.Model]:
        """The models that the caller may use."""
        message = resource_pb2.ListModelsRequest(options=Call(upstream, timeout).options())
        return list((await self._call("ListModels", message)).models.data)

    async def _call(self, method: str, message: Any) -> Any:
        metadata = await self._client.metadata()
        try:
            return await getattr(self._client.stub, method)(message, metadata=metadata)
        except (grpc.RpcError, ValueError, TypeError, grpc.aio.UsageError) as error:
            raise self._client._lost(call_error(error)) from error


class ResponseStream(Read):
    """The events of one response, up to the one with an outcome. It is read once: by iterating, or by `final`, which takes
    what is left into account. A response that is not in the background ends when its stream is closed."""

    def __init__(self, client: Client, method: str, message: Any) -> None:
        super().__init__()
        self._client = client
        self._method = method
        self._message = message
        self._batches = Batches()
        self._call: Any = None

    def __aiter__(self) -> ResponseStream:
        return self

    async def __anext__(self) -> Event:
        message = self._batches.next()
        while message is None:
            if self._lost is not None:
                raise self._lost
            if self._over:
                raise StopAsyncIteration
            batch = await self._receive()
            self._batches.add(batch.events)
            message = self._batches.next()
        event = self._take(message)
        if event.outcome != "":
            self.close()
        return event

    async def final(self) -> Result:
        """Reads to the end. An incomplete response is no error: see `Result.outcome`. Raises TurnError for a failed one."""
        async for _ in self:
            pass
        return self.result

    def close(self) -> None:
        """Gives the call up."""
        self._over = True
        if self._call is not None:
            self._call.cancel()

    async def __aenter__(self) -> ResponseStream:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    async def _receive(self) -> Any:
        try:
            if self._call is None:
                metadata = await self._client.metadata()
                self._call = getattr(self._client.stub, self._method)(self._message, metadata=metadata)
            batch = await self._call.read()
        except (grpc.RpcError, ValueError, TypeError, grpc.aio.UsageError) as error:
            raise self._fail(self._client._lost(call_error(error))) from error
        except asyncio.CancelledError:
            # grpc says so too when the call was cancelled, and not the task.
            task = asyncio.current_task()
            if task is None or _is_cancelling(task):
                raise
            lost = inferred("CANCELLED", Reason.STREAM_LOST, "the call was cancelled")
            raise self._fail(self._client._lost(lost)) from None
        if batch is grpc.aio.EOF:
            raise self._fail(ended())
        return batch
