"""RTCP of one line: what we report, what the peer reports of us, and the quality figures made of both.

Two members, so the interval's bandwidth term (RFC 3550 section 6.3.1) never binds: 200 bytes from each of two in 5 % of
64 kbit/s come to 1 s, and the minimum of 5 s holds, halved for the first report. Nothing here reads a clock or a
socket: monotonic ns and our wall clock as a 64-bit NTP timestamp are arguments, and whoever calls `receive` has made
sure that the datagram came from the peer's address.
"""

import math
from collections import deque
from dataclasses import dataclass
from random import Random
from typing import NamedTuple

from sipagent.media.quality import GMIN, LossCounts, QualityFigures, conversational_rating, listening_rating, mos
from sipagent.media.rtcp import (
    UNAVAILABLE,
    Delay,
    Delays,
    Description,
    ExtendedReport,
    Goodbye,
    ReferenceTime,
    Report,
    ReportBlock,
    SenderInfo,
    VoipMetrics,
    XrBlock,
    middle,
    parse_compound,
)

INTERVAL_NS = 5_000_000_000  # RFC 3550 section 6.2
SILENCE_NS = 15_000_000_000  # without a report for three intervals: another SSRC may speak for the peer
MAX_PER_SECOND = 50  # compounds looked at: browsers send feedback every 20 ms at worst
MAX_ROUND_TRIP_MS = 10_000  # more is a mistake or a lie
_MAX_JITTER_MS = 60_000  # likewise
_REMEMBERED = 16  # timestamps of ours that may still come back: 80 s of reports
_ERA = 0xFFFFFFFFFFFFFFFF  # NTP's seconds start over in 2036
_DBM0_OF_DBOV = -6  # a level of 0 dBov, the power of a full square wave, is 6.2 dBm0 (ITU-T G.711 and G.100.1)
_COMPENSATION = math.e - 1.5  # reconsideration waits longer by this (section 6.3.1)
_RECEIVER_CONFIG = 0b10_11_0000  # enhanced concealment, adaptive jitter buffer (RFC 3611 section 4.7.6)


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamStats:
    """What the engine knows of a line's two streams at one instant. Counts are since the call's beginning."""

    packets_sent: int
    octets_sent: int  # payload
    timestamp: int  # of our stream at this instant
    peer_ssrc: int | None  # None while nothing was received
    highest: int  # extended sequence number
    received: int  # packets, duplicates too
    lost: int  # expected less received (RFC 3550 A.3)
    jitter: float  # timestamp units
    losses: LossCounts  # as played
    concealed_ms: int
    playout_delay_ms: float
    playout_max_ms: int  # most that the jitter buffer may hold
    packet_ms: int = 20  # of the peer's packets
    rate: int = 8000  # timestamp units a second
    level_in: float | None = None  # dBov of the speech in the last 5 s; None when there was none
    level_out: float | None = None


class PeerReport(NamedTuple):
    """What the peer last said it hears of us."""

    at_ns: int
    fraction_lost: float  # since its report before, 0..1
    lost: int  # since the beginning, 0 at least
    jitter: int  # timestamp units
    highest: int  # extended sequence number it has received


class PeerClock(NamedTuple):
    """The peer's last SR."""

    ntp: int
    timestamp: int  # RTP's, of the same instant
    at_ns: int  # when it came


class Echoes:
    """Timestamps we sent and the peer's answers to them: round trips, and which answer is older than another."""

    def __init__(self) -> None:
        self._sent: deque[tuple[int, int]] = deque(maxlen=_REMEMBERED)  # middle NTP, ns
        self._answered = (0, -1)  # the newest one answered: ns when it was sent, delay

    def sent(self, ntp: int, now_ns: int) -> None:
        self._sent.append((middle(ntp), now_ns))

    def take(self, stamp: int, delay: int, now_ns: int) -> tuple[bool, float | None]:
        """Whether the answer is news, and the round trip in ms if it can be told from it.

        A stamp we do not remember is news only as long as none was answered: a process before us may have sent it.
        """
        sent_ns = next((at for known, at in reversed(self._sent) if known == stamp), None)
        if sent_ns is None:
            return self._answered[0] == 0, None
        answer = (sent_ns, delay)
        if answer <= self._answered:
            return answer == self._answered, None
        round_trip_ms = (now_ns - sent_ns) / 1e6 - delay * (1000 / 65536)
        if not -1 <= round_trip_ms <= MAX_ROUND_TRIP_MS:  # clocks may differ in pace by a little
            return True, None
        self._answered = answer
        return True, max(round_trip_ms, 0.0)


