"""Log-mel features as Whisper was trained on them, in numpy.

The definition (Radford et al. 2022, section 2.1, and OpenAI's released preprocessing): 16 kHz audio, 25 ms periodic
Hann windows every 10 ms, centred with reflected edges; power spectrum; mel filters on Slaney's scale with unit area;
log10, floored 8 decades below the loudest value, then (x + 4) / 4.
"""

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

RATE = 16_000
N_FFT = 400
HOP = 160
_FLOOR = 1e-10  # what the log takes instead of zero; so digital silence is -10 before the scaling


def hz_to_mel(hz: NDArray[np.float64]) -> NDArray[np.float64]:
    """Slaney's scale (Auditory Toolbox, 1998): linear below 1 kHz (200/3 Hz a mel), then 27 mel for a factor of 6.4."""
    log_part = 15.0 + 27.0 * np.log(np.maximum(hz, 1.0) / 1000.0) / np.log(6.4)
    return np.where(hz < 1000.0, hz * 3.0 / 200.0, log_part)


def mel_to_hz(mel: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.where(mel < 15.0, mel * 200.0 / 3.0, 1000.0 * np.exp(np.log(6.4) * (mel - 15.0) / 27.0))


@lru_cache(maxsize=4)
def filters(n_mels: int) -> NDArray[np.float32]:
    """Triangles from 0 Hz to half the rate, each of unit area in Hz: shape (n_mels, 201)."""
    edges = mel_to_hz(np.linspace(0.0, hz_to_mel(np.array([RATE / 2.0]))[0], n_mels + 2))
    bins = np.arange(N_FFT // 2 + 1) * (RATE / N_FFT)
    low, centre, high = edges[:-2, None], edges[1:-1, None], edges[2:, None]
    triangles = np.minimum((bins - low) / (centre - low), (high - bins) / (high - centre))
    return (np.maximum(triangles, 0.0) * (2.0 / (high - low))).astype(np.float32)


@lru_cache(maxsize=1)
def _window() -> NDArray[np.float32]:
    return np.hanning(N_FFT + 1)[:-1].astype(np.float32)


def log_mel(audio: NDArray[np.float32], samples: int, n_mels: int = 80) -> NDArray[np.float32]:
    """Features of `audio` (16 kHz, -1..1) followed by silence up to `samples`: shape (n_mels, samples // 160).

    The silence is not transformed: its features are known.
    """
    frames = samples // HOP
    # Frame k covers audio[160 k - 200 : 160 k + 200]; those that begin behind the last sample are silent.
    heard = min(frames, (len(audio) + N_FFT // 2) // HOP + 1)
    padded = np.zeros((heard - 1) * HOP + N_FFT, np.float32)
    kept = audio[: len(padded) - N_FFT // 2]
    padded[N_FFT // 2 : N_FFT // 2 + len(kept)] = kept
    mirrored = kept[1 : N_FFT // 2 + 1][::-1]  # the reflected edge at the start; the one at the end is silence
    padded[N_FFT // 2 - len(mirrored) : N_FFT // 2] = mirrored

    windows = np.lib.stride_tricks.sliding_window_view(padded, N_FFT)[::HOP] * _window()
    spectrum = np.fft.rfft(windows, axis=1)
    power = (spectrum.real**2 + spectrum.imag**2).astype(np.float32)

    result = np.full((n_mels, frames), np.log10(_FLOOR), np.float32)
    result[:, :heard] = np.log10(np.maximum(filters(n_mels) @ power.T, _FLOOR))
    np.maximum(result, result.max() - 8.0, out=result)
    return (result + np.float32(4.0)) / np.float32(4.0)
