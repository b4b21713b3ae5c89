"""The music that callers on hold hear when nobody has chosen another: made here, so that it is free to use.

Eight bars of four chords over and over: a plucked figure above a soft chord, within a telephone's 300 to 3400 Hz.
"""

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

BEAT_S = 0.6
LEVEL_DBOV = -24.0  # RMS: below speech, so that whoever comes back is heard at once
_BAR = 4  # beats
_CHORDS = (  # MIDI numbers of the notes
    (60, 64, 67, 71),
    (57, 64, 67, 72),
    (65, 69, 72, 76),
    (62, 67, 71, 74),
    (60, 67, 71, 76),
    (64, 67, 71, 74),
    (65, 69, 72, 77),
    (55, 62, 65, 71),
)
_FIGURE = (0, 2, 1, 3, 2, 3, 1, 2)  # notes of the chord, one each half beat, an octave up
_PLUCKED = ((1.0, 1.0), (2.0, 0.35), (3.0, 0.12), (4.0, 0.05))  # multiples of the frequency, and their amplitudes
_SOFT = ((1.0, 0.5), (2.0, 0.3), (3.0, 0.06))


@lru_cache(maxsize=2)
def hold_music(rate: int) -> NDArray[np.int16]:
    """The loop, whose end goes on with its beginning: 19.2 s."""
    music = np.zeros(round(len(_CHORDS) * _BAR * BEAT_S * rate))
    for bar, chord in enumerate(_CHORDS):
        start = bar * _BAR * BEAT_S
        for note in chord:
            _add(music, rate, start, _note(note, _BAR * BEAT_S + 0.6, rate, _SOFT, attack_s=0.4, decay_s=3.0), 0.35)
        for half, which in enumerate(_FIGURE):
            accent = 1.0 if half % 4 == 0 else 0.75
            plucked = _note(chord[which] + 12, 1.6, rate, _PLUCKED, attack_s=0.008, decay_s=0.45)
            _add(music, rate, start + half * BEAT_S / 2, plucked, accent)
    music *= 32768 * 10 ** (LEVEL_DBOV / 20) / np.sqrt(np.mean(music**2))
    pcm = np.clip(np.rint(music), -32768, 32767).astype(np.int16)
    pcm.setflags(write=False)
    return pcm


def _note(
    number: int,
    seconds: float,
    rate: int,
    partials: tuple[tuple[float, float], ...],
    *,
    attack_s: float,
    decay_s: float,
) -> NDArray[np.float64]:
    time = np.arange(round(seconds * rate)) / rate
    hz = 440.0 * 2 ** ((number - 69) / 12)
    wave = np.zeros(len(time))
    for multiple, amplitude in partials:
        if multiple * hz < 0.45 * rate:
            wave += amplitude * np.sin(2 * np.pi * multiple * hz * time)
    release = np.clip((seconds - time) / 0.3, 0, 1)
    result: NDArray[np.float64] = wave * np.clip(time / attack_s, 0, 1) * np.exp(-time / decay_s) * release
    return result


def _add(music: NDArray[np.float64], rate: int, start_s: float, wave: NDArray[np.float64], gain: float) -> None:
    """What sounds beyond the end sounds at the beginning."""
    places = (round(start_s * rate) + np.arange(len(wave))) % len(music)
    music[places] += gain * wave