class RtcpSession:
    """Both directions of one line's RTCP. A new SSRC of ours is a new session."""

    def __init__(self, ssrc: int, cname: str, now_ns: int, rng: Random) -> None:
        self.ssrc = ssrc
        self.foreign = 0  # compounds that were not believed: another's, replayed, too many
        self.peer: PeerReport | None = None
        self.peer_metrics: VoipMetrics | None = None  # of our stream
        self.peer_clock: PeerClock | None = None
        self.peer_left = False  # said BYE and nothing since
        self.round_trip_ms: float | None = None
        self._description = bytes(Description(((ssrc, cname),)))
        self._rng = rng
        self._peer_ssrc: int | None = None  # whose reports are believed
        self.heard_ns = now_ns  # when its last report came
        self._admitted = (now_ns, 0)  # start of a second, compounds in it
        self._sender_echoes = Echoes()  # of our SRs
        self._reference_echoes = Echoes()  # of our reference times
        self._reference: tuple[int, int] | None = None  # the peer's reference time, middle NTP, and when it came
        self._packets_sent = deque((0, 0), maxlen=2)  # at the last two reports
        self._reported = False
        self._source: int | None = None  # the stream in our last report
        self._received = self._lost = 0  # as in that report
        self._lost_before = 0  # by earlier streams
        self.due_ns = now_ns + self._interval(INTERVAL_NS // 2)

    def receive(self, data: bytes, now_ns: int) -> bool:
        """Takes a datagram of the peer's; False when it is not believed. Raises ValueError for what is no RTCP."""
        if not self._admits(now_ns):
            self.foreign += 1
            return False
        packets = parse_compound(data)
        first = packets[0]
        assert isinstance(first, Report)
        if not self._speaks_for_peer(first, now_ns):
            self.foreign += 1
            return False
        self.heard_ns = now_ns
        self.peer_left = False
        for packet in packets:
            if isinstance(packet, Report):
                if packet.ssrc == first.ssrc:
                    self._take_report(packet, now_ns)
            elif isinstance(packet, ExtendedReport):
                if packet.ssrc == first.ssrc:
                    self._take_extended(packet, now_ns)
            elif isinstance(packet, Goodbye) and first.ssrc in packet.ssrcs:
                self.peer_left = True
        return True

    def report(self, stats: StreamStats, now_ns: int, ntp: int) -> bytes:
        """The compound that is due: SR or RR, SDES, XR. The next one will be due at `due_ns`."""
        ntp &= _ERA
        report = self._report(stats, now_ns, ntp)
        blocks: list[XrBlock] = []
        if report.sender is None:
            blocks.append(ReferenceTime(ntp))
            self._reference_echoes.sent(ntp, now_ns)
        if self._reference is not None and self._peer_ssrc is not None:
            stamp, at_ns = self._reference
            blocks.append(Delays((Delay(self._peer_ssrc, stamp, _delay(now_ns - at_ns)),)))
            self._reference = None
        self.due_ns = now_ns + self._interval(INTERVAL_NS)
        return bytes(report) + self._description + self._extended(stats, blocks)

    def bye(self, stats: StreamStats, now_ns: int, ntp: int) -> bytes:
        """The last compound; b"" when nothing was ever sent, for then nobody knows us (RFC 3550 section 6.3.7)."""
        if not stats.packets_sent and not self._reported:
            return b""
        report = self._report(stats, now_ns, ntp & _ERA)
        return bytes(report) + self._description + self._extended(stats, []) + bytes(Goodbye((self.ssrc,)))

    def _interval(self, least_ns: int) -> int:
        """Random as section 6.3.1 wants it; `least_ns` on average.

        With reconsideration (6.3.6) a report waits until a newly drawn interval is over too. The group does not grow
        meanwhile, so the draws are made in advance.
        """
        base = least_ns / _COMPENSATION
        wait = self._rng.uniform(0.5, 1.5)
        while (redrawn := self._rng.uniform(0.5, 1.5)) > wait:
            wait = redrawn
        return int(base * wait)

    def _admits(self, now_ns: int) -> bool:
        start, count = self._admitted
        if now_ns - start >= 1_000_000_000:
            start, count = now_ns, 0
        self._admitted = (start, count + 1)
        return count < MAX_PER_SECOND

    def _speaks_for_peer(self, report: Report, now_ns: int) -> bool:
        """The SSRC of the stream we hear at once, any other only while no one else speaks; never an old SR again."""
        ssrc = report.ssrc
        if ssrc == self.ssrc:
            return False  # our own, reflected
        silent = now_ns - self.heard_ns > SILENCE_NS
        if ssrc != self._peer_ssrc:
            if self._peer_ssrc is not None and ssrc != self._source and not silent:
                return False
            self._peer_ssrc = ssrc
            self.peer = self.peer_metrics = self.peer_clock = self._reference = None
        elif report.sender is not None and self.peer_clock is not None and report.sender.ntp and not silent:
            newer = (report.sender.ntp - self.peer_clock.ntp) & _ERA
            return 0 < newer < 1 << 63
        return True

    def _take_report(self, report: Report, now_ns: int) -> None:
        if report.sender is not None:
            self.peer_clock = PeerClock(report.sender.ntp, report.sender.timestamp, now_ns)
        for block in report.blocks:
            if block.ssrc != self.ssrc:
                continue
            if block.last_sr:
                news, round_trip_ms = self._sender_echoes.take(block.last_sr, block.delay, now_ns)
                if not news:
                    continue
                if round_trip_ms is not None:
                    self.round_trip_ms = round_trip_ms
            self.peer = PeerReport(now_ns, block.fraction_lost / 256, max(block.lost, 0), block.jitter, block.highest)

    def _take_extended(self, packet: ExtendedReport, now_ns: int) -> None:
        for block in packet.blocks:
            if isinstance(block, VoipMetrics):
                if block.ssrc == self.ssrc:
                    self.peer_metrics = block
            elif isinstance(block, ReferenceTime):
                self._reference = (middle(block.ntp), now_ns)
            else:
                for ssrc, last_rr, delay in block.delays:
                    if ssrc == self.ssrc and last_rr:
                        _, round_trip_ms = self._reference_echoes.take(last_rr, delay, now_ns)
                        if round_trip_ms is not None:
                            self.round_trip_ms = round_trip_ms

    def _report(self, stats: StreamStats, now_ns: int, ntp: int) -> Report:
        """SR when we sent audio since the last report but one (section 6.4), else RR."""
        sender = None
        if stats.packets_sent != self._packets_sent[0]:
            sender = SenderInfo(
                ntp, stats.timestamp & 0xFFFFFFFF, stats.packets_sent & 0xFFFFFFFF, stats.octets_sent & 0xFFFFFFFF
            )
            self._sender_echoes.sent(ntp, now_ns)
        self._packets_sent.append(stats.packets_sent)
        self._reported = True
        return Report(self.ssrc, sender, self._blocks(stats, now_ns))

    def _blocks(self, stats: StreamStats, now_ns: int) -> tuple[ReportBlock, ...]:
        ssrc = stats.peer_ssrc
        if ssrc is None:
            return ()
        if ssrc != self._source:
            self._source, self._lost_before = ssrc, self._lost
        received, lost = stats.received - self._received, stats.lost - self._lost
        self._received, self._lost = stats.received, stats.lost
        if received <= 0:
            return ()  # it is silent
        clock = self.peer_clock if self._peer_ssrc == ssrc else None
        return (
            ReportBlock(
                ssrc=ssrc,
                fraction_lost=_in_256ths(lost / (received + lost)) if lost > 0 else 0,
                lost=max(-0x800000, min(stats.lost - self._lost_before, 0x7FFFFF)),
                highest=stats.highest & 0xFFFFFFFF,
                jitter=min(int(stats.jitter), 0xFFFFFFFF),
                last_sr=middle(clock.ntp) if clock else 0,
                delay=_delay(now_ns - clock.at_ns) if clock else 0,
            ),
        )

    def _extended(self, stats: StreamStats, blocks: list[XrBlock]) -> bytes:
        if stats.peer_ssrc is not None and stats.losses.expected:
            blocks.append(voip_metrics(stats, stats.peer_ssrc, self.round_trip_ms, self.peer_metrics))
        return bytes(ExtendedReport(self.ssrc, tuple(blocks))) if blocks else b""


class LineQuality:
    """The quality of one line, every 5 s and at its end. `rtcp` is None on a line without RTCP."""

    def __init__(self, now_ns: int, concealed_ms: int = 0) -> None:
        """`concealed_ms` is what was counted before, by an engine that died."""
        self.due_ns = now_ns + INTERVAL_NS
        self._losses = LossCounts()
        self._concealed_ms = concealed_ms
        self._jitter_ms, self._playout_delay_ms, self._round_trip_ms = _Mean(), _Mean(), _Mean()
        self._level_in, self._level_out = _Mean(), _Mean()

    def interval(self, stats: StreamStats, rtcp: RtcpSession | None, now_ns: int) -> QualityFigures:
        """Since the last time."""
        self.due_ns += INTERVAL_NS
        if self.due_ns <= now_ns:
            self.due_ns = now_ns + INTERVAL_NS
        self._sample(stats, rtcp)
        losses, self._losses = stats.losses.since(self._losses), stats.losses
        concealed_ms, self._concealed_ms = stats.concealed_ms - self._concealed_ms, stats.concealed_ms
        heard = rtcp if rtcp is not None and now_ns - rtcp.heard_ns <= SILENCE_NS else None
        return _figures(
            stats,
            losses,
            concealed_ms=max(concealed_ms, 0),
            jitter_ms=_jitter_ms(stats.jitter, stats),
            playout_delay_ms=stats.playout_delay_ms,
            round_trip_ms=rtcp.round_trip_ms if rtcp else None,
            levels=(stats.level_in, stats.level_out),
            rtcp=heard,
            peer_lost=heard.peer.fraction_lost if heard and heard.peer else None,
        )

    def final(self, stats: StreamStats, rtcp: RtcpSession | None) -> QualityFigures:
        """Of the whole call; what is no count is the mean of the intervals'."""
        self._sample(stats, rtcp)
        peer_lost = min(rtcp.peer.lost / max(stats.packets_sent, 1), 1.0) if rtcp and rtcp.peer else None
        return _figures(
            stats,
            stats.losses,
            concealed_ms=stats.concealed_ms,
            jitter_ms=self._jitter_ms.value or 0.0,
            playout_delay_ms=self._playout_delay_ms.value or 0.0,
            round_trip_ms=self._round_trip_ms.value,
            levels=(self._level_in.value, self._level_out.value),
            rtcp=rtcp,
            peer_lost=peer_lost,
        )

    def _sample(self, stats: StreamStats, rtcp: RtcpSession | None) -> None:
        self._jitter_ms.add(_jitter_ms(stats.jitter, stats))
        self._playout_delay_ms.add(stats.playout_delay_ms)
        if rtcp is not None and rtcp.round_trip_ms is not None:
            self._round_trip_ms.add(rtcp.round_trip_ms)
        for mean, level in ((self._level_in, stats.level_in), (self._level_out, stats.level_out)):
            if level is not None:
                mean.add(level)


class _Mean:
    def __init__(self) -> None:
        self._sum, self._count = 0.0, 0

    def add(self, value: float) -> None:
        self._sum += value
        self._count += 1

    @property
    def value(self) -> float | None:
        return self._sum / self._count if self._count else None


def voip_metrics(
    stats: StreamStats, ssrc: int, round_trip_ms: float | None, of_peer: VoipMetrics | None
) -> VoipMetrics:
    """What we hear of `ssrc`, for the peer (RFC 3611 section 4.7)."""
    losses = stats.losses
    delay_ms = one_way_ms(stats, stats.playout_delay_ms, round_trip_ms, of_peer)
    conversational = conversational_rating(losses, delay_ms)
    return VoipMetrics(
        ssrc=ssrc,
        loss_rate=_in_256ths(losses.loss_rate),
        discard_rate=_in_256ths(losses.discard_rate),
        burst_density=_in_256ths(losses.burst_density),
        gap_density=_in_256ths(losses.gap_density),
        burst_duration=_in_16_bits(losses.burst_length * stats.packet_ms),
        gap_duration=_in_16_bits(losses.gap_length * stats.packet_ms),
        round_trip=_in_16_bits(round_trip_ms or 0),
        end_system_delay=_in_16_bits(stats.playout_delay_ms + stats.packet_ms),
        signal_level=UNAVAILABLE if stats.level_in is None else round(stats.level_in) - _DBM0_OF_DBOV & 0xFF,
        noise_level=UNAVAILABLE,
        echo_return_loss=UNAVAILABLE,
        gmin=GMIN,
        r_factor=max(0, min(round(conversational), 100)),
        external_r_factor=UNAVAILABLE,
        mos_lq=round(10 * mos(listening_rating(losses))),
        mos_cq=round(10 * mos(conversational)),
        receiver_config=_RECEIVER_CONFIG,
        buffer_nominal=_in_16_bits(stats.playout_delay_ms),
        buffer_maximum=_in_16_bits(stats.playout_max_ms),
        buffer_absolute_maximum=_in_16_bits(stats.playout_max_ms),
    )


def one_way_ms(
    stats: StreamStats, playout_delay_ms: float, round_trip_ms: float | None, of_peer: VoipMetrics | None
) -> float:
    """Delay from mouth to ear, ways supposed alike (RFC 3611 section 4.7.3): half the round trip and of both ends' own.

    An end holds a packet while it is filled and while it waits to be played; a peer that does not tell holds it as
    long as we do. A round trip nobody measured counts nothing.
    """
    ours = playout_delay_ms + stats.packet_ms
    theirs = of_peer.end_system_delay if of_peer is not None and of_peer.end_system_delay else ours
    return ((round_trip_ms or 0.0) + ours + theirs) / 2


def _figures(
    stats: StreamStats,
    losses: LossCounts,
    *,
    concealed_ms: int,
    jitter_ms: float,
    playout_delay_ms: float,
    round_trip_ms: float | None,
    levels: tuple[float | None, float | None],
    rtcp: RtcpSession | None,
    peer_lost: float | None,
) -> QualityFigures:
    peer = rtcp.peer if rtcp else None
    metrics = rtcp.peer_metrics if rtcp else None
    peer_jitter_ms = _jitter_ms(peer.jitter, stats) if peer else None
    delay_ms = one_way_ms(stats, playout_delay_ms, round_trip_ms, metrics)
    due = losses.expected > 0
    return QualityFigures(
        packets=losses.received + losses.discarded,
        lost=losses.lost,
        lost_percent=_percent(losses.loss_rate),
        discarded=losses.discarded,
        discarded_percent=_percent(losses.discard_rate),
        burst_density_percent=_percent(min(losses.burst_density, 1.0)),
        burst_ms=round(losses.burst_length * stats.packet_ms, 1),
        gap_density_percent=_percent(min(losses.gap_density, 1.0)),
        gap_ms=round(losses.gap_length * stats.packet_ms, 1),
        jitter_ms=round(jitter_ms, 2),
        concealed_ms=concealed_ms,
        playout_delay_ms=round(playout_delay_ms, 1),
        round_trip_ms=None if round_trip_ms is None else round(round_trip_ms, 1),
        mos_lq=round(mos(listening_rating(losses)), 2) if due else None,
        mos_cq=round(mos(conversational_rating(losses, delay_ms)), 2) if due else None,
        level_in_dbov=None if levels[0] is None else round(levels[0], 1),
        level_out_dbov=None if levels[1] is None else round(levels[1], 1),
        peer_lost_percent=None if peer_lost is None else _percent(peer_lost),
        peer_jitter_ms=None if peer_jitter_ms is None or peer_jitter_ms > _MAX_JITTER_MS else round(peer_jitter_ms, 2),
        peer_mos_lq=_told_mos(metrics.mos_lq) if metrics else None,
        peer_mos_cq=_told_mos(metrics.mos_cq) if metrics else None,
    )


def _told_mos(tenths: int) -> float | None:
    return tenths / 10 if 10 <= tenths <= 50 else None


def _jitter_ms(jitter: float, stats: StreamStats) -> float:
    return jitter * 1000 / stats.rate


def _percent(share: float) -> float:
    return round(100 * share, 2)


def _in_256ths(share: float) -> int:
    return max(0, min(int(256 * share), 255))


def _in_16_bits(value: float) -> int:
    return max(0, min(round(value), 0xFFFF))


def _delay(elapsed_ns: int) -> int:
    """In 1/65536 s, as DLSR and DLRR count; at most what fits (18 hours)."""
    return max(0, min((elapsed_ns << 16) // 1_000_000_000, 0xFFFFFFFF))
