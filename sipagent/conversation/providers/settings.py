"""Providers of recognition, language and speech as `[providers.NAME]` tables of sipagent.toml, one class a kind.

What agents name in `stt`, `llm` and `tts` are these tables; `local` is always there and needs none.
"""

from typing import ClassVar, Literal
from urllib.parse import urlsplit

import msgspec

LOCAL = "local"

Role = Literal["stt", "llm", "tts"]


class _Table(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="kind"):
    """What the tables of every kind have in common; in ms, from the request on."""

    role: ClassVar[Role]

    key: str = ""  # API key; better `{ env = "NAME" }` than here in clear; never logged
    # Nothing by then, no first word or audio: the request counts as failed and the next provider is asked.
    first_ms: int = 2500
    # Nothing more by then in the middle of an answer: it counts as broken off, and the next provider goes on.
    stall_ms: int = 1500
    # Late by so much: the next provider is asked as well and the first to answer is taken; 0 waits for first_ms.
    hedge_ms: int = 0
    failures: int = 3  # in a row, then it is left alone for pause_s
    pause_s: float = 20.0  # doubles each time that it fails again at once, up to 5 minutes

    def __repr__(self) -> str:
        return f"{type(self).__name__}(…)"

    def __post_init__(self) -> None:
        for name in ("first_ms", "stall_ms", "failures"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is at least 1")
        if self.hedge_ms < 0 or self.pause_s < 0:
            raise ValueError("hedge_ms and pause_s are 0 or more")
        schemes = ("http", "https", "ws", "wss")
        url = str(getattr(self, "base_url", "http://host"))
        try:
            parts = urlsplit(url)
            good = parts.scheme in schemes and bool(parts.hostname) and parts.port != 0
        except ValueError:
            good = False
        if not good:
            raise ValueError("base_url is no address such as https://api.example.com/v1")


class OpenAiChatSettings(_Table, frozen=True, kw_only=True, tag="openai_chat"):
    """A language model behind POST /chat/completions: OpenAI, llama.cpp, vLLM, Ollama and their like."""

    role = "llm"

    base_url: str  # up to and including /v1
    model: str  # its name at the provider
    temperature: float = 0.3  # 0 is always the likeliest word
    max_tokens: int = 200  # of one answer


class OpenAiSpeechSettings(_Table, frozen=True, kw_only=True, tag="openai_speech"):
    """A voice behind POST /audio/speech with `response_format: pcm` (24 kHz), streamed."""

    role = "tts"

    base_url: str  # up to and including /v1
    model: str  # its name at the provider
    voice: str  # its name at the provider
    instructions: str = ""  # how to speak, for models that take it
    # Less audio than this share of real time over a second counts as broken off: it would stutter.
    slowest: float = 0.9


class OpenAiTranscriptionSettings(_Table, frozen=True, kw_only=True, tag="openai_transcription"):
    """A recogniser behind POST /audio/transcriptions; takes whole utterances, so there are no partial words."""

    role = "stt"

    base_url: str  # up to and including /v1
    model: str  # its name at the provider
    language: str = ""  # "en"; "" leaves it to the model
    prompt: str = ""  # words that are likely


class DeepgramSettings(_Table, frozen=True, kw_only=True, tag="deepgram"):
    """A recogniser over Deepgram's websocket (/v1/listen): words while the caller speaks, and its own end of turn."""

    role = "stt"

    base_url: str = "wss://api.deepgram.com/v1"  # another for a server of one's own
    model: str = "nova-3"  # its name at the provider
    language: str = ""  # "en"; "" leaves it to the model
    endpointing_ms: int = 300  # silence after which it says that the caller has finished


class ElevenLabsSettings(_Table, frozen=True, kw_only=True, tag="elevenlabs"):
    """A voice over ElevenLabs' websocket (stream-input), with the time of every word."""

    role = "tts"

    base_url: str = "wss://api.elevenlabs.io/v1"  # another for a server of one's own
    model: str = "eleven_flash_v2_5"  # its name at the provider
    voice: str  # its id
    stability: float = 0.5  # 0 to 1
    similarity: float = 0.8  # 0 to 1
    slowest: float = 0.9  # as of openai_speech


ProviderSettings = (
    OpenAiChatSettings | OpenAiSpeechSettings | OpenAiTranscriptionSettings | DeepgramSettings | ElevenLabsSettings
)

KINDS: dict[str, type[ProviderSettings]] = {
    str(kind.__struct_config__.tag): kind
    for kind in (
        OpenAiChatSettings,
        OpenAiSpeechSettings,
        OpenAiTranscriptionSettings,
        DeepgramSettings,
        ElevenLabsSettings,
    )
}


def needs_key(settings: ProviderSettings) -> bool:
    """The vendor's own address without a key: it would refuse every request."""
    if settings.key:
        return False
    host = urlsplit(settings.base_url).hostname or ""
    return host.endswith((".deepgram.com", ".elevenlabs.io", ".openai.com"))
