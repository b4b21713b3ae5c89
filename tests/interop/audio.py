"""What can be told of a recording: how long a tone sounded in it, and how loud."""

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from sipagent.media import g711
from tests.system.wire import Packet

FRAME = 160


def seconds_of(pcm: NDArray[np.int16], hz: float, rate: int = 8000) -> float:
    """How long the tone sounded: the 20 ms pieces louder than -40 dBFS of whose power it has at least 9 tenths."""
    frame = rate // 50
    pieces = pcm[: len(pcm) // frame * frame].reshape(-1, frame).astype(np.float64)
    angle = 2 * np.pi * hz * np.arange(frame) / rate
    window = np.hanning(frame)
    # Least squares on sine and cosine: exact for any phase, whatever the frequency's place between bins.
    basis = np.stack([np.cos(angle), np.sin(angle)]) * window
    weights, *_ = np.linalg.lstsq(basis.T, (pieces * window).T, rcond=None)
    power, total = np.sum((basis.T @ weights) ** 2, axis=0), np.sum((pieces * window) ** 2, axis=1)
    loud = np.sqrt(np.mean(pieces**2, axis=1)) > 32768 / np.sqrt(2) * 10 ** (-40 / 20)
    return float(np.sum(loud & (power >= 0.9 * np.maximum(total, 1.0))) * 0.02)


def dbfs(pcm: NDArray[np.int16]) -> float:
    """RMS relative to a full-scale sine."""
    return float(20 * np.log10(max(np.sqrt(np.mean(pcm.astype(np.float64) ** 2)), 1e-3) * np.sqrt(2) / 32768))


def spoken(packets: Iterable[Packet]) -> NDArray[np.int16]:
    """The G.711 audio of packets in the order they came; key presses and comfort noise left out."""
    payloads = [
        g711.decode(packet.payload_type, np.frombuffer(packet.payload, np.uint8))
        for packet in packets
        if packet.payload_type in (0, 8) and packet.payload
    ]
    return np.concatenate(payloads) if payloads else np.zeros(0, np.int16)
