"""The providers of a node by name, and what an agent asks of them: a voice, a recogniser, a language model.

Each is a list of names in order of preference; the local models follow by themselves, so that there is always one.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, assert_never

import aiohttp
import numpy as np

from sipagent.conversation.chat_model import ChatModel
from sipagent.conversation.interfaces import Recogniser
from sipagent.conversation.phrases import PhraseCache
from sipagent.conversation.providers.deepgram import Deepgram
from sipagent.conversation.providers.elevenlabs import ElevenLabs
from sipagent.conversation.providers.fallback import LEAST_CHARACTERS_PER_S, Choice, FallbackChat, FallbackTts, Voice
from sipagent.conversation.providers.health import Health
from sipagent.conversation.providers.ledger import Ledger
from sipagent.conversation.providers.listening import FallbackRecogniser, Listening
from sipagent.conversation.providers.local import LocalRecogniser
from sipagent.conversation.providers.openai_chat import OpenAiChat
from sipagent.conversation.providers.openai_speech import OpenAiSpeech
from sipagent.conversation.providers.openai_transcription import OpenAiTranscriber
from sipagent.conversation.providers.race import Limits
from sipagent.conversation.providers.settings import (
    LOCAL,
    DeepgramSettings,
    ElevenLabsSettings,
    OpenAiChatSettings,
    OpenAiSpeechSettings,
    OpenAiTranscriptionSettings,
    ProviderSettings,
    Role,
    needs_key,
)
from sipagent.conversation.settings import ConversationSettings
from sipagent.core.errors import ConfigError

# The worker has its own limits, beyond which nothing else would be left to ask.
_LOCAL_LIMITS = Limits(first_ms=8000, stall_ms=8000)
WHAT = {"stt": "a recogniser", "llm": "a language model", "tts": "a voice"}


@dataclass(slots=True)
class _Provider:
    settings: ProviderSettings
    health: Health
    limits: Limits
    phrases: PhraseCache | None = None  # of a voice
    recogniser: Recogniser | None = None
    model: ChatModel | None = None


class Catalogue:
    """`http` is the node's session; `phrases` and `recogniser` are the local models."""

    def __init__(
        self,
        tables: Mapping[str, ProviderSettings],
        http: aiohttp.ClientSession,
        phrases: PhraseCache,
        recogniser: Recogniser,
        conversation: ConversationSettings,
    ) -> None:
        self._local_health = {role: Health(f"{LOCAL}/{role}") for role in ("stt", "tts")}
        self.local_phrases = phrases
        self._local_recogniser = recogniser
        self._providers = {name: _made(name, table, http, conversation) for name, table in tables.items()}

    def check(self, agent: str, role: Role, names: Iterable[str]) -> None:
        """Raises ConfigError when an agent names what there is not."""
        for name in names:
            if name == LOCAL and role != "llm":
                continue
            known = self._providers.get(name)
            if known is None:
                there = sorted(each for each, one in self._providers.items() if one.settings.role == role)
                raise ConfigError(
                    f"{agent}: `{role}` names {name}, but there is no [providers.{name}]"
                    + (f"; {WHAT[role]} would be {', '.join(there)}" if there else "")
                )
            if known.settings.role != role:
                raise ConfigError(f"{agent}: `{role}` names {name}, which is {WHAT[known.settings.role]}")

    def tts(self, names: Sequence[str], ledger: Ledger) -> FallbackTts:
        voices = [Voice(one.health, one.limits, one.phrases) for one in self._named(names) if one.phrases is not None]
        return FallbackTts([*voices, Voice(self._local_health["tts"], _LOCAL_LIMITS, self.local_phrases)], ledger)

    def recogniser(self, names: Sequence[str], ledger: Ledger) -> Recogniser:
        known = [Listening(one.health, one.limits, one.recogniser) for one in self._named(names) if one.recogniser]
        local = Listening(self._local_health["stt"], _LOCAL_LIMITS, self._local_recogniser)
        return FallbackRecogniser([*known, local], ledger)

    def llm(self, names: Sequence[str], ledger: Ledger, own: Choice | None = None) -> FallbackChat:
        """`own`: a model that stands in the dialplan itself; it comes first."""
        named = [Choice(one.health, one.limits, one.model) for one in self._named(names) if one.model is not None]
        return FallbackChat([*([own] if own is not None else []), *named], ledger)

    def phrases(self, names: Sequence[str]) -> PhraseCache:
        """Of the voice that an agent prefers."""
        first = next((one.phrases for one in self._named(names) if one.phrases is not None), None)
        return first or self.local_phrases

    def health(self, name: str) -> Health:
        return self._providers[name].health

    def figures(self) -> dict[str, dict[str, Any]]:
        """By provider, since the node started."""
        healths = [*(one.health for one in self._providers.values()), *self._local_health.values()]
        return {health.name: _figures(health) for health in healths}

    def _named(self, names: Sequence[str]) -> list[_Provider]:
        """Up to `local`, which is the end of every list anyway."""
        until = names.index(LOCAL) if LOCAL in names else len(names)
        return [self._providers[name] for name in names[:until]]


def own_choice(model: ChatModel, name: str) -> Choice:
    """A language model that stands in the dialplan and not among the providers."""
    return Choice(Health(name), Limits(first_ms=8000, stall_ms=5000), model)


def _made(
    name: str, table: ProviderSettings, http: aiohttp.ClientSession, conversation: ConversationSettings
) -> _Provider:
    if needs_key(table):
        raise ConfigError(f'[providers.{name}] has no `key`: set it, best as {{ env = "NAME" }}')
    slowest = getattr(table, "slowest", LEAST_CHARACTERS_PER_S if table.role == "llm" else 0.0)
    limits = Limits(table.first_ms, table.stall_ms, table.hedge_ms, slowest)
    made = _Provider(table, Health(name, table.failures, table.pause_s), limits)
    match table:
        case OpenAiChatSettings():
            made.model = OpenAiChat(
                http,
                table.base_url,
                table.model,
                api_key=table.key,
                temperature=table.temperature,
                max_tokens=table.max_tokens,
            )
        case OpenAiSpeechSettings():
            made.phrases = PhraseCache(OpenAiSpeech(http, table))
        case ElevenLabsSettings():
            made.phrases = PhraseCache(ElevenLabs(http, table))
        case OpenAiTranscriptionSettings():
            made.recogniser = LocalRecogniser(OpenAiTranscriber(http, table), conversation)
        case DeepgramSettings():
            made.recogniser = Deepgram(http, table)
        case _:
            assert_never(table)
    return made


def _figures(health: Health) -> dict[str, Any]:
    first = np.array(health.figures.first_ms)
    p50, p95 = np.percentile(first, [50, 95]) if len(first) else (None, None)
    return {
        "requests": health.figures.requests,
        "failures": dict(health.figures.failures),
        "late": health.figures.late,
        "first_ms_p50": p50,
        "first_ms_p95": p95,
    }
