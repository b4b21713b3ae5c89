"""How often speech is taken for a key and a key is missed, in band: `python -m bench.talk_off [directory of voices]`.

Speech: every voice of Debian's Asterisk prompts that is installed (asterisk-core-sounds-{en,es,fr,it,ru}-wav) or lies
in the directory, at several speeds (which move pitch and formants alike) and levels. All of it goes through µ-law.
"""

import os

os.environ |= {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}  # before numpy

import sys
import time
import wave
from collections.abc import Callable, Iterable
from fractions import Fraction
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.signal import resample_poly

from sipagent.media.tones import HIGH_HZ, KEYS, LOW_HZ, ZERO_DBM0, ToneDetector
from tests.speech.prompts import INSTALL, SOUNDS, prompts, read_wav, through_ulaw

Pcm = NDArray[np.int16]
Signal = NDArray[np.float64]

FRAME = 160
STREAMS = 200
SPEEDS = [Fraction(4, 5), Fraction(9, 10), Fraction(1), Fraction(11, 10), Fraction(5, 4)]
LEVELS_DBM0 = (-12.0, -18.0, -24.0, -30.0)  # of the speech while it lasts
TRIALS = 20  # per key, each with its own phases and its own place in the frame
DIGITS = "".join(KEYS)


def speech(voice: Path) -> Pcm:
    parts = []
    for path in sorted(voice.rglob("*.wav")):
        if path.parent.name != "silence":
            try:
                parts.append(read_wav(path))
            except (AssertionError, wave.Error):
                print(f"left out: {path.name} is not 8 kHz mono", file=sys.stderr)
    return np.concatenate(parts)


