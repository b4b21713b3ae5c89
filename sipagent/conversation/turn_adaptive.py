"""The wait by everything that is known: words, how sure the recogniser is of them, melody, the question that was asked,
and how long this caller's pauses within turns are.

The words choose a wait; the rest makes it longer or shorter. The figures were chosen on the tuning part of the set of
`bench.turn_ends`.
"""

from dataclasses import dataclass

from sipagent.conversation.interfaces import Expecting, Words
from sipagent.conversation.turn_end import USUAL_PAUSE_MS, Known, Wait
from sipagent.conversation.turn_words import Lexicon, Phrase, Reading, read


@dataclass(frozen=True, slots=True, kw_only=True)
class Waits:
    """Silence in ms for each kind of phrase, and how far the other signs may move it."""

    whole: int = 180
    sentence: int = 260
    plain: int = 420
    counting: int = 900
    open: int = 1000
    unknown: int = 600  # the words are not there yet; a recogniser that is late must not make the caller wait for ever
    told: int = 120  # the provider itself says that the turn is over
    sure: float = 0.5  # confidence below which the words count as unpunctuated
    melody: float = 1.6  # by which factor speech that sounds unfinished waits longer, and finished shorter
    slow: float = 1.5  # at most, for a caller whose own pauses are long; and as much shorter for a quick one
    shortest: int = 120
    longest: int = 1800


class ByWords:
    """The wait that the words alone ask for."""

    name = "words"

    def __init__(self, language: Lexicon, waits: Waits) -> None:
        self._language = language
        self._waits = waits
        self._last: tuple[Words, Expecting, Reading] | None = None  # asked again at every frame of a pause

    def wait(self, known: Known) -> Wait:
        reading = self.reading(known)
        return Wait(self._waits.unknown, "no words yet") if reading is None else Wait(self.base(reading), reading.why)

    def base(self, reading: Reading) -> int:
        match reading.phrase:
            case Phrase.WHOLE:
                return self._waits.whole
            case Phrase.SENTENCE:
                return self._waits.sentence
            case Phrase.PLAIN:
                return self._waits.plain
            case Phrase.COUNTING:
                return self._waits.counting
            case Phrase.OPEN:
                return self._waits.open

    def reading(self, known: Known) -> Reading | None:
        """None until there are words."""
        words = known.words
        if words is None:
            return None
        if self._last is None or self._last[0] is not words or self._last[1] is not known.expecting:
            self._last = (words, known.expecting, read(words.text, known.expecting, self._language))
        reading = self._last[2]
        if reading.phrase in (Phrase.SENTENCE, Phrase.WHOLE) and words.confidence < self._waits.sure:
            return Reading(Phrase.PLAIN, f"{reading.why}, unsure")
        return reading


class ByMelody:
    """Melody and silence only; for callers whose language no recogniser here knows."""

    name = "melody"

    def __init__(self, waits: Waits) -> None:
        self._waits = waits

    def wait(self, known: Known) -> Wait:
        if known.prosody is None:
            return Wait(self._waits.unknown, "no melody yet")
        span = self._waits.open - self._waits.sentence
        return Wait(round(self._waits.sentence + span * (1 - known.prosody)), "melody")


class Adaptive:
    """Everything together."""

    name = "adaptive"

    def __init__(self, language: Lexicon, waits: Waits) -> None:
        self._words = ByWords(language, waits)
        self._waits = waits

    def wait(self, known: Known) -> Wait:
        waits = self._waits
        if known.words is not None and known.words.end_of_turn:
            return Wait(waits.told, "provider")
        reading = self._words.reading(known)
        if reading is None:
            return Wait(waits.unknown, "no words yet")
        ms = self._words.base(reading) * self._by_melody(known) * self._by_caller(reading, known)
        return Wait(round(min(max(ms, waits.shortest), waits.longest)), reading.why)

    def _by_melody(self, known: Known) -> float:
        return 1.0 if known.prosody is None else float(self._waits.melody ** (1.0 - 2.0 * known.prosody))

    def _by_caller(self, reading: Reading, known: Known) -> float:
        """Who makes long pauses gets longer waits where a pause is to be feared."""
        if reading.phrase in (Phrase.WHOLE, Phrase.SENTENCE):
            return 1.0
        slow = self._waits.slow
        return min(max(known.own_pause_ms / USUAL_PAUSE_MS, 1 / slow), slow)
