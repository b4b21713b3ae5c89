"""What a session description says (RFC 8866), read from its text. Nothing is decided here: see `sdp`."""

import ipaddress
from dataclasses import dataclass, field
from typing import Literal

from sipagent.sip import sdes
from sipagent.sip.sdes import CryptoLine

MAX_TEXT = 64 * 1024
MAX_MEDIA_LINES = 64
MAX_FORMATS = 64  # of one m-line
DEFAULT_PTIME_MS = 20
COMFORT_NOISE = 13  # static (RFC 3389 section 5)

Direction = Literal["sendrecv", "sendonly", "recvonly", "inactive"]
CodecName = Literal["PCMU", "PCMA", "G722"]
_DIRECTIONS: dict[str, Direction] = {
    "sendrecv": "sendrecv",
    "sendonly": "sendonly",
    "recvonly": "recvonly",
    "inactive": "inactive",
}
# Static payload types only (RFC 3551 section 6): a dynamic number for one of these is legal and unknown in the wild.
# G722 counts 8000 a second in SDP and RTP although it samples at 16000 (section 4.5.2).
CODECS: dict[int, CodecName] = {0: "PCMU", 8: "PCMA", 9: "G722"}
NUMBERS: dict[CodecName, int] = {name: number for number, name in CODECS.items()}
_NOWHERE = ("0.0.0.0", "::")


