"""The voice detectors against each other on recorded speech: `python -m bench.vad`.

Prompts with pauses between them, behind mu-law, clean and in noise. The truth is the level of the clean recording.
A frame counts only when it is more than 100 ms from a border of the truth.
"""

import os

os.environ |= {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}  # before numpy

import time
from collections.abc import Callable
from typing import NamedTuple, get_args

import numpy as np
from numpy.typing import NDArray

from sipagent.speech.settings import SpeechSettings, VadKind
from sipagent.speech.vad import VoiceDetector, make_vad
from sipagent.speech.whisper import levels_dbfs
from tests.speech.prompts import Prompt, noise, prompts, ringback, through_ulaw, tones

RATE = 8000
FRAME = 160
COLLAR = 5  # frames
SPEECH_DBFS = -22.0  # level of the active speech
FLOOR_DBFS = -68.0  # a quiet line is not digital silence
RANGE_DB = 28.0  # frames within this of the active level are speech
BRIDGE = 10  # frames: pauses under 200 ms belong to the speech around them
OVER = 5  # frames without speech in a row that end an utterance, for the delay at its end

Pcm = NDArray[np.int16]


class Score(NamedTuple):
    missed: float  # % of speech frames
    false: float  # % of other frames
    onset_ms: tuple[float, float]  # p50, p95
    end_ms: tuple[float, float]
    us: float  # CPU per frame


def active_db(pcm: Pcm) -> float:
    levels = levels_dbfs(pcm, RATE)
    return float(10 * np.log10(np.mean(10 ** (levels[levels > levels.max() - 20] / 10))))


def scaled(pcm: Pcm, db: float) -> NDArray[np.float64]:
    return pcm.astype(np.float64) * 10 ** (db / 20)


