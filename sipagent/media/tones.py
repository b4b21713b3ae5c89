"""DTMF as audio (ITU-T Q.23): heard in the calls of trunks without telephone-event, and made for them. Ringing tones.

Hearing follows ITU-T Q.24: a key is a tone of 40 ms or more, both frequencies within 1.5 %, the higher at most 4 dB
above or 8 dB below the lower; 23 ms or 3.5 % are none. A Hann window of 20 ms slides by 10 ms over every call, and one
matrix product finds the eight frequencies in it. Where two of them are nearly all there is (speech has more), the turn
of their phases from window to window tells how far off they are: a key stays where it is, a voice glides, which is what
keeps speech from being taken for keys (`python -m bench.talk_off`). As such windows add up to a constant, the sum of
the amplitudes over the tone tells how long it was.
"""

import cmath
import math
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from sipagent.media.ringback import LEVEL_DBM0, RINGBACK, Ringback
from sipagent.media.telephone_event import PAUSE, PAUSE_MS, check_keys

LOW_HZ = (697, 770, 852, 941)  # ITU-T Q.23
HIGH_HZ = (1209, 1336, 1477, 1633)
HZ = LOW_HZ + HIGH_HZ
KEYS = ("123A", "456B", "789C", "*0#D")  # by low and high frequency
PLACES = {key: (row, 4 + column) for row, keys in enumerate(KEYS) for column, key in enumerate(keys)}  # in HZ
ZERO_DBM0 = 22_303.0  # amplitude of a sine of 0 dBm0, 3.17 dB below the loudest of µ-law (ITU-T G.711)

HOP_MS = 10
TURN = 2 * math.pi * HOP_MS / 1000  # radians that a frequency error of 1 Hz adds from window to window
BLOCK = 128  # calls in one product, so that they stay in the processor's cache
FAINTEST_DBM0 = -34.0  # of either frequency
TWIST_DB = (-10.0, 6.0)  # the higher frequency against the lower: Q.24's -8 to 4 and 2 of tolerance
HINT = 0.5  # share of the energy in two frequencies from which a window is worth a closer look
PURE = 0.7  # the same share, corrected for frequencies that are off, from which it belongs to a tone
PURE_MEAN = 0.8  # over the windows that agree
OFF = 0.025  # frequency error, between Q.24's 1.5 % and 3.5 %
SHORTEST_MS = 31.0  # between Q.24's 23 and 40
STEADY = 3  # windows in a row that agree; a voice glides
OFF_STEP = 0.01  # change of the frequency error from one window to the next
TWIST_STEP_DB = 4.0
GAP = 4  # windows without the tone that end it: a lost packet spoils three, a pause of 40 ms four
RAMP_MS = 5
TWIST_SENT_DB = 2.0  # lines lose more of the higher frequency, so it is sent louder (ETSI ES 201 235-2)

Spectrum = list[float]  # real and then imaginary parts of the eight frequencies


class Detected(NamedTuple):
    active: NDArray[np.bool_]  # [n]: the frame belongs to a tone
    pressed: list[tuple[int, str, int]]  # slot, digit, milliseconds: the tones that are over


class _Window(NamedTuple):
    key: str
    amplitude: float
    twist_db: float  # the higher frequency over the lower
    off_low: float  # relative frequency error; worth nothing in the first window of a tone
    off_high: float
    purity: float


@dataclass(slots=True)
class _Tone:
    """What has been seen of the tone that may be sounding."""

    key: str
    newest: _Window | None = None
    amplitude: float = 0.0  # sum
    peak: float = 0.0
    steady: int = 0  # windows in a row that agree with the one before
    purity: float = 0.0  # sum over those
    is_steady: bool = False  # so many have agreed that it is no voice
    missed: int = 0

    def add(self, window: _Window) -> None:
        before, self.newest = self.newest, window
        self.missed = 0
        self.amplitude += window.amplitude
        self.peak = max(self.peak, window.amplitude)
        # Before the second window's frequency error there is none to compare it with.
        if before is None or not _agree(before, window, with_frequency=self.steady > 1):
            self.steady, self.purity = 0, 0.0
        self.steady += 1
        self.purity += window.purity
        if self.steady >= STEADY and self.purity >= PURE_MEAN * self.steady:
            self.is_steady = True

    @property
    def duration_ms(self) -> float:
        return HOP_MS * self.amplitude / self.peak

    def is_key(self) -> bool:
        return self.is_steady and self.duration_ms >= SHORTEST_MS


def _agree(before: _Window, window: _Window, *, with_frequency: bool) -> bool:
    if max(abs(window.off_low), abs(window.off_high)) > OFF:
        return False
    if abs(window.twist_db - before.twist_db) > TWIST_STEP_DB:
        return False
    if not with_frequency:
        return True
    return max(abs(window.off_low - before.off_low), abs(window.off_high - before.off_high)) <= OFF_STEP


