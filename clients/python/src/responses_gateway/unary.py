"""Sends unary calls again that the gateway says were not done. gRPC's own retry policy knows only codes, and UNAVAILABLE
is also what a connection says that broke in the middle of the work."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any, TypeVar

import grpc
import grpc.aio

from .core import retry_delay
from .errors import stream_error
from .reasons import Reason

T = TypeVar("T")
_MAX_ATTEMPTS = 4
# A caller who waits for one call does not expect to wait longer by itself. Seconds.
_MAX_TOLD_WAIT = 10.0


class RetryingChannel:
    """A channel for a blocking stub."""

    def __init__(self, channel: grpc.Channel) -> None:
        self._channel = channel

    def unary_unary(self, *arguments: Any, **options: Any) -> _Retried:
        return _Retried(self._channel.unary_unary(*arguments, **options))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._channel, name)


class _Retried:
    def __init__(self, method: Any) -> None:
        self._method = method

    def __call__(self, request: Any, timeout: float | None = None, **options: Any) -> Any:
        return _repeat(lambda left: self._method(request, timeout=left, **options), timeout)

    def with_call(self, request: Any, timeout: float | None = None, **options: Any) -> Any:
        return _repeat(lambda left: self._method.with_call(request, timeout=left, **options), timeout)

    def future(self, *arguments: Any, **options: Any) -> Any:
        """Is made once: whoever wants no wait gets none."""
        return self._method.future(*arguments, **options)


class AioUnaryRetry(grpc.aio.UnaryUnaryClientInterceptor):
    async def intercept_unary_unary(self, continuation: Any, details: Any, request: Any) -> Any:
        until = None if details.timeout is None else time.monotonic() + details.timeout
        attempt = 1
        while True:
            call = await continuation(details._replace(timeout=_left(until)), request)
            try:
                code = await call.code()
            except asyncio.CancelledError:
                # Who waits only for the status does not end the call by being cancelled.
                call.cancel()
                raise
            if code is grpc.StatusCode.OK:
                return call
            status = code, await call.details(), await call.trailing_metadata()
            wait = _wait_before(*status, attempt, until)
            if wait is None:
                return call
            attempt += 1
            await asyncio.sleep(wait)


def _repeat(call: Callable[[float | None], T], timeout: float | None) -> T:
    until = None if timeout is None else time.monotonic() + timeout
    attempt = 1
    while True:
        try:
            return call(_left(until))
        except grpc.RpcError as error:
            failed: Any = error
            wait = _wait_before(failed.code(), failed.details(), failed.trailing_metadata(), attempt, until)
            if wait is None:
                raise
        attempt += 1
        time.sleep(wait)


def _wait_before(code: Any, said: str | None, trailers: Any, attempt: int, until: float | None) -> float | None:
    """Seconds until the call may be sent again; None: it may not, or that would not help."""
    if attempt >= _MAX_ATTEMPTS:
        return None
    # Pair by pair: older versions of grpcio cannot make a dict of it.
    details: Any = next((value for key, value in trailers or () if key == "grpc-status-details-bin"), None)
    failure = stream_error(code, said or "", details)
    if failure.inferred or failure.metadata.get("replay") != "safe":
        return None
    passes = failure.code == "UNAVAILABLE" or failure.reason == Reason.UPSTREAM_RATE_LIMITED
    if failure.retry_after is None and not passes:
        return None
    wait = retry_delay(attempt, failure.retry_after)
    left = _left(until)
    return None if wait > _MAX_TOLD_WAIT or (left is not None and left <= wait) else wait


def _left(until: float | None) -> float | None:
    return None if until is None else max(0.0, until - time.monotonic())