def scaled(pcm: Pcm, dbm0: float) -> Signal:
    """At this mean level of the frames within 20 dB of the loudest."""
    frames = pcm[: len(pcm) // FRAME * FRAME].reshape(-1, FRAME).astype(np.float64)
    powers = (frames**2).mean(axis=1)
    active = powers[powers > powers.max() / 100].mean()
    return pcm.astype(np.float64) * float(ZERO_DBM0 / np.sqrt(2) * 10 ** (dbm0 / 20) / np.sqrt(active))


def behind_ulaw(signal: Signal) -> Pcm:
    return through_ulaw(np.clip(np.rint(signal), -32767, 32767).astype(np.int16))


def run(streams: Pcm) -> tuple[list[list[tuple[str, int]]], NDArray[np.bool_]]:
    """What was pressed in each of [n, samples], and which frames were held to be tones."""
    n, frames = len(streams), streams.shape[1] // FRAME
    detector, slots = ToneDetector(n), np.arange(n)
    pressed: list[list[tuple[str, int]]] = [[] for _ in range(n)]
    active = np.zeros((n, frames), np.bool_)
    for frame in range(frames):
        detected = detector.detect(slots, streams[:, frame * FRAME : (frame + 1) * FRAME])
        active[:, frame] = detected.active
        for slot, digit, ms in detected.pressed:
            pressed[slot].append((digit, ms))
    return pressed, active


def talk_off(voices: Iterable[Path]) -> None:
    print("| voice | minutes | with variations | false digits | per hour | frames held to be tones |")
    print("|---|---|---|---|---|---|")
    all_minutes, all_false = 0.0, 0
    for voice in voices:
        original = speech(voice)
        minutes, found, held, frames = 0.0, [], 0, 0
        for speed in SPEEDS:
            faster = resample_poly(original.astype(np.float64), speed.denominator, speed.numerator)
            for dbm0 in LEVELS_DBM0:
                pcm = behind_ulaw(scaled(faster.astype(np.int16), dbm0))
                pcm = pcm[: len(pcm) // (FRAME * STREAMS) * FRAME * STREAMS]
                pressed, active = run(pcm.reshape(STREAMS, -1))
                minutes += len(pcm) / 8000 / 60
                found += [f"{digit} {ms} ms" for each in pressed for digit, ms in each]
                held, frames = held + int(active.sum()), frames + active.size
        print(
            f"| {voice.name} | {len(original) / 8000 / 60:.0f} | {minutes:.0f} | "
            f"{len(found)}{' (' + ', '.join(found) + ')' if 0 < len(found) < 20 else ''} | "
            f"{60 * len(found) / minutes:.2f} | {100 * held / frames:.3f} % |",
            flush=True,
        )
        all_minutes, all_false = all_minutes + minutes, all_false + len(found)
    print(f"| all |  | {all_minutes:.0f} | {all_false} | {60 * all_false / all_minutes:.2f} |  |\n")


def keys(
    random: np.random.Generator,
    *,
    ms: float = 50.0,
    dbm0: float = -10.0,
    twist_db: float = 0.0,
    off: float = 0.0,
    snr_db: float | None = None,
) -> Pcm:
    """One key per stream. The louder frequency has this level, `off` is the relative error of both frequencies."""
    n, samples = len(DIGITS) * TRIALS, 12 * FRAME
    time = np.arange(samples) / 8000
    start = random.uniform(0.04, 0.06, (n, 1))
    gate = (time >= start) & (time < start + ms / 1000)
    low = np.repeat([LOW_HZ[index // 4] for index in range(16)], TRIALS)[:, None]
    high = np.repeat([HIGH_HZ[index % 4] for index in range(16)], TRIALS)[:, None]
    loud = ZERO_DBM0 * 10 ** (dbm0 / 20)
    waves = np.zeros((n, samples))
    for hz, db in ((low, min(0.0, -twist_db)), (high, min(0.0, twist_db))):
        phase = random.uniform(0, 2 * np.pi, (n, 1))
        waves += loud * 10 ** (db / 20) * np.sin(2 * np.pi * hz * (1 + off) * time + phase)
    if snr_db is not None:
        power = loud**2 / 2 * (1 + 10 ** (-abs(twist_db) / 10))
        noise = random.normal(0, np.sqrt(power * 10 ** (-snr_db / 10)), waves.shape)
        return behind_ulaw(waves * gate + noise)
    return behind_ulaw(waves * gate)


def hits(streams: Pcm, times: int = 1) -> float:
    """% of the streams in which the key was heard just so many times, and no other."""
    pressed, _ = run(streams)
    right = [[digit for digit, _ in each] == [DIGITS[slot // TRIALS]] * times for slot, each in enumerate(pressed)]
    return 100 * float(np.mean(right))


def sweep(title: str, values: list[float], score: Callable[[np.random.Generator, float], float]) -> None:
    print(f"| {title} | " + " | ".join(f"{value:g}" for value in values) + " |")
    print("|---" * (len(values) + 1) + "|")
    scores = [score(np.random.default_rng(1), value) for value in values]
    print("| % | " + " | ".join(f"{each:.1f}" for each in scores) + " |\n", flush=True)


def twice(random: np.random.Generator, pause_ms: float) -> Pcm:
    """A key with a gap of this length in it."""
    streams = keys(random, ms=80 + pause_ms)
    starts = np.argmax(streams != 0, axis=1) + 320
    for stream, start in zip(streams, starts, strict=True):
        stream[start : start + int(pause_ms * 8)] = 0
    return streams


def hit_rates() -> None:
    print(f"Keys heard, {len(DIGITS) * TRIALS} per figure; 50 ms, -10 dBm0 and no noise where no other is said.\n")
    levels = [-3.0, -6, -10, -15, -20, -25, -28, -30, -32, -34, -36, -40]
    errors = [-5.0, -3.5, -3, -2.5, -2, -1.5, -1, 0, 1, 1.5, 2, 2.5, 3, 3.5, 5]
    lengths = [15.0, 20, 23, 26, 28, 30, 32, 34, 36, 38, 40, 45, 50, 60, 80, 100]
    ratios = [4.0, 6, 8, 10, 12, 15, 20, 30]
    sweep("level of each, dBm0", levels, lambda r, x: hits(keys(r, dbm0=x)))
    sweep("the same, 40 ms, SNR 15 dB", levels, lambda r, x: hits(keys(r, dbm0=x, ms=40, snr_db=15)))
    twists = [-14.0, -12, -11, -10, -9, -8, -4, 0, 4, 5, 6, 7, 8, 10]
    sweep("twist, dB (high over low)", twists, lambda r, x: hits(keys(r, twist_db=x)))
    sweep("frequency error, %", errors, lambda r, x: hits(keys(r, off=x / 100)))
    sweep("the same, SNR 15 dB", errors, lambda r, x: hits(keys(r, off=x / 100, snr_db=15)))
    sweep("SNR, dB (white noise in 4 kHz)", ratios, lambda r, x: hits(keys(r, snr_db=x)))
    sweep("the same, 40 ms", ratios, lambda r, x: hits(keys(r, snr_db=x, ms=40)))
    sweep("the same, 40 ms, +1.5 %, twist -8 dB", ratios, lambda r, x: hits(worst(r, x, -8)))
    sweep("the same, 40 ms, +1.5 %, twist 4 dB", ratios, lambda r, x: hits(worst(r, x, 4)))
    sweep("duration, ms", lengths, lambda r, x: hits(keys(r, ms=x)))
    sweep("the same, SNR 15 dB", lengths, lambda r, x: hits(keys(r, ms=x, snr_db=15)))
    pauses = [5.0, 10, 15, 20, 25, 30, 35, 38, 40, 45, 50]
    sweep("40 ms, a pause of so many ms, 40 ms: heard as one", pauses, lambda r, x: hits(twice(r, x)))
    sweep("the same: heard as two", pauses, lambda r, x: hits(twice(r, x), 2))


def worst(random: np.random.Generator, snr_db: float, twist_db: float) -> Pcm:
    return keys(random, ms=40, snr_db=snr_db, twist_db=twist_db, off=0.015)


def flags() -> None:
    """How much of a key the recogniser would hear, and for how long it hears nothing."""
    print("| 100 ms keys, SNR dB | onset before the first flagged frame, ms: mean, worst | tail after the last |")
    print("|---|---|---|")
    for snr_db in (10.0, 15.0, 20.0, 30.0):
        clean, noisy = (keys(np.random.default_rng(1), ms=100, snr_db=each) for each in (90.0, snr_db))
        sounding = np.abs(clean) > 100
        begin, end = sounding.argmax(axis=1) / 8, (sounding.shape[1] - sounding[:, ::-1].argmax(axis=1)) / 8
        _, active = run(noisy)
        first, last = 20 * active.argmax(axis=1), 20 * (active.shape[1] - active[:, ::-1].argmax(axis=1))
        onset, tail = np.maximum(first - begin, 0), np.maximum(end - last, 0)
        print(f"| {snr_db:g} | {onset.mean():.1f}, {onset.max():.0f} | {tail.mean():.1f}, {tail.max():.0f} |")
    print()


def cost() -> None:
    random = np.random.default_rng(1)
    print("| calls | µs per call-frame: speech | one in 20 a key, the others speech | all a key |")
    print("|---|---|---|---|")
    talk = behind_ulaw(scaled(np.concatenate([prompt.pcm for prompt in prompts(20)]), -15))
    talk = talk[: len(talk) // FRAME * FRAME].reshape(-1, FRAME)
    time_s = np.arange(FRAME) / 8000
    # 700 Hz and 1350 Hz make whole turns in 20 ms, so that the frame can be repeated.
    key = np.rint(5000 * (np.sin(2 * np.pi * 700 * time_s) + np.sin(2 * np.pi * 1350 * time_s))).astype(np.int16)
    for n in (1, 100, 1000):
        slots, places, figures = np.arange(n), random.integers(0, len(talk), n), []
        for part in (0.0, 0.05, 1.0):
            dialling = np.arange(n) < np.ceil(part * n)
            rounds = max(100, 20_000 // n)
            detector, spent = ToneDetector(n), 0.0
            for number in range(rounds):
                pcm = np.where(dialling[:, None], key, talk[(places + number) % len(talk)])
                began = time.process_time()
                detector.detect(slots, pcm)
                spent += time.process_time() - began
            figures.append(f"{1e6 * spent / rounds / n:.2f}")
        print(f"| {n} | " + " | ".join(figures) + " |", flush=True)


def main(arguments: list[str]) -> None:
    directories = [SOUNDS.parent, *map(Path, arguments)]
    voices = sorted({path.resolve() for each in directories for path in each.glob("*_*_[fm]_*") if path.is_dir()})
    if not voices:
        raise FileNotFoundError(f"the recorded prompts are not installed; {INSTALL}")
    talk_off(voices)
    hit_rates()
    flags()
    cost()


if __name__ == "__main__":
    main(sys.argv[1:])
