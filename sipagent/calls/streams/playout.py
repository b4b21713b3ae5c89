"""The application's audio on its way to the caller: what waits, what has been played, and what was asked about it.

Little is queued at the port, the rest here, so that it can be taken back. An application that sends in real time, or
slower, would be heard in shreds if each frame were played when it comes: after silence a little is gathered first, and
more each time that it was not enough.
"""

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from sipagent.conversation.audio import frame_samples
from sipagent.conversation.interfaces import FRAME_MS, Pcm
from sipagent.core.resample import StreamConverter

AHEAD_FRAMES = 20  # at the port: how long main may stall before a gap is heard
GATHER_MS = 60  # after silence, before anything is played; an application that sends ahead has it at once
MOST_GATHERED_MS = 480
UNDERRUN_NS = 500_000_000  # silence shorter than this was not meant
REST_NS = 60_000_000  # after which a piece shorter than a frame is not waited for
MAX_WAITING = 20_000  # pieces and marks: two minutes in pieces of 6 ms
_MS = 1_000_000


class Out(Protocol):
    """What a media port does for it."""

    @property
    def rate(self) -> int: ...
    @property
    def queued(self) -> int: ...
    @property
    def written(self) -> int: ...
    @property
    def played(self) -> int: ...
    def write(self, pcm: Pcm) -> int: ...
    async def flush(self) -> int: ...


@dataclass(slots=True)
class _Piece:
    pcm: Pcm
    rate: int
    chunk: str


@dataclass(slots=True)
class _Written:
    """Frames at the port."""

    start: int  # position of the first
    pcm: Pcm
    chunk: str


@dataclass(slots=True)
class PlayoutFigures:
    """Audio in ms."""

    received: float = 0.0
    cleared: float = 0.0
    dropped: float = 0.0
    underruns: int = 0


