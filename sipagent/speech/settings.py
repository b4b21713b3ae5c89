"""What an operator may choose about the local models. Every field: unit, default, and why."""

from typing import Annotated, Literal

import msgspec

VadKind = Literal["webrtc", "silero", "gated"]

Small = Annotated[int, msgspec.Meta(ge=1, le=64)]


class SpeechSettings(msgspec.Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """The `[speech]` table. A model is named as `sipagent models` lists it, or by a path; "" loads none of its kind."""

    # Processes. Each holds every model (about 600 MB) and serves about 8 talking callers on one core.
    workers: Small = 1
    # Threads inside one inference. More cuts the time of a single answer, and costs throughput when several talk.
    threads: Small = 1
    # Path or name. A path is a folder in CTranslate2's format with its tokenizer.json.
    stt_model: str = "whisper-tiny.en"
    # ISO 639-1, for multilingual recognisers; models that know English only ignore it.
    language: str = "en"
    # Path or name. A path is a Piper voice's .onnx file with its .onnx.json beside it; "espeak:de" is eSpeak's voice
    # for German, and so for some hundred languages.
    tts_voice: str = "en_US-joe-medium"
    # Name. Sentence vectors, by which the built-in agent tells what the caller wants.
    embedding_model: str = "use-m3"
    # Path or name. Hears from the melody of speech whether a pause ends the caller's turn, which shortens or lengthens
    # the silence that is waited for; 31 ms of a core per pause. Left out where it is not installed.
    turn_model: str = "smart-turn-v3.2"
    # Which detector decides, per 20 ms, whether the caller is speaking. By bench/vad.py: "webrtc" takes key tones,
    # ringback and loud noise for speech; "silero" does not, for 50 to 120 µs a frame; "gated" hears as well as
    # "silero" (1 % missed on a clean line, 1 to 3 % in noise down to 5 dB) and costs 4 µs while the line is quiet.
    vad: VadKind = "gated"
    # Path or name. Not used by vad = "webrtc".
    vad_model: str = "silero-vad"
    # Folder of pulled models; "" is $SIPAGENT_MODELS, else $XDG_DATA_HOME/sipagent/models.
    model_dir: str = ""