@dataclass(frozen=True, slots=True)
class MediaLine:
    """One ``m=`` section."""

    kind: str  # "audio", "video", "image", ...
    port: int  # 0: not offered, or refused
    protocol: str  # "RTP/AVP", "RTP/SAVP", "udptl", ...
    formats: tuple[str, ...]
    host: str  # its own connection address, or the session's; "" when neither is given
    rtpmap: dict[int, str] = field(default_factory=dict)  # payload type to "PCMU/8000"
    ptime_ms: int = DEFAULT_PTIME_MS  # asked for, within the peer's maxptime
    direction: Direction = "sendrecv"  # as the peer sees it
    crypto: tuple[CryptoLine, ...] = ()  # those that can be met, in the peer's order
    rtcp_mux: bool = False  # RFC 5761
    rtcp_port: int = -1  # RFC 3605; -1: not given, 0: no RTCP wanted (RFC 3556)
    rtcp_host: str = ""

    @property
    def ip_version(self) -> int:
        """4 or 6; 0 where the address says nothing of it: there is none, or it asks for silence."""
        return 0 if self.host in ("", *_NOWHERE) else 6 if ":" in self.host else 4

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
    def comfort_noise(self) -> int:
        """The payload type of comfort noise at 8000 Hz (RFC 3389), -1 when there is none."""
        offered = COMFORT_NOISE in self.payload_types
        return COMFORT_NOISE if offered and self._is_called(COMFORT_NOISE, "CN") else -1

    @property
    def codecs(self) -> tuple[CodecName, ...]:
        """Those we know, in the peer's order of preference."""
        known = [(number, CODECS[number]) for number in self.payload_types if number in CODECS]
        return tuple(codec for number, codec in known if self._is_called(number, codec))

    @property
    def secure(self) -> bool:
        return self.protocol.upper() == "RTP/SAVP"

    @property
    def usable(self) -> bool:
        """RTP audio with a port and an address."""
        known = self.secure or self.protocol.upper() == "RTP/AVP"
        return self.kind == "audio" and self.port > 0 and known and self.host != ""

    @property
    def effective_direction(self) -> Direction:
        """The direction with the old form of hold folded in: ``c=0.0.0.0`` asks us to send nothing (RFC 3264 8.4)."""
        if self.host not in _NOWHERE:
            return self.direction
        return "sendonly" if self.direction in ("sendrecv", "sendonly") else "inactive"

    @property
    def rtcp(self) -> tuple[str, int]:
        """Where the peer wants RTCP when it is not multiplexed; port 0 for nowhere."""
        port = self.rtcp_port if self.rtcp_port >= 0 else self.port + 1  # RFC 3550 section 11
        host = self.rtcp_host or self.host
        return (host, port) if 0 < port <= 65535 and host not in _NOWHERE else ("", 0)

    def _is_called(self, number: int, name: str) -> bool:
        """A static number may be given without rtpmap; given with another name, it is a lie we do not follow."""
        return _encoding(self.rtpmap.get(number, f"{name}/8000")) == (name, "8000")


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
        elif kind == "b=" and sections:
            sections[-1].bandwidth(value)
        elif kind == "a=":
            name, _, argument = value.partition(":")
            if not sections:
                session_direction = _DIRECTIONS.get(name.lower(), session_direction)
            else:
                sections[-1].attribute(name.lower(), argument.strip())
    media = tuple(section.finish(session_host) for section in sections)
    audio = next((index for index, line_ in enumerate(media) if line_.usable), -1)
    return Sdp(session_id, version, media, audio)


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
    max_ptime_ms: int = 0
    crypto: list[CryptoLine] = field(default_factory=list)
    rtcp_mux: bool = False
    rtcp_port: int = -1
    rtcp_host: str = ""
    silenced: set[str] = field(default_factory=set)  # of RS and RR, the kinds of RTCP allowed no bandwidth

    def attribute(self, name: str, argument: str) -> None:
        if name in _DIRECTIONS:
            self.direction = _DIRECTIONS[name]
        elif name == "rtpmap":
            number, _, encoding = argument.partition(" ")
            if number.isascii() and number.isdigit() and int(number[:4]) <= 127 and len(self.rtpmap) < MAX_FORMATS:
                self.rtpmap[int(number[:4])] = encoding.strip()
        elif name == "rtcp":
            port, _, address = argument.partition(" ")
            if address.strip():  # RFC 3605; without one it is that of the media
                self.rtcp_host = _connection(address)
            if 0 < _number(port) <= 65535:
                self.rtcp_port = _number(port)
        elif name == "rtcp-mux":
            self.rtcp_mux = True
        elif name == "crypto":
            line = sdes.parse(argument) if len(self.crypto) < sdes.MAX_LINES else None
            if line is not None:
                self.crypto.append(line)
        elif name == "ptime":
            self.ptime_ms = _milliseconds(argument) or self.ptime_ms
        elif name == "maxptime":
            self.max_ptime_ms = _milliseconds(argument)

    def bandwidth(self, value: str) -> None:
        """``b=RS:0`` and ``b=RR:0`` together ask for no RTCP at all (RFC 3556 section 2)."""
        kind, _, amount = value.partition(":")
        if kind.upper() in ("RS", "RR") and amount.strip() == "0":
            self.silenced.add(kind.upper())

    def finish(self, session_host: str) -> MediaLine:
        return MediaLine(
            kind=self.kind,
            port=self.port,
            protocol=self.protocol,
            formats=self.formats,
            host=self.host or session_host,
            rtpmap=self.rtpmap,
            ptime_ms=min(self.ptime_ms, self.max_ptime_ms or self.ptime_ms),
            direction=self.direction,
            crypto=tuple(self.crypto),
            rtcp_mux=self.rtcp_mux,
            rtcp_port=0 if len(self.silenced) == 2 else self.rtcp_port,
            rtcp_host=self.rtcp_host,
        )


def _origin(value: str) -> tuple[int, int]:
    parts = value.split()
    if len(parts) != 6:
        raise ValueError(f"SDP origin line has {len(parts)} parts instead of 6")
    # RFC 8866 asks for numbers; some peers send others, and only our own numbers matter to us.
    return _number(parts[1]), _number(parts[2])


def _number(text: str) -> int:
    return int(text) if text.isascii() and text.isdigit() and len(text) <= 20 else 0


def _milliseconds(text: str) -> int:
    """0 for what is no packet length."""
    return int(text[:4]) if text.isascii() and text.isdigit() and 1 <= int(text[:4]) <= 200 else 0


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
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        raise ValueError("SDP connection line holds an IPv4 address written as IPv6")  # our IPv6 sockets reach none
    if address.version != version:
        raise ValueError("SDP connection line holds an address of the other IP version")
    return str(address)  # as the kernel writes it


def _encoding(value: str) -> tuple[str, str]:
    """``"pcmu/8000/1"`` to ``("PCMU", "8000")``."""
    name, _, rest = value.partition("/")
    return name.strip().upper(), rest.partition("/")[0].strip()
