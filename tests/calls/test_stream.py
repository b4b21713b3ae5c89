"""A stream between a port and an application that are played by the test."""

import asyncio
import json
from typing import Any

import numpy as np
import pytest

from sipagent.calls.streams import stream as module
from sipagent.calls.streams.connection import StreamFailed
from sipagent.calls.streams.dialect import CALLER, Facts
from sipagent.calls.streams.stream import BEHIND_S, Patience, Stream, Terms
from sipagent.calls.streams.teler import Teler
from sipagent.media.port import Frames

LOST = StreamFailed("lost", again=True)


class Port:
    rate, queued, written, played = 8000, 0, 0, 0

    def write(self, pcm):
        return len(pcm)

    async def flush(self):
        return 0

    def sent_beside(self, position, count):
        return None


class Wire:
    """What the application reads is let through by `reads`; what it says is put into `says`."""

    def __init__(self):
        self.sent: list[dict[str, Any]] = []
        self.reads = asyncio.Event()
        self.says: asyncio.Queue[Any] = asyncio.Queue()
        self.closed = False

    async def send(self, message):
        self.sent.append(json.loads(message))
        if len(self.sent) > 1:
            await self.reads.wait()

    async def receive(self):
        said = await self.says.get()
        if isinstance(said, Exception):
            raise said
        return said

    async def close(self):
        self.closed = True


class Connector:
    def __init__(self, *wires):
        self.wires = list(wires)

    async def connect(self, url, headers):
        wire = self.wires.pop(0)
        if isinstance(wire, Exception):
            raise wire
        return wire


def made(*wires, reconnect_s=10.0):
    troubles: list[str] = []
    facts = Facts(
        call_id="c",
        stream_id="s",
        account_id="a",
        app_id="p",
        rate=8000,
        tracks=(CALLER,),
        both_ways=True,
    )
    terms = Terms(
        url="ws://a.test",
        headers={},
        rate=8000,
        chunk_ms=20,
        tracks=(CALLER,),
        both_ways=True,
        buffer_s=1.0,
        reconnect_s=reconnect_s,
    )
    stream = Stream(terms, lambda: Teler(facts), Connector(*wires), Port(), lambda: 0, print, troubles.append)  # type: ignore[arg-type]
    return stream, troubles


def frames(number):
    pcm = np.full((1, 160), number + 1, np.int16)
    return Frames(pcm, np.zeros(1, np.uint8), np.zeros(1, np.int64), number, False)


async def until(condition):
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.01)


async def test_an_application_that_reads_too_slowly_misses_the_oldest():
    wire = Wire()
    stream, _ = made(wire)
    running = asyncio.create_task(stream.run(lambda: None))
    await until(lambda: wire.sent)
    for number in range(500):
        stream.on_frames(frames(number))
        await asyncio.sleep(0)
    wire.reads.set()
    most = int(BEHIND_S * 50)
    await until(lambda: stream.figures.sent_ms >= most * 20)
    figures = stream.figures
    assert figures.sent_ms + figures.unsent_ms == 500 * 20
    assert len(wire.sent) <= most + 2, "the start, one under way, and what may wait"
    wire.says.put_nowait(None)
    await running
    assert wire.closed


async def test_an_application_that_takes_nothing_is_lost(monkeypatch):
    monkeypatch.setattr(module, "STUCK_S", 0.05)
    wire = Wire()
    stream, _ = made(wire, reconnect_s=0.0)
    running = asyncio.create_task(stream.run(lambda: None))
    await until(lambda: wire.sent)
    stream.on_frames(frames(0))
    with pytest.raises(StreamFailed, match="took nothing"):
        await running
    assert wire.closed


async def test_what_was_said_to_a_lost_connection_is_counted_and_the_next_starts_anew(monkeypatch):
    monkeypatch.setattr(module, "FIRST_WAIT_S", 0.05)
    first, second = Wire(), Wire()
    first.reads.set()
    second.reads.set()
    stream, troubles = made(first, LOST, second)
    running = asyncio.create_task(stream.run(lambda: None))
    await until(lambda: first.sent)
    first.says.put_nowait(LOST)
    await until(lambda: troubles)
    stream.on_frames(frames(0))
    await until(lambda: second.sent)
    assert (second.sent[0]["type"], second.sent[0]["message_id"]) == ("start", 1)
    assert (stream.figures.unsent_ms, stream.figures.connections) == (20, 2)
    second.says.put_nowait(None)
    await running


async def test_no_connection_stays_open_behind_an_error(monkeypatch):
    async def lost():
        raise ConnectionError

    def fails():
        raise RuntimeError

    monkeypatch.setattr(module, "FIRST_WAIT_S", 0.01)
    first, second = Wire(), Wire()
    first.reads.set()
    stream, _ = made(first, second)
    monkeypatch.setattr(stream._playout, "clear", lost)
    first.says.put_nowait(LOST)
    with pytest.raises(ConnectionError):
        await stream.run(lambda: None)
    assert first.closed and second.closed
    third = Wire()
    stream, _ = made(third)
    with pytest.raises(RuntimeError):
        await stream.run(fails)
    assert third.closed


async def test_what_another_try_cannot_mend_fails_at_once():
    stream, _ = made(StreamFailed("the application answered 403", again=False))
    with pytest.raises(StreamFailed, match="403"):
        await stream.run(lambda: None)


def test_patience_with_an_application():
    patience = Patience(10.0, now=100.0)
    waits = []
    now = 100.0
    while (wait := patience.wait_s(None, now)) is not None:
        waits.append(wait)
        now += wait
    assert waits == [0.25, 0.5, 1.0, 2.0, 2.0, 2.0, 2.0]
    assert patience.wait_s(now, now + 5.0) == 0.25, "it was well: the time runs anew"
    assert patience.wait_s(now + 6.0, now + 6.5) == 0.5, "lost at once: it does not"
