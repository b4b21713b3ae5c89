"""Session descriptions and offer/answer (RFC 3264) as plain functions from text to values and back.

sipagent writes its own SDP because its RTP is not PJSIP's: the peer must be told the media process's address. Spoken
here are PCMU, PCMA, G722, comfort noise and telephone-event, in the clear or as SRTP; whatever else a peer offers is
answered with port 0 or left out. Comfort noise is understood where the peer lists it and not listed by us: PJMEDIA's
negotiator takes it for a codec, which removes it from every answer and kills the process where it comes first.

    offer = parse(text)
    media = negotiate(offer, terms)     # where to send, which codec, which directions, which keys
    answer = build_answer(offer, host="192.0.2.1", port=40000, session_id=7, terms=terms)
"""

from dataclasses import dataclass, field, replace
from typing import Literal

from sipagent.sip import sdes
from sipagent.sip.description import (
    CODECS,
    DEFAULT_PTIME_MS,
    NUMBERS,
    CodecName,
    Direction,
    MediaLine,
    Sdp,
    parse,
)
from sipagent.sip.sdes import SUITES, CryptoLine, Suite

__all__ = [
    "CLEAR", "CodecName", "Crypto", "Direction", "DtmfMode", "MediaLine", "Negotiated", "NoCommonCodec", "Sdp",
    "SrtpPolicy", "Terms", "build_answer", "build_offer", "negotiate", "parse", "restate", "with_keys_of",
]  # fmt: skip

MAX_PTIME_MS = 60  # the longest packet we take
OUR_TELEPHONE_EVENT = 101  # what nearly everyone uses; the number is free in 96..127 (RFC 3551 section 6)


SrtpPolicy = Literal["off", "optional", "required"]
DtmfMode = Literal["auto", "rfc4733", "info", "inband"]


class NoCommonCodec(ValueError):
    """Nothing the peer offers can be agreed to; the SIP answer to that is 488 (RFC 3261 section 21.4.26)."""


@dataclass(frozen=True, slots=True)
class Terms:
    """What we are ready to agree to in one call."""

    codecs: tuple[CodecName, ...] = ("PCMU", "PCMA")  # in the order we offer them; an answer follows the peer's order
    srtp: SrtpPolicy = "off"
    keys: tuple[bytes, ...] = field(default=(), repr=False)  # ours, one for each of `SUITES`, 30 bytes; () with "off"
    dtmf: DtmfMode = "auto"  # with "inband" telephone-event is neither offered nor answered
    ip_version: int = 0  # of our media: 4 or 6; 0 takes the peer's

    def __post_init__(self) -> None:
        if self.srtp != "off" and [len(key) for key in self.keys] != [sdes.KEY_BYTES] * len(SUITES):
            raise ValueError(f"SRTP takes {len(SUITES)} keys of {sdes.KEY_BYTES} bytes")


CLEAR = Terms()


@dataclass(frozen=True, slots=True)
class Crypto:
    """SRTP as agreed: the keys of each side, master key and salt."""

    suite: Suite
    local_key: bytes = field(repr=False)
    remote_key: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Negotiated:
    """What both sides agreed on, as the media process needs it. ``send``/``receive`` are ours."""

    host: str
    port: int
    codec: CodecName
    payload_type: int
    telephone_event: int  # the payload type to send it with, -1 when not agreed
    telephone_event_in: int  # the one the peer sends it with: another where the answer renumbered our offer's
    comfort_noise: int  # its payload type, -1 when the peer does not list it; never listed by us, see above
    ptime_ms: int  # the packet length the peer asks for
    send: bool
    receive: bool
    rtcp_host: str
    rtcp_port: int  # 0: no RTCP is wanted
    rtcp_mux: bool
    crypto: Crypto | None


def negotiate(remote: Sdp, terms: Terms = CLEAR, *, offered: bool = False) -> Negotiated:
    """What to send where, from the peer's offer, or from its answer when we ``offered``.

    The first codec in the peer's order that we speak wins, and the first key line. Where SRTP is optional and one
    audio line can have it, that line wins. Raises NoCommonCodec with the reason when nothing can be agreed.
    """
    return _negotiated(remote.media[_chosen(remote, terms, offered)], terms, offered)


