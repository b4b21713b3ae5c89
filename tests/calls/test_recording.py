"""What a recording holds and where: a line of which the test has every frame, and a real file."""

import asyncio
import io
import wave
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sipagent.calls.recording import Recordings, SavedRecording, Timeline
from sipagent.calls.settings import RecordingSettings
from sipagent.calls.stereo_file import StereoFile
from sipagent.core import clock
from sipagent.core.clock import Stamp
from sipagent.core.errors import CapacityError
from sipagent.core.events import Event, RecordingEnded, RecordingStarted
from sipagent.core.ids import CallId, LegId
from sipagent.media.port import Stretch

S = 1_000_000_000
CALL, LEG = CallId("call_1"), LegId("leg_1")


class Line:
    """Frame n of the caller holds n + 1, of what is sent -(n + 1)."""

    def __init__(self, rate: int = 8000) -> None:
        self.rate = rate
        self.received = 0
        self.lost = 0  # frames that the ring no longer holds

    def since(self, position: int) -> Stretch | None:
        position = max(position, self.lost)
        if position >= self.received:
            return None
        values = np.arange(position, self.received, dtype=np.int16)[:, None]
        received = np.repeat(values + 1, self.rate // 50, axis=1)
        return Stretch(position, received, -received)


class Sink(list[Event]):
    def emit(self, event: Event) -> None:
        self.append(event)

    @property
    def ended(self) -> RecordingEnded:
        (event,) = [event for event in self if isinstance(event, RecordingEnded)]
        return event


@pytest.fixture
def now(monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
    """The monotonic clock that recordings see, ns."""
    at = {"now": 0}
    real = clock.now
    monkeypatch.setattr(clock, "mono_ns", lambda: at["now"])
    monkeypatch.setattr(clock, "now", lambda: Stamp(at["now"], real().wall))
    return at


def read(path: Path) -> tuple[int, Any]:
    with wave.open(str(path), "rb") as file:
        assert (file.getnchannels(), file.getsampwidth()) == (2, 2)
        return file.getframerate(), np.frombuffer(file.readframes(file.getnframes()), "<i2").reshape(-1, 2)


def frames_of(samples: Any, rate: int) -> list[int]:
    """The value of each 20 ms of the left channel; the right one is its opposite."""
    assert (samples[:, 0] == -samples[:, 1]).all()
    return [int(value) for value in samples[:: rate // 50, 0]]


async def test_both_sides_are_written_in_their_places(tmp_path: Path, now: dict[str, int]) -> None:
    events, line, other = Sink(), Line(), Line()
    recordings = Recordings(RecordingSettings(min_free_mb=0), tmp_path, events)
    line.received = 3  # before it began
    recording = recordings.begin(CALL, LEG, line)
    line.received, now["now"] = 5, S // 25
    recording.pull()
    line.received, line.lost, now["now"] = 10, 7, 7 * S // 50  # two frames are gone
    recording.pull()
    other.received = 100
    now["now"] = 10 * S // 50  # three frames' time on no line
    recording.follow(other)
    other.received, now["now"] = 102, 12 * S // 50
    recordings.end(recording)
    recordings.end(recording)
    await recordings.close()
    started = events[0]
    assert isinstance(started, RecordingStarted)
    ended = events.ended
    assert (ended.failed, ended.ms, ended.detail) == (False, 240, "")
    data = (tmp_path / started.file).read_bytes()
    assert len(data) == ended.size
    assert (tmp_path / started.file).stat().st_mode & 0o777 == 0o600
    rate, samples = read(tmp_path / started.file)
    assert frames_of(samples, rate) == [4, 5, 0, 0, 8, 9, 10, 0, 0, 0, 101, 102]


async def test_another_main_goes_on_in_the_same_file(tmp_path: Path, now: dict[str, int]) -> None:
    events, line = Sink(), Line()
    before = Recordings(RecordingSettings(min_free_mb=0), tmp_path, events)
    recording = before.begin(CALL, LEG, line)
    line.received, now["now"] = 2, 2 * S // 50
    recording.pull()
    await asyncio.to_thread(before._tape.close, 5.0)  # it dies: nothing is ended
    line.received, now["now"] = 4, 4 * S // 50
    after = Recordings(RecordingSettings(min_free_mb=0), tmp_path, events)
    again = after.go_on(CALL, recording.saved, line)
    line.received, now["now"] = 5, 5 * S // 50
    after.end(again)
    await after.close()
    rate, samples = read(tmp_path / recording.saved.file)
    assert frames_of(samples, rate) == [1, 2, 0, 0, 5]
    assert events.ended.ms == 100


async def test_a_line_that_changes_its_rate_stays_in_one_file(tmp_path: Path, now: dict[str, int]) -> None:
    events, line = Sink(), Line(16000)
    recordings = Recordings(RecordingSettings(min_free_mb=0), tmp_path, events)
    recording = recordings.begin(CALL, LEG, line)
    line.received, now["now"] = 10, 10 * S // 50
    recording.pull()
    line.rate, line.received, now["now"] = 8000, 20, 20 * S // 50
    recording.pull()
    line.received, now["now"] = 30, 30 * S // 50
    await recordings.close()
    rate, samples = read(tmp_path / recording.saved.file)
    assert (rate, len(samples)) == (16000, 30 * 320)
    assert abs(int(samples[25 * 320 + 160, 0]) - 26) <= 1


async def test_a_full_disk_ends_the_recording_and_nothing_else(tmp_path: Path, now: dict[str, int]) -> None:
    events, line = Sink(), Line()
    recordings = Recordings(RecordingSettings(min_free_mb=0), Path("/dev"), events)
    saved = SavedRecording(id="rec_1", leg_id=LEG, file="full", rate=8000, started=clock.now())  # takes no byte
    recording = recordings.go_on(CALL, saved, line)
    line.received = 5
    recording.pull()
    await recordings.close()
    assert events.ended.failed and "No space left" in events.ended.detail
    assert recording.ended


async def test_a_disk_that_is_nearly_full_is_not_filled_up(tmp_path: Path) -> None:
    recordings = Recordings(RecordingSettings(min_free_mb=1 << 40), tmp_path, Sink())
    with pytest.raises(CapacityError, match="min_free_mb"):
        recordings.begin(CALL, LEG, Line())


async def test_what_waits_for_a_slow_disk_is_bounded(tmp_path: Path, now: dict[str, int]) -> None:
    events, line = Sink(), Line()
    recordings = Recordings(RecordingSettings(min_free_mb=0, backlog_mb=1), tmp_path, events)
    recording = recordings.begin(CALL, LEG, line)
    with recordings._tape._changed:  # the thread waits for it
        for second in range(1, 51):
            line.received, now["now"] = second * 50, second * S
            recording.pull()
    recordings.end(recording)
    await recordings.close()
    rate, samples = read(tmp_path / recording.saved.file)
    assert len(samples) == 50 * rate, "what is left out is silence of the same length"
    assert "too slow" in events.ended.detail and not events.ended.failed
    assert samples[10 * rate, 0] == 501 and samples[-1, 0] == 0


def test_a_file_is_whole_after_every_write(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b.wav"
    file = StereoFile(path, 8000)
    for length in range(5):
        with wave.open(io.BytesIO(path.read_bytes()), "rb") as read_back:
            assert read_back.getnframes() == length * 160
        file.write(length * 160, np.full((160, 2), length, np.int16))
    file.end(1000)
    size, _ = file.sum()
    assert size == path.stat().st_size == 44 + 4000
    file.close()


def test_a_line_that_stood_still_is_put_where_the_clock_is() -> None:
    timeline = Timeline(0)
    assert timeline.place(0, 50, S) == 0
    assert timeline.place(50, 50, 2 * S + S // 4) == 50, "a little late is only late"
    assert timeline.place(100, 50, 10 * S) == 450
    assert timeline.end == 500


async def test_one_that_fails_ends_and_no_other(tmp_path: Path, now: dict[str, int]) -> None:
    class Broken(Line):
        def since(self, position: int) -> Stretch | None:
            raise ValueError("a line that has changed just now")

    events, line = Sink(), Line()
    recordings = Recordings(RecordingSettings(min_free_mb=0), tmp_path, events)
    recordings.begin(CALL, LEG, Broken())
    whole = recordings.begin(CallId("call_2"), LEG, line)
    recordings._pull_all()
    line.received, now["now"] = 3, 3 * S // 50
    recordings._pull_all()
    assert recordings._timer is not None
    recordings.end(whole)
    await recordings.close()
    ended = {event.call_id: event for event in events if isinstance(event, RecordingEnded)}
    assert "ValueError" in ended[CALL].detail and ended[CallId("call_2")].ms == 60
