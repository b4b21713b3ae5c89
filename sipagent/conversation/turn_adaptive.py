"""The wait by everything that is known: words, how sure the recogniser is of them, melody, the question that was asked,
and how long this caller's pauses within turns are.

The words choose a wait; the rest makes it longer or shorter. The figures are the best for the tuning part of the set of
`bench.turn_ends` at about 450 ms of delay (docs/turn-ends.md).
"""

from dataclasses import dataclass

from sipagent.conversation.interfaces import Expecting, Words
from sipagent.conversation.turn_end import USUAL_PAUSE_MS, Known, Wait
from sipagent.conversation.turn_words import Lexicon, Phrase, Reading, read

NO_MELODY = 0.5  # where nobody can tell


@dataclass(frozen=True, slots=True, kw_only=True)
class Waits:
    """Silence in ms for each kind of phrase, and how far the other signs may move it."""

    whole: int = 200
    sentence: int = 250
    sentence_sung: int = 240  # more for a sentence that sounds unfinished, by the cube of that
    plain: int = 420
    plain_sung: int = 350
    counting: int = 1080
    open: int = 1080
    unsure: int = 340  # more for a sentence of which the recogniser is not sure
    sure: float = 0.66  # its confidence from which it is
    unknown: int = 600  # the words are not there yet; a recogniser that is late must not make the caller wait for ever
    told: int = 120  # the provider itself says that the turn is over
    slow: float = 1.5  # at most, for a caller whose own pauses are long; and as much shorter for a quick one
    longest: int = 1800


class ByWords:
    """The wait that the words alone ask for."""

    name = "words"

    def __init__(self, language: Lexicon, waits: Waits) -> None:
        self._language = language
        self._waits = waits
        self._last: tuple[Words, Expecting, int, Reading] | None = None  # asked again at every frame of a pause

    def wait(self, known: Known) -> Wait:
        if known.words is None:
            return Wait(self._waits.unknown, "no words yet")
        return self.judge(known.words, known, NO_MELODY)[0]

    def judge(self, words: Words, known: Known, melody: float) -> tuple[Wait, Phrase]:
        """The wait for these words, spoken with this melody (0..1)."""
        waits = self._waits
        phrase, why = self._read(words, known.expecting, known.digits)
        match phrase:
            case Phrase.WHOLE:
                ms: float = waits.whole
            case Phrase.SENTENCE if words.confidence < waits.sure:
                ms, why = waits.sentence + waits.unsure + waits.sentence_sung * (1 - melody) ** 3, f"{why}, unsure"
            case Phrase.SENTENCE:
                ms = waits.sentence + waits.sentence_sung * (1 - melody) ** 3
            case Phrase.PLAIN:
                ms = waits.plain + waits.plain_sung * (1 - melody)
            case Phrase.COUNTING:
                ms = waits.counting
            case Phrase.OPEN:
                ms = waits.open
        return Wait(round(ms), why), phrase

    def _read(self, words: Words, expecting: Expecting, digits: int) -> Reading:
        last = self._last
        if last is None or last[0] is not words or last[1] is not expecting or last[2] != digits:
            self._last = last = (words, expecting, digits, read(words.text, expecting, self._language, digits))
        return last[3]


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
        if known.words is None:
            return Wait(waits.unknown, "no words yet")
        if known.words.end_of_turn:
            return Wait(waits.told, "provider")
        melody = NO_MELODY if known.prosody is None else known.prosody
        wait, phrase = self._words.judge(known.words, known, melody)
        if phrase in (Phrase.WHOLE, Phrase.SENTENCE):
            return wait
        # Who makes long pauses gets longer waits where a pause is to be feared.
        slow = min(max(known.own_pause_ms / USUAL_PAUSE_MS, 1 / waits.slow), waits.slow)
        return Wait(round(min(wait.ms * slow, waits.longest)), wait.why)
