"""False cut-offs against delay at the end of the caller's turn: `python -m bench.turn_ends [tuning|held|both]`.

The turns of `bench.turn_set` go through the product's listener: the voice detector, the strategies, the recogniser's
words and the network's melody at every pause. What the models say is kept in a file (in the cache folder of the user),
so that trying another strategy costs seconds; how long they take is fixed: `WORDS_MS`, `MELODY_MS`.

- Cut off: the turn was declared over before its last sound.
- Delay: from the end of its last sound to the decision, over the turns that were not cut off.
"""

import os

os.environ |= {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}  # before numpy

import hashlib
import pickle
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from bench.turn_set import FRAME, RATE, Turn, turns
from sipagent.conversation.caller_pauses import CallerPauses
from sipagent.conversation.endpointing import Change, Endpointer
from sipagent.conversation.interfaces import FRAME_MS, Words
from sipagent.conversation.loudness import Loudness
from sipagent.conversation.settings import ConversationSettings
from sipagent.conversation.turn_end import FixedSilence, TurnEnd
from sipagent.conversation.turn_strategies import make
from sipagent.speech import models
from sipagent.speech.settings import SpeechSettings
from sipagent.speech.smart_turn import SmartTurn
from sipagent.speech.vad import make_vad
from sipagent.speech.whisper import Decoded, Recogniser

WORDS_MS = 120  # from the pause to its words: an idle core needs 67 (p50) to 100 (p95), the rest is the way there
MELODY_MS = 50
CACHE = Path(os.environ.get("XDG_CACHE_HOME", "") or "~/.cache").expanduser() / "sipagent" / "turn_ends.pickle"
FIXED_MS = (200, 340, 450, 600, 800, 1000, 1200, 1400)
PATIENCE = (0.7, 0.85, 1.0, 1.2, 1.5, 1.8, 2.2, 2.6)
AUDIBLE_MS = 200  # from the decision to the agent's first sound, at best: until then nobody notices a cut-off


class Models:
    """The models, asked once for each audio."""

    def __init__(self) -> None:
        self._known: dict[str, Any] = {}
        self._new = 0
        if CACHE.is_file():
            self._known = pickle.loads(CACHE.read_bytes())
        self._loaded: tuple[Recogniser, SmartTurn] | None = None
        self._make_vad = make_vad(SpeechSettings())

    def _models(self) -> tuple[Recogniser, SmartTurn]:
        if self._loaded is None:
            self._loaded = (
                Recogniser(models.locate("whisper-tiny.en", "stt")),
                SmartTurn(models.locate("smart-turn-v3.2", "turn")),
            )
        return self._loaded

    def _ask(self, what: str, pcm: NDArray[np.int16], ask: Callable[[], Any]) -> Any:
        key = what + hashlib.sha256(pcm.tobytes()).hexdigest()
        if key not in self._known:
            self._known[key] = ask()
            self._new += 1
            if self._new % 200 == 0:
                self.keep()
        return self._known[key]

    def voiced(self, pcm: NDArray[np.int16]) -> NDArray[np.bool_]:
        def detect() -> NDArray[np.bool_]:
            detector = self._make_vad(RATE)
            return np.concatenate([detector.push(frame) for frame in pcm.reshape(-1, 1, FRAME)])

        result: NDArray[np.bool_] = self._ask("vad", pcm, detect)
        return result

    def words(self, pcm: NDArray[np.int16]) -> Decoded:
        result: Decoded = self._ask("words", pcm, lambda: self._models()[0].transcribe(pcm, RATE))
        return result

    def melody(self, pcm: NDArray[np.int16]) -> float:
        result: float = self._ask("melody", pcm, lambda: self._models()[1].judge(pcm, RATE))
        return result

    def keep(self) -> None:
        if self._new:
            CACHE.parent.mkdir(parents=True, exist_ok=True)
            CACHE.write_bytes(pickle.dumps(self._known))


class Ended(NamedTuple):
    turn: Turn
    delay_ms: int  # negative: cut off, so long before its end
    resumes_ms: int  # of a turn that was cut off: until the caller goes on
    pauses: int  # for which words were asked
    why: str

    @property
    def cut(self) -> bool:
        return self.delay_ms < 0


@dataclass(frozen=True, slots=True)
class Ears:
    """What is varied besides the strategy."""

    pause_ms: int = 100
    loudness: bool = True  # the end is found by level, too
    melody: bool = True
    learns: bool = True  # from the caller's own pauses


def tell_words(endpointer: Endpointer, known: Models, said: NDArray[np.int16]) -> None:
    decoded = known.words(said)
    endpointer.hear(Words(decoded.text, decoded.confidence, paused=True))


def tell_melody(endpointer: Endpointer, known: Models, said: NDArray[np.int16]) -> None:
    endpointer.sounds(known.melody(said))


