"""Receiving telephone-events: one digit for one key press, whatever packets were lost (RFC 4733 section 2.5)."""

from collections import deque
from dataclasses import dataclass

from sipagent.media.rtp import RATE, timestamp_diff

DIGITS = "0123456789*#ABCD"  # events 0 to 15 (RFC 4733 section 3.2); others are not keys
UPDATE_TIMEOUT_NS = 250_000_000  # senders repeat at least every 50 ms: five missing ends the event
PRESSES = 20  # in any second: diallers make 12, and each becomes a row of the record
PRESSES_NS = 1_000_000_000
SEGMENT = 0xFFFF  # a longer press goes on as a new segment, its timestamp moved by this (section 2.5.1.3)


@dataclass(frozen=True, slots=True)
class Press:
    digit: str
    duration_ms: int


@dataclass(slots=True)
class _Event:
    event: int
    start: int  # timestamp of the press
    segment: int  # timestamp of the segment being reported
    duration: int  # timestamp units since the start
    updated: int  # ns


@dataclass(frozen=True, slots=True)
class EventPayload:
    """The four bytes of RFC 4733 section 2.3; ``duration`` in timestamp units."""

    event: int
    end: bool
    volume: int
    duration: int

    @classmethod
    def parse(cls, data: bytes) -> "EventPayload":
        if len(data) < 4:
            raise ValueError(f"telephone-event truncated: need 4 bytes, got {len(data)}")
        return cls(data[0], bool(data[1] & 0x80), data[1] & 0x3F, int.from_bytes(data[2:4], "big"))

    def __bytes__(self) -> bytes:
        return bytes((self.event, (0x80 if self.end else 0) | self.volume)) + self.duration.to_bytes(2, "big")


class EventReceiver:
    """Follows one stream's telephone-events. An event is known by its timestamp, so repeats cannot count twice."""

    def __init__(self) -> None:
        self._current: _Event | None = None
        self._newest: int | None = None  # timestamp of the newest segment that is over

    @property
    def active(self) -> bool:
        return self._current is not None

    def receive(self, payload: EventPayload, timestamp: int, now_ns: int) -> list[Press]:
        """The presses this packet completes: at most the one before, whose end was lost, and its own."""
        if payload.event >= len(DIGITS):
            return []
        done: list[Press] = []
        current = self._current
        if current is None or timestamp != current.segment:
            newest = self._newest if current is None else current.segment
            if newest is not None and timestamp_diff(timestamp, newest) <= 0:
                return []  # a repeat of an end, or a straggler of an older event
            if current is not None and payload.event == current.event and timestamp == _next_segment(current):
                current.segment = timestamp
            else:
                done += self._finish()
                current = self._current = _Event(payload.event, timestamp, timestamp, 0, now_ns)
        reached = timestamp_diff(current.segment, current.start) + payload.duration
        current.duration = max(current.duration, reached)
        current.updated = now_ns
        if payload.end:
            done += self._finish()
        return done

    def expire(self, now_ns: int) -> list[Press]:
        """The press whose end packets were all lost, once it has not been updated for 250 ms."""
        if self._current is None or now_ns - self._current.updated < UPDATE_TIMEOUT_NS:
            return []
        return self._finish()

    def _finish(self) -> list[Press]:
        event, self._current = self._current, None
        if event is None:
            return []
        self._newest = event.segment
        return [Press(DIGITS[event.event], event.duration * 1000 // RATE)]


class PressLimit:
    """How many presses of one port are believed, so that nobody fills the record with them."""

    def __init__(self) -> None:
        self._admitted: deque[int] = deque(maxlen=PRESSES)  # ns, of the newest ones

    def admits(self, now_ns: int) -> bool:
        """Whether a press completed now counts. Those refused do not put off the next one."""
        if len(self._admitted) == PRESSES and now_ns - self._admitted[0] < PRESSES_NS:
            return False
        self._admitted.append(now_ns)
        return True


def _next_segment(event: _Event) -> int:
    return (event.segment + SEGMENT) & 0xFFFFFFFF
