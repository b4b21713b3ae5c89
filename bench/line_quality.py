"""What a caller's speech is worth behind a bad line: `nice python -m bench.line_quality [--prompts N] [cell ...]`.

Recorded prompts are cut into PCMU packets of 20 ms, which arrive (or not) as `bench.line_quality_network` says, the
same ones at the same times for every receiver:

- ours: `sipagent.media.jitter` with its default limits, driven as the engine does, a frame every 20 ms and `adapt`
  every 100 ms;
- PJMEDIA: its stream with its defaults, in simulated time (`bench.line_quality_pjmedia`);
- aiortc: its JitterBuffer as its receiver makes it (16 packets, prefetch 4), which hands frames on as they become
  complete; they are played in turn, and zeros where there is none;
- zero-fill: a fixed buffer of 60 ms, zeros for what is missing when due.

All play at the same ticks, whose phase against the packets is drawn per prompt. Each prompt has a second of its own
quiet before it. Reported per cell and receiver: the mean PESQ (ITU-T P.862, narrowband, against the prompt before
mu-law), the mean delay from sending to playout, which is found for all in the same way, by correlation of 160 ms
windows of speech with what was heard (so concealed stretches have no say in it), and the share of frames invented.
With `--score wer` the local recogniser's word error rate instead of PESQ, with `--score visqol` ViSQOL's MOS (package
visqol-python, speech mode, signals resampled to 16 kHz; slow, some 10 s for each prompt and receiver).
"""

import os

os.environ |= {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}  # before numpy

import argparse
import multiprocessing
import struct
import time
from collections import defaultdict
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from bench.line_quality_network import CELLS, PTIME_MS, Cell, arrivals
from sipagent.media.g711 import LINEAR_TO_ULAW, ULAW_TO_LINEAR
from sipagent.media.jitter import JitterBuffer
from sipagent.media.rings import FLAG_CONCEALED, Counter, len_of
from tests.speech.prompts import Prompt, prompts
from tests.wer import errors

Pcm = NDArray[np.int16]

FRAME = 160
MS = 1_000_000
LEAD_MS, TAIL_MS = 1000, 300
ZERO_FILL_MS = 60
MIN_MS, MAX_MS = 20, 400
WINDOW = 1280  # samples, 160 ms
WORKERS = 2


class Heard(NamedTuple):
    pcm: Pcm  # from the first tick at or after the first packet was sent
    concealed: float  # share of the frames after the first that was played


class Packets(NamedTuple):
    """What every receiver gets: payloads by number, events (ms, number) in order of arrival, tick times."""

    payloads: list[bytes]
    events: list[tuple[float, int]]
    ticks: NDArray[np.floating]


def make_packets(pcm: Pcm, cell: Cell, seed: int) -> Packets:
    count = len(pcm) // FRAME
    codes = LINEAR_TO_ULAW[pcm[: count * FRAME].view(np.uint16)].reshape(count, FRAME)
    came = arrivals(cell, count, seed)
    events = sorted((float(at), k) for k, at in enumerate(came) if not np.isnan(at))
    phase = np.random.default_rng(seed + 1).uniform(1, PTIME_MS)
    ticks = phase + PTIME_MS * np.arange(count + 40)
    return Packets([row.tobytes() for row in codes], events, ticks)


def ours(packets: Packets) -> Heard:
    counters = np.zeros((1, len_of(Counter)), np.int64)
    buffer, slot, newest = JitterBuffer(1, 8000, MIN_MS, MAX_MS, counters), np.zeros(1, np.int64), -1
    frames, invented = [], 0
    waiting = iter([*packets.events, (np.inf, -1)])
    at, k = next(waiting)
    for tick, now in enumerate(packets.ticks):
        while at <= now:
            pcm = ULAW_TO_LINEAR[np.frombuffer(packets.payloads[k], np.uint8)]
            buffer.insert(0, k * FRAME & 0xFFFFFFFF, pcm, k == newest + 1, int((at + 1000) * MS))
            newest = max(newest, k)
            at, k = next(waiting)
        frame = buffer.play(slot, int((now + 1000) * MS))
        frames.append(frame.pcm[0])
        invented += tick < len(packets.payloads) and bool(frame.flags[0] & FLAG_CONCEALED)
        if tick % 5 == 0:
            buffer.adapt(slot, int((now + 1000) * MS), np.array([int((now + 1000) * MS)]))
    return Heard(np.concatenate(frames), _share(packets, invented))


