"""Several recognisers as one: the first takes the utterance as it is spoken, the others get all of it when it fails."""

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from sipagent.conversation.interfaces import OnWords, Pcm, Recogniser, Recognition, Transcript, Words
from sipagent.conversation.providers.health import Health, Standing
from sipagent.conversation.providers.ledger import Ledger
from sipagent.conversation.providers.race import Candidate, Limits, Race
from sipagent.core import clock
from sipagent.core.errors import ProviderError

MAX_FRAMES = 3000  # one minute, twice the longest utterance


@dataclass(frozen=True, slots=True)
class Listening:
    health: Health
    limits: Limits
    recogniser: Recogniser


@runtime_checkable
class Breakable(Protocol):
    """A recognition that knows before its end that nothing will come of it."""

    @property
    def broken(self) -> ProviderError | None: ...


class FallbackRecogniser:
    """The recognisers of one call, in order of preference."""

    def __init__(self, recognisers: Sequence[Listening], ledger: Ledger) -> None:
        self._recognisers = recognisers
        self._ledger = ledger

    def begin(self, on_words: OnWords) -> "FallbackRecognition":
        now = clock.mono_ns()
        good = [each for each in self._recognisers if each.health.breaker.standing(now) is Standing.GOOD]
        live = (good or list(self._recognisers))[0]
        return FallbackRecognition(live, self._recognisers, on_words, self._ledger)


class FallbackRecognition:
    """One utterance; `live` hears it while it is spoken."""

    def __init__(self, live: Listening, recognisers: Sequence[Listening], on_words: OnWords, ledger: Ledger) -> None:
        self._left = list(recognisers)
        self._on_words = on_words
        self._ledger = ledger
        self._frames: list[Pcm] = []
        self._paused = False
        self._began = clock.mono_ns()
        self._live, self._recognition = live, self._begin(live)

    def push(self, frame: Pcm) -> None:
        if len(self._frames) < MAX_FRAMES:
            self._frames.append(frame)
        self._recognition.push(frame)
        error = self._recognition.broken if isinstance(self._recognition, Breakable) else None
        if error is not None and len(self._left) > 1:
            self._move_on(error)

    def pause(self) -> None:
        self._paused = True
        self._recognition.pause()

    def resume(self) -> None:
        self._paused = False
        self._recognition.resume()

    async def finish(self) -> Transcript:
        race = Race("stt", [self._candidate(each) for each in self._left], self._ledger)
        answer, transcript = await race.winner()
        answer.cancel()
        return transcript

    def cancel(self) -> None:
        self._recognition.cancel()

    def _begin(self, listening: Listening) -> Recognition:
        def pass_on(words: Words) -> None:
            if self._live is listening:
                self._on_words(words)

        return listening.recogniser.begin(pass_on)

    def _move_on(self, error: ProviderError) -> None:
        """In the middle of the utterance: the next one hears it from its beginning."""
        self._recognition.cancel()
        now = clock.mono_ns()
        self._live.health.asked()
        self._live.health.failed(now, str(error), for_good=not error.retryable)
        self._ledger.failed("stt", self._live.health.name, error, (now - self._began) / 1e6)
        self._left = [each for each in self._left if each is not self._live]
        self._live = self._left[0]
        self._recognition = self._begin(self._live)
        for frame in self._frames:
            self._recognition.push(frame)
        if self._paused:
            self._recognition.pause()

    def _candidate(self, listening: Listening) -> Candidate[Transcript]:
        return Candidate(listening.health, listening.limits, lambda: self._words_of(listening))

    async def _words_of(self, listening: Listening) -> AsyncIterator[Transcript]:
        if listening is self._live:
            recognition = self._recognition
        else:
            recognition = listening.recogniser.begin(lambda _words: None)
            for frame in self._frames:
                recognition.push(frame)
        try:
            yield await recognition.finish()
        finally:
            recognition.cancel()
