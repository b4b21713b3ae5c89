"""RTCP and quality of every slot: when reports are due, where they go, and what is told to main."""

import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from random import Random

import numpy as np
from numpy.typing import NDArray

from sipagent.media import levels
from sipagent.media.protocol import Connect, Notice, Quality
from sipagent.media.quality import LossPattern
from sipagent.media.reception import Accepted, Reception
from sipagent.media.reporting import INTERVAL_NS, LineQuality, RtcpSession, StreamStats
from sipagent.media.rings import Counter, Rings
from sipagent.media.rtp import FRAME
from sipagent.media.sockets import CallSockets
from sipagent.media.source import Address
from sipagent.media.srtp import Refused, SrtpSession
from sipagent.media.watch import Watch

Ints = NDArray[np.int64]

_SLOTS_A_REPORT = 50  # each has a report due in 5 s, that is 100 rounds of 50 ms: this is twice what is needed
_SPREAD_NS = 2_500_000_000  # by which first figures come early, so that calls that began together do not stay together
_PAUSE_NS = 40_000_000  # between two rounds of reports: one after another they cost less
_NEVER = np.iinfo(np.int64).max
_NTP_EPOCH = 2_208_988_800  # seconds from 1900 to 1970 (RFC 3550 section 4)
_NS_PER_UNIT = 125_000  # of the RTP clock of 8 kHz


@dataclass(slots=True)
class _Reported:
    quality: LineQuality
    losses: LossPattern = field(default_factory=LossPattern)
    counted: int = 0  # packets of the present numbering that the pattern knows
    rtcp: RtcpSession | None = None
    target: Address | None = None
    hosts: frozenset[str] = frozenset()  # from which its RTCP may come
    mux: bool = False
    srtp: SrtpSession | None = None
    level_in: float | None = None  # dBov, of the last quality interval
    level_out: float | None = None


