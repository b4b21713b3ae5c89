"""Asterisk's AudioSocket (docs.asterisk.org, Configuration/Channel-Drivers/AudioSocket) over TCP.

A message is a byte of kind, two bytes of length, and so many bytes: little-endian samples, one kind for each rate.
"""

import uuid
from collections.abc import Iterator

from sipagent.calls.streams.dialect import Audio, Facts, FromApp, Keys, Malformed, Message, Stop
from sipagent.calls.streams.json_messages import linear
from sipagent.conversation.interfaces import Pcm

HANGUP, ID, DTMF, ERROR = 0x00, 0x01, 0x03, 0xFF
RATES = {
    0x10: 8000,
    0x11: 12000,
    0x12: 16000,
    0x13: 24000,
    0x14: 32000,
    0x15: 44100,
    0x16: 48000,
    0x17: 96000,
    0x18: 192000,
}
KINDS = {rate: kind for kind, rate in RATES.items()}
_HEAD = 3


def packet(kind: int, payload: bytes = b"") -> bytes:
    return bytes((kind,)) + len(payload).to_bytes(2, "big") + payload


def call_uuid(call_id: str) -> uuid.UUID:
    """Of a call of ours, always the same."""
    return uuid.uuid5(uuid.NAMESPACE_URL, f"sipagent:{call_id}")


class Packets:
    """Cuts what comes into (kind, payload)."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> Iterator[tuple[int, bytes]]:
        self._buffer += data
        while len(self._buffer) >= _HEAD:
            length = _HEAD + int.from_bytes(self._buffer[1:_HEAD], "big")
            if len(self._buffer) < length:
                return
            kind, payload = self._buffer[0], bytes(self._buffer[_HEAD:length])
            del self._buffer[:length]
            yield kind, payload


class AudioSocket:
    """We are the side that connects."""

    tracks_apart = False

    def __init__(self, facts: Facts) -> None:
        self._facts = facts
        self._packets = Packets()

    def opening(self) -> Iterator[Message]:
        """The application knows the call by a UUID: the parameter `uuid`, or one made of the call's id."""
        given = self._facts.parameters.get("uuid", "")
        try:
            call = uuid.UUID(given) if given else call_uuid(self._facts.call_id)
        except ValueError:
            call = call_uuid(self._facts.call_id)
        yield packet(ID, call.bytes)

    def audio(self, pcm: Pcm, track: str, at_ms: int) -> Message:
        return packet(KINDS[self._facts.rate], pcm.astype("<i2", copy=False).tobytes())

    def digit(self, digit: str) -> Message | None:
        return packet(DTMF, digit.encode("ascii"))

    def mark(self, name: str) -> Message | None:
        return None

    def closing(self) -> Iterator[Message]:
        yield packet(HANGUP)

    def read(self, message: Message) -> Iterator[FromApp]:
        assert isinstance(message, bytes)
        for kind, payload in self._packets.feed(message):
            yield meaning(kind, payload)


def meaning(kind: int, payload: bytes) -> FromApp:
    """Of one message. Raises Malformed."""
    if kind in RATES:
        return Audio(linear(payload), RATES[kind])
    if kind == HANGUP:
        return Stop()
    if kind == DTMF and len(payload) == 1 and payload.isascii():
        return Keys(payload.decode("ascii"))
    if kind == ERROR:
        return Stop(f"the application reports error {payload[0]}" if payload else "the application reports an error")
    raise Malformed("a message is of a kind that AudioSocket does not have")
