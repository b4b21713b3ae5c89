"""Who has answered: verdicts against what was really there, and how soon they came.

    python -m bench.callee [--no-words]

Composed from Debian's recorded prompts behind µ-law, with the pauses between answer and first word that lines have
(0.2 to 1.2 s) and noise at -62 dBFS: people (one short prompt, then silence; "hello" first), voicemail (somebody's
prompt, then the instructions, then a beep of 400 to 1,400 Hz), menus, screening, fax (CED, CNG) and music (chords).
The default voice detector and recogniser; words are looked for every half second, as in a call. Every second case is
held back: thresholds were set on the others.
"""

import sys
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from sipagent.conversation.beep import ToneWatch
from sipagent.conversation.callee import Callee, CalleeWatch
from sipagent.conversation.interfaces import MakeDetector
from sipagent.conversation.languages import language
from sipagent.speech import models
from sipagent.speech.settings import SpeechSettings
from sipagent.speech.vad import make_vad
from sipagent.speech.whisper import Recogniser
from tests.speech.prompts import SOUNDS, prompts, read_wav, through_ulaw

FRAME = 160
PARTIAL_FRAMES = 25
PAUSE_FRAMES = 7
END_FRAMES = 30

MENUS = (
    "basic-pbx-ivr-main dir-intro dir-instr vm-options conf-usermenu vm-instructions demo-instruct vm-advopts"
    " followme/options vm-forward demo-enterkeywords dir-intro-fn screen-callee-options privacy-prompt"
).split()
SCREENINGS = ("priv-recordintro", "vm-rec-name")
GREETINGS = ("vm-isunavail", "vm-isonphone", "vm-nobodyavail")
HELLOS = ("hello", "hello-world", "vm-goodbye", "auth-thankyou", "beerr", "privacy-thankyou", "thank-you-for-calling")


class Case(NamedTuple):
    truth: Callee
    pcm: NDArray[np.int16]


def tone(hz: float, seconds: float) -> NDArray[np.int16]:
    time = np.arange(int(8000 * seconds)) / 8000
    return (6000 * np.sin(2 * np.pi * hz * time)).astype(np.int16)


def silence(seconds: float) -> NDArray[np.int16]:
    return np.zeros(int(8000 * seconds), np.int16)


def line(random: np.random.Generator, *parts: NDArray[np.int16]) -> NDArray[np.int16]:
    pcm = np.concatenate([silence(float(random.uniform(0.2, 1.2))), *parts, silence(4)])
    noisy = pcm + random.normal(0, 26, len(pcm))
    return through_ulaw(np.clip(noisy, -32768, 32767).astype(np.int16))


def sound(name: str) -> NDArray[np.int16] | None:
    path = SOUNDS / f"{name}.wav"
    return read_wav(path) if path.is_file() else None


def cases() -> Iterator[Case]:
    random = np.random.default_rng(5)
    short = [p.pcm for p in prompts(60, words=(1, 5), longest_s=1.9)]
    names = [p.pcm for p in prompts(30, words=(1, 3), longest_s=1.5)]
    for pcm in short:
        yield Case(Callee.HUMAN, line(random, pcm))
    for i, who in enumerate(names):
        greeting = sound(GREETINGS[i % len(GREETINGS)])
        intro = sound("vm-intro")
        assert greeting is not None and intro is not None
        beep = sound("beep") if i % 3 == 0 else tone(float(random.uniform(400, 1400)), float(random.uniform(0.15, 1.0)))
        assert beep is not None
        rest = [intro, silence(0.4)] if i % 2 else [silence(0.7)]
        yield Case(Callee.VOICEMAIL, line(random, who, silence(0.25), greeting, silence(0.2), *rest, beep))
    for name in MENUS:
        if (menu := sound(name)) is not None:
            yield Case(Callee.MENU, line(random, menu[: 8000 * 12]))
    for name in SCREENINGS:
        if (asks := sound(name)) is not None:
            yield Case(Callee.SCREENING, line(random, asks))
    for hz, seconds in ((2100, 3.0), (1100, 0.5), (2100, 1.0), (1100, 0.6)):
        yield Case(Callee.FAX, line(random, tone(hz, seconds)))
    for i in range(8):
        notes = 2.0 ** (random.integers(0, 12, 20 + i) / 12)
        chords = [sum((tone(hz * note, 0.4) // 3 for hz in (220, 330)), tone(440 * note, 0.4) // 3) for note in notes]
        yield Case(Callee.MUSIC, line(random, *chords))


def judge(
    case: Case, make: MakeDetector, recogniser: Recogniser | None
) -> tuple[Callee | None, int, Callee | None, bool, list[str]]:
    """The first verdict and when, the last one, whether a beep was heard, and why."""
    watch, tones, vad = CalleeWatch(language("en").callee), ToneWatch(), make(8000)
    frames = case.pcm[: len(case.pcm) // FRAME * FRAME].reshape(-1, FRAME)
    speech: list[NDArray[np.int16]] = []
    silent, first, beeped = 0, None, False
    why: list[str] = []
    for frame in frames:
        voiced = bool(vad.push(frame[np.newaxis])[0] >= 0.5)
        level = 10 * np.log10(max(float(np.mean(frame.astype(np.float64) ** 2)), 0.25)) - 90.3
        verdicts = [watch.frame(voiced, level, tones.push(frame))]
        beeped = beeped or watch.beeped
        silent = 0 if voiced else silent + 1
        if voiced or speech:
            speech.append(frame)
        if recogniser is not None and speech:
            due = len(speech) % PARTIAL_FRAMES == 0 or silent in (PAUSE_FRAMES, END_FRAMES)
            if due:
                text = recogniser.transcribe(np.concatenate(speech), 8000).text
                verdicts.append(watch.words(text, final=silent >= END_FRAMES))
        if silent >= END_FRAMES:
            speech = []
        for verdict in filter(None, verdicts):
            why.append(f"{verdict.callee} {verdict.after_ms} {verdict.reason}")
            first = first or verdict
    last = watch.verdict
    return (first.callee if first else None, first.after_ms if first else 0, last.callee if last else None, beeped, why)


def main() -> None:
    make = make_vad(SpeechSettings())
    recogniser = None if "--no-words" in sys.argv else Recogniser(models.locate("whisper-tiny.en", "stt"))
    found: dict[tuple[int, Callee], list[tuple[Callee | None, int, Callee | None, bool]]] = {}
    for number, case in enumerate(cases()):
        first, after_ms, last, beeped, why = judge(case, make, recogniser)
        found.setdefault((number % 2, case.truth), []).append((first, after_ms, last, beeped))
        if last is not case.truth and "--why" in sys.argv:
            print(number, case.truth, why)
    print("| half | truly | cases | right at first | right at last | verdict after p50 ms | p95 | beep heard |")
    print("|---|---|---:|---:|---:|---:|---:|---:|")
    for (half, truth), results in sorted(found.items()):
        after = [ms for _, ms, _, _ in results if ms]
        right = sum(first is truth for first, *_ in results), sum(last is truth for _, _, last, _ in results)
        beeps = sum(beeped for *_, beeped in results)
        half_of = "held back" if half else "tuned on"
        times = np.percentile(after, (50, 95)) if after else (0, 0)
        print(
            f"| {half_of} | {truth} | {len(results)} | {right[0]} | {right[1]} |"
            f" {times[0]:.0f} | {times[1]:.0f} | {beeps} |"
        )


if __name__ == "__main__":
    main()
