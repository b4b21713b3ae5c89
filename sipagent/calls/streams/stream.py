"""One call's stream to one application: from its start to its end, over as many connections as that takes.

What the caller says waits for at most `BEHIND_S` for an application that is slow to take it; then the oldest is left
out. What the application sends waits in `Playout`.
"""

import asyncio
import contextlib
import logging
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Protocol

import numpy as np

from sipagent.calls.streams.connection import Connector, StreamFailed, Wire
from sipagent.calls.streams.dialect import (
    AGENT,
    CALLER,
    Audio,
    Clear,
    Dialect,
    FromApp,
    Interrupt,
    Keys,
    Malformed,
    Mark,
    Message,
    Stop,
)
from sipagent.calls.streams.playout import Out, Playout
from sipagent.conversation.interfaces import FRAME_MS, AudioFrames, Pcm
from sipagent.core.events import StreamFigures
from sipagent.core.resample import StreamConverter

log = logging.getLogger(__name__)

BEHIND_S = 2.0
FIRST_WAIT_S, MOST_WAIT_S = 0.25, 2.0  # between two tries to connect
STEADY_S = 2.0  # a connection that has lasted longer was well
MAX_SAID = 1000  # messages that are no audio and wait beside it
MAX_MALFORMED = 20  # messages; whoever sends more does not speak the dialect
STUCK_S = 10.0  # an application that takes nothing for so long is lost
GOODBYE_S = 1.0
_MS = 1_000_000


class Port(Out, Protocol):
    """A leg's port."""

    def sent_beside(self, position: int, count: int) -> Pcm | None: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    url: str
    headers: Mapping[str, str]
    rate: int
    chunk_ms: int
    tracks: tuple[str, ...]
    both_ways: bool
    buffer_s: float
    reconnect_s: float


class Patience:
    """How long an application is tried again that cannot be reached, or is lost as soon as it is. Times in seconds."""

    def __init__(self, limit_s: float, now: float) -> None:
        self._limit_s = limit_s
        self._since, self._wait_s = now, FIRST_WAIT_S

    def wait_s(self, connected_at: float | None, now: float) -> float | None:
        """Before the next try, None when there is none; ``connected_at``: when the last one succeeded, if it did."""
        if connected_at is not None and now - connected_at > STEADY_S:
            self._since, self._wait_s = now, FIRST_WAIT_S
        wait_s, self._wait_s = self._wait_s, min(self._wait_s * 2, MOST_WAIT_S)
        return wait_s if now + wait_s - self._since <= self._limit_s else None


class _Track:
    """One direction's audio at the stream's rate, in chunks."""

    def __init__(self, rate: int, chunk_ms: int) -> None:
        self._rate = rate
        self._samples = rate * chunk_ms // 1000
        self._kept = np.zeros(0, np.int16)
        self._converter: StreamConverter | None = None
        self._from = 0

    def push(self, pcm: Pcm, rate: int) -> list[Pcm]:
        if rate != self._rate:
            if self._converter is None or self._from != rate:
                self._converter, self._from = StreamConverter(rate, self._rate), rate
            pcm = self._converter.push(pcm)
        if len(self._kept):
            pcm = np.concatenate([self._kept, pcm])
        whole = len(pcm) - len(pcm) % self._samples
        self._kept = pcm[whole:]
        return [pcm[at : at + self._samples] for at in range(0, whole, self._samples)]


