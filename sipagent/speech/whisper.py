"""Whisper on CTranslate2, made quick enough for a conversation.

Whisper was made for 30 s of audio and its usual callers pad to that: 350 ms of an idle core for any utterance.
CTranslate2's encoder also takes fewer frames (undocumented; pinned by tests/speech/test_whisper.py and by the version
in pyproject.toml). With 10 s it needs 70 ms. In return the decoder may not stop by itself: hence the token limit, and
`loopcut`.
"""

import math
from pathlib import Path
from typing import NamedTuple

import ctranslate2
import numpy as np
import tokenizers
from numpy.typing import NDArray

from sipagent.core.resample import resample, to_float
from sipagent.speech.loopcut import cut_loop
from sipagent.speech.mel import RATE, log_mel

FRAMES_PER_S = 50  # the unit of the level measurements here is 20 ms

# By bench/stt.py: 30, 15, 10 and 6 s get 3.3, 4.1, 3.8 and 4.2 % of words wrong, for 5, 1.5, 1 and 0.8 times the CPU.
WINDOW_S = 10.0
MARGIN_S = 0.5  # silence behind the last word, without which the last word suffers
LONGEST_S = 28.0  # Whisper's positions end at 30 s
SEARCH_S = 8.0  # a longer utterance is divided at the quietest place in the last 8 s before that
TOKENS_PER_S = 6  # quick speakers need four
SPARE_TOKENS = 12
PROMPT_TOKENS = 60  # more costs time in every decode and does not help
# The decoder's probability for "no speech". 484 recorded prompts down to single letters stayed below 0.47, also 20 dB
# quieter or in noise at 10 dB; loud ringback goes down to 0.56 (and the decoder is sure of the "beep" it hears there),
# other tones, clicks, coughs and noise to 0.7.
NO_SPEECH = 0.52
QUIET_DBFS = -57.0  # loudest 20 ms below this: nobody spoke; G.711's own noise is at about -70
SPEECH_RANGE_DB = 30.0  # frames within this of the loudest count as speech when the speed of talking is judged


class Decoded(NamedTuple):
    text: str  # "" when it was no speech
    confidence: float  # 0..1, the mean probability of a token (geometric)
    no_speech: float  # 0..1


_NOTHING = Decoded("", 0.0, 1.0)


class Recogniser:
    """One model, for one caller at a time. `threads` work on each inference."""

    def __init__(self, folder: Path, *, language: str = "en", threads: int = 1) -> None:
        self._model = ctranslate2.models.Whisper(
            str(folder), device="cpu", compute_type="int8", intra_threads=threads, inter_threads=1
        )
        self._tokenizer = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
        self._mels = int(self._model.n_mels)
        start = [self._token("<|startoftranscript|>")]
        if self._model.is_multilingual:
            start += [self._token(f"<|{language}|>"), self._token("<|transcribe|>")]
        self._start = [*start, self._token("<|notimestamps|>")]
        self._before = self._token("<|startofprev|>")

    def _token(self, name: str) -> int:
        number = self._tokenizer.token_to_id(name)
        if number is None:
            raise ValueError(f"the recogniser's tokenizer has no {name}: wrong model, or a language it does not know")
        return int(number)

    def transcribe(self, pcm: NDArray[np.int16], rate: int, prompt: str = "") -> Decoded:
        """The words of one utterance at `rate` Hz. `prompt` holds words that are likely; it biases their choice.

        More than 28 s are recognised in pieces, divided where it is quietest.
        """
        pieces = [self._piece(piece, rate, prompt) for piece in divide(pcm, rate)]
        spoken = [piece for piece in pieces if piece.text]
        if not spoken:
            return min(pieces, key=lambda piece: piece.no_speech)
        return Decoded(
            " ".join(piece.text for piece in spoken),
            min(piece.confidence for piece in spoken),
            min(piece.no_speech for piece in spoken),
        )

    def _piece(self, pcm: NDArray[np.int16], rate: int, prompt: str) -> Decoded:
        speech_s = speech_seconds(pcm, rate)
        if not speech_s:
            return _NOTHING
        audio = resample(to_float(pcm), rate, RATE)
        audio_s = len(audio) / RATE
        # Two mel frames make one position of the encoder: the number of frames must be even.
        samples = int(max(WINDOW_S, audio_s + MARGIN_S) * RATE) // 320 * 320
        features = ctranslate2.StorageView.from_array(log_mel(audio, samples, self._mels)[np.newaxis])

        start = self._prompted(prompt)
        result = self._model.generate(
            self._model.encode(features),
            [start],
            beam_size=1,
            max_length=len(start) + int(audio_s * TOKENS_PER_S) + SPARE_TOKENS,
            return_scores=True,
            return_no_speech_prob=True,
        )[0]
        no_speech = float(result.no_speech_prob)
        if no_speech > NO_SPEECH:
            return Decoded("", 0.0, no_speech)
        text = self._tokenizer.decode(result.sequences_ids[0]).strip()
        confidence = min(1.0, math.exp(result.scores[0])) if text else 0.0
        return Decoded(cut_loop(text, speech_s), confidence, no_speech)

    def _prompted(self, prompt: str) -> list[int]:
        if not prompt.strip():
            return self._start
        words = self._tokenizer.encode(" " + " ".join(prompt.split()), add_special_tokens=False).ids
        return [self._before, *words[-PROMPT_TOKENS:], *self._start]


def levels_dbfs(pcm: NDArray[np.int16], rate: int) -> NDArray[np.float32]:
    """RMS of each whole 20 ms, in dB relative to full scale; -96 for digital silence."""
    frame = rate // FRAMES_PER_S
    frames = pcm[: len(pcm) // frame * frame].reshape(-1, frame).astype(np.float32)
    power = np.mean(frames**2, axis=1)
    levels: NDArray[np.float32] = 10.0 * np.log10(np.maximum(power, np.float32(0.25))) - np.float32(90.3)
    return levels


def speech_seconds(pcm: NDArray[np.int16], rate: int) -> float:
    """Time from the first to the last frame that may be speech; 0 when there is none."""
    levels = levels_dbfs(pcm, rate)
    if not len(levels) or levels.max() < QUIET_DBFS:
        return 0.0
    active = np.flatnonzero(levels > levels.max() - SPEECH_RANGE_DB)
    return float(active[-1] - active[0] + 1) / FRAMES_PER_S


def divide(pcm: NDArray[np.int16], rate: int) -> list[NDArray[np.int16]]:
    """Pieces of at most 28 s, together the whole; cut in the quietest 100 ms before each limit."""
    longest, search, frame = int(LONGEST_S * rate), int(SEARCH_S * rate), rate // FRAMES_PER_S
    pieces: list[NDArray[np.int16]] = []
    while len(pcm) > longest:
        tail = levels_dbfs(pcm[longest - search : longest], rate)
        smooth = np.convolve(tail, np.ones(5), mode="valid")
        cut = longest - search + (int(np.argmin(smooth)) + 2) * frame + frame // 2
        pieces.append(pcm[:cut])
        pcm = pcm[cut:]
    return [*pieces, pcm]
