"""Session descriptions (RFC 8866) and offer/answer (RFC 3264) as plain functions from text to values and back.

sipagent writes its own SDP because its RTP is not PJSIP's: the peer must be told the media process's address. Only
PCMU, PCMA and telephone-event are spoken here; whatever else a peer offers is answered with port 0 or left out.

    offer = parse(text)
    media = negotiate(offer)            # where to send, which codec, which directions
    answer = build_answer(offer, host="192.0.2.1", port=40000, session_id=7)
"""

import ipaddress
from dataclasses import dataclass, field
from typing import Literal

MAX_TEXT = 64 * 1024
MAX_MEDIA_LINES = 64
MAX_FORMATS = 64  # of one m-line
DEFAULT_PTIME_MS = 20
OUR_TELEPHONE_EVENT = 101  # what nearly everyone uses; the number is free in 96..127 (RFC 3551 section 6)

Direction = Literal["sendrecv", "sendonly", "recvonly", "inactive"]
CodecName = Literal["PCMU", "PCMA"]

_DIRECTIONS: dict[str, Direction] = {
    "sendrecv": "sendrecv",
    "sendonly": "sendonly",
    "recvonly": "recvonly",
    "inactive": "inactive",
}
_MIRROR: dict[Direction, Direction] = {
    "sendrecv": "sendrecv",
    "sendonly": "recvonly",
    "recvonly": "sendonly",
    "inactive": "inactive",
}
# Static payload types only (RFC 3551 section 6): a dynamic number for G.711 is legal and unknown in the wild.
_CODECS: dict[int, CodecName] = {0: "PCMU", 8: "PCMA"}
_NUMBERS: dict[CodecName, int] = {"PCMU": 0, "PCMA": 8}


class NoCommonCodec(ValueError):
    """The peer offers no audio that sipagent speaks; the SIP answer to that is 488 (RFC 3261 section 21.4.26)."""


@dataclass(frozen=True, slots=True)
class MediaLine:
    """One ``m=`` section."""

    kind: str  # "audio", "video", "image", ...
    port: int  # 0: not offered, or refused
    protocol: str  # "RTP/AVP", "RTP/SAVP", "udptl", ...
    formats: tuple[str, ...]
    host: str  # its own connection address, or the session's; "" when neither is given
    rtpmap: dict[int, str] = field(default_factory=dict)  # payload type to "PCMU/8000"
    ptime_ms: int = DEFAULT_PTIME_MS
    direction: Direction = "sendrecv"  # as the peer sees it

    @property
    def payload_types(self) -> tuple[int, ...]:
        """In the peer's order of preference."""
        return tuple(int(name) for name in self.formats if name.isascii() and name.isdigit() and len(name) <= 3)

    @property
    def telephone_event(self) -> int:
        """The payload type of telephone-event at 8000 Hz (RFC 4733), -1 when there is none."""
        for number in self.payload_types:
            if _encoding(self.rtpmap.get(number, "")) == ("TELEPHONE-EVENT", "8000"):
                return number
        return -1

    @property
    def usable(self) -> bool:
        """Plain RTP audio with a port and an address."""
        return self.kind == "audio" and self.port > 0 and self.protocol.upper() == "RTP/AVP" and self.host != ""

    @property
    def effective_direction(self) -> Direction:
        """The direction with the old form of hold folded in: ``c=0.0.0.0`` asks us to send nothing (RFC 3264 8.4)."""
        if self.host not in ("0.0.0.0", "::"):
            return self.direction
        return "sendonly" if self.direction in ("sendrecv", "sendonly") else "inactive"


@dataclass(frozen=True, slots=True)
class Sdp:
    """What of a session description matters to an endpoint. ``audio``: the first usable audio's index, -1 for none."""

    session_id: int
    version: int
    media: tuple[MediaLine, ...]
    audio: int

    @property
    def audio_line(self) -> MediaLine | None:
        return self.media[self.audio] if self.audio >= 0 else None


@dataclass(frozen=True, slots=True)
class Negotiated:
    """What both sides agreed on, as the media process needs it. ``send``/``receive`` are ours."""

    host: str
    port: int
    codec: CodecName
    payload_type: int
    telephone_event: int  # its payload type, -1 when not agreed
    ptime_ms: int  # the packet length the peer asks for
    send: bool
    receive: bool


