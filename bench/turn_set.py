"""A labelled set of callers' turns for `bench.turn_ends`, composed anew each time from recorded human speech.

The speech is Debian's Asterisk prompts (one speaker). A turn is one or several recordings or parts of them with pauses
between; what makes it, and who it is said to be by, is drawn from a generator with a fixed seed, so the set is the same
everywhere. docs/turn-ends.md tells how and why.
"""

import gzip
import hashlib
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from bench.vad import active_db, scaled
from sipagent.conversation.interfaces import Expecting
from sipagent.core.resample import resample
from sipagent.speech.whisper import levels_dbfs
from tests.speech.prompts import SOUNDS, TRANSCRIPTS, noise, read_wav, through_ulaw
from tests.wer import normalise

RATE = 8000
FRAME = 160
TUNING_SHARE = 0.6
TURNS_PER_CALLER = 8
SPEECH_RANGE_DB = 28.0  # frames within this of the active level are speech, as in bench.vad
FLOOR_DBFS = -66.0
BREATH_DB, BREATH_FRAMES = 30.0, 3  # so far below the loudest, and so long: seldom a consonant inside a word
BEFORE_S, BEHIND_S = 0.6, 3.2
PAUSES_MS = (150, 2000)  # drawn ones are kept within

Pcm = NDArray[np.int16]
Wave = NDArray[np.float64]

# Median (ms) and spread (sigma of the logarithm) of the pauses put in, by where they are; see docs/turn-ends.md.
WITHIN = (420.0, 0.50)  # in the midst of a sentence
GROUPS = (450.0, 0.40)  # between groups of digits or letters
SENTENCES = (500.0, 0.40)  # between two sentences
SEARCHING = (650.0, 0.50)  # behind a word that cannot be the last, while the rest is looked for


@dataclass(frozen=True, slots=True)
class Turn:
    name: str
    kind: str
    held_back: bool
    caller: int
    expecting: Expecting
    text: str
    pauses_ms: tuple[int, ...]  # put in; the recordings have pauses of their own besides
    pcm: Pcm  # 8 kHz, behind mu-law, with silence before and behind
    end: int  # the sample behind the last speech


@dataclass(slots=True)
class _Draft:
    kind: str
    parts: list[Wave]
    pauses: list[tuple[float, float]]  # between the parts
    text: str
    expecting: Expecting = Expecting.ANYTHING


@dataclass(slots=True)
class _Recordings:
    """What there is to compose from; sentences are divided between the tuned and the held-back turns."""

    texts: dict[str, str] = field(default_factory=dict)

    @classmethod
    def read(cls) -> "_Recordings":
        found = cls()
        for line in gzip.decompress(TRANSCRIPTS.read_bytes()).decode("utf-8", "replace").splitlines():
            name, colon, text = line.partition(":")
            if colon and not line.startswith(";") and (SOUNDS / f"{name.strip()}.wav").is_file():
                found.texts[name.strip()] = text.strip()
        return found

    def wave(self, name: str) -> Wave:
        """The speech of a recording, at a common level, without the silence around it."""
        pcm = read_wav(SOUNDS / f"{name}.wav")
        return trimmed(scaled(pcm, -22.0 - active_db(pcm)))

    def sentences(self, *, held_back: bool) -> list[str]:
        return [
            name
            for name, text in self.texts.items()
            if "/" not in name
            and not re.search(r"[\[\]()<>*#]|\.\.\.", text)
            and name not in OPEN
            and 3 <= len(normalise(text).split()) <= 18
            and _held_back(name) == held_back
        ]


# Recordings that end in the middle of what they say, with the voice that goes with it, and what may follow.
OPEN = {
    "conf-enteringno": "digits", "vm-theperson": "digits", "queue-thereare": "digits", "vm-num-i-have": "digits",
    "vm-from-extension": "digits", "vm-from-phonenumber": "digits", "queue-holdtime": "minutes",
    "conf-thereare": "number", "at-tone-time-exactly": "time", "followme/call-from": "digits",
    "if-correct-press": "digit", "to-extension": "digits", "vm-onefor": "word", "vm-press": "digit",
    "vm-youhave": "messages", "privacy-to-blacklist-last-caller": "digits", "dir-multi1": "digit",
    "queue-quantity1": "number", "is-set-to": "number", "you-entered": "digits", "telephone-number": "digits",
}  # fmt: skip
JOINING = ("vm-and", "vm-and", "with", "vm-from", "digits/at")
SHORT = (
    "vm-no", "auth-thankyou", "goodbye", "vm-goodbye", "hello", "one-moment-please", "please-try-again", "im-sorry",
    "digits/today", "digits/tomorrow", "digits/yesterday", "hello-world", "cancelled", "vm-Urgent", "number",
    *(f"digits/day-{i}" for i in range(7)), *(f"digits/mon-{i}" for i in range(12)),
    *(f"digits/{i}" for i in (2, 3, 4, 7, 10, 12, 20)), "vm-received", "transfer", "vm-Family", "vm-Work",
)  # fmt: skip