class Playout:
    """`tick` it every 20 ms. Times are monotonic ns."""

    def __init__(self, out: Out, limit_s: float) -> None:
        self._out = out
        self._limit_ms = limit_s * 1000
        self._queue: deque[_Piece | str] = deque()  # a text is a mark
        self._queued_ms = 0.0
        self._rest = np.zeros(0, np.int16)  # at the port's rate, less than a frame as a rule
        self._rest_chunk = ""
        self._rate = out.rate
        self._converter: StreamConverter | None = None
        self._converts = 0  # from this rate
        self._at_port: deque[_Written] = deque()
        self._marks: deque[tuple[int, str]] = deque()  # position after which they are due
        self._playing = False
        self._gather_ms = GATHER_MS
        self._first_ns = 0  # when what waits began to
        self._last_ns = 0  # when something came
        self._dry_ns = 0  # since when nothing is played
        self._empty_ns = 0  # since when the port has nothing more to send
        self._taking_back = False
        self.figures = PlayoutFigures()

    @property
    def idle(self) -> bool:
        """All that came has been played."""
        return not self._queue and not len(self._rest) and not self._out.queued

    @property
    def waiting_ms(self) -> float:
        return self._queued_ms

    def push(self, pcm: Pcm, rate: int, chunk: str, now: int) -> bool:
        """False when some of it was dropped, as more waits than may."""
        if not len(pcm):
            return True
        ms = len(pcm) * 1000 / rate
        self.figures.received += ms
        room = max(self._limit_ms - self._queued_ms, 0.0) if len(self._queue) < MAX_WAITING else 0.0
        fits = ms <= room
        if not fits:
            self.figures.dropped += ms - room
            pcm = pcm[: int(room * rate / 1000)]
        if not self._playing and not self._queued_ms:
            self._wake(now)
        if len(pcm):
            self._queue.append(_Piece(pcm, rate, chunk))
            self._queued_ms += len(pcm) * 1000 / rate
        self._last_ns = now
        self._pump(now)
        return fits

    def mark(self, name: str) -> bool:
        """False when there are too many."""
        if len(self._queue) + len(self._marks) >= MAX_WAITING:
            return False
        self._queue.append(name)
        return True

    def tick(self, now: int) -> list[str]:
        """Moves audio to the port; the marks that are due."""
        self._pump(now)
        played, due = self._out.played, []
        while self._at_port and self._end(self._at_port[0]) <= played:
            self._at_port.popleft()
        while self._marks and self._marks[0][0] <= played:
            due.append(self._marks.popleft()[1])
        return due

    async def clear(self) -> list[str]:
        """Nothing of it is played any more; the marks that waited, which are due now."""
        due = [name for _, name in self._marks] + [entry for entry in self._queue if isinstance(entry, str)]
        at_port_ms = self._out.queued * FRAME_MS
        self.figures.cleared += self._queued_ms + at_port_ms + len(self._rest) * 1000 / self._rate
        self._queue.clear()
        self._marks.clear()
        self._at_port.clear()
        self._queued_ms = 0.0
        self._rest, self._converter = np.zeros(0, np.int16), None
        self._playing, self._dry_ns, self._gather_ms = False, 0, GATHER_MS
        await self._out.flush()
        return due

    async def interrupt(self, chunk: str) -> None:
        """One chunk is not played, or no further; what belongs to others is."""
        kept: deque[_Piece | str] = deque()
        for entry in self._queue:
            if isinstance(entry, str) or entry.chunk != chunk:
                kept.append(entry)
            else:
                ms = len(entry.pcm) * 1000 / entry.rate
                self._queued_ms -= ms
                self.figures.cleared += ms
        self._queue = kept
        if self._rest_chunk == chunk:
            self._rest = np.zeros(0, np.int16)
        if any(written.chunk == chunk for written in self._at_port):
            await self._take_back(chunk)

    async def _take_back(self, chunk: str) -> None:
        """From the port; other chunks' frames go there again."""
        self._taking_back = True
        try:
            cut = await self._out.flush()
        finally:
            self._taking_back = False
        size = frame_samples(self._rate)
        again, lost = [], 0
        for written in self._at_port:
            left = written.pcm[max(cut - written.start, 0) * size :]
            if written.chunk == chunk:
                lost += len(left)
            elif len(left):
                again.append(left)
        self.figures.cleared += lost * 1000 / self._rate
        self._at_port.clear()
        # Marks behind it are due when what is left has been played, at the latest.
        self._marks = deque((min(position, cut), name) for position, name in self._marks)
        if again:
            self._write(np.concatenate(again), "")

    def _end(self, written: _Written) -> int:
        return written.start + len(written.pcm) // frame_samples(self._rate)

    def _wake(self, now: int) -> None:
        """Audio comes after silence."""
        self._first_ns = now
        if self._dry_ns and now - self._dry_ns < UNDERRUN_NS:
            self.figures.underruns += 1
            self._gather_ms = min(self._gather_ms * 2, MOST_GATHERED_MS)
        else:
            self._gather_ms = GATHER_MS

    def _pump(self, now: int) -> None:
        if self._taking_back:
            return
        self._follow_rate()
        queued = self._out.queued
        if not self._playing:
            waited = (now - self._first_ns) >= self._gather_ms * _MS
            if not self._queue or (self._queued_ms and self._queued_ms < self._gather_ms and not waited):
                self._pad(now, queued)
                return
            self._playing = True
        for pcm, chunk in self._taken(AHEAD_FRAMES - queued):
            self._write(pcm, chunk)
        if self._queue or self._out.queued:
            self._empty_ns = 0
        elif not self._empty_ns:
            self._empty_ns = now  # its last frame is being sent: there is time for another
        elif now - self._empty_ns >= FRAME_MS * _MS:
            self._playing, self._dry_ns, self._empty_ns = False, now, 0
        self._pad(now, self._out.queued)

    def _follow_rate(self) -> None:
        """The peer may have changed the codec: what was at the port at another rate is gone."""
        if self._out.rate != self._rate:
            self._rate = self._out.rate
            self._rest, self._converter = np.zeros(0, np.int16), None
            self._at_port.clear()

    def _taken(self, frames: int) -> Iterator[tuple[Pcm, str]]:
        """From the queue, whole frames of one chunk each; marks get their position."""
        size = frame_samples(self._rate)
        while self._queue and (frames > 0 or isinstance(self._queue[0], str)):
            entry = self._queue.popleft()
            if isinstance(entry, str):
                self._marks.append((self._out.written + bool(len(self._rest)), entry))
                continue
            most = frames * frame_samples(entry.rate)
            if len(entry.pcm) > most:
                self._queue.appendleft(_Piece(entry.pcm[most:], entry.rate, entry.chunk))
            pcm = entry.pcm[:most]
            self._queued_ms -= len(pcm) * 1000 / entry.rate
            if not any(isinstance(each, _Piece) for each in self._queue):
                self._queued_ms = 0.0
            samples = self._converted(pcm, entry.rate)
            samples = np.concatenate([self._rest, samples]) if len(self._rest) else samples
            whole = len(samples) - len(samples) % size
            self._rest, self._rest_chunk = samples[whole:], entry.chunk
            frames -= whole // size
            if whole:
                yield samples[:whole], entry.chunk

    def _converted(self, pcm: Pcm, rate: int) -> Pcm:
        if rate == self._rate:
            return pcm
        if self._converter is None or self._converts != rate:
            self._converter, self._converts = StreamConverter(rate, self._rate), rate
        return self._converter.push(pcm)

    def _pad(self, now: int, queued: int) -> None:
        """A piece shorter than a frame that nothing follows is played with silence after it."""
        if self._queue or queued or now - self._last_ns < REST_NS:
            return
        if self._converter is not None:
            self._rest = np.concatenate([self._rest, self._converter.flush()])
            self._converter = None
        if missing := -len(self._rest) % frame_samples(self._rate):
            self._rest = np.concatenate([self._rest, np.zeros(missing, np.int16)])
        if len(self._rest):
            pcm, self._rest = self._rest, np.zeros(0, np.int16)
            self._write(pcm, self._rest_chunk)

    def _write(self, pcm: Pcm, chunk: str) -> None:
        self._at_port.append(_Written(self._out.written, pcm, chunk))
        self._out.write(pcm)