def zero_fill(packets: Packets) -> Heard:
    came = {k: at for at, k in packets.events}
    first, silent = packets.events[0][0] + ZERO_FILL_MS, np.zeros(FRAME, np.int16)
    frames, invented, k = [], 0, 0
    for now in packets.ticks:
        if now < first or k >= len(packets.payloads):
            frames.append(silent)
            continue
        there = came.get(k, np.inf) <= now
        frames.append(ULAW_TO_LINEAR[np.frombuffer(packets.payloads[k], np.uint8)] if there else silent)
        invented += not there
        k += 1
    return Heard(np.concatenate(frames), _share(packets, invented))


def aiortc(packets: Packets) -> Heard:
    from aiortc.jitterbuffer import JitterBuffer as Theirs
    from aiortc.rtp import RtpPacket

    buffer, empty, begun = Theirs(capacity=16, prefetch=4), 0, False
    queue: list[bytes] = []
    frames: list[Pcm] = []
    waiting = iter([*packets.events, (np.inf, -1)])
    at, k = next(waiting)
    for now in packets.ticks:
        while at <= now:
            packet = RtpPacket(payload_type=0, sequence_number=k & 0xFFFF, timestamp=k * FRAME)
            packet._data = packets.payloads[k]  # as its receiver does after decoding
            _, frame = buffer.add(packet)
            if frame is not None:
                queue.append(frame.data)
            at, k = next(waiting)
        begun |= bool(queue)
        empty += begun and not queue and len(frames) < len(packets.payloads)
        data = np.frombuffer(queue.pop(0), np.uint8) if queue else np.full(FRAME, 0xFF, np.uint8)
        frames.append(ULAW_TO_LINEAR[data])
    return Heard(np.concatenate(frames), _share(packets, empty))


_pjmedia = None


def pjmedia(packets: Packets) -> Heard:
    global _pjmedia
    from bench.line_quality_pjmedia import Pjmedia, Stream

    _pjmedia = _pjmedia or Pjmedia()
    stream, frames, invented = Stream(_pjmedia), [], 0
    waiting = iter([*packets.events, (np.inf, -1)])
    at, k = next(waiting)
    for tick, now in enumerate(packets.ticks):
        while at <= now:
            stream.receive(struct.pack(">BBHII", 0x80, 0, k & 0xFFFF, k * FRAME, 1) + packets.payloads[k])
            at, k = next(waiting)
        frames.append(stream.play())
        if tick < len(packets.payloads):
            invented = stream.concealed()
    stream.close()
    return Heard(np.concatenate(frames), _share(packets, invented))


RECEIVERS = {"ours": ours, "PJMEDIA": pjmedia, "aiortc": aiortc, "zero-fill": zero_fill}


def _share(packets: Packets, invented: int) -> float:
    return invented / len(packets.payloads)


