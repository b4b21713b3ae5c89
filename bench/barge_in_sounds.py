"""What is heard beside the agent's voice in `bench.barge_in`: 8 kHz, by kind; each with its name.

Interruptions are the recorded prompts of Debian's asterisk-core-sounds-en-wav. Backchannels, coughs, laughs and grunts
are recorded by several speakers where hedgewars-data is there (its voices; a directory may be given; package sox reads
them), and the words of backchannels besides are said by the local voice at three speeds. Keys of a keyboard are
recordings of bucklespring-data, without it clicks of noise. More coughs are made of noise, shaped as coughs are: a
burst, a breath, a voiced end. Names say what was made.
"""

import subprocess
import wave
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from sipagent.core.resample import convert
from sipagent.media.tones import tones
from tests.speech.prompts import prompts

Pcm = NDArray[np.int16]
Floats = NDArray[np.float64]

VOICES = Path("/usr/share/games/hedgewars/Data/Sounds/voices")
KEYS = Path("/usr/share/buckle/wav")
NO_WORDS = ("PoisonCough", "Laugh", "Ooff1", "Ooff2", "Ow1", "Ow2")
RATE = 8000
SPEECH_DBFS = -22.0  # of the louder frames
KEY_DBFS = -26.0
SAID = (
    "Mm-hmm.",
    "Yeah.",
    "Okay.",
    "Right.",
    "Uh-huh.",
    "Yes.",
    "I see.",
    "Sure.",
    "Got it.",
    "Yes, yes.",
    "All right.",
)
SPEEDS = (8000, 8800, 7300)  # as which the voice's 8 kHz are taken


class Sound(NamedTuple):
    kind: str
    name: str
    pcm: Pcm


def levelled(pcm: Pcm | Floats, dbfs: float = SPEECH_DBFS) -> Pcm:
    """With the frames within 20 dB of the loudest at this level."""
    samples = np.asarray(pcm, np.float64)
    samples = np.pad(samples, (0, -len(samples) % 160))
    powers = (samples.reshape(-1, 160) ** 2).mean(axis=1)
    active = powers[powers > powers.max() / 100].mean()
    scaled = samples * 32768 * 10 ** (dbfs / 20) / np.sqrt(active)
    levelled: Pcm = np.clip(scaled, -32767, 32767).astype(np.int16)
    return levelled


def interruptions(count: int) -> list[Sound]:
    return [
        Sound("interruption", said.text, levelled(said.pcm)) for said in prompts(count, words=(2, 12), longest_s=5.0)
    ]


def recorded(voices: Path) -> list[Sound]:
    """Every recording once, though several voices share some; none without the package."""
    found: dict[bytes, Sound] = {}
    for path in sorted(voices.glob("*/*.ogg")):
        kind = (
            "backchannel" if path.stem in ("Hmm", "Yessir") else "cough, laugh, grunt" if path.stem in NO_WORDS else ""
        )
        english = "_" not in path.parent.name
        if kind and (english or kind != "backchannel"):
            command = ["sox", str(path), *"-t raw -r 8000 -e signed -b 16 -c 1 -".split()]
            pcm = np.frombuffer(subprocess.run(command, check=True, capture_output=True).stdout, np.int16)
            found[path.read_bytes()] = Sound(kind, f"{path.stem} of {path.parent.name}", levelled(pcm))
    return list(found.values())


def spoken(said: Sequence[tuple[str, Pcm]]) -> list[Sound]:
    """Backchannels by the local voice."""
    return [
        Sound("backchannel", f"{text} by the voice, {speed / RATE:.2f}", levelled(convert(pcm, speed, RATE)))
        for text, pcm in said
        for speed in SPEEDS
    ]


def coughs(count: int) -> list[Sound]:
    made = []
    for number in range(count):
        random = np.random.default_rng(number)
        parts = [_cough(random) for _ in range(random.integers(1, 4))]
        made.append(Sound("cough, laugh, grunt", f"made cough {number}", levelled(np.concatenate(parts))))
    return made


def _cough(random: np.random.Generator) -> Floats:
    """A burst of 40 to 70 ms, noise that dies away over 150 to 250 ms, and a voiced end of up to 100 ms."""
    burst, breath, voiced, gap = (
        int(RATE * random.uniform(*s)) for s in ((0.04, 0.07), (0.15, 0.25), (0, 0.1), (0.08, 0.3))
    )
    envelope = np.concatenate([np.linspace(0.2, 1, burst), np.exp(-4 * np.linspace(0, 1, breath)) * 0.6])
    noise = random.normal(0, 1, burst + breath)
    for hz, width in ((random.uniform(450, 800), 200), (random.uniform(1200, 1800), 300)):
        noise = noise + 2 * _resonant(noise, hz, width)
    time = np.arange(voiced) / RATE
    pitch = random.uniform(120, 300)
    end = sum(np.sin(2 * np.pi * pitch * k * time) / k for k in range(1, 8)) * np.linspace(0.4, 0, voiced)
    return np.concatenate([noise * envelope, np.asarray(end, np.float64) * 2, np.zeros(gap)])


def _resonant(noise: Floats, hz: float, width: float) -> Floats:
    radius = np.exp(-np.pi * width / RATE)
    one, two = 2 * radius * np.cos(2 * np.pi * hz / RATE), -(radius**2)
    out = np.zeros(len(noise))
    for k in range(len(noise)):
        out[k] = (1 - radius) * noise[k] + one * out[k - 1] + two * out[k - 2]
    return out


def keyboards(count: int) -> list[Sound]:
    """Two seconds of typing, six keys a second."""
    files = sorted(KEYS.glob("*.wav"))
    made = []
    for number in range(count):
        random = np.random.default_rng(1000 + number)
        pcm = np.zeros(int(2.4 * RATE))
        for at in np.cumsum(random.uniform(0.08, 0.25, 12)):
            key = _key(files[random.integers(len(files))]) if files else _made_key(random)
            begin = int(at * RATE)
            key = key[: len(pcm) - begin]
            pcm[begin : begin + len(key)] += key
        name = f"keyboard {number}" if files else f"made keyboard {number}"
        made.append(Sound("keyboard", name, levelled(pcm, KEY_DBFS)))
    return made


def _key(path: Path) -> Floats:
    with wave.open(str(path)) as file:
        samples = np.frombuffer(file.readframes(file.getnframes()), np.int16).reshape(-1, file.getnchannels())
        return convert(np.ascontiguousarray(samples[:, 0]), file.getframerate(), RATE).astype(np.float64)


def _made_key(random: np.random.Generator) -> Floats:
    return random.normal(0, 1, 400) * np.exp(-np.arange(400) / 60) * 8000


def dialling(count: int) -> list[Sound]:
    """Four keys as tones, 100 ms each."""
    made = []
    for number in range(count):
        random = np.random.default_rng(2000 + number)
        keys = "".join(random.choice(list("0123456789*#"), 4))
        made.append(Sound("DTMF", keys, np.concatenate([tones(key, 100, 100, RATE) for key in keys])))
    return made
