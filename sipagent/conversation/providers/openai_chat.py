"""OpenAI-compatible streaming chat: POST {base_url}/chat/completions with server-sent events.

Works with OpenAI, llama.cpp, vLLM, Ollama and their like. Traps that are handled: tool calls arrive in pieces and are
merged by `index`, or come whole and all with index 0 or none; arguments that are an object and no text; calls without
an id; the last chunk with usage has no choices; a `null` delta; a stream that ends without `[DONE]`.
"""

import json
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import aiohttp

from sipagent.conversation.chat_model import Delta, Message, Part, ToolCall, ToolSpec, Usage
from sipagent.conversation.providers.wire import TIMEOUT, failing, refusal
from sipagent.core.errors import ProviderError
from sipagent.core.text import storable

MAX_REPLY_CHARS = 8_000  # a model that does not stop is stopped
MAX_LINE = 1 << 18
MAX_CALLS = 16  # of tools in one answer
MAX_ARGUMENTS = 16_000  # characters of all of them


@dataclass(slots=True)
class _Partial:
    id: str = ""
    name: str = ""
    arguments: list[str] = field(default_factory=list)


class OpenAiChat:
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

    async def stream(self, messages: Sequence[Message], tools: Sequence[ToolSpec] = ()) -> AsyncIterator[Part]:
        """Text as it comes, tool calls at the end. Raises ProviderError; closing the iterator cancels the request."""
        body: dict[str, Any] = {
            "model": self._model,
            "messages": [_message(message) for message in messages],
            "stream": True,
            "stream_options": {"include_usage": True},
            "temperature": self._temperature,
            "max_tokens": self._max_tokens,
        }
        if tools:
            body["tools"] = [_tool(tool) for tool in tools]
        calls = _Calls()
        usage: Usage | None = None
        length = 0
        with failing():
            async with self._http.post(self._url, json=body, headers=self._headers, timeout=TIMEOUT) as response:
                if response.status != 200:
                    raise refusal(response.status)
                async for line in response.content:
                    chunk = _chunk(line) or {}
                    usage = _usage(chunk.get("usage")) or usage
                    for choice in chunk.get("choices") or ():
                        delta = choice.get("delta") or {}
                        text = delta.get("content")
                        if isinstance(text, str) and (text := text[: MAX_REPLY_CHARS - length]):
                            length += len(text)
                            yield Delta(storable(text))
                        for piece in delta.get("tool_calls") or ():
                            calls.add(piece)
                            yield Delta("")  # a sign of life: the call itself comes at the end
                    if length >= MAX_REPLY_CHARS:
                        break
        for call in calls.made():
            yield call
        if usage is not None:
            yield usage


def _chunk(line: bytes) -> dict[str, Any] | None:
    if len(line) > MAX_LINE or not line.startswith(b"data:"):
        return None
    data = line[5:].strip()
    if data == b"[DONE]" or not data:
        return None
    try:
        chunk = json.loads(data)
    except ValueError as error:
        raise ProviderError("sent an event that is not JSON", retryable=True) from error
    if not isinstance(chunk, dict):
        return None
    if chunk.get("error"):
        raise ProviderError("reported an error in its stream", retryable=True)
    return chunk


class _Calls:
    """The calls of tools in one answer, put together from their pieces."""

    def __init__(self) -> None:
        self._made: list[_Partial] = []
        self._by_index: dict[int, _Partial] = {}
        self._length = 0

    def add(self, piece: Any) -> None:
        """Raises ValueError, AttributeError or TypeError for what is no piece of a call."""
        if not isinstance(piece, dict):
            return
        function = piece.get("function") or {}
        index, call_id, name = int(piece.get("index") or 0), str(piece.get("id") or ""), str(function.get("name") or "")
        call = self._by_index.get(index)
        # Some servers send every call whole, and all with the same index.
        another = call is not None and (call_id != call.id if call_id else bool(name) and _is_json(call.arguments))
        if call is None or another:
            if len(self._made) >= MAX_CALLS:
                return
            call = self._by_index[index] = _Partial()
            self._made.append(call)
        call.id, call.name = call.id or call_id, call.name or name
        arguments = function.get("arguments") or ""
        text = arguments if isinstance(arguments, str) else json.dumps(arguments)
        self._length += len(text)
        if self._length > MAX_ARGUMENTS:
            raise ValueError("the arguments of tools are too long")
        call.arguments.append(text)

    def made(self) -> list[ToolCall]:
        named = [call for call in self._made if call.name]
        return [
            ToolCall(storable(c.name), storable("".join(c.arguments)) or "{}", storable(c.id) or f"call_{i}")
            for i, c in enumerate(named)
        ]


def _is_json(pieces: list[str]) -> bool:
    try:
        json.loads("".join(pieces))
    except ValueError:
        return False
    return True


def _usage(told: Any) -> Usage | None:
    if not isinstance(told, dict):
        return None
    prompt, answer = told.get("prompt_tokens"), told.get("completion_tokens")
    return Usage(prompt, answer) if isinstance(prompt, int) and isinstance(answer, int) else None


def _message(message: Message) -> dict[str, Any]:
    made: dict[str, Any] = {"role": message.role, "content": message.content}
    if message.tool_calls:
        made["tool_calls"] = [
            {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.arguments}}
            for call in message.tool_calls
        ]
    if message.tool_call_id:
        made["tool_call_id"] = message.tool_call_id
    return made


def _tool(tool: ToolSpec) -> dict[str, Any]:
    function = {"name": tool.name, "description": tool.description, "parameters": tool.parameters}
    return {"type": "function", "function": function}