class ToneDetector:
    """Follows the in-band digits of up to `capacity` calls, which are fed frames of 20 ms."""

    def __init__(self, capacity: int, rate: int = 8000) -> None:
        self._hop = rate * HOP_MS // 1000
        window = 2 * self._hop
        n = np.arange(window)
        hz = np.array(HZ)
        hann = 0.5 - 0.5 * np.cos(2 * np.pi * n / window)
        # Scaled so that the product is the amplitude of a tone, and the energy the sum of squared amplitudes.
        waves = hann * np.exp(-2j * np.pi * hz[:, None] * n / rate) * (4 / window)
        self._basis = np.concatenate([waves.real, waves.imag]).astype(np.float32)
        weights = hann**2 * (16 / (3 * window))
        self._energy = np.zeros((3 * self._hop, 2), np.float32)
        self._energy[:window, 0] = self._energy[self._hop :, 1] = weights
        self._turn = [cmath.exp(-1j * TURN * each) for each in HZ]
        self._faintest = (ZERO_DBM0 * 10 ** (FAINTEST_DBM0 / 20)) ** 2
        self._before = np.zeros((capacity, window), np.int16)
        self._sounding = np.zeros(capacity, np.bool_)
        self._tones: dict[int, _Tone] = {}

    def reset(self, slot: int) -> None:
        self._before[slot] = 0
        self._sounding[slot] = False
        self._tones.pop(slot, None)

    def detect(self, slots: NDArray[np.int64], pcm: NDArray[np.int16]) -> Detected:
        """Takes the next 20 ms [n, rate / 50] of these slots, each of which is named once."""
        active = np.zeros(len(slots), np.bool_)
        pressed: list[tuple[int, str, int]] = []
        for begin in range(0, len(slots), BLOCK):
            block = slice(begin, begin + BLOCK)
            active[block] = self._detect(slots[block], pcm[block], pressed)
        return Detected(active, pressed)

    def _detect(
        self, slots: NDArray[np.int64], pcm: NDArray[np.int16], pressed: list[tuple[int, str, int]]
    ) -> NDArray[np.bool_]:
        n, hop = len(slots), self._hop
        before = self._before[slots]
        samples = np.empty((n, 3 * hop), np.float32)
        samples[:, :hop] = before[:, hop:]
        samples[:, hop:] = pcm
        self._before[slots] = pcm
        windows = np.empty((n, 2, 2 * hop), np.float32)
        windows[:, 0] = samples[:, : 2 * hop]
        windows[:, 1] = samples[:, hop:]
        spectrum = self._basis @ windows.reshape(2 * n, 2 * hop).T  # [16, 2n]
        np.square(samples, out=samples)
        energy = (samples @ self._energy).reshape(2 * n)
        power = spectrum[:8] ** 2 + spectrum[8:] ** 2
        low, high = power[:4].max(axis=0), power[4:].max(axis=0)
        hint = (low + high > HINT * energy) & (np.minimum(low, high) > self._faintest)
        active = np.zeros(n, np.bool_)
        for row in np.flatnonzero(hint.reshape(n, 2).any(axis=1) | self._sounding[slots]).tolist():
            slot = int(slots[row])
            past = (self._basis @ before[row].astype(np.float32)).tolist()
            for column in (2 * row, 2 * row + 1):
                present = spectrum[:, column].tolist()
                window = self._look(present, past, float(energy[column])) if hint[column] else None
                active[row] |= window is not None
                self._follow(slot, window, present, past, pressed)
                past = present
            self._sounding[slot] = slot in self._tones
        return active

    def _look(self, present: Spectrum, past: Spectrum, energy: float) -> _Window | None:
        """What the window is, if it is part of a tone."""
        power = [real * real + imaginary * imaginary for real, imaginary in zip(present[:8], present[8:], strict=True)]
        row, column = power.index(max(power[:4])), power.index(max(power[4:]), 4)
        low, off_low = self._tune(row, present, past)
        high, off_high = self._tune(column, present, past)
        purity = (low * low + high * high) / energy
        twist_db = 20 * math.log10(high / low)
        if purity < PURE or not TWIST_DB[0] <= twist_db <= TWIST_DB[1]:
            return None
        return _Window(KEYS[row][column - 4], math.hypot(low, high), twist_db, off_low, off_high, min(purity, 1.0))

    def _tune(self, index: int, present: Spectrum, past: Spectrum) -> tuple[float, float]:
        """Amplitude and relative frequency error of one frequency."""
        here = complex(present[index], present[8 + index])
        there = complex(past[index], past[8 + index])
        amplitude, off_hz = abs(here), cmath.phase(here * there.conjugate() * self._turn[index]) / TURN
        limit = OFF * HZ[index]
        if abs(there) > amplitude / 4:  # otherwise the phase is that of something else
            amplitude /= _window_response(max(-limit, min(limit, off_hz)))
        return amplitude, off_hz / HZ[index]

    def _follow(
        self,
        slot: int,
        window: _Window | None,
        present: Spectrum,
        past: Spectrum,
        pressed: list[tuple[int, str, int]],
    ) -> None:
        tone = self._tones.get(slot)
        if tone is not None and (window is None or window.key != tone.key):
            if tone.missed == 0:
                tone.amplitude += min(_amplitude(present, tone.key), tone.peak)
            tone.missed += 1
            if tone.missed == GAP or window is not None:
                del self._tones[slot]
                if tone.is_key():
                    pressed.append((slot, tone.key, round(tone.duration_ms)))
                tone = None
        if window is not None:
            if tone is None:
                tone = self._tones[slot] = _Tone(window.key)
                tone.amplitude = min(_amplitude(past, window.key), window.amplitude)
            tone.add(window)


