"""Several voices or language models as one: whoever fails, hangs or drips is replaced by the next in order."""

from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from sipagent.conversation.chat_model import ChatModel, Delta, Message, Part, ToolSpec
from sipagent.conversation.interfaces import Speech, Timed
from sipagent.conversation.providers.health import Health
from sipagent.conversation.providers.ledger import Ledger
from sipagent.conversation.providers.race import Candidate, Limits, Race
from sipagent.core.errors import ProviderError

LEAST_CHARACTERS_PER_S = 4.0  # of a language model; speech takes some 15
IN_A_CALL = 10.0  # characters that a piece of a tool's call counts for

_GO_ON = (
    "The connection broke after your last words, which the caller has heard or will hear. Go on exactly where they stop"
    " and repeat nothing of them."
)


class Phrases(Protocol):
    """A voice that keeps what it has spoken before (`phrases.PhraseCache`)."""

    def speak(self, text: str, rate: int) -> AsyncIterator[Speech]: ...
    def holds(self, text: str) -> bool: ...


@dataclass(frozen=True, slots=True)
class Voice:
    health: Health
    limits: Limits
    phrases: Phrases


class KeptTts:
    """What has been spoken before, by the first voice that has it; everything else by the last, which is local."""

    def __init__(self, voices: Sequence[Voice]) -> None:
        self._voices = voices

    def speak(self, text: str, rate: int) -> AsyncIterator[Speech]:
        holding = [voice for voice in self._voices if voice.phrases.holds(text)]
        return (holding or [self._voices[-1]])[0].phrases.speak(text, rate)


class FallbackTts:
    """The voices of one call. A voice that took over stays: one that changes to and fro is worse than either."""

    def __init__(self, voices: Sequence[Voice], ledger: Ledger) -> None:
        self._voices = list(voices)
        self._ledger = ledger
        self.urgent = KeptTts(self._voices)

    async def speak(self, text: str, rate: int) -> AsyncGenerator[Speech, None]:
        """One clause by one voice; a voice that breaks off leaves the whole clause to the next."""
        if self._voices[0].phrases.holds(text):
            async for piece in self._voices[0].phrases.speak(text, rate):
                yield piece
            return
        candidates = [self._candidate(voice, text, rate) for voice in self._voices]
        race = Race("tts", candidates, self._ledger)
        while True:
            answer, first = await race.winner()
            self._prefer(answer.candidate.health)
            try:
                yield first
                async for piece in answer.rest():
                    yield piece
                return
            except ProviderError:
                if race.exhausted:
                    raise
            finally:
                answer.cancel()

    def _candidate(self, voice: Voice, text: str, rate: int) -> Candidate[Speech]:
        return Candidate(
            voice.health,
            voice.limits,
            lambda: voice.phrases.speak(text, rate),
            lambda piece: len(piece.pcm if isinstance(piece, Timed) else piece) / rate,
        )

    def _prefer(self, health: Health) -> None:
        self._voices.sort(key=lambda voice: voice.health is not health)


@dataclass(frozen=True, slots=True)
class Choice:
    health: Health
    limits: Limits
    model: ChatModel


class FallbackChat:
    """The language models of one call. One that breaks off is followed by another that goes on where it stopped."""

    def __init__(self, choices: Sequence[Choice], ledger: Ledger) -> None:
        self._choices = list(choices)
        self._ledger = ledger

    async def stream(self, messages: Sequence[Message], tools: Sequence[ToolSpec] = ()) -> AsyncGenerator[Part, None]:
        said: list[str] = []

        def start(choice: Choice) -> Callable[[], AsyncIterator[Part]]:
            return lambda: choice.model.stream(_going_on(messages, "".join(said)), tools)

        candidates = [Candidate(each.health, each.limits, start(each), _characters) for each in self._choices]
        race = Race("llm", candidates, self._ledger)
        while True:
            answer, first = await race.winner()
            try:
                yield _noted(first, said)
                async for part in answer.rest():
                    yield _noted(part, said)
                return
            except ProviderError:
                if race.exhausted:
                    raise
            finally:
                answer.cancel()


def _characters(part: Part) -> float:
    """While a model writes the call of a tool, its texts are empty."""
    return len(part.text) or IN_A_CALL if isinstance(part, Delta) else IN_A_CALL


def _noted(part: Part, said: list[str]) -> Part:
    if isinstance(part, Delta):
        said.append(part.text)
    return part


def _going_on(messages: Sequence[Message], said: str) -> Sequence[Message]:
    if not said.strip():
        return messages
    return [*messages, Message("assistant", said), Message("system", _GO_ON)]
