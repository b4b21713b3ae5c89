"""The agent's mouth: utterances on their way to the wire, and what of them was really heard.

Nothing here sleeps: `Speaker.tick` is called with every batch of frames from the caller (each 10 to 20 ms, whatever the
caller does) and wakes whoever waits for room or for the end of an utterance.
"""

import asyncio
from dataclasses import dataclass

from sipagent.conversation.audio import frame_samples, whole_frames
from sipagent.conversation.interfaces import FRAME_MS, AudioOut, Pcm
from sipagent.core.resample import convert


@dataclass(slots=True)
class _Clause:
    text: str
    start: int  # frame position on the wire
    end: int


class Utterance:
    """One thing the agent says: clauses are added as they are synthesised, and it can be cut short.

    Awaiting `played` never raises because of an interruption; `interrupted` and `heard_text` tell.
    """

    def __init__(self, speaker: "Speaker") -> None:
        self._speaker = speaker
        self._clauses: list[_Clause] = []
        self._complete = False
        self._cut: int | None = None
        self.interrupted = False
        self._first_sent_ns = 0
        self.first_write_ns = 0  # monotonic, when the first audio was queued

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
            if clause.end <= limit:
                heard.append(clause.text)
                continue
            if clause.start < limit:
                share = (limit - clause.start) / (clause.end - clause.start)
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

    async def add(self, text: str, pcm: Pcm, rate: int, now: int) -> None:
        """Queues one clause; waits while more than the limit is queued. Without effect once interrupted.

        Audio of another rate than the wire's by then is converted.
        """
        out = self._speaker.out
        await self._speaker.room()
        if self.interrupted or not len(pcm):
            return
        rest = whole_frames(pcm, rate)
        start = out.written
        self.first_write_ns = self.first_write_ns or now
        self._clauses.append(_Clause(text, start, start + len(rest) // frame_samples(rate)))
        while True:
            rest, rate = convert(rest, rate, out.rate), out.rate
            rest = rest[out.write(rest) :]
            if not len(rest):
                return
            await self._speaker.next_tick()  # a clause longer than the ring: the rest follows as it plays
            if self.interrupted:
                return

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
