"""One thread that calls back at times, for all blocking sessions of a process. It lives while there is something to do."""

from __future__ import annotations

import heapq
import itertools
import threading
import time
from collections.abc import Callable


class Alarm:
    def __init__(self, ring: Callable[[], float | None]) -> None:
        #: Returns the seconds until it is called again; None: never. It must not block.
        self.ring: Callable[[], float | None] | None = ring

    def cancel(self) -> None:
        _alarms.cancel(self)


def call_after(delay: float, ring: Callable[[], float | None]) -> Alarm:
    alarm = Alarm(ring)
    _alarms.add(alarm, delay)
    return alarm


class _Alarms:
    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._heap: list[tuple[float, int, Alarm]] = []
        self._numbers = itertools.count()
        self._live = 0
        self._thread: threading.Thread | None = None

    def add(self, alarm: Alarm, delay: float) -> None:
        with self._changed:
            self._live += 1
            heapq.heappush(self._heap, (time.monotonic() + delay, next(self._numbers), alarm))
            # A forked process has the rest, but not the thread.
            if self._thread is None or not self._thread.is_alive():
                self._thread = threading.Thread(target=self._run, name="responses-gateway-alarms", daemon=True)
                self._thread.start()
            self._changed.notify()

    def cancel(self, alarm: Alarm) -> None:
        with self._changed:
            if alarm.ring is not None:
                alarm.ring = None
                self._live -= 1
                self._changed.notify()

    def _run(self) -> None:
        while (due := self._next()) is not None:
            for alarm in due:
                ring = alarm.ring
                again = None if ring is None else ring()
                if again is None:
                    self.cancel(alarm)
                    continue
                with self._changed:
                    heapq.heappush(self._heap, (time.monotonic() + again, next(self._numbers), alarm))

    def _next(self) -> list[Alarm] | None:
        """Those that are due, once there are some; None: nothing is left to wait for, and the thread ends."""
        with self._changed:
            while True:
                if self._live == 0:
                    self._heap.clear()
                    self._thread = None
                    return None
                now = time.monotonic()
                due = []
                while self._heap and self._heap[0][0] <= now:
                    due.append(heapq.heappop(self._heap)[2])
                if due:
                    return due
                self._changed.wait(self._heap[0][0] - now if self._heap else None)


_alarms = _Alarms()
