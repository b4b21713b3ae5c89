"""RTCP's wire formats (RFC 3550 section 6, RFC 3611): values only, no sockets, no clocks, nothing remembered.

A packet of a type, or an XR block of a kind, that is not written down here is skipped. Instants are NTP timestamps of
64 bits (RFC 3550 section 4); where a format has room for 32, they are the `middle` ones and count 1/65536 s.
"""

import struct
from collections.abc import Callable, Iterable
from typing import NamedTuple

MAX_BYTES = 1500  # of a datagram: nobody has more to say, and it bounds what a hostile one costs

MAX_PARTS = 64  # packets of a datagram, blocks of an XR: likewise

SENDER_REPORT = 200
RECEIVER_REPORT = 201
DESCRIPTION = 202
GOODBYE = 203
EXTENDED_REPORT = 207

UNAVAILABLE = 127  # in a level, R factor or MOS of `VoipMetrics`

_CNAME = 1  # RFC 3550 section 6.5.1; other items are skipped
_MAX_COUNT = 31  # five bits
_REFERENCE_TIME, _DELAYS, _VOIP_METRICS = 4, 5, 7  # XR block types

_HEADER = struct.Struct(">BBH")
_WORD = struct.Struct(">I")
_SENDER = struct.Struct(">QIII")
_BLOCK = struct.Struct(">6I")
_DELAY = struct.Struct(">III")
_METRICS = struct.Struct(">I4B4H8B2B3H")
_NTP = struct.Struct(">Q")


def is_rtcp(data: bytes) -> bool:
    """Which of the two a datagram is where both share a port (RFC 5761 section 4)."""
    return len(data) >= 4 and data[0] >> 6 == 2 and 192 <= data[1] <= 223


def middle(ntp: int) -> int:
    """The middle 32 of an NTP timestamp's 64 bits."""
    return (ntp >> 16) & 0xFFFFFFFF


class SenderInfo(NamedTuple):
    ntp: int
    timestamp: int  # RTP's, of the same instant
    packets: int
    octets: int  # of payload


class ReportBlock(NamedTuple):
    """What the reporter hears of one source (RFC 3550 section 6.4.1)."""

    ssrc: int
    fraction_lost: int  # 256ths since the report before
    lost: int  # cumulative, -2**23..2**23-1: duplicates make it negative
    highest: int  # extended sequence number
    jitter: int  # timestamp units
    last_sr: int = 0  # middle NTP of the last SR heard, 0 when none was
    delay: int = 0  # since then, 1/65536 s


class Report(NamedTuple):
    """SR, or RR when `sender` is None."""

    ssrc: int
    sender: SenderInfo | None
    blocks: tuple[ReportBlock, ...]

    def __bytes__(self) -> bytes:
        body = _WORD.pack(self.ssrc) + (_SENDER.pack(*self.sender) if self.sender else b"")
        for ssrc, fraction, lost, *rest in self.blocks:
            body += _BLOCK.pack(ssrc, fraction << 24 | lost & 0xFFFFFF, *rest)
        return _packet(SENDER_REPORT if self.sender else RECEIVER_REPORT, len(self.blocks), body)


class Description(NamedTuple):
    """SDES: the CNAME of each SSRC, "" where there is none."""

    names: tuple[tuple[int, str], ...]

    def __bytes__(self) -> bytes:
        body = b""
        for ssrc, name in self.names:
            text = name.encode()
            chunk = _WORD.pack(ssrc) + (bytes((_CNAME, len(text))) + text if text else b"")
            body += chunk + bytes(4 - len(chunk) % 4)  # at least one zero ends the list
        return _packet(DESCRIPTION, len(self.names), body)


class Goodbye(NamedTuple):
    """BYE."""

    ssrcs: tuple[int, ...]
    reason: str = ""

    def __bytes__(self) -> bytes:
        body = b"".join(map(_WORD.pack, self.ssrcs))
        if self.reason:
            text = self.reason.encode()
            body += bytes((len(text),)) + text + bytes(-(len(text) + 1) % 4)
        return _packet(GOODBYE, len(self.ssrcs), body)


class ReferenceTime(NamedTuple):
    """RRT: lets one who sends no SR measure the round trip too (RFC 3611 section 4.4)."""

    ntp: int

    def __bytes__(self) -> bytes:
        return _block(_REFERENCE_TIME, _NTP.pack(self.ntp))


class Delay(NamedTuple):
    ssrc: int  # whose RRT
    last_rr: int  # middle NTP of it, 0 when none was heard
    delay: int  # since then, 1/65536 s