def build_offer(
    *,
    host: str,
    port: int,
    session_id: int,
    version: int = 1,
    terms: Terms = CLEAR,
    direction: Direction = "sendrecv",
) -> str:
    """An offer of the codecs in our order, with telephone-event. ``version`` grows by one for each new offer.

    Optional SRTP is offered as RTP/AVP with key lines: who does not know them passes them over and answers in the
    clear, where RTP/SAVP would be refused, and a second audio line be taken for a second stream.
    """
    formats = [(NUMBERS[name], f"{name}/8000") for name in terms.codecs]
    if terms.dtmf != "inband":
        formats.append((OUR_TELEPHONE_EVENT, "telephone-event/8000"))
    protocol = "RTP/SAVP" if terms.srtp == "required" else "RTP/AVP"
    crypto = _offered_crypto(terms) if terms.srtp != "off" else ()
    return _text(host, session_id, version, [_audio_section(port, protocol, formats, direction, crypto, mux=True)])


def build_answer(
    offer: Sdp,
    *,
    host: str,
    port: int,
    session_id: int,
    version: int = 1,
    terms: Terms = CLEAR,
    hold: bool = False,
) -> str:
    """The answer: one codec, the offer's own number for telephone-event, its direction mirrored, every other media
    line refused with port 0 (RFC 3264 section 6). ``hold`` answers that we do not want to hear the peer.

    Raises NoCommonCodec when nothing can be agreed.
    """
    chosen = _chosen(offer, terms, False)
    agreed = _negotiated(offer.media[chosen], terms, False)
    send, receive = agreed.send, agreed.receive and not hold
    direction: Direction = (
        "sendrecv" if send and receive else "sendonly" if send else "recvonly" if receive else "inactive"
    )
    sections: list[str] = []
    for index, line in enumerate(offer.media):
        if index == chosen:
            sections.append(_answered(line, agreed, port, direction, terms))
        else:
            sections.append(f"m={line.kind} 0 {line.protocol} {' '.join(line.formats)}\r\n")
    return _text(host, session_id, version, sections)


def restate(line: MediaLine, *, host: str, port: int, payload_type: int, direction: Direction) -> str:
    """A description like the one this line is from, with another address, codec or direction."""
    codec = CODECS.get(payload_type, "PCMU")
    formats = [(NUMBERS[codec], f"{codec}/8000")]
    if line.comfort_noise >= 0:
        formats.append((line.comfort_noise, "CN/8000"))
    if line.telephone_event >= 0:
        formats.append((line.telephone_event, "telephone-event/8000"))
    section = _audio_section(port, line.protocol, formats, direction, line.crypto, mux=line.rtcp_mux)
    return _text(host, 0, 1, [section])


def with_keys_of(terms: Terms, ours: Sdp) -> Terms:
    """The terms with the keys that a description of ours was sent with."""
    sent = {line.suite: line.key for line in ours.audio_line.crypto} if ours.audio_line else {}
    return replace(terms, keys=tuple(sent.get(suite, key) for suite, key in zip(SUITES, terms.keys, strict=False)))


# --- agreeing -------------------------------------------------------------------------------------------------


def _chosen(remote: Sdp, terms: Terms, offered: bool) -> int:
    """The index of the audio line to take."""
    complaint = "no RTP audio with an address and a port in the SDP"
    clear = -1
    for index, line in enumerate(remote.media):
        if not line.usable:
            continue
        objection = _objection(line, terms, offered)
        if objection:
            complaint = objection
        elif _agreed_crypto(line, terms, offered) is not None:
            return index
        elif clear < 0:
            clear = index
    if clear < 0:
        raise NoCommonCodec(complaint)
    return clear


def _objection(line: MediaLine, terms: Terms, offered: bool) -> str:
    """Why this audio line cannot be taken; "" when it can."""
    if _agreed_codec(line, terms) is None:
        return f"none of {', '.join(terms.codecs)} in the SDP"
    if terms.ip_version and line.ip_version not in (0, terms.ip_version):
        return f"the peer's media is on IPv{line.ip_version} and ours of this call on IPv{terms.ip_version}"
    if line.secure and terms.srtp == "off":
        return "the peer wants SRTP, which is off"
    if _agreed_crypto(line, terms, offered) is None:
        if line.secure:
            return "no SRTP key in the SDP that can be met"
        if terms.srtp == "required":
            return "SRTP is required and the peer offers none"
    return ""


