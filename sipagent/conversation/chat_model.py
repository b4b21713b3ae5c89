"""What an agent needs of a language model that chats and calls tools; nothing here knows whose it is."""

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol


@dataclass(frozen=True, slots=True)
class Delta:
    text: str  # "" is a sign of life: the model writes the call of a tool


@dataclass(frozen=True, slots=True)
class ToolCall:
    name: str
    arguments: str  # as the model wrote them: JSON, or meant to be
    id: str = ""


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens of one request, where the server tells."""

    prompt: int
    answer: int


Part = Delta | ToolCall | Usage


@dataclass(frozen=True, slots=True)
class Message:
    role: str  # "system", "user", "assistant" or "tool"
    content: str
    tool_calls: tuple[ToolCall, ...] = ()  # of the assistant
    tool_call_id: str = ""  # of a tool: which call it answers


@dataclass(frozen=True, slots=True)
class ToolSpec:
    """A tool as the model is told of it; ``parameters`` is a JSON schema of an object."""

    name: str
    description: str
    parameters: dict[str, Any]


class ChatModel(Protocol):
    def stream(self, messages: Sequence[Message], tools: Sequence[ToolSpec] = ()) -> AsyncIterator[Part]:
        """Text as it comes, then the calls of tools, then the usage. Raises ProviderError; closing it cancels."""
        ...
