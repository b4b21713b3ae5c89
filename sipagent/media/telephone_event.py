"""Telephone-events both ways: one digit for one key press, whatever packets were lost (RFC 4733 section 2.5)."""

from collections import deque
from dataclasses import dataclass

from sipagent.media.rtp import FRAME, RATE, timestamp_diff

DIGITS = "0123456789*#ABCD"  # events 0 to 15 (RFC 4733 section 3.2); others are not keys
PAUSE = ","  # as in dial strings
PAUSE_MS = 500
SHORTEST_MS = 40  # of a key and of a gap: shorter ones a receiver need not see (ITU-T Q.24)
LONGEST_MS = 30_000
QUEUED = 128  # digits and pauses waiting to be sent; more are refused
VOLUME = 10  # -dBm0
FAINTEST = 55  # -dBm0: receivers refuse what is fainter (RFC 4733 section 2.3.4)
REPEATS = 3  # of the packet that ends an event or a segment (section 2.5.1.4)
UPDATE_TIMEOUT_NS = 250_000_000  # senders repeat at least every 50 ms: five missing ends the event
STRAGGLER_NS = 5_000_000_000  # an older timestamp after this is not a late packet but a stream that started over
PRESSES = 20  # in any second: diallers make 12, and each becomes a row of the record
PRESSES_NS = 1_000_000_000
SEGMENT = 0xFFFF  # a longer press goes on as a new segment, its timestamp moved by this (section 2.5.1.3)
KEY_MS = 160  # a key is held
GAP_MS = 80  # from one to the next


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
        self._newest_ns = 0  # when that was last updated

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
            if self._seen(timestamp, now_ns):
                return []
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

    def _seen(self, timestamp: int, now_ns: int) -> bool:
        """Whether this is a repeat of an end, or a straggler of an older event."""
        newest, updated = self._newest, self._newest_ns
        if self._current is not None:
            newest, updated = self._current.segment, self._current.updated
        if newest is None or timestamp == newest:
            return newest is not None
        return timestamp_diff(timestamp, newest) < 0 and now_ns - updated < STRAGGLER_NS

    def expire(self, now_ns: int) -> list[Press]:
        """The press whose end packets were all lost, once it has not been updated for 250 ms."""
        if self._current is None or now_ns - self._current.updated < UPDATE_TIMEOUT_NS:
            return []
        return self._finish()

    def _finish(self) -> list[Press]:
        event, self._current = self._current, None
        if event is None:
            return []
        self._newest, self._newest_ns = event.segment, event.updated
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


@dataclass(frozen=True, slots=True)
class EventPacket:
    """What one RTP packet of an event carries. The sequence number and the SSRC are the stream's."""

    payload: bytes
    marker: bool
    timestamp: int
    payload_type: int


@dataclass(frozen=True, slots=True)
class _Waiting:
    key: str
    duration: int  # timestamp units, and so is the gap
    gap: int


@dataclass(slots=True)
class _Held:
    """The key that is being sent. All but the event are in timestamp units."""

    event: int
    start: int  # timestamp of the press
    duration: int
    gap: int
    segment: int = 0  # where the present segment begins, since the start
    elapsed: int = 0
    ends: int = 0


