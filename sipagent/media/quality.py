"""How good a line is, from counts: loss in bursts and gaps (RFC 3611), speech quality by the E-model (ITU-T G.107).

The E-model's scale is narrow-band: a G.722 call is rated as G.711 would be under the same losses, so too low by what
its width is worth, and G.107.1 (another scale) is not used.
"""

import math
from typing import NamedTuple

import msgspec

GMIN = 16  # RFC 3611 section 4.7.2: so many packets in a row must be good for a burst to be over

# Packet-loss robustness of G.711 (ITU-T G.113 appendix I), whose equipment impairment Ie is 0.
ROBUSTNESS_CONCEALED = 25.1
ROBUSTNESS_BARE = 4.3

# With the default values of G.107 table 2 only delay and loss are left to vary; these depend on neither.
_RO_LESS_IS = 94.7688 - 1.4136  # basic signal-to-noise ratio, less what happens at the same time as the speech
_RO = 94.7688
_NO = -61.1792  # dBm0p, all noise at the 0 dBr point
_TELR, _WEPL, _RLR = 65.0, 110.0, 2.0  # dB: echo to the talker, loss around the loop, receive loudness
_NO_DELAY_RATING = 93.2


class LossCounts(NamedTuple):
    """What a `LossPattern` has counted, in packets."""

    received: int = 0  # and in time
    lost: int = 0
    discarded: int = 0  # came too late (or too early) to be played
    loss_runs: int = 0  # unbroken runs of packets lost or discarded
    burst_packets: int = 0  # between the first missing packet of each burst and the last, these included
    burst_losses: int = 0  # missing ones among them
    bursts: int = 0
    gap_packets: int = 0  # all others
    gap_losses: int = 0

    @property
    def expected(self) -> int:
        return self.received + self.lost + self.discarded

    @property
    def missing(self) -> int:
        return self.lost + self.discarded

    @property
    def loss_rate(self) -> float:
        return _share(self.lost, self.expected)

    @property
    def discard_rate(self) -> float:
        return _share(self.discarded, self.expected)

    @property
    def burst_density(self) -> float:
        """Share of packets missing in bursts."""
        return _share(self.burst_losses, self.burst_packets)

    @property
    def gap_density(self) -> float:
        return _share(self.gap_losses, self.gap_packets)

    @property
    def burst_length(self) -> float:
        """Packets in a burst, on average; 0 when there was none."""
        return self.burst_packets / self.bursts if self.bursts else 0.0

    @property
    def gap_length(self) -> float:
        """Packets in a gap, on average, where there are as many gaps as bursts (RFC 3611 A.2)."""
        return self.gap_packets / max(self.bursts, 1)

    @property
    def burst_ratio(self) -> float:
        """BurstR of G.107: how many times longer runs of missing packets are than they were if loss came at random."""
        if not self.loss_runs:
            return 1.0
        return max(self.missing / self.loss_runs * (1 - _share(self.missing, self.expected)), 1.0)

    def since(self, before: "LossCounts") -> "LossCounts":
        """What was added. A loss that stood alone then may be in a burst now, so a negative count is taken for 0."""
        return LossCounts(*(max(now - then, 0) for now, then in zip(self, before, strict=True)))


class LossPattern:
    """Sorts missing packets into bursts and gaps by the rule of RFC 3611 A.2, told of runs in the order of playout.

    Where A.2 estimates lengths from transitions, the packets themselves are counted, which gives the same for every
    burst that is over, and also a figure for the one that is not. As section 4.7.2 says, the first packet is taken to
    follow a gap.
    """

    __slots__ = (
        "_burst_losses",
        "_burst_packets",
        "_bursts",
        "_cluster",
        "_cluster_losses",
        "_discarded",
        "_gap_losses",
        "_gap_packets",
        "_lost",
        "_received",
        "_runs",
        "_since",
        "_undo",
    )

    def __init__(self) -> None:
        self._received = self._lost = self._discarded = self._runs = 0
        self._burst_packets = self._burst_losses = self._bursts = 0
        self._gap_packets = self._gap_losses = 0
        self._cluster = 0  # packets from the first missing one of the present burst (or lone loss) to the last
        self._cluster_losses = 0
        self._since = 0  # received after that
        self._undo: tuple[int, ...] | None = None  # all this before the newest missing packet, if that was one alone

    def received(self, count: int = 1) -> None:
        self._received += count
        self._since += count

    def lost(self, count: int = 1) -> None:
        self._lost += count
        self._miss(count)

    def discarded(self, count: int = 1) -> None:
        self._discarded += count
        self._miss(count)
        self._undo = None

    def came_late(self, count: int = 1) -> None:
        """Packets that were told as lost came after all, too late: they are discarded, not lost."""
        count = min(count, self._lost)
        self._lost -= count
        self._discarded += count
        self._undo = None

    def came_in_time(self, count: int = 1) -> None:
        """Packets that were told as lost were only out of order: they are received.

        As a rule it is the one that was missed last, and all is as if it had not been. Else which of them it is is not
        known, so a burst's ends stay where they are unless one loss or none is left.
        """
        for _ in range(min(count, self._lost)):
            self._lost -= 1
            self._received += 1
            if self._undo is not None:
                self._restore(self._undo)
            elif self._cluster_losses:
                self._cluster_losses -= 1
            elif self._gap_losses:
                self._gap_losses -= 1
            else:
                self._burst_losses -= 1
            if self._cluster_losses < min(self._cluster, 2):
                self._since += self._cluster - self._cluster_losses
                self._cluster = self._cluster_losses
                self._runs -= not self._cluster

    def counts(self) -> LossCounts:
        """The present burst counts as far as it has gone."""
        alone = self._cluster_losses < 2
        return LossCounts(
            received=self._received,
            lost=self._lost,
            discarded=self._discarded,
            loss_runs=self._runs,
            burst_packets=self._burst_packets + (0 if alone else self._cluster),
            burst_losses=self._burst_losses + (0 if alone else self._cluster_losses),
            bursts=self._bursts + (0 if alone else 1),
            gap_packets=self._gap_packets + self._since + (self._cluster if alone else 0),
            gap_losses=self._gap_losses + (self._cluster_losses if alone else 0),
        )

    def _miss(self, count: int) -> None:
        if count <= 0:
            return
        self._undo = self._state() if count == 1 else None
        if self._since or not self._cluster:
            self._runs += 1
        if self._since >= GMIN or not self._cluster:
            over = self.counts()
            self._burst_packets, self._burst_losses = over.burst_packets, over.burst_losses
            self._bursts, self._gap_packets, self._gap_losses = over.bursts, over.gap_packets, over.gap_losses
            self._cluster = self._cluster_losses = 0
        else:
            self._cluster += self._since
        self._cluster += count
        self._cluster_losses += count
        self._since = 0

    def _state(self) -> tuple[int, ...]:
        gaps = (self._gap_packets, self._gap_losses)
        bursts = (self._burst_packets, self._burst_losses, self._bursts)
        return (self._runs, *bursts, *gaps, self._cluster, self._cluster_losses, self._since)

    def _restore(self, state: tuple[int, ...]) -> None:
        received = self._since + 1
        self._runs, self._burst_packets, self._burst_losses, self._bursts, *rest = state
        self._gap_packets, self._gap_losses, self._cluster, self._cluster_losses, self._since = rest
        self._since += received
        self._undo = None


