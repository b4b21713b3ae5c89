"""What the echo gate is worth: `python -m bench.echo [seconds per cell]`.

The agent speaks recorded prompts; they come back from the far end delayed, weaker, through G.711 both ways, with line
noise. The product's voice detectors and endpointer decide about barge-in with and without the gate.

- False starts: decisions for barge-in (`barge_in_ms` of speech) per minute of the agent's speech, nobody else talking.
- Missed, added delay: a caller speaks a prompt into the agent's; against the same caller on a line without echo.
"""

import os

os.environ |= {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}  # before numpy

import sys
import time
from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from bench.vad import active_db, scaled
from sipagent.conversation.echo_gate import EchoGate
from sipagent.conversation.endpointing import Change, Endpointer
from sipagent.conversation.settings import ConversationSettings
from sipagent.conversation.turn_end import FixedSilence
from sipagent.speech.settings import SpeechSettings, VadKind
from sipagent.speech.vad import VoiceDetector, make_vad
from tests.speech.prompts import Prompt, noise, prompts, through_ulaw

FRAME = 160
AGENT_DBFS = -20.0
FLOOR_DBFS = -66.0
DELAYS_MS = (20, 80, 150, 220, 300)
LOSSES_DB = (10, 15, 20, 28, 35)
CALLER_DBFS = (-20.0, -30.0)
BUFFER_MS = 60  # of playout at our end: part of the delay as the gate sees it
KINDS: tuple[VadKind, ...] = ("gated", "webrtc")

Pcm = NDArray[np.int16]
Wave = NDArray[np.float64]
Bools = NDArray[np.bool_]


class Line(NamedTuple):
    """How the agent's voice comes back."""

    name: str
    room: bool = False  # a handset's passband, 60 ms of reverberation, a loudspeaker that saturates
    jitter: bool = False  # playout moves by 20 ms every 2 to 6 s, and 1 % of the frames are concealed by repetition


LINES = (Line("plain"), Line("jitter", jitter=True), Line("handset", room=True), Line("both", room=True, jitter=True))


def speech(said: list[Prompt], seconds: float, dbfs: float, seed: int) -> Wave:
    """Prompts with short pauses, as an agent reads them."""
    random = np.random.default_rng(seed)
    parts: list[Wave] = []
    count = int(seconds * 8000) // FRAME * FRAME
    while sum(map(len, parts)) < count:
        prompt = said[random.integers(len(said))]
        parts += [scaled(prompt.pcm, dbfs - active_db(prompt.pcm)), np.zeros(random.integers(1600, 6400))]
    return np.concatenate(parts)[:count]


def as_pcm(wave: Wave) -> Pcm:
    return np.clip(wave, -32768, 32767).astype(np.int16)


def far_end(sent: Pcm, line: Line, delay_ms: int, loss_db: float) -> Wave:
    """What the far end makes of the sent audio."""
    wave = through_ulaw(sent).astype(np.float64)
    if line.room:
        random = np.random.default_rng(7)
        length = 480
        room = random.normal(size=length) * np.exp(-np.arange(length) / 90) * 0.15
        room[0] = 1.0
        spectrum = np.fft.rfft(wave, len(wave) + 8000)
        hz = np.fft.rfftfreq(len(wave) + 8000, 1 / 8000)
        band = 1 / (1 + (350 / np.maximum(hz, 1)) ** 4) / (1 + (hz / 2800) ** 8)
        heard = np.fft.irfft(spectrum * band * np.fft.rfft(room, len(wave) + 8000))[: len(wave)]
        wave = np.tanh(heard / 9000) * 9000
        wave *= 10 ** ((active_db(sent) - active_db(as_pcm(wave))) / 20)
    delay = (delay_ms + BUFFER_MS) * 8
    return np.concatenate([np.zeros(delay), wave])[: len(wave)] * 10 ** (-loss_db / 20)


def received(wave: Wave, line: Line, seed: int) -> Pcm:
    """Behind the line's noise, G.711 and our playout."""
    pcm = through_ulaw(as_pcm(wave + noise(FLOOR_DBFS, len(wave) / 8000 + 0.01, seed)[: len(wave)]))
    if not line.jitter:
        return pcm
    random = np.random.default_rng(seed)
    frames = pcm.reshape(-1, FRAME)
    source = np.arange(len(frames))
    place, behind = 0, 0
    while (place := place + int(random.integers(100, 300))) < len(frames):
        behind = int(np.clip(behind + random.choice((-1, 1)), -2, 2))
        source[place:] = np.arange(place, len(frames)) - behind
    lost = random.random(len(frames)) < 0.01
    source[lost] -= 1
    played: Pcm = frames[source.clip(0, len(frames) - 1)].reshape(-1)
    return played


def voiced(detector: VoiceDetector, pcm: Pcm) -> Bools:
    return np.concatenate([detector.push(frame) >= 0.5 for frame in pcm.reshape(-1, 1, FRAME)])


def gated(pcm: Pcm, sent: Pcm) -> tuple[Bools, float]:
    """Frames that are not echo, and CPU µs a frame."""
    gate = EchoGate()
    pairs = list(zip(pcm.reshape(-1, FRAME), sent.reshape(-1, FRAME), strict=True))
    began = time.process_time()
    decisions = [not gate.feed(frame, away if away.any() else None) for frame, away in pairs]
    return np.array(decisions), 1e6 * (time.process_time() - began) / len(pairs)


