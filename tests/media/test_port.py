"""What a port does by itself, with an engine played by the test."""

import os

import numpy as np
import pytest

from sipagent.media.port import MAX_FIGURE, MediaPort
from sipagent.media.rings import TX_FRAMES, Counter, Rings, create_memory


class Owner:
    """Stands for the client; `obey` is what the engine does when it is asked to flush."""

    def __init__(self, rings):
        self.rings = rings
        self.sent = []
        self.obey = lambda: True

    def send(self, command):
        self.sent.append(command)

    async def flushed(self, slot, position):
        return self.obey()

    async def close_port(self, port):
        port.finish()


@pytest.fixture
def owner():
    memory = create_memory(2)
    yield Owner(Rings(memory, 2))
    os.close(memory)


@pytest.fixture
def port(owner):
    return MediaPort(owner, owner.rings, "127.0.0.1", 1, 4000)


def frames(count, first=0):
    return np.repeat(np.arange(first, first + count, dtype=np.int16), 160)


def play(owner, count):
    """The engine sends so many frames."""
    tail = int(owner.rings.tx_tail[1])
    owner.rings.tx_sent[1, np.arange(tail, tail + count) % TX_FRAMES] = 1000 + np.arange(tail, tail + count)
    owner.rings.tx_tail[1] = tail + count


def test_writing_goes_round_the_ring(owner, port):
    for n in range(0, 3000, 500):
        assert port.write(frames(500, first=n)) == 500 * 160
        play(owner, 500)
    assert (port.written, port.played, port.queued) == (3000, 3000, 0)
    newest = np.arange(3000 - TX_FRAMES, 3000)
    assert (owner.rings.tx_pcm[1, newest % TX_FRAMES, 0] == newest).all()
    assert port.sent_at(2999) == 3999 and port.sent_at(3000 - TX_FRAMES) == 1000 + 3000 - TX_FRAMES
    assert port.sent_at(3000 - TX_FRAMES - 1) == 0  # older than the ring
    assert not owner.rings.tx_pcm[0].any()


async def test_flush_returns_where_the_engine_cut(owner, port):
    port.write(frames(10))
    play(owner, 3)

    def obey():
        play(owner, 1)  # one more frame went out before it looked
        owner.rings.tx_cut[1] = owner.rings.tx_tail[1]
        owner.rings.tx_tail[1] = owner.rings.tx_flush[1]
        return True

    owner.obey = obey
    assert await port.flush() == 4
    assert (port.queued, port.played, port.sent_at(3), port.sent_at(4)) == (0, 10, 1003, 0)


async def test_flush_that_came_too_late_does_not_return_an_older_cut(owner, port):
    await test_flush_returns_where_the_engine_cut(owner, port)
    port.write(frames(2))

    def obey():
        play(owner, 2)
        return True

    owner.obey = obey
    assert await port.flush() == 12


async def test_flush_without_an_engine_returns_what_is_known(owner, port):
    port.write(frames(5))
    play(owner, 2)
    owner.obey = lambda: False
    assert await port.flush() == 2


def test_codecs_we_cannot_speak_are_refused(owner, port):
    with pytest.raises(ValueError, match="payload type 18 is none of 0, 8, 9"):
        port.connect("192.0.2.1", 4000, 18)
    assert owner.sent == []


async def test_after_close_the_port_still_answers(owner, port):
    port.write(frames(5))
    play(owner, 2)
    figures = await port.close()
    assert port.figures() is figures
    assert (port.written, port.played, port.queued, port.write(frames(1))) == (5, 2, 3, 0)
    assert await port.flush() == 2
    port.connect("192.0.2.1", 4000, 0)
    assert owner.sent == []


def test_figures_fit_the_columns_of_the_record(owner, port):
    owner.rings.counters[1] = 2**40
    owner.rings.counters[1, Counter.LATE] = -1
    port.dropped = 2**31
    figures = port.figures()
    assert (figures.packets_in, figures.lost, figures.concealed_ms, figures.dropped_ms) == (MAX_FIGURE,) * 4
    assert figures.late == 0
