"""Whose RTP a call listens to: symmetric RTP with a rule that a third party cannot bend (RFC 4961, RFC 7362).

The source is learned from two consecutive packets of the negotiated payload types. From then on packets from elsewhere
are foreign; `SourceRule` says who may still take the stream over.
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
    """One call's rule. ``learned`` is None until two packets agreed.

    A *pair* is two successive packets of one sender with the same SSRC and consecutive sequence numbers; packets of
    payload types nobody negotiated do not count. Whoever completes a pair becomes the source, if he may:

    - Nobody is learned (the call is new, or the SDP has named another address): anybody may.
    - The address the SDP names may at any time, with any SSRC. So the peer gets its call back from whoever was faster,
      be it a third party or its own old address, whose last packets arrive after the SDP that moved the media.
    - Anybody else may once the source has been silent for a second and the packets carry the SSRC being received. While
      none is being received (after hold, or in a new engine), they must instead come from the source's host, whatever
      the port: a NAT that has forgotten the binding and made another.

    All others are foreign: refused, counted, and never sent anything.
    """

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

    def bars(self, sender: Address, heard_ns: int, now_ns: int) -> bool:
        """Whether this sender is foreign whatever it says: floods are refused without a look inside."""
        return self.learned not in (None, sender) and sender != self.signalled and now_ns - heard_ns < SILENT_NS

    def judge(self, sender: Address, packet: RtpPacket, ssrc: int, heard_ns: int, now_ns: int) -> Judgement:
        """``ssrc`` is that of the stream being received, -1 for none; ``heard_ns`` when it was last heard."""
        if sender == self.learned:
            return Judgement(Verdict.ACCEPT, ((packet, now_ns),))
        if self.bars(sender, heard_ns, now_ns) or not self._may(sender, packet.ssrc, ssrc):
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
            del self._candidates[next(address for address in self._candidates if address != self.signalled)]
        self._candidates[sender] = (packet, now_ns)
        return Judgement(Verdict.WAIT)

    def _may(self, sender: Address, speaks: int, ssrc: int) -> bool:
        """Whether the sender of SSRC ``speaks`` may become the source, which has been silent or is unknown."""
        if self.learned is None or sender == self.signalled:
            return True
        return sender[0] == self.learned[0] if ssrc < 0 else speaks == ssrc


def follows(packet: RtpPacket, before: RtpPacket) -> bool:
    """Whether these are two consecutive packets of one stream."""
    return packet.ssrc == before.ssrc and sequence_diff(packet.sequence, before.sequence) == 1