class EventSender:
    """The keys one call sends, a packet every 20 ms while one is held."""

    def __init__(self) -> None:
        self._queue: deque[_Waiting] = deque()
        self._held: _Held | None = None
        self._rest = 0  # timestamp units until the next key may begin
        self.completed = 0  # keys sent so far

    @property
    def active(self) -> bool:
        return self._held is not None or bool(self._queue)

    def queue(self, digits: str, duration_ms: int = KEY_MS, gap_ms: int = GAP_MS) -> None:
        """Sends these keys after those that wait already. Raises ValueError that says what is wrong with them."""
        keys = check_keys(digits, duration_ms, gap_ms)
        if len(self._queue) + len(keys) > QUEUED:
            raise ValueError(f"{len(keys)} digits more are too many: {len(self._queue)} wait, {QUEUED} may")
        duration, gap = duration_ms * RATE // 1000, gap_ms * RATE // 1000
        self._queue.extend(_Waiting(key, duration, gap) for key in keys)

    def cancel(self) -> None:
        """Forgets the keys that wait, and releases the one that is held: its end is still sent."""
        self._queue.clear()
        if self._held is not None:
            self._held.duration = self._held.elapsed

    def packets(self, timestamp: int, payload_type: int) -> list[EventPacket] | None:
        """What is sent in place of the audio of `timestamp`; None when audio may be sent, as between two keys.

        To be called once per 20 ms of outgoing time while `active`.
        """
        held = self._held
        if held is None:
            held = self._held = self._press(timestamp)
            if held is None:
                return None
        first = held.elapsed == 0
        held.elapsed = min(held.elapsed + FRAME, held.duration)
        payloads = []
        while held.elapsed - held.segment > SEGMENT:
            # All at once: repeated later, they would come with a timestamp older than the segment's that follows.
            payloads += [self._report(held, SEGMENT, payload_type)] * REPEATS
            held.segment += SEGMENT
        over = held.elapsed == held.duration
        payloads.append(self._report(held, held.elapsed - held.segment, payload_type, end=over, marker=first))
        if over:
            # One in every 20 ms, as section 2.5.1.4 asks: a burst of loss does not take all three.
            held.ends += 1
            if held.ends == REPEATS:
                self._held = None
                self._rest = held.gap - (REPEATS - 1) * FRAME
                self.completed += 1
        return payloads

    def _press(self, timestamp: int) -> _Held | None:
        if self._rest > 0:
            self._rest -= FRAME
            return None
        if not self._queue:
            return None
        waiting = self._queue.popleft()
        if waiting.key == PAUSE:
            self._rest = PAUSE_MS * RATE // 1000 - FRAME
            return None
        return _Held(DIGITS.index(waiting.key), timestamp, waiting.duration, waiting.gap)

    @staticmethod
    def _report(
        held: _Held, duration: int, payload_type: int, *, end: bool = False, marker: bool = False
    ) -> EventPacket:
        payload = bytes(EventPayload(held.event, end, VOLUME, duration))
        return EventPacket(payload, marker, (held.start + held.segment) & 0xFFFFFFFF, payload_type)


def check_keys(digits: str, duration_ms: int = KEY_MS, gap_ms: int = GAP_MS) -> str:
    """The digits in capitals. Raises ValueError for what cannot be sent, be it as events or as tones."""
    keys = digits.upper()
    wrong = [key for key in keys if key not in DIGITS + PAUSE]
    if not keys or wrong:
        raise ValueError(f"digits are 0-9, *, #, A-D and a comma for a pause, not {wrong[0] if wrong else digits!r}")
    for name, ms in (("duration", duration_ms), ("gap", gap_ms)):
        if not SHORTEST_MS <= ms <= LONGEST_MS:
            raise ValueError(f"the {name} of a digit is {SHORTEST_MS} to {LONGEST_MS} ms, not {ms}")
    return keys


def fits_telephone_event(payload: bytes) -> bool:
    """Whether this could be one key's report. Several in one packet are for events without pauses, which keys have."""
    if len(payload) != 4 or payload[1] & 0x40:
        return False
    event = EventPayload.parse(payload)
    return event.event < len(DIGITS) and event.volume <= FAINTEST and (event.duration > 0 or not event.end)


class UnnegotiatedEvents:
    """Finds the payload type of telephone-events that no SDP announced: the only one of a stream whose packets fit."""

    def __init__(self) -> None:
        self._newest: dict[int, tuple[int, EventPayload]] = {}  # by payload type, which 7 bits bound
        self._refused: set[int] = set()
        self._proven: set[int] = set()

    @property
    def payload_type(self) -> int:
        """-1 while undecided, or when several fit."""
        if len(self._newest) != 1 or not self._proven:
            return -1
        return next(iter(self._proven))

    def observe(self, payload_type: int, payload: bytes, timestamp: int) -> bool:
        """Takes a packet of a dynamic payload type nobody negotiated; whether it is to be received as an event."""
        if payload_type in self._refused:
            return False
        if not 96 <= payload_type <= 127 or not fits_telephone_event(payload):
            self._refused.add(payload_type)
            self._newest.pop(payload_type, None)
            self._proven.discard(payload_type)
            return False
        event = EventPayload.parse(payload)
        before = self._newest.get(payload_type)
        self._newest[payload_type] = (timestamp, event)
        if before is not None and before[0] == timestamp and _continues(event, before[1]):
            self._proven.add(payload_type)
        return payload_type == self.payload_type


def _continues(event: EventPayload, before: EventPayload) -> bool:
    if event.event != before.event:
        return False
    return event.duration > before.duration or (event == before and event.end)
