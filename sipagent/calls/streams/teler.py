"""Teler's media stream: linear audio, messages with a `type`.

To the application: `start`, then `audio`. From it: `audio` (its data nested or flat: the SDK of Teler sends both),
`interrupt` of one chunk, `clear`.
"""

from collections.abc import Iterator

import msgspec

from sipagent.calls.streams.dialect import MAX_MARK, Audio, Clear, Facts, FromApp, Interrupt, Malformed, Message
from sipagent.calls.streams.json_messages import base64, decoded, from_base64, linear, text
from sipagent.conversation.interfaces import Pcm

_Chunk = str | int | None


class _Data(msgspec.Struct):
    audio_b64: str = ""
    chunk_id: _Chunk = None


class _FromApp(msgspec.Struct):
    type: str
    data: _Data | None = None
    audio_b64: str = ""
    chunk_id: _Chunk = None


class Teler:
    tracks_apart = False

    def __init__(self, facts: Facts) -> None:
        self._facts = facts
        self._messages = 0

    def opening(self) -> Iterator[Message]:
        facts = self._facts
        data: dict[str, object] = {"encoding": "audio/l16", "sample_rate": facts.rate, "channels": 1}
        if facts.parameters:
            data["custom_parameters"] = dict(facts.parameters)
        yield text(
            {
                "type": "start",
                "account_id": facts.account_id,
                "call_app_id": facts.app_id,
                "call_id": facts.call_id,
                "stream_id": facts.stream_id,
                "message_id": self._next(),
                "data": data,
            }
        )

    def audio(self, pcm: Pcm, track: str, at_ms: int) -> Message:
        # By hand: it is said fifty times a second for each call, and nothing in it needs escaping.
        return (
            f'{{"type":"audio","stream_id":"{self._facts.stream_id}","message_id":{self._next()},'
            f'"data":{{"audio_b64":"{base64(pcm.astype("<i2", copy=False).tobytes())}"}}}}'
        )

    def digit(self, digit: str) -> Message | None:
        return None

    def mark(self, name: str) -> Message | None:
        return None

    def closing(self) -> Iterator[Message]:
        return iter(())

    def read(self, message: Message) -> Iterator[FromApp]:
        said = decoded(message, _FromApp)
        nested = said.data or _Data()
        chunk_id = nested.chunk_id if nested.chunk_id is not None else said.chunk_id
        chunk = "" if chunk_id is None else str(chunk_id)
        if len(chunk) > MAX_MARK:
            raise Malformed(f"a `chunk_id` is longer than {MAX_MARK} characters")
        match said.type:
            case "audio":
                yield Audio(linear(from_base64(nested.audio_b64 or said.audio_b64)), self._facts.rate, chunk)
            case "interrupt":
                yield Interrupt(chunk)
            case "clear":
                yield Clear()
            case _:
                raise Malformed("a message has a type that Teler's streams do not have")

    def _next(self) -> int:
        self._messages += 1
        return self._messages
