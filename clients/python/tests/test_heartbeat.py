from __future__ import annotations

from responses_gateway.heartbeat import Heartbeat


def look(heartbeat: Heartbeat, until: float, *, paused: bool) -> float | None:
    """Looks whenever it is due; returns when it was silent."""
    while heartbeat.due <= until:
        now = heartbeat.due
        if heartbeat.is_silent(now, paused=paused):
            return now
        heartbeat.sends(now)
    return None


def test_three_intervals_without_a_message_are_silence() -> None:
    heartbeat = Heartbeat(1.0, 0.0)
    heartbeat.heard(1.5)
    assert look(heartbeat, 100, paused=False) == 4.5


def test_what_is_not_read_cannot_be_heard() -> None:
    heartbeat = Heartbeat(1.0, 0.0)
    assert look(heartbeat, 50, paused=True) is None
    # The time begins when it is read again.
    assert look(heartbeat, 100, paused=False) == 53


def test_a_process_that_stood_still_has_heard_nothing_because_of_itself() -> None:
    heartbeat = Heartbeat(1.0, 0.0)
    assert not heartbeat.is_silent(60, paused=False)
    assert heartbeat.sends(60)
    assert look(heartbeat, 100, paused=False) == 63