class Stream:
    """`on_frames` and `on_digit` are for the leg; `run` is the stream's life."""

    def __init__(
        self,
        terms: Terms,
        dialect: Callable[[], Dialect],
        connector: Connector,
        port: Port,
        now: Callable[[], int],
        press: Callable[[str], object],
        trouble: Callable[[str], None],
    ) -> None:
        self._terms = terms
        self._make_dialect = dialect
        self._dialect = dialect()
        self._connector = connector
        self._port = port
        self._now = now
        self._press = press
        self._trouble = trouble
        self._tracks = {name: _Track(terms.rate, terms.chunk_ms) for name in self._tracks_sent(terms)}
        self._playout = Playout(port, terms.buffer_s)
        # to the application: BEHIND_S of audio, the oldest goes; with its ms, and made when it is sent
        self._waiting: deque[tuple[int, Callable[[], Message | None]]] = deque()
        self._most = max(int(BEHIND_S * 1000 / terms.chunk_ms), 1) * len(self._tracks)
        self._awake = asyncio.Event()
        self._quiet = asyncio.Event()  # nothing of the application's waits to be played
        self._connected = self._lost = False
        self._sent_ms = self._unsent_ms = self._malformed = self._connections = 0
        self._at_ms = 0  # of the caller's audio, since the stream began
        self._full_told = False

    @property
    def figures(self) -> StreamFigures:
        playing = self._playout.figures
        waits = self._playout.waiting_ms + self._port.queued * FRAME_MS if self._terms.both_ways else 0.0
        played = playing.received - playing.cleared - playing.dropped - waits
        return StreamFigures(
            sent_ms=self._sent_ms,
            unsent_ms=self._unsent_ms,
            received_ms=round(playing.received),
            played_ms=max(round(played), 0),
            cleared_ms=round(playing.cleared),
            dropped_ms=round(playing.dropped),
            underruns=playing.underruns,
            malformed=self._malformed,
            connections=self._connections,
        )

    def on_frames(self, frames: AudioFrames) -> None:
        """Each tick, whatever the caller does."""
        count, samples = frames.pcm.shape
        heard = frames.pcm.reshape(-1)
        rate = samples * 1000 // FRAME_MS
        for track, pcm in self._heard(heard, frames.position, count):
            at_ms = self._at_ms
            for chunk in self._tracks[track].push(pcm, rate):
                self._queue(partial(self._dialect.audio, chunk, track, at_ms))
                at_ms += self._terms.chunk_ms
        self._at_ms += count * FRAME_MS
        if self._terms.both_ways:
            for name in self._playout.tick(self._now()):
                self._say(partial(self._dialect.mark, name))
            if self._playout.idle:
                self._quiet.set()
            elif self._quiet.is_set():
                self._quiet.clear()

    def on_digit(self, digit: str) -> None:
        self._say(partial(self._dialect.digit, digit))

    async def run(self, started: Callable[[], None]) -> None:
        """Until the application is through. Raises StreamFailed when it cannot be reached, or no longer."""
        loop = asyncio.get_running_loop()
        patience = Patience(self._terms.reconnect_s, loop.time())
        while True:
            began = None
            try:
                wire = await self._connector.connect(self._terms.url, self._terms.headers)
                self._connections += 1
                began = loop.time()
                await self._converse(wire, started)
                return
            except StreamFailed as error:
                wait_s = patience.wait_s(began, loop.time())
                if not error.again or wait_s is None:
                    raise
                if began is not None:
                    self._lost = True
                    self._trouble(str(error))
            await asyncio.sleep(wait_s)

    async def played(self) -> None:
        """Until what the application has sent has been played."""
        if self._terms.both_ways:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._terms.buffer_s + GOODBYE_S):
                    self._quiet.clear()  # what has just come is not in it yet
                    await self._quiet.wait()

    async def _converse(self, wire: Wire, started: Callable[[], None]) -> None:
        """One connection, to its end."""
        tasks: list[asyncio.Task[None]] = []
        try:
            started()
            if self._connections > 1:  # it knows nothing of what an earlier one was told or asked
                self._dialect = self._make_dialect()
                await self._playout.clear()
            self._waiting.clear()
            for message in self._dialect.opening():
                await wire.send(message)
            self._connected = True
            tasks = [asyncio.create_task(self._send(wire)), asyncio.create_task(self._receive(wire))]
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        finally:
            self._connected = False
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await self._goodbye(wire)

    async def _goodbye(self, wire: Wire) -> None:
        try:
            async with asyncio.timeout(GOODBYE_S):
                for message in self._dialect.closing():
                    await wire.send(message)
        except (StreamFailed, TimeoutError):
            pass  # it has gone first
        await wire.close()

    async def _send(self, wire: Wire) -> None:
        while True:
            await self._awake.wait()
            self._awake.clear()
            while self._waiting:
                ms, make = self._waiting.popleft()
                message = make()
                if message is not None:
                    await self._sent(wire, message)
                self._sent_ms += ms

    async def _sent(self, wire: Wire, message: Message) -> None:
        try:
            async with asyncio.timeout(STUCK_S):
                await wire.send(message)
        except TimeoutError:
            raise StreamFailed(f"the application took nothing for {STUCK_S:g} s", again=True) from None

    async def _receive(self, wire: Wire) -> None:
        while True:
            message = await wire.receive()
            if message is None:
                return
            try:
                for said in self._dialect.read(message):
                    if isinstance(said, Stop):
                        if said.problem:
                            raise StreamFailed(said.problem, again=False)
                        return
                    if self._terms.both_ways:
                        await self._obey(said)
            except Malformed as error:
                self._malformed += 1
                if self._malformed == 1:
                    self._trouble(str(error))
                if self._malformed > MAX_MALFORMED:
                    raise StreamFailed("the application sends messages that cannot be read", again=False) from error

    async def _obey(self, said: FromApp) -> None:
        match said:
            case Audio(pcm=pcm, rate=rate, chunk=chunk):
                if not self._playout.push(pcm, rate, chunk, self._now()) and not self._full_told:
                    self._full_told = True
                    self._trouble(f"the application is more than {self._terms.buffer_s:g} s ahead: audio is dropped")
            case Mark(name=name):
                if not self._playout.mark(name):
                    raise Malformed("there are too many marks at once")
            case Clear():
                for name in await self._playout.clear():
                    self._say(partial(self._dialect.mark, name))
            case Interrupt(chunk=chunk):
                await self._playout.interrupt(chunk)
            case Keys(digits=digits):
                self._press(digits)
            case Stop():
                pass

    def _tracks_sent(self, terms: Terms) -> tuple[str, ...]:
        return terms.tracks if self._dialect.tracks_apart else terms.tracks[:1]

    def _heard(self, caller: Pcm, position: int, count: int) -> list[tuple[str, Pcm]]:
        """What is sent of each track; added, where the dialect has but one."""
        if self._terms.tracks == (CALLER,):
            return [(CALLER, caller)]
        beside = self._port.sent_beside(position, count)
        agent = beside.reshape(-1) if beside is not None else np.zeros_like(caller)
        if len(agent) != len(caller):  # in the tick of a change of codec
            agent = np.zeros_like(caller)
        if self._terms.tracks == (AGENT,):
            return [(AGENT, agent)]
        if self._dialect.tracks_apart:
            return [(CALLER, caller), (AGENT, agent)]
        both = caller.astype(np.int32) + agent
        return [(self._terms.tracks[0], both.clip(-32768, 32767).astype(np.int16))]

    def _queue(self, make: Callable[[], Message | None]) -> None:
        """A chunk of audio."""
        if not self._connected:
            self._unsent_ms += self._terms.chunk_ms if self._lost else 0
            return
        if len(self._waiting) >= self._most:
            self._unsent_ms += self._waiting.popleft()[0]
        self._waiting.append((self._terms.chunk_ms, make))
        self._awake.set()

    def _say(self, make: Callable[[], Message | None]) -> None:
        """Something else than audio."""
        if self._connected and len(self._waiting) < self._most + MAX_SAID:
            self._waiting.append((0, make))
            self._awake.set()
