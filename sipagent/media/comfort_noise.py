"""Comfort noise of RFC 3389: the caller's background, described by a level and a spectrum instead of sent."""

import numpy as np
from numpy.typing import NDArray

MAX_ORDER = 12  # of the spectrum; the RFC leaves it to the sender, further coefficients hardly matter
_TAPS = 64  # of each slot's filter: 8 ms
_TABLE = 1 << 14  # samples of white noise that all slots share, each at its own place: 2 s


def response(payload: bytes) -> NDArray[np.float32]:
    """The filter (64,) that makes white noise of RMS 1 into what `payload` says; zeros for an empty one."""
    if not payload:
        return np.zeros(_TAPS, np.float32)
    # Section 3.2 of the RFC has 127 for zero; at 1 and beyond the filter would ring for ever.
    coded = np.frombuffer(payload[1 : 1 + MAX_ORDER], np.uint8).astype(np.float64)
    taps = _predictor(np.clip((coded - 127) / 128, -0.95, 0.95)).tolist()[1:]
    ringing = [1.0]  # in plain Python: for so few numbers that costs less, and scipy would make the engine start slowly
    for _ in range(1, _TAPS):
        ringing.append(-sum(tap * known for tap, known in zip(taps, reversed(ringing), strict=False)))
    result = np.array(ringing)
    level = 32768.0 * 10 ** (-(payload[0] & 0x7F) / 20)  # section 3.1: -dBov
    shaped: NDArray[np.float32] = (result * level / np.sqrt(result @ result)).astype(np.float32)
    return shaped


def _predictor(reflection: NDArray[np.float64]) -> NDArray[np.float64]:
    """Reflection coefficients to those of the all-pole filter (Levinson's step-up)."""
    taps = np.ones(1)
    for each in reflection:
        taps = np.append(taps, 0.0)
        taps = taps + each * taps[::-1]
    return taps


class ComfortNoise:
    """The noise of every slot."""

    def __init__(self, capacity: int) -> None:
        self._noise = np.random.default_rng(3389).normal(0, 1, _TABLE + _TAPS).astype(np.float32)
        self._response = np.zeros((capacity, _TAPS), np.float32)
        self._payload: dict[int, bytes] = {}
        self._at = np.arange(capacity) * 997 % _TABLE

    def describe(self, slot: int, payload: bytes) -> None:
        payload = payload[: 1 + MAX_ORDER]
        if self._payload.get(slot) != payload:
            self._payload[slot] = payload
            self._response[slot] = response(payload)

    def frame(self, slots: NDArray[np.int64], samples: int) -> NDArray[np.int16]:
        """The next `samples` of each slot (n, samples)."""
        at = self._at[slots, None] + np.arange(samples + _TAPS - 1)
        self._at[slots] = (self._at[slots] + samples) % _TABLE
        windows = np.lib.stride_tricks.sliding_window_view(self._noise[at % _TABLE], _TAPS, axis=1)
        shaped = np.matmul(windows, self._response[slots, ::-1, None])[:, :, 0]
        result: NDArray[np.int16] = np.clip(shaped, -32768, 32767).astype(np.int16)
        return result
