"""Says to everything on the way that the client is there, and notices when nothing comes back. Without IO."""

from __future__ import annotations

#: Intervals without a message after which nothing is expected any more.
SILENT_INTERVALS = 3


class Heartbeat:
    """Times are seconds of one clock."""

    def __init__(self, interval: float, now: float) -> None:
        self.interval = interval
        self._heard_at = now
        self._send_at = now + interval

    def heard(self, now: float) -> None:
        self._heard_at = now

    def is_silent(self, now: float, *, paused: bool) -> bool:
        """Whether nothing came for too long, looked at when `due`."""
        # What is not read cannot be heard, and a process that stood still has heard nothing because of itself.
        if paused or now - self.due > self.interval:
            self._heard_at = now
        return now >= self._silent_at

    def sends(self, now: float) -> bool:
        if now < self._send_at:
            return False
        self._send_at = now + self.interval
        return True

    @property
    def due(self) -> float:
        return min(self._send_at, self._silent_at)

    @property
    def _silent_at(self) -> float:
        return self._heard_at + SILENT_INTERVALS * self.interval