def delay_ms(sent: Pcm, heard: Pcm, first_tick_ms: float) -> float:
    """Mean over the windows of speech that are found again, nan if none is."""
    found = []
    reach = WINDOW + 800 * 8
    signal = np.concatenate([heard.astype(np.float64), np.zeros(reach)])
    squares = np.concatenate([[0.0], np.cumsum(signal * signal)])
    for start in range(0, len(sent) - WINDOW, WINDOW // 2):
        window = sent[start : start + WINDOW].astype(np.float64)
        energy = float(window @ window)
        if energy / WINDOW < 300**2:
            continue
        part = signal[start : start + reach]
        size = 1 << (reach + WINDOW).bit_length()
        product = np.fft.irfft(np.fft.rfft(part, size) * np.fft.rfft(window[::-1], size), size)[WINDOW - 1 : reach]
        energies = squares[start + WINDOW : start + reach + 1] - squares[start : start + reach - WINDOW + 1]
        likeness = product / np.sqrt(energies * energy + 1e6)
        if likeness.max() > 0.9:
            found.append(likeness.argmax() / 8)
    return float(np.mean(found)) + first_tick_ms if found else float("nan")


class Result(NamedTuple):
    cell: str
    receiver: str
    score: float  # or words wrong
    words: int
    delay_ms: float
    concealed: float


def sample(prompt: Prompt) -> Pcm:
    """The prompt with a lead of its own quietest 100 ms, repeated there and back."""
    quiet = min(range(0, len(prompt.pcm) - 800, 400), key=lambda i: float(np.abs(prompt.pcm[i : i + 800]).sum()))
    noise = prompt.pcm[quiet : quiet + 800]
    loop = np.concatenate([noise, noise[::-1]])
    lead, tail = np.resize(loop, LEAD_MS * 8), np.resize(loop, TAIL_MS * 8)
    return np.concatenate([lead, prompt.pcm, tail])


def pesq_score(sent: Pcm, heard: Pcm, text: str) -> tuple[float, int]:
    from pesq import PesqError, pesq

    return float(pesq(8000, sent, heard, "nb", on_error=PesqError.RETURN_VALUES)), 1


_visqol = None


def visqol_score(sent: Pcm, heard: Pcm, text: str) -> tuple[float, int]:
    global _visqol
    from scipy.signal import resample_poly
    from visqol import VisqolApi

    if _visqol is None:
        _visqol = VisqolApi()
        _visqol.create(mode="speech")
    wide = [resample_poly(pcm / 32768, 2, 1) for pcm in (sent, heard)]
    return float(_visqol.measure_from_arrays(*wide, 16000).moslqo), 1


_recogniser = None


def wer_score(sent: Pcm, heard: Pcm, text: str) -> tuple[float, int]:
    global _recogniser
    from sipagent.speech import models, whisper

    _recogniser = _recogniser or whisper.Recogniser(models.locate("whisper-tiny.en", "stt"))
    return errors(text, _recogniser.transcribe(heard, 8000).text)


SCORES = {"pesq": pesq_score, "visqol": visqol_score, "wer": wer_score}


class Job(NamedTuple):
    cell: Cell
    prompt: Prompt
    seed: int
    receivers: tuple[str, ...]
    score: str


def measure(job: Job) -> list[Result]:
    pcm = sample(job.prompt)
    packets, results = make_packets(pcm, job.cell, job.seed), []
    for name in job.receivers:
        heard = RECEIVERS[name](packets)
        score, words = SCORES[job.score](pcm, heard.pcm[: len(pcm) + 400 * 8], job.prompt.text)
        delay = delay_ms(pcm, heard.pcm, packets.ticks[0])
        results.append(Result(job.cell.name, name, score, words, delay, heard.concealed))
    return results


TUNED_ON = 48  # prompts
ALL = 110  # that have so many words


def measured(jobs: list[Job]) -> dict[tuple[str, str], list[Result]]:
    results = defaultdict(list)
    with multiprocessing.get_context("spawn").Pool(WORKERS) as pool:
        for each in pool.imap_unordered(measure, jobs, chunksize=4):
            for result in each:
                results[result.cell, result.receiver].append(result)
    return results


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("cells", nargs="*", help="only cells whose names begin with one of these")
    parser.add_argument("--prompts", type=int, default=48)
    parser.add_argument("--held-out", action="store_true", help="other prompts than those the constants were chosen on")
    parser.add_argument("--seed", type=int, default=0, help="of the network")
    parser.add_argument("--receivers", default=",".join(RECEIVERS))
    parser.add_argument("--score", choices=SCORES, default="pesq")
    options = parser.parse_args()
    said = prompts(TUNED_ON if options.held_out else options.prompts, words=(6, 40))
    if options.held_out:
        known = {p.name for p in said}
        said = [p for p in prompts(ALL, words=(6, 40)) if p.name not in known][: options.prompts]
    cells = [c for c in CELLS if not options.cells or c.name.startswith(tuple(options.cells))]
    receivers = tuple(options.receivers.split(","))
    began = time.monotonic()
    jobs = [
        Job(cell, p, options.seed + 1000 * i, receivers, options.score) for cell in cells for i, p in enumerate(said)
    ]
    results = measured(jobs)
    seconds = sum(len(p.pcm) for p in said) / 8000
    print(f"{len(said)} prompts, {seconds:.0f} s; {options.score} / delay ms / frames invented\n")
    print("| cell | " + " | ".join(receivers) + " |")
    print("|---" * (len(receivers) + 1) + "|")
    for cell in cells:
        row = []
        for name in receivers:
            each = results[cell.name, name]
            total = sum(r.score for r in each) / sum(r.words for r in each)
            score = f"{100 * total:.1f} %" if options.score == "wer" else f"{total:.3f}"
            delay = np.nanmean([r.delay_ms for r in each])
            row.append(f"{score} / {delay:.1f} / {100 * np.mean([r.concealed for r in each]):.1f} %")
        print(f"| {cell.name} | " + " | ".join(row) + " |", flush=True)
    print(f"\n{time.monotonic() - began:.0f} s")


if __name__ == "__main__":
    main()
