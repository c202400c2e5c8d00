"""Work of the program's own in threads that nobody has to wait for."""

from __future__ import annotations

import contextvars
import queue
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, TypeVar

T = TypeVar("T")
#: What still waits for a callback that blocks is bounded; what comes then is dropped.
_MAX_WAITING_CALLBACKS = 1024


def in_thread(work: Callable[[], T], name: str) -> Future[T]:
    """Runs `work` in a thread of its own with the caller's context variables. The program ends without waiting for it."""
    future: Future[T] = Future()
    context = contextvars.copy_context()

    def run() -> None:
        if not future.set_running_or_notify_cancel():
            return
        try:
            future.set_result(context.run(work))
        except BaseException as error:  # SystemExit of a tool ends the tool, not the loop.
            future.set_exception(error)

    threading.Thread(target=run, name=name, daemon=True).start()
    return future


class Ending(threading.Event):
    """Says that it is time to end, also to those that wait for something else."""

    def __init__(self) -> None:
        super().__init__()
        self._lock = threading.Lock()
        self._tell: list[Callable[[], object]] = []

    def wait_for(self, future: Future[Any], timeout: float) -> bool:
        """Waits until the future is done, or it is time to end. Says whether it is done."""
        either = threading.Event()
        future.add_done_callback(lambda _: either.set())
        with self._lock:
            if self.is_set():
                either.set()
            else:
                self._tell.append(either.set)
        either.wait(timeout)
        with self._lock:
            if either.set in self._tell:
                self._tell.remove(either.set)
        return future.done()

    def set(self) -> None:
        with self._lock:
            super().set()
            tell, self._tell = self._tell, []
        for each in tell:
            each()


class Callbacks:
    """Calls the program's callbacks one after the other in a thread of their own, which begins with the first: a callback
    may block, raise and use the session."""

    def __init__(self, report: Callable[[BaseException], None]) -> None:
        self._report = report
        self._waiting: queue.SimpleQueue[Callable[[], object] | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None

    def call(self, callback: Callable[[Any], object], argument: object) -> None:
        if self._waiting.qsize() >= _MAX_WAITING_CALLBACKS:
            self._report(RuntimeError("a callback blocks; further ones are dropped"))
            return
        self._waiting.put(lambda: callback(argument))
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="responses-gateway-callbacks", daemon=True)
            self._thread.start()

    def end(self) -> None:
        """After what waits."""
        if self._thread is not None:
            self._waiting.put(None)

    def join(self, timeout: float) -> None:
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join(timeout)

    def _run(self) -> None:
        while (call := self._waiting.get()) is not None:
            try:
                call()
            except BaseException as error:
                self._report(error)