class Delays(NamedTuple):
    """DLRR, the answer to RRT (section 4.5)."""

    delays: tuple[Delay, ...]

    def __bytes__(self) -> bytes:
        return _block(_DELAYS, b"".join(_DELAY.pack(*delay) for delay in self.delays))


class VoipMetrics(NamedTuple):
    """RFC 3611 section 4.7, as on the wire: rates and densities in 256ths, times in ms, MOS times ten."""

    ssrc: int
    loss_rate: int
    discard_rate: int
    burst_density: int
    gap_density: int
    burst_duration: int
    gap_duration: int
    round_trip: int  # 0 when unknown
    end_system_delay: int
    signal_level: int  # dBm0, as an unsigned byte
    noise_level: int
    echo_return_loss: int
    gmin: int
    r_factor: int
    external_r_factor: int
    mos_lq: int
    mos_cq: int
    receiver_config: int  # PLC kind, jitter buffer kind, its rate: section 4.7.6
    buffer_nominal: int
    buffer_maximum: int
    buffer_absolute_maximum: int

    def __bytes__(self) -> bytes:
        return _block(_VOIP_METRICS, _METRICS.pack(*self[:18], 0, *self[18:]))


XrBlock = ReferenceTime | Delays | VoipMetrics


class ExtendedReport(NamedTuple):
    """XR."""

    ssrc: int
    blocks: tuple[XrBlock, ...]

    def __bytes__(self) -> bytes:
        return _packet(EXTENDED_REPORT, 0, _WORD.pack(self.ssrc) + b"".join(map(bytes, self.blocks)))


Packet = Report | Description | Goodbye | ExtendedReport


def compound(packets: Iterable[Packet]) -> bytes:
    """The datagram. Raises ValueError when it does not begin with a report."""
    data = b"".join(map(bytes, packets))
    if len(data) < 2 or data[1] not in (SENDER_REPORT, RECEIVER_REPORT):
        raise ValueError("a compound RTCP packet begins with SR or RR")
    return data


def parse_compound(data: bytes) -> tuple[Packet, ...]:
    """The packets of a datagram, in order, after the checks of RFC 3550 A.2. Raises ValueError that says what is wrong.

    It must begin with SR or RR: reduced-size RTCP (RFC 5506) is not spoken here.
    """
    size = len(data)
    if size > MAX_BYTES:
        raise ValueError(f"RTCP datagram of {size} bytes is longer than {MAX_BYTES}")
    if size < 8:
        raise ValueError(f"RTCP datagram truncated: need 8 bytes, got {size}")
    packets: list[Packet] = []
    start = count = 0
    while start < size:
        count += 1
        if count > MAX_PARTS:
            raise ValueError(f"RTCP datagram of more than {MAX_PARTS} packets")
        if size - start < 4:
            raise ValueError(f"RTCP header truncated: need 4 bytes, got {size - start}")
        first, kind, words = _HEADER.unpack_from(data, start)
        if first >> 6 != 2:
            raise ValueError(f"RTCP version is {first >> 6}, not 2")
        if start == 0 and kind not in (SENDER_REPORT, RECEIVER_REPORT):
            raise ValueError(f"RTCP datagram begins with type {kind}, not with SR or RR")
        end = start + 4 + 4 * words
        if end > size:
            raise ValueError(f"RTCP packet truncated: need {end - start} bytes, got {size - start}")
        content = _without_padding(data, start, end) if first & 0x20 else end
        parse = _PARSERS.get(kind)
        if parse is not None:
            packets.append(parse(data, start + 4, content, first & 0x1F))
        start = end
    return tuple(packets)