def listen(turn: Turn, strategy: TurnEnd, ears: Ears, known: Models, pauses: CallerPauses) -> Ended:
    """One turn through endpointing, up to the decision that it is over."""
    endpointer = Endpointer(ConversationSettings(pause_ms=ears.pause_ms), strategy, pauses)
    endpointer.expecting = turn.expecting
    loudness = Loudness()
    frames = turn.pcm.reshape(-1, FRAME)
    voiced = known.voiced(turn.pcm)
    preroll = (ConversationSettings().preroll_ms + ConversationSettings().start_ms) // FRAME_MS
    begin, asked = 0, 0
    coming: list[tuple[int, Callable[[], None]]] = []  # by frame: what the models will have said by then
    for i, frame in enumerate(frames):
        for _, say in [each for each in coming if each[0] == i]:
            say()
        loud = bool(voiced[i]) and (loudness.push(frame) or not ears.loudness)
        match endpointer.push(i, bool(voiced[i]), loud):
            case Change.STARTED:
                begin = max(0, i + 1 - preroll)
            case Change.PAUSED:
                asked += 1
                said = turn.pcm[begin * FRAME : (i + 1) * FRAME]
                heard = turn.pcm[begin * FRAME : (endpointer.last_voiced + 1) * FRAME]
                coming.append((i + 1 + WORDS_MS // FRAME_MS, partial(tell_words, endpointer, known, said)))
                if ears.melody:
                    coming.append((i + 1 + MELODY_MS // FRAME_MS, partial(tell_melody, endpointer, known, heard)))
            case Change.RESUMED:
                coming.clear()
            case Change.ENDED:
                at = (i + 1) * FRAME
                delay = (at - turn.end) * 1000 // RATE
                later = np.flatnonzero(voiced[i + 1 :])
                resumes = int(later[0]) * FRAME_MS if delay < 0 and len(later) else 0
                why = endpointer.decided.why if endpointer.decided else "length"
                return Ended(turn, delay, resumes, asked, why)
            case _:
                pass
    raise AssertionError(f"turn {turn.name} has no end")


def run(said: Sequence[Turn], make_strategy: Callable[[], TurnEnd], ears: Ears, known: Models) -> list[Ended]:
    """All turns, each caller's with what was learned from the ones before."""
    ended: list[Ended] = []
    pauses, caller = CallerPauses(), -1
    for turn in said:
        if turn.caller != caller or not ears.learns:
            pauses, caller = CallerPauses(), turn.caller
        ended.append(listen(turn, make_strategy(), ears, known, pauses))
    return ended


class Score(NamedTuple):
    cut: float  # % of turns
    audible: float  # % of turns: cut off, and the agent began to speak before the caller went on
    mean_ms: float
    p50_ms: float
    p95_ms: float
    pauses: float  # for which the models were asked, a turn


def score(ended: Sequence[Ended]) -> Score:
    cut = [each for each in ended if each.cut]
    delays = [each.delay_ms for each in ended if not each.cut]
    return Score(
        100 * len(cut) / len(ended),
        100 * sum(each.resumes_ms > AUDIBLE_MS for each in cut) / len(ended),
        float(np.mean(delays)), float(np.median(delays)), float(np.percentile(delays, 95)),
        float(np.mean([each.pauses for each in ended])),
    )  # fmt: skip


def row(name: str, s: Score) -> str:
    return (
        f"| {name} | {s.cut:.1f} | {s.audible:.1f} | {s.mean_ms:.0f} | {s.p50_ms:.0f} / {s.p95_ms:.0f} "
        f"| {s.pauses:.1f} |"
    )


def curve(said: Sequence[Turn], known: Models) -> None:
    settings = ConversationSettings()
    print("| strategy | cut off % | audibly % | delay ms mean | p50 / p95 | pauses asked about |")
    print("|---|---:|---:|---:|---:|---:|")
    for ms in FIXED_MS:
        print(row(f"silence, {ms} ms", score(run(said, partial(FixedSilence, ms), Ears(), known))), flush=True)
    for name in ("words", "melody", "adaptive"):
        for patience in PATIENCE:
            ended = run(said, partial(make, Plan(name, patience), settings), Ears(), known)
            print(row(f"{name}, patience {patience:g}", score(ended)), flush=True)


class Plan(NamedTuple):
    strategy: str
    patience: float
    silence_ms: int = 0
    answers: dict[str, float] = {}


def parts(said: Sequence[Turn], known: Models) -> None:
    """The default, by kind of turn; and what each of its signs is worth."""
    settings = ConversationSettings()
    default = run(said, lambda: make("adaptive", settings), Ears(), known)
    print("\n| kind of turn | turns | cut off % | delay ms mean | p95 |")
    print("|---|---:|---:|---:|---:|")
    for kind in dict.fromkeys(turn.kind for turn in said):
        of = [each for each in default if each.turn.kind == kind]
        s = score(of)
        print(f"| {kind} | {len(of)} | {s.cut:.1f} | {s.mean_ms:.0f} | {s.p95_ms:.0f} |")
    print("\n| the default without | cut off % | audibly % | delay ms mean | p50 / p95 | pauses asked about |")
    print("|---|---:|---:|---:|---:|---:|")
    for name, ears in (
        ("nothing", Ears()), ("melody", Ears(melody=False)), ("the caller's own pauses", Ears(learns=False)),
        ("loudness", Ears(loudness=False)),
    ):  # fmt: skip
        print(row(name, score(run(said, lambda: make("adaptive", settings), ears, known))))


def main(part: str) -> None:
    known = Models()
    said = [turn for turn in turns() if part == "both" or turn.held_back == (part == "held")]
    try:
        curve(said, known)
        parts(said, known)
    finally:
        known.keep()


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "held")