def _window_response(off_hz: float) -> float:
    """What a Hann window of 20 ms leaves of a frequency that is so far off, up to 50 Hz."""
    bins = off_hz * 2 * HOP_MS / 1000
    if abs(bins) < 1e-3:
        return 1.0
    return math.sin(math.pi * bins) / (math.pi * bins * (1 - bins * bins))


def _amplitude(spectrum: Spectrum, key: str) -> float:
    low, high = PLACES[key]
    return math.hypot(spectrum[low], spectrum[8 + low], spectrum[high], spectrum[8 + high])


def tone(digit: str, duration_ms: int, rate: int = 8000, level_dbm0: float = -10.0) -> NDArray[np.int16]:
    """One key, with edges of 5 ms so that it does not click; the level is that of the higher, louder frequency."""
    low, high = (HZ[place] for place in PLACES[digit])
    time = np.arange(duration_ms * rate // 1000) / rate
    wave = np.sin(2 * np.pi * high * time) + 10 ** (-TWIST_SENT_DB / 20) * np.sin(2 * np.pi * low * time)
    _edges(wave, rate)
    return np.clip(np.rint(ZERO_DBM0 * 10 ** (level_dbm0 / 20) * wave), -32768, 32767).astype(np.int16)


def tones(digits: str, duration_ms: int = 160, gap_ms: int = 80, rate: int = 8000) -> NDArray[np.int16]:
    """These keys with silence after each. Raises ValueError as `EventSender.queue` does."""
    parts = []
    for key in check_keys(digits, duration_ms, gap_ms):
        if key == PAUSE:
            parts.append(_silence(PAUSE_MS, rate))
        else:
            parts += [tone(key, duration_ms, rate), _silence(gap_ms, rate)]
    return np.concatenate(parts)


def _silence(ms: int, rate: int) -> NDArray[np.int16]:
    return np.zeros(ms * rate // 1000, np.int16)


@lru_cache(maxsize=8)
def ringback(country: str, rate: int = 8000) -> NDArray[np.int16]:
    """One period of the ringing tone, to be repeated. Raises KeyError for a country that is not in `RINGBACK`."""
    tone = RINGBACK[country]
    parts = [
        _burst(tone, seconds, rate) if number % 2 == 0 else _silence(round(1000 * seconds), rate)
        for number, seconds in enumerate(tone.cadence)
    ]
    pcm = np.concatenate(parts)
    pcm.setflags(write=False)
    return pcm


def _burst(ring: Ringback, seconds: float, rate: int) -> NDArray[np.int16]:
    time = np.arange(round(seconds * rate)) / rate
    wave = np.sin(2 * np.pi * np.array(ring.hz)[:, None] * time).sum(axis=0) / math.sqrt(len(ring.hz))
    if ring.beat_hz:
        wave *= (1 - np.cos(2 * np.pi * ring.beat_hz * time)) / math.sqrt(1.5)
    _edges(wave, rate)
    pcm: NDArray[np.int16] = np.rint(ZERO_DBM0 * 10 ** (LEVEL_DBM0 / 20) * wave).astype(np.int16)
    return pcm


def _edges(wave: NDArray[np.float64], rate: int) -> None:
    """Lets it begin and end gently, in place."""
    ramp = RAMP_MS * rate // 1000
    edge = (1 - np.cos(np.pi * (np.arange(ramp) + 0.5) / ramp)) / 2
    wave[:ramp] *= edge
    wave[-ramp:] *= edge[::-1]
