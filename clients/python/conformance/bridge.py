"""Lets the runner drive the asyncio client as if it blocked: every call runs in an event loop of its own thread."""

from __future__ import annotations

import asyncio
import inspect
import threading
from collections.abc import Iterator
from typing import Any

from responses_gateway import aio

_WRAPPED = (aio.Client, aio.Session, aio.Lane, aio.Turn, aio.Responses, aio.ResponseStream, aio._Connecting)


class AsyncBridge:
    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self.loop.run_forever, daemon=True)
        self._thread.start()

    def client(self, *arguments: Any, **options: Any) -> Any:
        return self.call(lambda: aio.Client(*arguments, **options))

    def call(self, work: Any, timeout: float | None = None) -> Any:
        async def run() -> Any:
            value = work()
            if isinstance(value, _WRAPPED[:-1]):
                return value
            if inspect.isawaitable(value):
                return await (asyncio.wait_for(value, timeout) if timeout is not None else value)
            return value

        value = asyncio.run_coroutine_threadsafe(run(), self.loop).result()
        return Blocking(self, value) if isinstance(value, _WRAPPED) else value

    def close(self) -> None:
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join()
        self.loop.close()


class Blocking:
    """An object of the asyncio client whose methods block."""

    def __init__(self, bridge: AsyncBridge, target: Any) -> None:
        self._bridge = bridge
        self._target = target

    def __getattr__(self, name: str) -> Any:
        if not callable(getattr(type(self._target), name, None)):
            value = getattr(self._target, name)
            return Blocking(self._bridge, value) if isinstance(value, _WRAPPED) else value

        if name == "connect":
            return lambda **options: self._bridge.call(lambda: self._target.connect(**options))

        def method(*arguments: Any, timeout: float | None = None, **options: Any) -> Any:
            return self._bridge.call(lambda: getattr(self._target, name)(*arguments, **options), timeout)

        return method

    def input_items(self, *arguments: Any, **options: Any) -> list[Any]:
        async def all_items() -> list[Any]:
            return [item async for item in self._target.input_items(*arguments, **options)]

        return list(self._bridge.call(all_items))

    def __iter__(self) -> Iterator[Any]:
        while True:
            try:
                yield self._bridge.call(self._target.__anext__)
            except StopAsyncIteration:
                return

    def events(self, *, timeout: float) -> Iterator[Any]:
        while True:
            try:
                yield self._bridge.call(self._target.__anext__, timeout)
            except StopAsyncIteration:
                return
