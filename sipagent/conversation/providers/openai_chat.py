"""OpenAI-compatible streaming chat: POST {base_url}/chat/completions with server-sent events.

Works with OpenAI, llama.cpp, vLLM, Ollama and their like. Traps that are handled: tool calls arrive in pieces and are
merged by `index`; the last chunk with usage has no choices; a `null` delta; a stream that ends without `[DONE]`.
"""

import asyncio
import json
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import aiohttp

from sipagent.core.errors import ProviderError

CONNECT_S = 3.0
BETWEEN_CHUNKS_S = 10.0
MAX_REPLY_CHARS = 8_000  # a model that does not stop is stopped
MAX_LINE = 1 << 18
_RETRYABLE = {408, 409, 425, 429}


@dataclass(frozen=True, slots=True)
class Message:
    role: str
    content: str


@dataclass(frozen=True, slots=True)
class ToolSpec:
    """A tool whose arguments are all required strings, each one of the listed values; of no list, any text."""

    name: str
    description: str
    parameters: Mapping[str, Sequence[str]]


@dataclass(frozen=True, slots=True)
class Delta:
    text: str


@dataclass(frozen=True, slots=True)
class ToolCall:
    name: str
    arguments: dict[str, Any]


@dataclass(slots=True)
class _Partial:
    name: str = ""
    arguments: list[str] = field(default_factory=list)


class ChatModel:
    """One model at one server; shared by calls. `http` is the node's session."""

    def __init__(
        self,
        http: aiohttp.ClientSession,
        base_url: str,
        model: str,
        *,
        api_key: str = "",
        temperature: float = 0.3,
        max_tokens: int = 200,
    ) -> None:
        self._http = http
        self._url = base_url.rstrip("/") + "/chat/completions"
        self._model = model
        self._headers = {"Authorization": f"Bearer {api_key}"} if api_key else {}
        self._temperature = temperature
        self._max_tokens = max_tokens

    async def stream(
        self, messages: Sequence[Message], tools: Sequence[ToolSpec] = ()
    ) -> AsyncIterator[Delta | ToolCall]:
        """Text as it comes, tool calls at the end. Raises ProviderError; closing the iterator cancels the request."""
        body: dict[str, Any] = {
            "model": self._model,
            "messages": [{"role": m.role, "content": m.content} for m in messages],
            "stream": True,
            "temperature": self._temperature,
            "max_tokens": self._max_tokens,
        }
        if tools:
            body["tools"] = [_tool(tool) for tool in tools]
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_S, sock_read=BETWEEN_CHUNKS_S)
        calls: dict[int, _Partial] = {}
        length = 0
        try:
            async with self._http.post(self._url, json=body, headers=self._headers, timeout=timeout) as response:
                if response.status != 200:
                    raise ProviderError(
                        f"the chat model answered {response.status}: check base_url, model and key",
                        retryable=response.status >= 500 or response.status in _RETRYABLE,
                    )
                async for line in response.content:
                    chunk = _chunk(line)
                    for choice in (chunk or {}).get("choices") or ():
                        delta = choice.get("delta") or {}
                        text = delta.get("content")
                        if isinstance(text, str) and text:
                            length += len(text)
                            yield Delta(text)
                        for piece in delta.get("tool_calls") or ():
                            _merge(calls, piece)
                    if length > MAX_REPLY_CHARS:
                        break
        except (
            aiohttp.ClientError,
            TimeoutError,
            asyncio.IncompleteReadError,
            ValueError,
            AttributeError,
            TypeError,
        ) as error:  # the last three: JSON of another shape than the protocol's
            raise ProviderError(f"the chat model failed ({type(error).__name__})", retryable=True) from error
        for call in calls.values():
            yield ToolCall(call.name, _arguments("".join(call.arguments)))


def _chunk(line: bytes) -> dict[str, Any] | None:
    if len(line) > MAX_LINE or not line.startswith(b"data:"):
        return None
    data = line[5:].strip()
    if data == b"[DONE]" or not data:
        return None
    try:
        chunk = json.loads(data)
    except ValueError as error:
        raise ProviderError("the chat model sent an event that is not JSON", retryable=True) from error
    if not isinstance(chunk, dict):
        return None
    if chunk.get("error"):
        raise ProviderError("the chat model reported an error in its stream", retryable=True)
    return chunk


def _merge(calls: dict[int, _Partial], piece: Any) -> None:
    if not isinstance(piece, dict) or len(calls) > 16:
        return
    call = calls.setdefault(int(piece.get("index") or 0), _Partial())
    function = piece.get("function") or {}
    call.name = call.name or str(function.get("name") or "")
    call.arguments.append(str(function.get("arguments") or ""))


def _arguments(text: str) -> dict[str, Any]:
    try:
        value = json.loads(text or "{}")
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}


def _tool(tool: ToolSpec) -> dict[str, Any]:
    return {
        "type": "function",
        "function": {
            "name": tool.name,
            "description": tool.description,
            "parameters": {
                "type": "object",
                "properties": {name: _string(values) for name, values in tool.parameters.items()},
                "required": list(tool.parameters),
                "additionalProperties": False,
            },
        },
    }


def _string(values: Sequence[str]) -> dict[str, Any]:
    return {"type": "string", "enum": list(values)} if values else {"type": "string"}
