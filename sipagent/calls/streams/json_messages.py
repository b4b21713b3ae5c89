"""JSON in text frames, and audio in base64 within it: what the two websocket dialects share."""

import binascii
from typing import Any, TypeVar

import msgspec
import numpy as np

from sipagent.calls.streams.dialect import Malformed, Message
from sipagent.conversation.interfaces import Pcm

T = TypeVar("T")


def decoded(message: Message, kind: type[T]) -> T:
    """Raises Malformed."""
    try:
        return msgspec.json.decode(message, type=kind)
    except msgspec.ValidationError as error:
        raise Malformed(f"a message is of another shape: {error}") from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise Malformed("a message is not JSON") from None


def text(value: Any) -> str:
    """The message."""
    return msgspec.json.encode(value).decode()


def base64(data: bytes) -> str:
    return binascii.b2a_base64(data, newline=False).decode()


def from_base64(payload: str) -> bytes:
    """Raises Malformed."""
    try:
        return binascii.a2b_base64(payload, strict_mode=True)
    except (binascii.Error, ValueError):
        raise Malformed("the audio of a message is not base64") from None


def linear(data: bytes) -> Pcm:
    """Little-endian samples of 16 bits. Raises Malformed."""
    if len(data) % 2:
        raise Malformed("the audio of a message ends in the middle of a sample")
    return np.frombuffer(data, "<i2").astype(np.int16, copy=False)