def loss_impairment(counts: LossCounts, robustness: float = ROBUSTNESS_CONCEALED) -> float:
    """Ie,eff of G.711 (G.107 section 7.5). `robustness` is G.113's Bpl: which concealment listens."""
    percent = 100 * _share(counts.missing, counts.expected)
    return 95 * percent / (percent / counts.burst_ratio + robustness)


def delay_impairment(delay_ms: float) -> float:
    """Id (G.107 section 7.4): talker echo, listener echo and sheer delay, for the mean one-way delay mouth to ear."""
    delay_ms = max(delay_ms, 0.0)
    talker_echo = _TELR - 40 * math.log10((1 + delay_ms / 10) / (1 + delay_ms / 150))
    talker_echo += 6 * math.exp(-0.3 * delay_ms * delay_ms)
    echo_excess = (-1.5 * (_NO - _RLR) - (80 + 2.5 * (talker_echo - 14))) / 2
    impairment: float = (echo_excess + math.sqrt(echo_excess * echo_excess + 100) - 1) * (1 - math.exp(-delay_ms))
    loop_excess = (_RO - 10.5 * (_WEPL + 7) * (2 * delay_ms + 1) ** -0.25) / 2
    impairment += loop_excess + math.sqrt(loop_excess * loop_excess + 169)
    if delay_ms > 100:
        octaves = math.log2(delay_ms / 100)
        impairment += 25 * ((1 + octaves**6) ** (1 / 6) - 3 * (1 + (octaves / 3) ** 6) ** (1 / 6) + 2)
    return impairment


def listening_rating(counts: LossCounts, robustness: float = ROBUSTNESS_CONCEALED) -> float:
    """R as if there were no delay; 93.2 when nothing is missing."""
    return _NO_DELAY_RATING - loss_impairment(counts, robustness)


def conversational_rating(counts: LossCounts, delay_ms: float, robustness: float = ROBUSTNESS_CONCEALED) -> float:
    """R of G.107 for the mean one-way delay mouth to ear."""
    return _RO_LESS_IS - delay_impairment(delay_ms) - loss_impairment(counts, robustness)


def mos(rating: float) -> float:
    """Mean opinion score, 1 to 4.5, of an R (G.107 annex B)."""
    if rating <= 0:
        return 1.0
    if rating >= 100:
        return 4.5
    return max(1 + 0.035 * rating + rating * (rating - 60) * (100 - rating) * 7e-6, 1.0)


class QualityFigures(msgspec.Struct, kw_only=True, frozen=True):
    """One line's quality over some seconds, or over the whole call. None: not known."""

    packets: int  # that came, late ones too
    lost: int
    lost_percent: float
    discarded: int  # came too late to be played
    discarded_percent: float
    burst_density_percent: float  # missing packets within bursts (RFC 3611 section 4.7.2)
    burst_ms: float  # mean length of a burst, 0 when there was none
    gap_density_percent: float
    gap_ms: float
    jitter_ms: float  # RFC 3550 A.8
    concealed_ms: int
    playout_delay_ms: float
    round_trip_ms: float | None
    mos_lq: float | None  # as heard by us, listening only; None when no packet was due
    mos_cq: float | None  # in conversation: delay counts too, as far as it is known
    level_in_dbov: float | None  # of the speech, pauses left out
    level_out_dbov: float | None
    peer_lost_percent: float | None  # of our packets, as its RTCP says; so the rest
    peer_jitter_ms: float | None
    peer_mos_lq: float | None
    peer_mos_cq: float | None


def _share(part: int, whole: int) -> float:
    return part / whole if whole else 0.0
