"""Twilio Media Streams (twilio.com/docs/voice/media-streams/websocket-messages): µ-law, messages with an `event`.

Numbers are strings there. Ids have the shapes that Twilio's have, as some applications look at them.
"""

import base64 as base64_module
import hashlib
import hmac
from collections.abc import Iterator

import msgspec
import numpy as np

from sipagent.calls.streams.dialect import MAX_MARK, Audio, Clear, Facts, FromApp, Malformed, Mark, Message
from sipagent.calls.streams.json_messages import base64, decoded, from_base64, text
from sipagent.conversation.interfaces import Pcm
from sipagent.media import g711
from sipagent.media.rtp import PCMU, RATE


def sid(prefix: str, ours: str) -> str:
    """Of an id of ours, always the same: `CA` and 32 hexadecimal digits."""
    return prefix + hashlib.sha256(ours.encode()).hexdigest()[:32]


def signature(token: str, url: str) -> str:
    """`X-Twilio-Signature` of a handshake, which has no parameters beside its URL."""
    return base64_module.b64encode(hmac.new(token.encode(), url.encode(), hashlib.sha1).digest()).decode()


class _Media(msgspec.Struct):
    payload: str


class _Mark(msgspec.Struct):
    name: str


class _FromApp(msgspec.Struct):
    event: str
    media: _Media | None = None
    mark: _Mark | None = None


class Twilio:
    tracks_apart = True

    def __init__(self, facts: Facts) -> None:
        self._facts = facts
        self._stream, self._call = sid("MZ", facts.stream_id), sid("CA", facts.call_id)
        self._messages = 0
        self._chunks = dict.fromkeys(facts.tracks, 0)

    def opening(self) -> Iterator[Message]:
        facts = self._facts
        yield text({"event": "connected", "protocol": "Call", "version": "1.0.0"})
        start = {
            "accountSid": facts.account_id,
            "streamSid": self._stream,
            "callSid": self._call,
            "tracks": list(facts.tracks),
            "mediaFormat": {"encoding": "audio/x-mulaw", "sampleRate": RATE, "channels": 1},
            "customParameters": dict(facts.parameters),
        }
        yield text({"event": "start", "sequenceNumber": self._next(), "start": start, "streamSid": self._stream})

    def audio(self, pcm: Pcm, track: str, at_ms: int) -> Message:
        self._chunks[track] += 1
        payload = base64(g711.encode(PCMU, np.ascontiguousarray(pcm)).tobytes())
        # By hand: it is said fifty times a second for each call, and nothing in it needs escaping.
        return (
            f'{{"event":"media","sequenceNumber":"{self._next()}","media":{{"track":"{track}",'
            f'"chunk":"{self._chunks[track]}","timestamp":"{at_ms}","payload":"{payload}"}},'
            f'"streamSid":"{self._stream}"}}'
        )

    def digit(self, digit: str) -> Message | None:
        if not self._facts.both_ways:
            return None
        dtmf = {"track": "inbound_track", "digit": digit}
        return text({"event": "dtmf", "streamSid": self._stream, "sequenceNumber": self._next(), "dtmf": dtmf})

    def mark(self, name: str) -> Message | None:
        mark = {"name": name}
        return text({"event": "mark", "sequenceNumber": self._next(), "streamSid": self._stream, "mark": mark})

    def closing(self) -> Iterator[Message]:
        stop = {"accountSid": self._facts.account_id, "callSid": self._call}
        yield text({"event": "stop", "sequenceNumber": self._next(), "stop": stop, "streamSid": self._stream})

    def read(self, message: Message) -> Iterator[FromApp]:
        said = decoded(message, _FromApp)
        match said.event:
            case "media" if said.media is not None:
                codes = np.frombuffer(from_base64(said.media.payload), np.uint8)
                yield Audio(g711.decode(PCMU, codes), RATE)
            case "mark" if said.mark is not None:
                if len(said.mark.name) > MAX_MARK:
                    raise Malformed(f"the name of a mark is longer than {MAX_MARK} characters")
                yield Mark(said.mark.name)
            case "clear":
                yield Clear()
            case _:
                raise Malformed("a message has an event that Twilio's streams do not have, or lacks what belongs to it")

    def _next(self) -> str:
        self._messages += 1
        return str(self._messages)