def trimmed(wave: Wave) -> Wave:
    levels = levels_dbfs(np.clip(wave, -32768, 32767).astype(np.int16), RATE)
    loud = np.flatnonzero(levels > levels.max() - 40.0)
    return wave[loud[0] * FRAME : (loud[-1] + 1) * FRAME]


def _held_back(name: str) -> bool:
    return hashlib.sha256(name.encode()).digest()[0] / 256 >= TUNING_SHARE


def divided(wave: Wave, random: np.random.Generator, count: int) -> list[Wave]:
    """A sentence cut at up to `count` of the places where its speaker paused, however briefly."""
    levels = levels_dbfs(np.clip(wave, -32768, 32767).astype(np.int16), RATE)
    quiet = levels < levels.max() - BREATH_DB
    edges = np.flatnonzero(np.diff(quiet.astype(int), prepend=0, append=0))
    breaks = [(a + b) // 2 for a, b in zip(edges[::2], edges[1::2], strict=True) if b - a >= BREATH_FRAMES]
    chosen: list[int] = []
    for at in random.permutation(breaks) if breaks else []:
        inner = 15 <= at <= len(levels) - 15 and all(abs(int(at) - other) > 25 for other in chosen)
        if inner and len(chosen) < count:
            chosen.append(int(at))
    cuts = [0, *(at * FRAME + FRAME // 2 for at in sorted(chosen)), len(wave)]
    return [_faded(wave[a:b]) for a, b in zip(cuts, cuts[1:], strict=False)]


def _faded(part: Wave) -> Wave:
    """5 ms up and down, so that a cut does not click."""
    ramp = np.minimum(1.0, np.arange(len(part)) / 40)
    faded: Wave = part * ramp * ramp[::-1]
    return faded


class _Composer:
    def __init__(self, held_back: bool) -> None:
        self.held_back = held_back
        self.random = np.random.default_rng(2 if held_back else 1)
        self.recordings = _Recordings.read()
        self.names = self.recordings.sentences(held_back=held_back)
        self.random.shuffle(self.names)
        self._next = 0

    def sentence(self) -> str:
        name = self.names[self._next % len(self.names)]
        self._next += 1
        return name

    def wave(self, name: str) -> Wave:
        return self.recordings.wave(name)

    def text(self, name: str) -> str:
        return self.recordings.texts[name]

    def several(self, names: list[str], gap_ms: tuple[int, int] = (20, 80)) -> Wave:
        """Recordings in a row, as one speaks a group of digits."""
        parts: list[Wave] = []
        for name in names:
            parts += [self.wave(name), np.zeros(int(self.random.integers(*gap_ms)) * 8)]
        return np.concatenate(parts[:-1])

    def pick(self, names: tuple[str, ...]) -> str:
        return names[int(self.random.integers(len(names)))]

    # --- kinds of turns ---

    def plain(self) -> _Draft:
        name = self.sentence()
        return _Draft("plain", [self.wave(name)], [], self.text(name))

    def short(self) -> _Draft:
        name = self.pick(SHORT)
        expecting = Expecting.ANYTHING
        if self.random.random() < 0.6:
            text = self.text(name).lower()
            if name.startswith("digits/"):
                expecting = Expecting.NUMBER if text in _NUMBERS else Expecting.DATE
            elif text == "no":
                expecting = Expecting.YES_NO
        return _Draft("short", [self.wave(name)], [], self.text(name), expecting)

    def within(self) -> _Draft:
        while True:
            name = self.sentence()
            if re.search(r"[.!?;:] ", self.text(name)):
                continue
            parts = divided(self.wave(name), self.random, int(self.random.integers(1, 3)))
            if len(parts) > 1:
                return _Draft("within", parts, [WITHIN] * (len(parts) - 1), self.text(name))

    def two(self) -> _Draft:
        first, second = self.sentence(), self.sentence()
        return _Draft(
            "two sentences", [self.wave(first), self.wave(second)], [SENTENCES],
            f"{self.text(first)} {self.text(second)}",
        )  # fmt: skip

    def joining(self) -> _Draft:
        first, word, second = self.sentence(), self.pick(JOINING), self.sentence()
        begin = np.concatenate([self.wave(first), np.zeros(80 * 8), self.wave(word)])
        return _Draft(
            "joining word", [begin, self.wave(second)], [SEARCHING],
            f"{self.text(first)} {self.text(word)} {self.text(second)}",
        )  # fmt: skip

    def searching(self) -> _Draft:
        name = self.pick(tuple(OPEN))
        rest, text = self._rest(OPEN[name])
        return _Draft("open phrase", [self.wave(name), rest], [SEARCHING], f"{self.text(name)} {text}")

    def _rest(self, kind: str) -> tuple[Wave, str]:
        number = self.pick(("digits/2", "digits/3", "digits/5", "digits/12", "digits/20"))
        match kind:
            case "digits":
                names = [f"digits/{d}" for d in self.random.integers(0, 10, int(self.random.integers(3, 5)))]
            case "digit":
                names = [number]
            case "number":
                names = [number]
            case "minutes":
                names = [number, "minutes"]
            case "messages":
                names = [number, "vm-messages"]
            case "time":
                names = [self.pick(("digits/9", "digits/10", "digits/4")), "digits/oclock"]
            case _:
                names = ["vm-messages"]
        return self.several(names), " ".join(self.text(name) for name in names)

    def digits(self) -> _Draft:
        sizes = [(3, 3, 4), (3, 4), (2, 2, 3), (4, 4), (3, 3), (2, 2, 2), (1, 3, 3, 4), (4, 2), (5, 3)]
        groups = [
            [f"digits/{d}" for d in self.random.integers(0, 10, size)]
            for size in sizes[int(self.random.integers(len(sizes)))]
        ]
        parts = [self.several(group) for group in groups]
        texts = [" ".join(self.text(name) for name in group) for group in groups]
        pauses = [GROUPS] * (len(parts) - 1)
        expecting = Expecting.DIGITS if self.random.random() < 0.6 else Expecting.ANYTHING
        if expecting is Expecting.ANYTHING:  # nobody begins with a number unasked
            name = self.pick(("vm-num-i-have", "telephone-number", "vm-from-phonenumber"))
            parts, pauses, texts = [self.wave(name), *parts], [WITHIN, *pauses], [self.text(name), *texts]
        return _Draft("digits", parts, pauses, " ".join(texts), expecting)

    def spelled(self) -> _Draft:
        letters = "abcdefghijklmnopqrstuvwxyz"
        word = [letters[i] for i in self.random.integers(0, 26, int(self.random.integers(3, 8)))]
        if self.random.random() < 0.4:  # an e-mail address
            at = self.random.integers(2, 5)
            groups = [
                [f"letters/{c}" for c in word[:at]], ["letters/at", *(f"letters/{c}" for c in word[at:] or ["k"])],
                ["letters/dot", "letters/c", "letters/o", "letters/m"],
            ]  # fmt: skip
        elif self.random.random() < 0.3:
            names = [f"phonetic/{c}_p" for c in word]
            groups = [names[i : i + 2] for i in range(0, len(names), 2)]
        else:
            names = [f"letters/{c}" for c in word]
            size = int(self.random.integers(2, 4))
            groups = [names[i : i + size] for i in range(0, len(names), size)]
        texts = [" ".join(self.text(name) for name in group) for group in groups]
        expecting = Expecting.SPELLING if self.random.random() < 0.7 else Expecting.ANYTHING
        parts = [self.several(group, (40, 120)) for group in groups]
        return _Draft("spelled", parts, [GROUPS] * (len(parts) - 1), " ".join(texts), expecting)

    def date(self) -> _Draft:
        day, month = f"digits/day-{self.random.integers(7)}", f"digits/mon-{self.random.integers(12)}"
        ordinal, hour = f"digits/h-{self.random.integers(1, 20)}", f"digits/{self.random.integers(1, 13)}"
        groups = [
            [[day], ["digits/at", hour, "digits/oclock"]],
            [[day, "digits/at"], [hour, "digits/p-m"]],
            [[month], [ordinal]],
            [[day, month, ordinal], ["digits/at", hour]],
        ][int(self.random.integers(4))]
        texts = [" ".join(self.text(name) for name in group) for group in groups]
        expecting = Expecting.DATE if self.random.random() < 0.6 else Expecting.ANYTHING
        return _Draft(
            "date", [self.several(g) for g in groups], [WITHIN] * (len(groups) - 1), " ".join(texts), expecting
        )


_NUMBERS = {"two", "three", "four", "seven", "ten", "twelve", "twenty"}
# How many of each kind, together in both parts.
KINDS: dict[str, tuple[Callable[[_Composer], _Draft], int]] = {
    "plain": (_Composer.plain, 90),
    "short": (_Composer.short, 50),
    "within": (_Composer.within, 64),
    "digits": (_Composer.digits, 40),
    "open phrase": (_Composer.searching, 26),
    "joining word": (_Composer.joining, 16),
    "spelled": (_Composer.spelled, 24),
    "date": (_Composer.date, 16),
    "two sentences": (_Composer.two, 14),
}


def turns() -> Iterator[Turn]:
    """All turns, caller by caller in the order they are said; first those to tune on, then those held back."""
    callers = 0
    for held_back in (False, True):
        composer = _Composer(held_back)
        share = 1 - TUNING_SHARE if held_back else TUNING_SHARE
        drafts = [make(composer) for make, count in KINDS.values() for _ in range(round(count * share))]
        order = composer.random.permutation(len(drafts))
        for start in range(0, len(order), TURNS_PER_CALLER):
            yield from _said_by(callers, [drafts[i] for i in order[start : start + TURNS_PER_CALLER]], composer)
            callers += 1


def _said_by(caller: int, drafts: list[_Draft], composer: _Composer) -> Iterator[Turn]:
    """The turns of one caller, who is quicker or slower, louder or softer, higher or lower than others."""
    random = composer.random
    pace = float(np.exp(random.normal(0, 0.25)))  # of the pauses
    pitch = float(random.uniform(0.92, 1.08))
    dbfs = float(random.uniform(-32, -20))
    for number, draft in enumerate(drafts):
        pauses = [int(np.clip(m * pace * np.exp(random.normal(0, s)), *PAUSES_MS)) for m, s in draft.pauses]
        pieces: list[Wave] = [np.zeros(int(BEFORE_S * RATE))]
        for i, part in enumerate(draft.parts):
            pieces.append(resample(part.astype(np.float32), RATE * pitch, RATE).astype(np.float64))
            if i < len(pauses):
                pieces.append(np.zeros(pauses[i] * RATE // 1000))
        pieces.append(np.zeros(int(BEHIND_S * RATE)))
        wave = np.concatenate(pieces) * 10 ** ((dbfs + 22.0) / 20)
        wave = wave[: len(wave) // FRAME * FRAME]
        loud = np.flatnonzero(levels_dbfs(wave.astype(np.int16), RATE) > dbfs - SPEECH_RANGE_DB)
        line = wave + noise(FLOOR_DBFS, len(wave) / RATE + 1, seed=caller * 100 + number)[: len(wave)]
        yield Turn(
            name=f"{caller}.{number}",
            kind=draft.kind,
            held_back=composer.held_back,
            caller=caller,
            expecting=draft.expecting,
            text=draft.text,
            pauses_ms=tuple(pauses),
            pcm=through_ulaw(np.clip(line, -32768, 32767).astype(np.int16)),
            end=int(loud[-1] + 1) * FRAME,
        )


def main() -> None:
    """Tells what is in the set."""
    made = list(turns())
    print("| kind | turns to tune on | held back | with pauses put in | mean seconds |")
    print("|---|---:|---:|---:|---:|")
    for kind in [*KINDS, ""]:
        of = [turn for turn in made if turn.kind == kind or not kind]
        held = sum(turn.held_back for turn in of)
        paused = sum(bool(turn.pauses_ms) for turn in of)
        seconds = np.mean([turn.end / RATE - BEFORE_S for turn in of])
        print(f"| {kind or 'together'} | {len(of) - held} | {held} | {paused} | {seconds:.1f} |")


if __name__ == "__main__":
    main()
