"""What main and the media process say to each other about ports. Audio and counters go through `rings`, not here."""

import msgspec

from sipagent.media.quality import QualityFigures
from sipagent.media.settings import MediaSettings

SRTP_SUITES = ("AES_CM_128_HMAC_SHA1_80", "AES_CM_128_HMAC_SHA1_32")
MOST_HEARD = 8  # others that a port hears at once
SRTP_KEY = 30  # bytes: master key of 16, master salt of 14


class Command(msgspec.Struct, tag_field="type", tag=True, kw_only=True):
    """Main to media."""


class Notice(msgspec.Struct, tag_field="type", tag=True, kw_only=True):
    """Media to main."""


class Crypto(msgspec.Struct, kw_only=True, frozen=True):
    """SRTP both ways (RFC 3711), agreed by SDES (RFC 4568). Wrong values raise ValueError here, not in the engine."""

    suite: str
    local_key: bytes
    remote_key: bytes

    def __post_init__(self) -> None:
        if self.suite not in SRTP_SUITES:
            raise ValueError(f"no SRTP suite is called {self.suite!r}")
        if len(self.local_key) != SRTP_KEY or len(self.remote_key) != SRTP_KEY:
            raise ValueError(f"an SRTP key with its salt is {SRTP_KEY} bytes")

    def __repr__(self) -> str:
        return f"Crypto({self.suite})"  # the keys are nobody's to read


class OpenPort(Command):
    """Bind an RTP port for the slot: `port`, or the next free one when 0.

    `resume` keeps the slot's rings and state, and `source` is the learned source another process reported. `far` is
    the address the peer has named, when it has: such a call may share a port with others. `ipv6` takes the address of
    `MediaSettings.host6`, and no shared port.
    """

    slot: int
    port: int = 0
    resume: bool = False
    source: tuple[str, int] | None = None
    far: tuple[str, int] | None = None
    ipv6: bool = False


class Connect(Command):
    """Where to send and what is spoken. May be repeated when an offer inside the call changes it."""

    slot: int
    host: str
    port: int
    payload_type: int  # 0 PCMU, 8 PCMA, 9 G722
    telephone_event: int = -1  # the payload type to send it with, -1 when not negotiated
    telephone_event_in: int = -1  # the one the peer should send it with, where that is another
    comfort_noise: int = -1  # its payload type (RFC 3389), -1 when not negotiated
    send: bool = True
    receive: bool = True
    rtcp_host: str = ""
    rtcp_port: int = 0  # 0: no reports are sent
    rtcp_mux: bool = False  # RTCP shares the RTP port (RFC 5761)
    crypto: Crypto | None = None


class Hear(Command):
    """From now on the port plays what these others' callers say, and on top its own queue where `own`; see `mixing`."""

    slot: int
    others: tuple[int, ...]
    said: tuple[int, ...] = ()  # and what is said to these, out of their queues
    own: bool = True
    keys: bool = False  # the keys they press are pressed here


class ClosePort(Command):
    slot: int


class SendDigits(Command):
    """Keys pressed for the peer: as telephone-events, or as tones where those were not negotiated."""

    slot: int
    digits: str  # 0-9 * # A-D
    duration_ms: int = 160
    gap_ms: int = 80


class LeaveSound(Command):
    """A sound to be played while there is no main (`stand_in`), mono int16 at 8 and at 16 kHz."""

    name: str
    narrow: bytes
    wide: bytes


class StandIn(Command):
    """What the line's caller is told while there is no main: the name of a sound, "" for none."""

    slot: int
    sound: str


class Stop(Command):
    pass


class OpenLine(msgspec.Struct, kw_only=True):
    """A line that a main has left open."""

    slot: int
    port: int
    connect: Connect | None
    source: tuple[str, int] | None  # learned
    ipv6: bool = False


class Ready(Notice):
    """The first notice. To a main that takes over it comes with the descriptors of memory and eventfd."""

    pid: int
    scheduling: str  # "fifo" or "other"
    settings: MediaSettings
    accelerated: bool = False  # the hot path is the compiled one
    lines: list[OpenLine] = []


class PortOpened(Notice):
    slot: int
    port: int


class PortFailed(Notice):
    slot: int
    reason: str


class PortClosed(Notice):
    """The slot's counters are final now and the slot may be used again."""

    slot: int


class Resumed(Notice):
    """A port of a process that died sends again; no audio went out or came in for this long."""

    slot: int
    gap_ms: float


class Digit(Notice):
    """A key of the peer's was let go: a telephone-event (RFC 4733), or a tone."""

    slot: int
    digit: str
    duration_ms: int
    inband: bool = False  # heard as a tone


class DigitsSent(Notice):
    """All keys asked for so far have been pressed."""

    slot: int


class SourceChanged(Notice):
    """The address the peer's RTP really comes from (symmetric RTP)."""

    slot: int
    host: str
    port: int


class Silent(Notice):
    """No RTP from the peer for this long."""

    slot: int
    seconds: float


class Quality(Notice):
    """How good the line was in the last 5 s, or `final`: in the whole call, before its port is closed."""

    slot: int
    final: bool
    figures: QualityFigures


class LineTrouble(Notice):
    """Something is wrong with the line's audio, or is no longer (`watch.Trouble`)."""

    slot: int
    kind: str  # "no_media", "silent", "not_heard" or "one_way"
    active: bool
    seconds: float  # it has lasted


AnyCommand = OpenPort | Connect | Hear | ClosePort | SendDigits | LeaveSound | StandIn | Stop
AnyNotice = (
    Ready
    | PortOpened
    | PortFailed
    | PortClosed
    | Resumed
    | Digit
    | DigitsSent
    | Quality
    | LineTrouble
    | SourceChanged
    | Silent
)

encoder = msgspec.msgpack.Encoder()
command_decoder: msgspec.msgpack.Decoder[AnyCommand] = msgspec.msgpack.Decoder(AnyCommand)
notice_decoder: msgspec.msgpack.Decoder[AnyNotice] = msgspec.msgpack.Decoder(AnyNotice)