def conversation(said: list[Prompt]) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Samples, and per frame whether someone speaks."""
    random = np.random.default_rng(1)
    parts: list[NDArray[np.float64]] = [np.zeros(8000)]
    for prompt in said:
        parts += [scaled(prompt.pcm, SPEECH_DBFS - active_db(prompt.pcm)), np.zeros(random.integers(6400, 14400))]
    audio = np.concatenate(parts)
    audio = audio[: len(audio) // FRAME * FRAME]
    truth = levels_dbfs(audio.astype(np.int16), RATE) > SPEECH_DBFS - RANGE_DB
    edges = np.flatnonzero(np.diff(truth.astype(int), prepend=0, append=0))
    for end, begin in zip(edges[1:-1:2], edges[2::2], strict=True):
        if begin - end < BRIDGE:
            truth[end:begin] = True
    return audio, truth


def pink(count: int) -> NDArray[np.float64]:
    spectrum = np.fft.rfft(np.random.default_rng(2).normal(size=count))
    return np.fft.irfft(spectrum / np.sqrt(np.maximum(np.arange(len(spectrum)), 1)), count)


def babble(count: int, others: list[Prompt]) -> NDArray[np.float64]:
    """Eight voices at once, each its own prompts in a row."""
    random = np.random.default_rng(3)
    total = np.zeros(count)
    for _ in range(8):
        row = [scaled(others[i].pcm, -active_db(others[i].pcm)) for i in random.permutation(len(others))]
        total += np.resize(np.concatenate(row), count)
    return total


def mixed(audio: NDArray[np.float64], background: NDArray[np.float64] | None, snr: float) -> Pcm:
    line = audio + noise(FLOOR_DBFS, len(audio) / 8000)[: len(audio)]
    if background is not None:
        rms = np.sqrt(np.mean(background**2))
        line = line + background / rms * 32768 * 10 ** ((SPEECH_DBFS - snr) / 20)
    return through_ulaw(np.clip(line, -32768, 32767).astype(np.int16))


def decide(detector: VoiceDetector, pcm: Pcm) -> tuple[NDArray[np.bool_], float]:
    """Decisions, asked for one frame at a time as in a call, and CPU µs a frame."""
    frames = pcm[: len(pcm) // FRAME * FRAME].reshape(-1, 1, FRAME)
    began = time.process_time()
    decisions = [detector.push(frame) for frame in frames]
    return np.concatenate(decisions), 1e6 * (time.process_time() - began) / len(frames)


def score(truth: NDArray[np.bool_], heard: NDArray[np.bool_], us: float) -> Score:
    edges = np.flatnonzero(np.diff(truth.astype(int), prepend=0, append=0))
    counted = np.ones(len(truth), bool)
    for edge in edges:
        counted[max(0, edge - COLLAR) : edge + COLLAR] = False
    begins, ends = edges[0::2], edges[1::2]
    onset, over = [], []
    for i, (begin, end) in enumerate(zip(begins, ends, strict=True)):
        before = ends[i - 1] if i else 0
        after = begins[i + 1] if i + 1 < len(begins) else len(truth)
        if begin - before >= 30:
            found = np.flatnonzero(heard[begin - COLLAR : end])
            onset.append(20.0 * (found[0] - COLLAR + 1) if len(found) else np.nan)  # known at the frame's end
        if after - end >= 30:
            quiet = np.convolve(~heard[end - COLLAR : after], np.ones(OVER), "valid") == OVER
            over.append(20.0 * (np.argmax(quiet) - COLLAR) if quiet.any() else 20.0 * (after - end))
    missed = 100 * np.mean(~heard[counted & truth])
    false = 100 * np.mean(heard[counted & ~truth])
    return Score(
        float(missed), float(false),
        (float(np.nanmedian(onset)), float(np.nanpercentile(onset, 95))),
        (float(np.median(over)), float(np.percentile(over, 95))), us,
    )  # fmt: skip


def main() -> None:
    collection = prompts(80)
    audio, truth = conversation(collection[0::2])
    voices = babble(len(audio), collection[1::2])
    white = np.random.default_rng(4).normal(size=len(audio))
    kinds: tuple[VadKind, ...] = get_args(VadKind)
    makers: dict[VadKind, Callable[[int], VoiceDetector]] = {k: make_vad(SpeechSettings(vad=k)) for k in kinds}
    print(f"{len(truth)} frames of 20 ms, {100 * truth.mean():.0f} % speech, mu-law\n")
    print("| background | detector | missed % | false alarm % | onset ms p50 / p95 | end ms p50 / p95 | µs per 20 ms |")
    print("|---|---|---|---|---|---|---|")
    lines: list[tuple[str, Pcm]] = [("clean", mixed(audio, None, 0))]
    for name, background in (("white", white), ("pink", pink(len(audio))), ("babble", voices)):
        lines += [(f"{name} {snr} dB", mixed(audio, background, snr)) for snr in (20, 10, 5)]
    for name, line in lines:
        for kind in kinds:
            s = score(truth, *decide(makers[kind](RATE), line))
            print(
                f"| {name} | {kind} | {s.missed:.1f} | {s.false:.1f} | {s.onset_ms[0]:.0f} / {s.onset_ms[1]:.0f} "
                f"| {s.end_ms[0]:.0f} / {s.end_ms[1]:.0f} | {s.us:.0f} |",
                flush=True,
            )
    print("\n| no speech at all | " + " | ".join(f"{kind}: % speech, µs" for kind in kinds) + " |")
    print("|---|" + "---|" * len(kinds))
    others = {
        "quiet line": noise(FLOOR_DBFS, 20), "noise at -36 dBFS": noise(-36, 20), "noise at -46 dBFS": noise(-46, 20),
        "key tones": np.concatenate([np.pad(tones(697, 1209, seconds=0.1), (0, 800))] * 50),
        "ringback": ringback(20), "one tone, 1 kHz": tones(1000, seconds=5),
    }  # fmt: skip
    for name, line in others.items():
        results = [decide(makers[kind](RATE), through_ulaw(line)) for kind in kinds]
        print(f"| {name} | " + " | ".join(f"{100 * heard.mean():.1f}, {us:.0f}" for heard, us in results) + " |")


if __name__ == "__main__":
    main()