def parse(text: str) -> Sdp:
    """Reads a session description with CRLF or bare LF line ends; unknown lines are skipped.

    Raises ValueError with one sentence when it is too long, malformed in a line that matters, or no SDP at all.
    """
    if len(text) > MAX_TEXT:
        raise ValueError(f"SDP of {len(text)} characters is over the limit of {MAX_TEXT}")
    lines = [line.rstrip("\r") for line in text.split("\n")]
    if not lines[0].startswith("v="):
        raise ValueError("SDP does not begin with v=")
    session_id = version = 0
    session_host = ""
    session_direction: Direction = "sendrecv"
    sections: list[_Section] = []
    for line in lines:
        kind, value = line[:2], line[2:].strip()
        if kind == "o=":
            session_id, version = _origin(value)
        elif kind == "m=":
            if len(sections) == MAX_MEDIA_LINES:
                raise ValueError(f"SDP has more than {MAX_MEDIA_LINES} media lines")
            sections.append(_Section(*_media(value), direction=session_direction))
        elif kind == "c=":
            if sections:
                sections[-1].host = _connection(value)
            else:
                session_host = _connection(value)
        elif kind == "a=":
            name, _, argument = value.partition(":")
            if not sections:
                session_direction = _DIRECTIONS.get(name.lower(), session_direction)
            else:
                sections[-1].attribute(name.lower(), argument.strip())
    media = tuple(section.finish(session_host) for section in sections)
    audio = next((index for index, line_ in enumerate(media) if line_.usable), -1)
    return Sdp(session_id, version, media, audio)


def negotiate(remote: Sdp) -> Negotiated:
    """What to send where, from the peer's offer or from its answer to our offer.

    The first codec in the peer's order that we speak wins. Raises NoCommonCodec when there is none.
    """
    line = remote.audio_line
    if line is None:
        raise NoCommonCodec("no plain RTP audio with an address and a port in the SDP")
    codec = _first_codec(line)
    if codec is None:
        raise NoCommonCodec("neither PCMU (0) nor PCMA (8) in the SDP")
    direction = line.effective_direction
    return Negotiated(
        host=line.host,
        port=line.port,
        codec=codec,
        payload_type=_NUMBERS[codec],
        telephone_event=line.telephone_event,
        ptime_ms=line.ptime_ms,
        send=direction in ("sendrecv", "recvonly"),
        receive=direction in ("sendrecv", "sendonly"),
    )


def build_offer(
    *,
    host: str,
    port: int,
    session_id: int,
    version: int = 1,
    codecs: tuple[CodecName, ...] = ("PCMU", "PCMA"),
    direction: Direction = "sendrecv",
) -> str:
    """An offer of the codecs in this order, with telephone-event. ``version`` grows by one for each new offer."""
    audio = _audio_section(port, codecs, OUR_TELEPHONE_EVENT, direction)
    return _text(host, session_id, version, [audio])


def build_answer(offer: Sdp, *, host: str, port: int, session_id: int, version: int = 1, hold: bool = False) -> str:
    """The answer: one codec, the offer's own number for telephone-event, its direction mirrored, every other media
    line refused with port 0 (RFC 3264 section 6). ``hold`` answers that we do not want to hear the peer.

    Raises NoCommonCodec when nothing can be agreed.
    """
    agreed = negotiate(offer)
    send, receive = agreed.send, agreed.receive and not hold
    direction: Direction = (
        "sendrecv" if send and receive else "sendonly" if send else "recvonly" if receive else "inactive"
    )
    sections: list[str] = []
    for index, line in enumerate(offer.media):
        if index == offer.audio:
            sections.append(_audio_section(port, (agreed.codec,), agreed.telephone_event, direction))
        else:
            sections.append(f"m={line.kind} 0 {line.protocol} {' '.join(line.formats)}\r\n")
    return _text(host, session_id, version, sections)


def mirrored(direction: Direction) -> Direction:
    return _MIRROR[direction]


