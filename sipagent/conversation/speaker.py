"""The agent's mouth: utterances on their way to the wire, and what of them was really heard.

Nothing here sleeps: `Speaker.tick` is called with every batch of frames from the caller (each 10 to 20 ms, whatever the
caller does) and wakes whoever waits for room or for the end of an utterance.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass

import numpy as np

from sipagent.conversation.audio import frame_samples, pcm_of, whole_frames
from sipagent.conversation.interfaces import FRAME_MS, AudioOut, Pcm, Speech
from sipagent.conversation.streams import all_of, closing
from sipagent.core.resample import convert

FRAMES_PER_LETTER = 3.3  # of speech at about 15 letters a second, for a clause that is cut before all of it was made


@dataclass(slots=True, eq=False)
class _Clause:
    text: str
    start: int  # frame position on the wire
    end: int  # of what has been queued
    whole: bool = False  # all of it has been


class Utterance:
    """One thing the agent says: clauses are queued as they are synthesised, and it can be cut short.

    Awaiting `played` never raises because of an interruption; `interrupted` and `heard_text` tell.
    """

    def __init__(self, speaker: "Speaker") -> None:
        self._speaker = speaker
        self._clauses: list[_Clause] = []
        self._complete = False
        self._cut: int | None = None
        self.interrupted = False
        self._first_sent_ns = 0
        self.first_audio_ns = 0  # monotonic, when the first audio was there
        self.first_write_ns = 0  # and when it was queued

    @property
    def rate(self) -> int:
        """Of the audio that the wire takes now."""
        return self._speaker.out.rate

    @property
    def text(self) -> str:
        """All that was to be said so far."""
        return " ".join(clause.text for clause in self._clauses)

    @property
    def heard_text(self) -> str:
        """What left on the wire; a clause cut in the middle counts by the share of its audio, in whole words."""
        limit = self._speaker.out.played if self._cut is None else self._cut
        heard: list[str] = []
        for clause in self._clauses:
            if clause.whole and clause.end <= limit:
                heard.append(clause.text)
                continue
            if clause.start < limit:
                share = (min(limit, clause.end) - clause.start) / self._length(clause)
                heard.append(_words_within(clause.text, share))
            break
        return " ".join(part for part in heard if part)

    @property
    def audible(self) -> bool:
        """Some of it has left on the wire."""
        return bool(self._clauses) and self._speaker.out.played > self._clauses[0].start

    @property
    def first_sent_ns(self) -> int:
        """Monotonic ns at which its first packet left, 0 before that."""
        if not self._first_sent_ns and self._clauses:  # remembered: the wire forgets it after 20 s
            self._first_sent_ns = self._speaker.out.sent_at(self._clauses[0].start)
        return self._first_sent_ns

    @property
    def done(self) -> bool:
        if self.interrupted:
            return True
        return self._complete and (not self._clauses or self._speaker.out.played >= self._clauses[-1].end)

    async def say(self, text: str, pieces: AsyncIterator[Speech], rate: int, now: Callable[[], int]) -> None:
        """Queues one clause as its audio of `rate` comes; reads no further while more than the limit is queued.

        Audio of another rate than the wire's by then is converted. Once interrupted, nothing more is read. Raises what
        the pieces raise; what came before that is spoken.
        """
        clause = _Clause(text, 0, 0)
        rest = np.zeros(0, np.int16)
        async with closing(pieces) as stream:
            async for piece in stream:
                self.first_audio_ns = self.first_audio_ns or now()
                rest = np.concatenate([rest, pcm_of(piece)])
                whole = len(rest) - len(rest) % frame_samples(rate)
                await self._queue(clause, rest[:whole], rate, now)
                rest = rest[whole:]
                if self.interrupted:
                    return
        await self._queue(clause, whole_frames(rest, rate), rate, now)
        clause.whole = not self.interrupted

    async def play(self, pcm: Pcm, rate: int, now: Callable[[], int], text: str = "") -> None:
        """Queues a recording, of which `text` is what it says."""
        await self.say(text, all_of([pcm]), rate, now)

    async def _queue(self, clause: _Clause, pcm: Pcm, rate: int, now: Callable[[], int]) -> None:
        """Whole frames of the clause."""
        out = self._speaker.out
        if len(pcm):
            await self._speaker.room()
        while len(pcm) and not self.interrupted:
            self.first_write_ns = self.first_write_ns or now()
            if clause not in self._clauses:
                clause.start = clause.end = out.written
                self._clauses.append(clause)
            pcm, rate = convert(pcm, rate, out.rate), out.rate
            taken = out.write(pcm)
            clause.end += taken // frame_samples(rate)
            pcm = pcm[taken:]
            if len(pcm):
                await self._speaker.next_tick()  # more than the ring holds: the rest follows as it plays

    def _length(self, clause: _Clause) -> float:
        """Frames that the clause takes; estimated while it is not all there."""
        known = clause.end - clause.start
        return known if clause.whole else max(known, len(clause.text) * FRAMES_PER_LETTER)

    def complete(self) -> None:
        """No more clauses will be added."""
        self._complete = True

    async def played(self) -> None:
        """Until its last frame has left, or it was interrupted."""
        while not self.done:
            await self._speaker.next_tick()

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
        self._tick = asyncio.Event()

    def utterance(self) -> Utterance:
        return Utterance(self)

    def tick(self) -> None:
        self._tick.set()
        self._tick = asyncio.Event()

    async def next_tick(self) -> None:
        await self._tick.wait()

    async def room(self) -> None:
        while self.out.queued > self._ahead:
            await self.next_tick()


def _words_within(text: str, share: float) -> str:
    """The leading words that take up this share of the text's length (speech runs roughly evenly over letters)."""
    budget = share * len(text)
    words: list[str] = []
    used = 0
    for word in text.split():
        used += len(word) + 1
        if used > budget + 1:
            break
        words.append(word)
    return " ".join(words)
