"""Recordings of calls: both sides of the line, tick by tick as the media process had them, into a stereo file each.

Nothing of it stands in the way of a call: some times a second what lies in the rings is copied, and a thread writes it
(`tape`). A stretch that is missing is silence of the same length, so what is right of it stays in its place.
"""

import asyncio
import logging
import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Protocol

import msgspec
import numpy as np
from numpy.typing import NDArray

from sipagent.calls.settings import RecordingSettings
from sipagent.calls.tape import Tape, Written
from sipagent.core import clock
from sipagent.core.clock import Stamp
from sipagent.core.errors import CapacityError
from sipagent.core.events import EventSink, RecordingEnded, RecordingStarted
from sipagent.core.ids import CallId, LegId, RecordingId, new_recording_id
from sipagent.core.resample import convert
from sipagent.media.port import Stretch

log = logging.getLogger(__name__)

EVERY_S = 0.25  # between two looks at the rings, which hold 2.5 s of a wideband line
FRAMES_PER_S = 50
BEHIND = 25  # frames that a line may be behind the clock before the difference is taken for a gap, 0.5 s
CLOSE_S = 5.0  # for the thread to write what waits


class Line(Protocol):
    """What a media port does for a recording."""

    @property
    def rate(self) -> int: ...
    @property
    def received(self) -> int: ...
    def since(self, position: int) -> Stretch | None: ...


class SavedRecording(msgspec.Struct, kw_only=True):
    """One that another main can go on with."""

    id: str
    leg_id: str
    file: str
    rate: int
    started: Stamp


class Timeline:
    """Where in a file the frames of a line belong. A file has one line at a time. Pure."""

    def __init__(self, started: int) -> None:
        """``started``: monotonic ns."""
        self._started = started
        self.end = 0  # frame after the last one placed
        self._position = 0  # of the line, that comes next

    def follow(self, position: int, now: int) -> None:
        """The frames of another line from now on, the next one of which is this."""
        self._position = position
        self.end = max(self.end, self._elapsed(now))

    @property
    def position(self) -> int:
        return self._position

    def place(self, position: int, count: int, now: int) -> int:
        """The frame of the file at which these belong, the newest of which is of now."""
        self.end += position - self._position
        if self._elapsed(now) - (self.end + count) > BEHIND:  # the line stood still, as when its process died
            self.end = self._elapsed(now) - count
        place = self.end
        self.end += count
        self._position = position + count
        return place

    def _elapsed(self, now: int) -> int:
        return (now - self._started) * FRAMES_PER_S // 1_000_000_000


