"""The agent's mouth: utterances on their way to the wire, and what of them was really heard.

Nothing here sleeps: `Speaker.tick` is called with every batch of frames from the caller (each 10 to 20 ms, whatever the
caller does) and wakes whoever waits for room or for the end of an utterance.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from functools import partial

import numpy as np

from sipagent.conversation import alignment
from sipagent.conversation.audio import SPEECH_POWER, frame_samples, pcm_of, powers, whole_frames
from sipagent.conversation.interfaces import FRAME_MS, AudioOut, Pcm, Speech, Timed
from sipagent.conversation.pauses import Pauses
from sipagent.conversation.streams import closing
from sipagent.core.resample import convert

AT_ONCE = 250  # frames, 5 s, of a recording that are looked at and queued together


@dataclass(slots=True, eq=False)
class _Clause:
    text: str
    start: int = -1  # frame position on the wire, -1 while nothing is queued
    end: int = -1  # of what has been queued
    whole: bool = False  # all of it has been
    protected: bool = False  # it must be heard whole
    sounds: list[bool] = field(default_factory=list)  # of each queued frame
    words: list[tuple[int, float]] = field(default_factory=list)  # where the voice tells: index in the text, frame
    parted: bool = False  # some of it has been said before something else: `text` is the rest

    def part(self) -> "_Clause":
        """What has been queued of it, as a clause by itself; what is still to come is left here."""
        said = self.heard(self.end)
        part = _Clause(said, self.start, self.end, True, self.protected, self.sounds)
        self.text = self.text.removeprefix(said).strip()
        self.start = self.end = -1
        self.sounds, self.words, self.parted = [], [], True
        return part

    def heard(self, limit: int) -> str:
        """Its words that had left when the wire stood at `limit`."""
        if self.whole and self.end <= limit:
            return self.text
        played = min(limit, self.end) - self.start
        if not self.words:
            return alignment.words_within(self.text, self.sounds, played, whole=self.whole)
        return self.text[: max([index for index, frame in self.words if frame <= played], default=0)].strip()


class Utterance:
    """One thing the agent says: clauses are queued as they are synthesised, and it can be cut short.

    Awaiting `played` never raises because of an interruption; `interrupted` and `heard_text` tell. Times are monotonic
    ns, 0 until they are known.
    """

    def __init__(self, speaker: "Speaker") -> None:
        self._speaker = speaker
        self._clauses: list[_Clause] = []
        self._complete = False
        self._under_way: set[_Clause] = set()  # their audio is still coming
        self._cut: int | None = None
        self._voiced = -1  # frame position of the first that sounds like speech
        self._sent_ns = 0
        self.interrupted = False
        self.first_audio_ns = 0  # when the first audio was there
        self.first_write_ns = 0  # when it was queued
        self.due_ns = 0  # when nothing was before it in the queue any more

    @property
    def rate(self) -> int:
        """Of the audio that the wire takes now."""
        return self._speaker.out.rate

    @property
    def text(self) -> str:
        """All that was to be said so far."""
        return " ".join(clause.text for clause in self._clauses if clause.text)

    @property
    def heard_text(self) -> str:
        """What left on the wire, cut at the word."""
        limit = self._speaker.out.played if self._cut is None else self._cut
        heard = [clause.heard(limit) for clause in self._clauses if clause.start < limit]
        return " ".join(part for part in heard if part)

    @property
    def audible(self) -> bool:
        """Some of it has left on the wire."""
        return self._voiced >= 0 and self._speaker.out.played > self._voiced

    @property
    def asked(self) -> bool:
        """A question has begun to be heard."""
        played = self._speaker.out.played
        return any("?" in clause.text and clause.start < played for clause in self._clauses)

    @property
    def whole(self) -> bool:
        """What is being heard just now must be heard whole; so long as the rest of that is still being made, too."""
        played = self._speaker.out.played
        begun = [clause for clause in self._clauses if clause.start <= played]
        if not begun or not begun[-1].protected:
            return False
        last = begun[-1] is self._clauses[-1]
        return played < begun[-1].end or (last and not self._complete)

    @property
    def left_ms(self) -> int | None:
        """What is queued of it, None while there may be more."""
        if not self._complete:
            return None
        return max(self._clauses[-1].end - self._speaker.out.played, 0) * FRAME_MS if self._clauses else 0

    @property
    def first_sent_ns(self) -> int:
        """When its first voiced packet left."""
        if not self._sent_ns and self._voiced >= 0:  # remembered: the wire forgets it after 20 s
            sent_at = self._speaker.out.sent_at
            self._sent_ns = sent_at(self._voiced)
            self.due_ns = max(self.first_write_ns, sent_at(self._clauses[0].start - 1))
        return self._sent_ns

    @property
    def speaking(self) -> bool:
        """In the middle of a clause, of which more is to come."""
        return any(clause.start >= 0 for clause in self._under_way)

    @property
    def queued(self) -> bool:
        """Something is on its way to the wire."""
        return self._speaker.out.queued > 0

    @property
    def done(self) -> bool:
        if self.interrupted:
            return True
        return self._complete and (not self._clauses or self._speaker.out.played >= self._clauses[-1].end)

    async def say(
        self, text: str, pieces: AsyncIterator[Speech], rate: int, now: Callable[[], int], *, protected: bool = False
    ) -> None:
        """Queues one clause as its audio of `rate` comes; reads no further while more than the limit is queued.

        A `protected` one must be heard whole.

        Audio of another rate than the wire's by then is converted. Once interrupted, nothing more is read. Raises what
        the pieces raise; what came before that is spoken.
        """
        clause = _Clause(text, protected=protected)
        self._under_way.add(clause)
        try:
            await self._say(clause, pieces, rate, now)
        finally:
            self._under_way.discard(clause)

    async def _say(self, clause: _Clause, pieces: AsyncIterator[Speech], rate: int, now: Callable[[], int]) -> None:
        pauses = Pauses(clause.text)
        samples = frame_samples(rate)
        rest = np.zeros(0, np.int16)
        async with closing(pieces) as stream:
            async for piece in stream:
                self.first_audio_ns = self.first_audio_ns or now()
                rest = np.concatenate([rest, pcm_of(piece)]) if len(rest) else pcm_of(piece)
                whole = len(rest) - len(rest) % samples
                frames = pauses.push(rest[:whole].reshape(-1, samples))
                if isinstance(piece, Timed) and not clause.parted:  # else they count from another beginning
                    clause.words += [(index, sample / samples - pauses.dropped) for index, sample in piece.words]
                await self._queue(clause, frames, rate, now)
                rest = rest[whole:]
                if self.interrupted:
                    return
        frames = pauses.push(whole_frames(rest, rate).reshape(-1, samples))
        await self._queue(clause, np.concatenate([frames, pauses.finish(samples)]), rate, now)
        clause.whole = not self.interrupted
        self._settle()

    def set_aside(self) -> None:
        """Of a clause that hangs, what has been said is all before something else; the rest of it comes behind that."""
        for clause in self._under_way:
            if clause.start >= 0:
                self._clauses[self._clauses.index(clause)] = clause.part()

    async def play(self, pcm: Pcm, rate: int, now: Callable[[], int], text: str = "") -> None:
        """Queues a recording as it is; `text` is what it says."""
        frames = whole_frames(pcm, rate).reshape(-1, frame_samples(rate))
        clause = _Clause(text)
        await self._queue(clause, frames, rate, now)
        clause.whole = not self.interrupted
        self._settle()

    def _settle(self) -> None:
        """What is too quiet for speech all through is heard from its first frame on."""
        if self._voiced < 0 and self._clauses:
            self._voiced = self._clauses[0].start

    async def _queue(self, clause: _Clause, frames: Pcm, rate: int, now: Callable[[], int]) -> None:
        if len(frames):
            await self._speaker.room()
        out, pcm = self._speaker.out, frames.reshape(-1)
        while len(pcm) and not self.interrupted:
            if clause.start < 0:
                clause.start = clause.end = out.written
                self._clauses.append(clause)
            pcm, rate = convert(pcm, rate, out.rate), out.rate
            some = pcm[: AT_ONCE * frame_samples(rate)].reshape(-1, frame_samples(rate))
            taken = out.write(some.reshape(-1)) // frame_samples(rate)
            self.first_write_ns = self.first_write_ns or now()
            sounds = powers(some[:taken]) > SPEECH_POWER
            if self._voiced < 0 and sounds.any():
                self._voiced = clause.end + int(sounds.argmax())
            clause.sounds += sounds.tolist()
            clause.end += taken
            pcm = pcm[taken * frame_samples(rate) :]
            if taken < len(some):  # more than the ring holds: the rest follows as it plays
                await self._speaker.until(partial(self._has_room, max(0, out.queued - AT_ONCE // 5)))

    def _has_room(self, most: int) -> bool:
        return self.interrupted or self._speaker.out.queued <= most

    def complete(self) -> None:
        """No more clauses will be added."""
        self._complete = True

    async def played(self) -> None:
        """Until its last frame has left, or it was interrupted."""
        await self._speaker.until(lambda: self.done)

    async def interrupt(self) -> None:
        """Stops it on the wire. `heard_text` is final afterwards."""
        if self.done:
            return
        self.interrupted = True
        self._cut = await self._speaker.out.flush()


class Speaker:
    def __init__(self, out: AudioOut, ahead_ms: int) -> None:
        self.out = out
        self._ahead = ahead_ms // FRAME_MS
        self._waiting: list[tuple[Callable[[], bool], asyncio.Future[None]]] = []

    def utterance(self) -> Utterance:
        return Utterance(self)

    def tick(self) -> None:
        if not self._waiting:
            return
        waiting, self._waiting = self._waiting, []
        for ready, woken in waiting:
            if woken.done():
                continue
            if ready():  # looked at here: to wake a task for nothing costs ten times as much
                woken.set_result(None)
            else:
                self._waiting.append((ready, woken))

    async def next_tick(self) -> None:
        await self._wait(_at_once)

    async def until(self, ready: Callable[[], bool]) -> None:
        """`ready` is asked now and at every tick."""
        while not ready():
            await self._wait(ready)

    async def room(self) -> None:
        await self.until(lambda: self.out.queued <= self._ahead)

    async def _wait(self, ready: Callable[[], bool]) -> None:
        woken: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((ready, woken))
        await woken


def _at_once() -> bool:
    return True
