"""Whose RTP a call listens to: symmetric RTP with a rule that a third party cannot bend (RFC 4961, RFC 7362).

The source is learned once, from two consecutive packets of the negotiated payload types. From then on packets from
elsewhere are foreign, unless the source has been silent for a second and the newcomer carries on its very stream.
"""

from dataclasses import dataclass
from enum import Enum, auto

from sipagent.media.rtp import RtpPacket, sequence_diff

Address = tuple[str, int]

SILENT_NS = 1_000_000_000
MAX_CANDIDATES = 4  # a fifth address pushes out the oldest, so that a flood cannot make us remember it


class Verdict(Enum):
    ACCEPT = auto()  # from the learned source
    LEARNED = auto()  # this packet made its sender the source
    WAIT = auto()  # a first packet: kept until a second one confirms it
    IGNORE = auto()  # before anybody is known: a payload type nobody negotiated
    FOREIGN = auto()


@dataclass(frozen=True, slots=True)
class Judgement:
    verdict: Verdict
    packets: tuple[tuple[RtpPacket, int], ...] = ()  # those to be taken as received, and when they came (ns)


class SourceRule:
    """One call's rule. ``learned`` is None until two packets agreed."""

    def __init__(self) -> None:
        self.signalled: Address | None = None
        self.learned: Address | None = None
        self._payload_types: frozenset[int] = frozenset()
        self._candidates: dict[Address, tuple[RtpPacket, int]] = {}  # with their arrival

    @property
    def target(self) -> Address | None:
        """Where to send: the learned source, before that the address of the SDP."""
        return self.learned or self.signalled

    def expect(self, signalled: Address | None, payload_types: frozenset[int]) -> bool:
        """What the SDP says now. A new address forgets the learned source; returns whether it did."""
        self._payload_types = payload_types
        if signalled == self.signalled:
            return False
        self.signalled, self.learned = signalled, None
        self._candidates.clear()
        return True

    def judge(self, sender: Address, packet: RtpPacket, ssrc: int, heard_ns: int, now_ns: int) -> Judgement:
        """``ssrc`` is that of the stream being received, ``heard_ns`` when it was last heard."""
        if sender == self.learned:
            return Judgement(Verdict.ACCEPT, ((packet, now_ns),))
        if self.learned is not None and (now_ns - heard_ns < SILENT_NS or packet.ssrc != ssrc):
            self._candidates.pop(sender, None)
            return Judgement(Verdict.FOREIGN)
        if packet.payload_type not in self._payload_types:
            return Judgement(Verdict.IGNORE if self.learned is None else Verdict.FOREIGN)
        before = self._candidates.get(sender)
        if before is not None and follows(packet, before[0]):
            self.learned = sender
            self._candidates.clear()
            return Judgement(Verdict.LEARNED, (before, (packet, now_ns)))
        self._candidates.pop(sender, None)
        if len(self._candidates) == MAX_CANDIDATES:
            del self._candidates[next(iter(self._candidates))]
        self._candidates[sender] = (packet, now_ns)
        return Judgement(Verdict.WAIT)


def follows(packet: RtpPacket, before: RtpPacket) -> bool:
    """Whether these are two consecutive packets of one stream."""
    return packet.ssrc == before.ssrc and sequence_diff(packet.sequence, before.sequence) == 1