def _packet(kind: int, count: int, body: bytes) -> bytes:
    if count > _MAX_COUNT:
        raise ValueError(f"an RTCP packet lists at most {_MAX_COUNT} sources, not {count}")
    return _HEADER.pack(0x80 | count, kind, len(body) // 4) + body


def _block(kind: int, body: bytes) -> bytes:
    return _HEADER.pack(kind, 0, len(body) // 4) + body


def _without_padding(data: bytes, start: int, end: int) -> int:
    if start == 0 or end != len(data):
        raise ValueError("padding in an RTCP packet that is not the last of several")
    padding = data[end - 1]
    if padding % 4 or not 4 <= padding <= end - start - 4:
        raise ValueError(f"padding of {padding} bytes in {end - start - 4} bytes of RTCP")
    return end - padding


def _need(what: str, bytes_needed: int, start: int, end: int) -> None:
    if end - start < bytes_needed:
        raise ValueError(f"{what} truncated: need {bytes_needed} bytes, got {end - start}")


def _parse_sender_report(data: bytes, start: int, end: int, count: int) -> Report:
    _need("SR", 24 + _BLOCK.size * count, start, end)
    (ssrc,) = _WORD.unpack_from(data, start)
    return Report(ssrc, SenderInfo(*_SENDER.unpack_from(data, start + 4)), _parse_blocks(data, start + 24, count))


def _parse_receiver_report(data: bytes, start: int, end: int, count: int) -> Report:
    _need("RR", 4 + _BLOCK.size * count, start, end)
    (ssrc,) = _WORD.unpack_from(data, start)
    return Report(ssrc, None, _parse_blocks(data, start + 4, count))


def _parse_blocks(data: bytes, start: int, count: int) -> tuple[ReportBlock, ...]:
    blocks = []
    for position in range(start, start + _BLOCK.size * count, _BLOCK.size):
        ssrc, losses, *rest = _BLOCK.unpack_from(data, position)
        lost = ((losses & 0xFFFFFF) ^ 0x800000) - 0x800000  # 24 bits, signed
        blocks.append(ReportBlock(ssrc, losses >> 24, lost, *rest))
    return tuple(blocks)


def _parse_description(data: bytes, start: int, end: int, count: int) -> Description:
    names = []
    for _ in range(count):
        _need("SDES chunk", 8, start, end)
        (ssrc,) = _WORD.unpack_from(data, start)
        name = ""
        start += 4
        while start < end and (item := data[start]):
            _need("SDES item", 2, start, end)
            after = start + 2 + data[start + 1]
            if after > end:
                raise ValueError(f"SDES item truncated: need {after - start} bytes, got {end - start}")
            if item == _CNAME:
                name = data[start + 2 : after].decode(errors="replace")
            start = after
        if start >= end:
            raise ValueError("SDES chunk without an end")
        start = (start | 3) + 1  # the next chunk begins on a word; packets do, in a compound
        names.append((ssrc, name))
    return Description(tuple(names))


def _parse_goodbye(data: bytes, start: int, end: int, count: int) -> Goodbye:
    _need("BYE", 4 * count, start, end)
    ssrcs = struct.unpack_from(f">{count}I", data, start)
    start += 4 * count
    if start == end:
        return Goodbye(ssrcs)
    _need("BYE reason", 1 + data[start], start, end)
    return Goodbye(ssrcs, data[start + 1 : start + 1 + data[start]].decode(errors="replace"))


def _parse_extended(data: bytes, start: int, end: int, count: int) -> ExtendedReport:
    _need("XR", 4, start, end)
    (ssrc,) = _WORD.unpack_from(data, start)
    start += 4
    blocks: list[XrBlock] = []
    for _ in range(MAX_PARTS):
        if start == end:
            break
        kind, _, words = _HEADER.unpack_from(data, start)
        start += 4
        _need("XR block", 4 * words, start, end)
        if kind == _VOIP_METRICS:
            _exactly("VoIP metrics", words, _METRICS.size // 4)
            fields = _METRICS.unpack_from(data, start)
            blocks.append(VoipMetrics(*fields[:18], *fields[19:]))
        elif kind == _REFERENCE_TIME:
            _exactly("reference time", words, 2)
            blocks.append(ReferenceTime(*_NTP.unpack_from(data, start)))
        elif kind == _DELAYS:
            if words % 3:
                raise ValueError(f"XR block of delays has {words} words, no multiple of 3")
            places = range(start, start + 4 * words, _DELAY.size)
            blocks.append(Delays(tuple(Delay(*_DELAY.unpack_from(data, place)) for place in places)))
        start += 4 * words
    else:
        raise ValueError(f"XR of {MAX_PARTS} blocks or more")
    return ExtendedReport(ssrc, tuple(blocks))


def _exactly(what: str, words: int, right: int) -> None:
    if words != right:
        raise ValueError(f"XR block of {what} has {words} words, not {right}")


_PARSERS: dict[int, Callable[[bytes, int, int, int], Packet]] = {
    SENDER_REPORT: _parse_sender_report,
    RECEIVER_REPORT: _parse_receiver_report,
    DESCRIPTION: _parse_description,
    GOODBYE: _parse_goodbye,
    EXTENDED_REPORT: _parse_extended,
}