# --- reading --------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class _Section:
    """A media section while its lines are being read."""

    kind: str
    port: int
    protocol: str
    formats: tuple[str, ...]
    direction: Direction
    host: str = ""
    rtpmap: dict[int, str] = field(default_factory=dict)
    ptime_ms: int = DEFAULT_PTIME_MS

    def attribute(self, name: str, argument: str) -> None:
        if name in _DIRECTIONS:
            self.direction = _DIRECTIONS[name]
        elif name == "rtpmap":
            number, _, encoding = argument.partition(" ")
            if number.isascii() and number.isdigit() and int(number[:4]) <= 127 and len(self.rtpmap) < MAX_FORMATS:
                self.rtpmap[int(number[:4])] = encoding.strip()
        elif name == "rtcp":
            _port, _, address = argument.partition(" ")
            if address.strip():  # RFC 3605; without one it is that of the media
                _connection(address)
        elif name == "ptime" and argument.isascii() and argument.isdigit() and 1 <= int(argument[:4]) <= 200:
            self.ptime_ms = int(argument[:4])

    def finish(self, session_host: str) -> MediaLine:
        return MediaLine(
            self.kind,
            self.port,
            self.protocol,
            self.formats,
            self.host or session_host,
            self.rtpmap,
            self.ptime_ms,
            self.direction,
        )


def _origin(value: str) -> tuple[int, int]:
    parts = value.split()
    if len(parts) != 6:
        raise ValueError(f"SDP origin line has {len(parts)} parts instead of 6")
    # RFC 8866 asks for numbers; some peers send others, and only our own numbers matter to us.
    return _number(parts[1]), _number(parts[2])


def _number(text: str) -> int:
    return int(text) if text.isascii() and text.isdigit() and len(text) <= 20 else 0


def _media(value: str) -> tuple[str, int, str, tuple[str, ...]]:
    parts = value.split()
    if len(parts) < 4:
        raise ValueError(f"SDP media line has {len(parts)} parts instead of at least 4")
    port, _, _count = parts[1].partition("/")
    if not (port.isascii() and port.isdigit() and len(port) <= 5 and int(port) <= 65535):
        raise ValueError("SDP media port is not a number from 0 to 65535")
    if len(parts) - 3 > MAX_FORMATS:
        raise ValueError(f"SDP media line has more than {MAX_FORMATS} formats")
    return parts[0].lower(), int(port), parts[2], tuple(parts[3:])


def _connection(value: str) -> str:
    parts = value.split()
    if len(parts) != 3 or parts[0].upper() != "IN" or parts[1].upper() not in ("IP4", "IP6"):
        raise ValueError("SDP connection line is not of the form IN IP4 address")
    # A name would be looked up, by PJMEDIA too and with every call waiting; a slash means multicast (RFC 8866 5.7).
    version = 4 if parts[1].upper() == "IP4" else 6
    try:
        address = ipaddress.ip_address(parts[2])
    except ValueError:
        raise ValueError("SDP connection line holds no single IP address") from None
    if address.version != version:
        raise ValueError("SDP connection line holds an address of the other IP version")
    return parts[2]


def _encoding(value: str) -> tuple[str, str]:
    """``"pcmu/8000/1"`` to ``("PCMU", "8000")``."""
    name, _, rest = value.partition("/")
    return name.strip().upper(), rest.partition("/")[0].strip()


def _first_codec(line: MediaLine) -> CodecName | None:
    for number in line.payload_types:
        codec = _CODECS.get(number)
        # A static number may be given without rtpmap; given with another name, it is a lie we do not follow.
        if codec is not None and _encoding(line.rtpmap.get(number, f"{codec}/8000")) == (codec, "8000"):
            return codec
    return None


# --- writing --------------------------------------------------------------------------------------------------


def _text(host: str, session_id: int, version: int, sections: list[str]) -> str:
    family = "IP6" if ":" in host else "IP4"
    head = f"v=0\r\no=sipagent {session_id} {version} IN {family} {host}\r\ns=-\r\nc=IN {family} {host}\r\nt=0 0\r\n"
    return head + "".join(sections)


def _audio_section(port: int, codecs: tuple[CodecName, ...], telephone_event: int, direction: Direction) -> str:
    numbers = [_NUMBERS[codec] for codec in codecs]
    formats = numbers + ([telephone_event] if telephone_event >= 0 else [])
    text = f"m=audio {port} RTP/AVP {' '.join(map(str, formats))}\r\n"
    text += "".join(f"a=rtpmap:{number} {_CODECS[number]}/8000\r\n" for number in numbers)
    if telephone_event >= 0:
        # Events 0 to 15: the digits, *, # and A to D (RFC 4733 section 3.2).
        text += f"a=rtpmap:{telephone_event} telephone-event/8000\r\na=fmtp:{telephone_event} 0-15\r\n"
    return text + f"a=ptime:{DEFAULT_PTIME_MS}\r\na={direction}\r\n"