class Recording:
    """One, of one call."""

    def __init__(
        self, call_id: CallId, line: Line, saved: SavedRecording, put: Callable[[int, NDArray[np.int16]], None]
    ) -> None:
        """``put`` takes samples (n, 2) and their place in the file."""
        self.id = RecordingId(saved.id)
        self.call_id = call_id
        self.leg_id = LegId(saved.leg_id)
        self.saved = saved
        self.ended = False
        self.detail = ""
        self._line = line
        self._put = put
        self._timeline = Timeline(saved.started.mono)
        self._timeline.follow(line.received, clock.mono_ns())
        self._width = 0  # samples of a frame so far

    @property
    def frames(self) -> int:
        return self._timeline.end

    @property
    def samples(self) -> int:
        return self._timeline.end * self.saved.rate // FRAMES_PER_S

    def follow(self, line: Line) -> None:
        """Another line from now on."""
        if line is not self._line and not self.ended:
            self.pull()
            self._line = line
            self._timeline.follow(line.received, clock.mono_ns())

    def pull(self) -> None:
        """Takes what is new."""
        stretch = self._line.since(self._timeline.position)
        if stretch is None:
            return
        position, received, sent = stretch
        if received.shape[1] != self._width and self._width:
            # The ring was written at the other rate until somewhere in between: only the newest is surely of this one.
            position, received = position + len(received) - 1, received[-1:]
            sent = sent[-1:] if sent is not None else None
        self._width = received.shape[1]
        place = self._timeline.place(position, len(received), clock.mono_ns())
        rate = self._width * FRAMES_PER_S
        both = np.zeros((len(received) * self.saved.rate // FRAMES_PER_S, 2), np.int16)
        both[:, 0] = convert(received.reshape(-1), rate, self.saved.rate)
        if sent is not None:
            both[:, 1] = convert(sent.reshape(-1), rate, self.saved.rate)
        self._put(place * self.saved.rate // FRAMES_PER_S, both)


class Recordings:
    """Those of a node."""

    def __init__(self, settings: RecordingSettings, folder: Path, events: EventSink) -> None:
        self.folder = folder
        self._settings = settings
        self._events = events
        self._tape = Tape(folder, settings.backlog_mb << 20, settings.min_free_mb << 20, self._over)
        self._running: dict[str, Recording] = {}
        self._closing: dict[str, Recording] = {}
        self._timer: asyncio.TimerHandle | None = None

    def begin(self, call_id: CallId, leg_id: LegId, line: Line) -> Recording:
        """From now on. Raises CapacityError when the disk is full."""
        try:
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            free = os.statvfs(self.folder)
        except OSError as error:
            raise CapacityError(f"no recording is begun: the folder of recordings fails ({error.strerror})") from error
        if free.f_bavail * free.f_frsize < self._settings.min_free_mb << 20:
            raise CapacityError("no recording is begun: the disk has less free space than [recordings] min_free_mb")
        started = clock.now()
        recording_id = new_recording_id()
        saved = SavedRecording(
            id=recording_id,
            leg_id=leg_id,
            file=f"{started.wall:%Y-%m-%d}/{recording_id}.wav",
            rate=line.rate,
            started=started,
        )
        self._events.emit(
            RecordingStarted(
                at=started,
                call_id=call_id,
                leg_id=leg_id,
                recording_id=recording_id,
                channels=2,
                rate=saved.rate,
                file=saved.file,
            )
        )
        return self.go_on(call_id, saved, line)

    def go_on(self, call_id: CallId, saved: SavedRecording, line: Line) -> Recording:
        """With one that an earlier main has begun."""
        recording = Recording(call_id, line, saved, lambda place, pcm: self._tape.put(saved.id, place, pcm))
        self._tape.open(saved.id, saved.file, saved.rate)
        self._running[saved.id] = recording
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(EVERY_S, self._pull_all)
        return recording

    def end(self, recording: Recording, detail: str = "") -> None:
        """What has come until now belongs to it; idempotent."""
        if recording.ended:
            return
        recording.ended, recording.detail = True, detail
        with suppress(Exception):  # what is missing at the end is no reason to keep the call
            recording.pull()
        self._closing[recording.id] = self._running.pop(recording.id)
        self._tape.end(recording.id, recording.samples)

    async def close(self) -> None:
        """All of them end; what waits is written as far as the disk takes it in 5 s."""
        if self._timer is not None:
            self._timer.cancel()
        for recording in list(self._running.values()):
            self.end(recording)
        await asyncio.to_thread(self._tape.close, CLOSE_S)
        await asyncio.sleep(0)  # what the thread has told last
        for recording in list(self._closing.values()):
            self._over(recording.id, Written(failed="the node stopped before all of it was written"))

    def _pull_all(self) -> None:
        most = self._settings.max_minutes * 60 * FRAMES_PER_S
        self._timer = None
        for recording in list(self._running.values()):
            if self._pull(recording) and recording.frames >= most:
                self.end(recording, f"it has lasted [recordings] max_minutes, {self._settings.max_minutes}")
        if self._running:
            self._timer = asyncio.get_running_loop().call_later(EVERY_S, self._pull_all)

    def _pull(self, recording: Recording) -> bool:
        """False when it fails, which ends this one and no other."""
        try:
            recording.pull()
        except Exception as error:
            log.exception("a recording failed")
            self.end(recording, f"the audio could not be read: {type(error).__name__}")
            return False
        return True

    def _over(self, recording_id: str, written: Written) -> None:
        """The file is closed: it has ended, or cannot be written any more."""
        recording = self._closing.pop(recording_id, None) or self._running.pop(recording_id, None)
        if recording is None:
            return
        recording.ended = True
        self._events.emit(
            RecordingEnded(
                at=clock.now(),
                call_id=recording.call_id,
                leg_id=recording.leg_id,
                recording_id=recording.id,
                failed=bool(written.failed),
                ms=written.samples * 1000 // recording.saved.rate,
                size=written.size,
                sha256=written.sha256,
                detail=written.failed or written.detail or recording.detail,
            )
        )
