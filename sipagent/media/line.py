"""One open slot, as the engine sees what is not in arrays."""

from collections import deque
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from sipagent.media.codecs import CODECS, Codec, Decoder, Encoder
from sipagent.media.protocol import Connect, OpenPort
from sipagent.media.rtp import RtpPacket
from sipagent.media.source import SourceRule
from sipagent.media.srtp import SrtpSession
from sipagent.media.telephone_event import EventReceiver, EventSender, PressLimit, UnnegotiatedEvents

NO_TONE = np.zeros(0, np.int16)


@dataclass(slots=True)
class Line:
    port: int
    opened: OpenPort
    connect: Connect | None = None
    codec: Codec = CODECS[0]
    decoder: Decoder = field(default_factory=CODECS[0].decoder)
    encoder: Encoder = field(default_factory=CODECS[0].encoder)
    srtp: SrtpSession | None = None
    source: SourceRule = field(default_factory=SourceRule)
    events: EventReceiver = field(default_factory=EventReceiver)
    unnegotiated: UnnegotiatedEvents = field(default_factory=UnnegotiatedEvents)
    presses: PressLimit = field(default_factory=PressLimit)
    keypad: EventSender = field(default_factory=EventSender)
    tone_keys: deque[tuple[str, int, int]] = field(default_factory=deque)  # to be sent as tones: key, its ms, gap ms
    tone: NDArray[np.int16] = field(default_factory=lambda: NO_TONE)  # what is left of the one that is being sent
    asked: bool = False  # main wants to know when all keys are pressed
    newcomer: tuple[RtpPacket, int] | None = None  # of another SSRC, and its arrival: a second one will confirm it

    @property
    def toning(self) -> bool:
        return bool(self.tone_keys) or len(self.tone) > 0