def _negotiated(line: MediaLine, terms: Terms, offered: bool) -> Negotiated:
    codec = _agreed_codec(line, terms)
    assert codec is not None, "_chosen() has seen to it"
    direction = line.effective_direction
    event = line.telephone_event if terms.dtmf != "inband" else -1
    rtcp_host, rtcp_port = line.rtcp
    if line.rtcp_mux and rtcp_port:
        rtcp_host, rtcp_port = line.host, line.port
    return Negotiated(
        host=line.host,
        port=line.port,
        codec=codec,
        payload_type=NUMBERS[codec],
        telephone_event=event,
        telephone_event_in=OUR_TELEPHONE_EVENT if offered and event >= 0 else event,
        comfort_noise=line.comfort_noise,
        ptime_ms=line.ptime_ms,
        send=direction in ("sendrecv", "recvonly"),
        receive=direction in ("sendrecv", "sendonly"),
        rtcp_host=rtcp_host,
        rtcp_port=rtcp_port,
        rtcp_mux=line.rtcp_mux,
        crypto=_agreed_crypto(line, terms, offered),
    )


def _agreed_codec(line: MediaLine, terms: Terms) -> CodecName | None:
    return next((codec for codec in line.codecs if codec in terms.codecs), None)


def _agreed_crypto(line: MediaLine, terms: Terms, offered: bool) -> Crypto | None:
    """The first of the peer's key lines that is met by one of ours; in an answer it repeats our tag."""
    if terms.srtp == "off":
        return None
    for theirs in line.crypto:
        ours = next(each for each in _offered_crypto(terms) if each.suite == theirs.suite)
        if not offered or ours.tag == theirs.tag:
            return Crypto(theirs.suite, ours.key, theirs.key)
    return None


def _offered_crypto(terms: Terms) -> tuple[CryptoLine, ...]:
    return tuple(
        CryptoLine(tag, suite, key) for tag, (suite, key) in enumerate(zip(SUITES, terms.keys, strict=True), 1)
    )


# --- writing --------------------------------------------------------------------------------------------------


def _text(host: str, session_id: int, version: int, sections: list[str]) -> str:
    family = "IP6" if ":" in host else "IP4"
    head = f"v=0\r\no=sipagent {session_id} {version} IN {family} {host}\r\ns=-\r\nc=IN {family} {host}\r\nt=0 0\r\n"
    return head + "".join(sections)


def _answered(line: MediaLine, agreed: Negotiated, port: int, direction: Direction, terms: Terms) -> str:
    """Our audio section in answer to this line: its protocol, its numbers, the tag of the key line that is met."""
    formats = [(agreed.payload_type, f"{agreed.codec}/8000")]
    if agreed.telephone_event >= 0:
        formats.append((agreed.telephone_event, "telephone-event/8000"))
    crypto: tuple[CryptoLine, ...] = ()
    if agreed.crypto is not None:
        crypto = (CryptoLine(line.crypto[0].tag, agreed.crypto.suite, agreed.crypto.local_key),)
    return _audio_section(port, line.protocol, formats, direction, crypto, mux=agreed.rtcp_mux)


def _audio_section(
    port: int,
    protocol: str,
    formats: list[tuple[int, str]],
    direction: Direction,
    crypto: tuple[CryptoLine, ...],
    *,
    mux: bool,
) -> str:
    """``formats``: payload type and encoding, the preferred one first."""
    text = f"m=audio {port} {protocol} {' '.join(str(number) for number, _ in formats)}\r\n"
    for number, encoding in formats:
        text += f"a=rtpmap:{number} {encoding}\r\n"
        if encoding.startswith("telephone-event"):
            # Events 0 to 15: the digits, *, # and A to D (RFC 4733 section 3.2).
            text += f"a=fmtp:{number} 0-15\r\n"
    text += "".join(map(sdes.build, crypto))
    if mux:
        text += "a=rtcp-mux\r\n"
    return text + f"a=ptime:{DEFAULT_PTIME_MS}\r\na=maxptime:{MAX_PTIME_MS}\r\na={direction}\r\n"