class Reports:
    def __init__(
        self,
        rings: Rings,
        reception: Reception,
        sockets: CallSockets,
        watch: Watch,
        playout_max_ms: int,
        notify: Callable[[Notice], None],
    ) -> None:
        self._rings = rings
        self._reception = reception
        self._sockets = sockets
        self._watch = watch
        self._playout_max_ms = playout_max_ms
        self._notify = notify
        self._slots: dict[int, _Reported] = {}
        self._due_ns = np.full(rings.capacity, _NEVER, np.int64)
        self.earliest_ns = _NEVER  # when `watch` has something to do
        self.levels: Callable[[int], tuple[float | None, float | None]] = partial(
            levels.lately, rings
        )  # `hot` may know a cheaper way
        self._random = Random(secrets.randbits(64))

    def connect(self, slot: int, command: Connect, host: str, srtp: SrtpSession | None, now_ns: int) -> None:
        """What the SDP says now; `host` is the address of the peer's RTP."""
        line = self._slots.get(slot)
        if line is None:
            quality = LineQuality(now_ns, int(self._rings.counters[slot, Counter.CONCEALED_MS]))
            quality.due_ns -= self._random.randrange(_SPREAD_NS)
            line = self._slots[slot] = _Reported(quality)
        rtcp_host = command.rtcp_host or host
        line.srtp, line.mux = srtp, command.rtcp_mux
        line.hosts = frozenset({host, rtcp_host} - {""})
        wanted = command.rtcp_mux or command.rtcp_port > 0
        if wanted and line.rtcp is None:
            name = secrets.token_urlsafe(9)  # of this call alone, so that nobody can follow us (RFC 7022)
            line.rtcp = RtcpSession(int(self._rings.tx_ssrc[slot]), name, now_ns, self._random)
        elif not wanted and line.rtcp is not None:
            line.rtcp = None
            line.quality.due_ns = min(line.quality.due_ns, now_ns + INTERVAL_NS)
        line.target = (rtcp_host, command.rtcp_port) if command.rtcp_port > 0 and rtcp_host else None
        self._plan(slot, line)

    def learned(self, slot: int, source: Address) -> None:
        """The peer's RTP comes from here; without another word its RTCP goes to the port above."""
        line = self._slots.get(slot)
        if line is not None and source[0] not in line.hosts:
            line.hosts |= {source[0]}
            if line.target is not None and source[1] < 65535:
                line.target = (source[0], source[1] + 1)

    def took(self, slot: int, accepted: Accepted, in_time: bool) -> None:
        """A fresh packet that `Reception.accept` has just counted."""
        if accepted.contiguous and in_time:
            return
        line = self._slots[slot]
        self._count(slot, line, but=1)
        if accepted.missing:
            line.losses.lost(accepted.missing)
        if not accepted.contiguous and not accepted.missing:  # it had been told as lost
            (line.losses.came_in_time if in_time else line.losses.came_late)()
        elif in_time:
            line.losses.received()
        else:
            line.losses.discarded()

    def restarted(self, slot: int) -> None:
        """The numbering begins again: what was counted of it no longer is."""
        self._slots[slot].counted = 0

    def receive(self, slot: int, data: bytes, sender: Address | None, now_ns: int) -> None:
        """A datagram of the RTCP port, or by rtcp-mux of the RTP port, where `sender` is known to be the peer: None."""
        line = self._slots.get(slot)
        counters = self._rings.counters
        if line is None or line.rtcp is None or (sender is not None and sender[0] not in line.hosts):
            counters[slot, Counter.FOREIGN] += 1
            return
        try:
            plain = data if line.srtp is None else line.srtp.unprotect_rtcp(data)
            believed = line.rtcp.receive(plain, now_ns)
        except ValueError:
            counters[slot, Counter.RTCP_MALFORMED] += 1
            return
        except Refused as refused:
            counters[slot, Counter.SRTP_REPLAYED if refused.reason == "replay" else Counter.SRTP_REFUSED] += 1
            return
        if not believed:
            counters[slot, Counter.FOREIGN] += 1
            return
        counters[slot, Counter.RTCP_IN] += 1
        peer = line.rtcp.peer
        if peer is not None and peer.at_ns == now_ns:
            self._watch.reported(slot, peer.highest, now_ns)
        if sender is not None:
            line.target = sender  # symmetric RTCP (RFC 4961)

    def meant(self, slots: tuple[int, ...], data: bytes, sender: Address) -> int | None:
        """Whose RTCP this is on a shared port: of the stream it speaks for, else of the only peer at this address."""
        if len(slots) == 1:
            return slots[0]
        ssrc = int.from_bytes(data[4:8], "big")
        speaking = [slot for slot in slots if self._reception.ssrc[slot] == ssrc]
        if not speaking:
            speaking = [slot for slot in slots if slot in self._slots and self._slots[slot].target == sender]
        return speaking[0] if len(speaking) == 1 else None

    def watch(self, slots: Ints, now_ns: int) -> None:
        """Sends and tells what is due, to be called every tick: in rounds, what has waited longest first."""
        if now_ns < self.earliest_ns:
            return
        due = slots[self._due_ns[slots] <= now_ns]
        most = 2 + len(slots) // _SLOTS_A_REPORT
        if len(due) > most:
            due = due[np.argsort(self._due_ns[due])[:most]]
        for slot in due.tolist():
            line = self._slots[slot]
            line.level_in, line.level_out = self.levels(slot)
            stats = self._stats(slot, line)
            if line.rtcp is not None:
                self._send(slot, line, line.rtcp.report(stats, now_ns, _ntp()))
            self._notify(Quality(slot=slot, final=False, figures=line.quality.interval(stats, line.rtcp, now_ns)))
            self._plan(slot, line)
        self.earliest_ns = max(int(self._due_ns[slots].min(initial=_NEVER)), now_ns + _PAUSE_NS)

    def close(self, slot: int, now_ns: int) -> None:
        """Says goodbye and tells how the whole call was. Before the slot's sockets are closed."""
        line = self._slots.pop(slot, None)
        self._due_ns[slot] = _NEVER
        if line is None:
            return
        line.level_in, line.level_out = self.levels(slot)
        stats = self._stats(slot, line)
        if line.rtcp is not None:
            packet = line.rtcp.bye(stats, now_ns, _ntp())
            if packet:
                self._send(slot, line, packet)
        self._notify(Quality(slot=slot, final=True, figures=line.quality.final(stats, line.rtcp)))

    def _plan(self, slot: int, line: _Reported) -> None:
        """Figures are told with each report of ours, every 5 s on average; where there are none, every 5 s."""
        due_ns = line.rtcp.due_ns if line.rtcp is not None else line.quality.due_ns
        self._due_ns[slot] = due_ns
        self.earliest_ns = min(self.earliest_ns, due_ns)

    def _count(self, slot: int, line: _Reported, but: int = 0) -> None:
        received = int(self._reception.received[slot])
        line.losses.received(max(received - but - line.counted, 0))
        line.counted = received

    def _send(self, slot: int, line: _Reported, packet: bytes) -> None:
        if line.srtp is not None:
            packet = line.srtp.protect_rtcp(packet)
        if line.mux:
            self._sockets.send_one(slot, packet)
        elif line.target is not None:
            self._sockets.send_control(slot, packet, line.target)
        else:
            return
        self._rings.counters[slot, Counter.RTCP_OUT] += 1

    def _stats(self, slot: int, line: _Reported) -> StreamStats:
        self._count(slot, line)
        row, reception = self._rings.counters[slot].tolist(), self._reception
        ssrc = int(reception.ssrc[slot])
        sent = row[Counter.PACKETS_OUT]
        return StreamStats(
            packets_sent=sent,
            octets_sent=sent * FRAME,  # every packet of ours carries 20 ms, but for the few of pressed keys
            timestamp=int(self._rings.tx_timestamp[slot]),
            peer_ssrc=ssrc if ssrc >= 0 else None,
            highest=int(reception.highest[slot]) - 0x10000 if ssrc >= 0 else 0,
            received=row[Counter.PACKETS_IN],
            lost=reception.lost_of(slot),
            jitter=reception.jitter_ns(slot) / _NS_PER_UNIT,
            losses=line.losses.counts(),
            concealed_ms=row[Counter.CONCEALED_MS],
            playout_delay_ms=row[Counter.PLAYOUT_DELAY_US] / 1000,
            playout_max_ms=self._playout_max_ms,
            level_in=line.level_in,
            level_out=line.level_out,
        )


def _ntp() -> int:
    """Wall clock now, as 32 bits of seconds since 1900 and 32 of fractions."""
    ns = time.clock_gettime_ns(time.CLOCK_REALTIME)
    return (ns // 1_000_000_000 + _NTP_EPOCH) << 32 | (ns % 1_000_000_000 << 32) // 1_000_000_000