def barge_ins(decisions: Bools) -> list[int]:
    """Frames at which the caller would have taken the floor."""
    settings = ConversationSettings()
    endpointer = Endpointer(settings, FixedSilence(settings.endpointing_ms))
    found: list[int] = []
    pressed = False
    for i, decision in enumerate(decisions):
        if endpointer.push(i, bool(decision)) is Change.STARTED:
            pressed = False
        if endpointer.speaking and not pressed and endpointer.voiced_ms >= settings.barge_in_ms:
            pressed = True
            found.append(i)
    return found


def trials(said: list[Prompt], count: int, dbfs: float, first_s: float) -> Iterator[tuple[Pcm, Wave, int]]:
    """The agent's speech, the caller's in the midst of it, and the frame where that begins."""
    random = np.random.default_rng(11)
    for i in range(count):
        begin = int((first_s + 2 * random.random()) * 8000)
        prompt = said[random.integers(len(said))].pcm[: 4 * 8000]
        caller = np.zeros((begin + len(prompt)) // FRAME * FRAME + 8000)
        caller[begin : begin + len(prompt)] = scaled(prompt, dbfs - active_db(prompt))
        yield as_pcm(speech(said, len(caller) / 8000, AGENT_DBFS, 100 + i)), caller, begin // FRAME


def alone(agent: list[Prompt], seconds: float, makers: dict[VadKind, Callable[[int], VoiceDetector]]) -> None:
    sent = as_pcm(speech(agent, seconds, AGENT_DBFS, 1))
    minutes = len(sent) / 8000 / 60
    print(
        f"\nFalse starts per minute, {minutes:.1f} minutes a cell, delays {DELAYS_MS} ms + {BUFFER_MS} ms of playout\n"
    )
    print("| line | echo dB | " + " | ".join(f"{k}, no gate | {k}, gate" for k in KINDS) + " | gate µs per frame |")
    print("|---|---|" + "---|---|" * len(KINDS) + "---|")
    for line in LINES:
        for loss in LOSSES_DB:
            counts = np.zeros((len(KINDS), 2))
            costs = []
            for delay in DELAYS_MS:
                pcm = received(far_end(sent, line, delay, loss), line, delay)
                passed, us = gated(pcm, sent)
                costs.append(us)
                for row, kind in zip(counts, KINDS, strict=True):
                    heard = voiced(makers[kind](8000), pcm)
                    row += len(barge_ins(heard)), len(barge_ins(heard & passed))
            rates = " | ".join(f"{a:.1f} | {b:.2f}" for a, b in counts / minutes / len(DELAYS_MS))
            print(f"| {line.name} | -{loss} | {rates} | {np.median(costs):.0f} |", flush=True)


def together(said: list[Prompt], count: int, makers: dict[VadKind, Callable[[int], VoiceDetector]]) -> None:
    print(f"\nDouble-talk, {count} prompts a cell; the caller speaks 3 to 5 s after the agent, or in its first 2 s\n")
    print("| line | echo dB | caller dBFS | " + " | ".join(f"{k}: missed | added ms p50 / p95" for k in KINDS) + " |")
    print("|---|---|---|" + "---|---|" * len(KINDS))
    cases = [(line, loss, 3.0) for line in LINES for loss in LOSSES_DB[::2]]
    cases += [(LINES[0], loss, 0.0) for loss in (10, 20)] + [(Line("no echo"), 200, 3.0), (Line("no echo"), 200, 0.0)]
    for line, loss, first in cases:
        for dbfs in CALLER_DBFS:
            missed = np.zeros(len(KINDS), int)
            added: list[list[float]] = [[] for _ in KINDS]
            for i, (sent, caller, begin) in enumerate(trials(said, count, dbfs, first)):
                echo = far_end(sent, line, DELAYS_MS[i % len(DELAYS_MS)], loss)
                pcm = received(echo + caller, line, i)
                passed, _ = gated(pcm, sent)
                clean = received(caller, line, i)
                for k, kind in enumerate(KINDS):
                    wanted = [at for at in barge_ins(voiced(makers[kind](8000), clean)) if at >= begin]
                    if not wanted:
                        continue
                    got = [at for at in barge_ins(voiced(makers[kind](8000), pcm) & passed) if at >= begin]
                    if got:
                        added[k].append(20.0 * (got[0] - wanted[0]))
                    else:
                        missed[k] += 1
            cells = " | ".join(
                f"{missed[k]} | {np.median(added[k]):.0f} / {np.percentile(added[k], 95):.0f}"
                for k in range(len(KINDS))
            )
            name = line.name if first else f"{line.name}, first 2 s"
            print(f"| {name} | -{loss} | {dbfs:.0f} | {cells} |", flush=True)


def main(seconds: float) -> None:
    collection = prompts(80)
    makers: dict[VadKind, Callable[[int], VoiceDetector]] = {k: make_vad(SpeechSettings(vad=k)) for k in KINDS}
    alone(collection[0::2], seconds, makers)
    together(collection[1::2], int(seconds / 2), makers)


if __name__ == "__main__":
    main(float(sys.argv[1]) if len(sys.argv) > 1 else 60.0)
