"""The application's audio on its way to the caller, on a port and a clock that the test moves."""

import numpy as np
import pytest

from sipagent.calls.streams.playout import AHEAD_FRAMES, GATHER_MS, MOST_GATHERED_MS, Playout

MS = 1_000_000
TICK = 20 * MS


class Port:
    """Takes what is written; `play` lets a tick pass."""

    def __init__(self, rate=8000):
        self.rate, self.frames, self.heard, self.played = rate, [], [], 0

    @property
    def queued(self):
        return len(self.frames)

    @property
    def written(self):
        return self.played + len(self.frames)

    def write(self, pcm):
        self.frames += list(pcm.reshape(-1, self.rate // 50))
        return len(pcm)

    async def flush(self):
        stopped = self.played
        self.played += len(self.frames)
        self.frames.clear()
        return stopped

    def play(self):
        """One tick: a frame, or silence."""
        size = self.rate // 50
        if self.frames:
            self.played += 1
        self.heard.append(self.frames.pop(0) if self.frames else np.zeros(size, np.int16))


class Line:
    """A playout, its port and the time."""

    def __init__(self, rate=8000, limit_s=120.0):
        self.port = Port(rate)
        self.playout = Playout(self.port, limit_s)
        self.now = 1_000 * TICK
        self.echoed: list[str] = []

    def push(self, pcm, rate=8000, chunk=""):
        return self.playout.push(np.asarray(pcm, np.int16), rate, chunk, self.now)

    def ticks(self, count):
        for _ in range(count):
            self.now += TICK
            self.port.play()
            self.echoed += self.playout.tick(self.now)

    @property
    def heard(self):
        return np.concatenate(self.port.heard)


def sound(ms, start=1, rate=8000):
    return (np.arange(start, start + ms * rate // 1000) % 30_000 + 1).astype(np.int16)


def voiced(pcm):
    """Without the silence around it."""
    loud = np.flatnonzero(pcm)
    return pcm[loud[0] : loud[-1] + 1] if len(loud) else pcm[:0]


def test_a_minute_at_once_is_played_whole_and_little_of_it_waits_at_the_port():
    line, pcm = Line(), sound(60_000)
    assert line.push(pcm)
    assert line.port.queued == AHEAD_FRAMES
    line.ticks(3010)
    assert (voiced(line.heard) == pcm).all()
    assert line.playout.idle and not line.playout.figures.underruns


@pytest.mark.parametrize("piece", [1, 33, 160, 161, 3200])
def test_pieces_of_any_length_join_without_a_seam(piece):
    line, pcm = Line(), sound(1500)
    for at in range(0, len(pcm), piece):
        line.push(pcm[at : at + piece])
    line.ticks(100)
    assert (voiced(line.heard) == pcm).all()


def test_in_real_time_with_jitter_nothing_is_torn():
    """Pieces of 20 ms that come up to 30 ms late."""
    line, pcm = Line(), sound(4000)
    late = [0, 1, 0, 1, 1, 0, 0, 1]
    due = [(index + late[index % len(late)], pcm[160 * index : 160 * (index + 1)]) for index in range(200)]
    for tick in range(230):
        for when, piece in due:
            if when == tick:
                line.push(piece)
        line.ticks(1)
    assert len(voiced(line.heard)) == len(pcm), "no gap within"
    assert not line.playout.figures.underruns


def test_slower_than_real_time_is_silence_between_long_pieces_and_no_crackle():
    line = Line()
    for piece in range(150):  # 20 ms each 40 ms
        line.push(sound(20, 1 + piece * 160))
        line.ticks(2)
    loud = [bool(frame.any()) for frame in line.port.heard]
    changes = sum(one != other for one, other in zip(loud, loud[1:], strict=False))
    assert changes < 30, f"{changes} edges in 6 s: frame by frame there would be 300"
    assert line.playout.figures.underruns >= 3
    last = "".join("x" if each else "." for each in loud).strip(".").split(".")
    assert max(map(len, last)) * 20 >= MOST_GATHERED_MS


def test_a_short_sound_is_not_waited_for_longer_than_a_little():
    line = Line()
    line.push(sound(10))
    line.ticks(GATHER_MS // 20 + 3)
    assert len(voiced(line.heard)) == 80, "with silence after it to the end of its frame"


def test_a_mark_is_due_when_what_came_before_has_been_played():
    line = Line()
    line.playout.mark("at once")
    line.push(sound(200))
    line.playout.mark("a")
    line.push(sound(100))
    line.playout.mark("b")
    line.ticks(1)
    assert line.echoed == ["at once"]
    line.ticks(9)
    assert line.echoed == ["at once", "a"]
    line.ticks(5)
    assert line.echoed == ["at once", "a", "b"]


async def test_clear_drops_everything_and_its_marks_are_due():
    line = Line()
    line.push(sound(5000))
    line.playout.mark("end")
    line.ticks(10)
    assert await line.playout.clear() == ["end"]
    line.ticks(20)
    assert not np.concatenate(line.port.heard[10:]).any()
    figures = line.playout.figures
    assert (round(figures.received), round(figures.cleared)) == (5000, 4800)
    line.push(sound(200))
    line.ticks(20)
    assert len(voiced(np.concatenate(line.port.heard[10:]))) == 1600, "what comes afterwards is heard"


async def test_one_chunk_is_taken_back_and_others_are_heard():
    line = Line()
    line.push(sound(100, 1), chunk="1")
    line.push(sound(100, 10_000), chunk="2")
    line.push(sound(100, 20_000), chunk="3")
    line.ticks(2)
    await line.playout.interrupt("2")
    line.ticks(30)
    heard = line.heard[line.heard != 0]
    assert (heard == np.concatenate([sound(100, 1), sound(100, 20_000)])).all()
    await line.playout.interrupt("3")  # played long ago
    line.ticks(2)


async def test_the_chunk_that_is_heard_stops():
    line = Line()
    line.push(sound(2000), chunk="7")
    line.ticks(10)
    await line.playout.interrupt("7")
    line.ticks(10)
    assert len(voiced(line.heard)) == 10 * 160


def test_more_than_may_wait_is_dropped_and_counted():
    line = Line(limit_s=1.0)
    assert not line.push(sound(3000))
    assert round(line.playout.figures.dropped) == 2000
    line.ticks(60)
    assert len(voiced(line.heard)) == 8000


@pytest.mark.parametrize(("there", "here"), [(8000, 16000), (16000, 8000), (24000, 8000)])
def test_another_rate_than_the_lines(there, here):
    line = Line(here)
    tone = (8000 * np.sin(2 * np.pi * 440 * np.arange(there) / there)).astype(np.int16)
    for at in range(0, len(tone), there // 50):
        line.push(tone[at : at + there // 50], there)
    line.ticks(70)
    heard = voiced(line.heard).astype(float)
    assert abs(len(heard) - here) < here // 50
    spectrum = np.abs(np.fft.rfft(heard[: here // 2] * np.hanning(here // 2)))
    assert abs(int(spectrum.argmax()) * 2 - 440) <= 2
    assert np.sqrt(np.mean(heard[1000:-1000] ** 2)) == pytest.approx(8000 / np.sqrt(2), rel=0.03)


def test_a_change_of_codec_in_the_middle():
    line = Line()
    line.push(sound(1000))
    line.ticks(10)
    line.port.rate, line.port.frames = 16000, []
    line.port.heard.clear()
    line.ticks(50)
    lost_ms = AHEAD_FRAMES * 20
    assert len(voiced(line.heard)) == (1000 - 200 - lost_ms) * 16, "what was at the port is lost, the rest is heard"
