"""The outgoing streams of all slots: from queued audio to RTP packets, in arrays (RFC 3550 section 5.1, RFC 3551)."""

import secrets

import numpy as np
from numpy.typing import NDArray

from sipagent.media.g711 import ALAW_SILENCE, LINEAR_TO_ALAW, LINEAR_TO_ULAW, ULAW_SILENCE
from sipagent.media.rings import TX_FRAMES, Counter, Rings
from sipagent.media.rtp import FRAME, HEADER, PCMA

Ints = NDArray[np.int64]

PACKET = HEADER + FRAME
FRAME_NS = 20_000_000
_MASK = TX_FRAMES - 1
_MARKER = 0x80


class Outgoing:
    """`packets` holds each slot's next packet ready to be sent: uint8 [C, 172]."""

    def __init__(self, rings: Rings) -> None:
        self._rings = rings
        self.packets = np.full((rings.capacity, PACKET), ULAW_SILENCE, np.uint8)
        self.packets[:, 0] = 0x80
        self.sending = np.zeros(rings.capacity, np.bool_)
        self._sequence = self.packets[:, 2:4].view(">u2")[:, 0]
        self._timestamp = self.packets[:, 4:8].view(">u4")[:, 0]
        self._ssrc = self.packets[:, 8:12].view(">u4")[:, 0]
        self._alaw = np.zeros(rings.capacity, np.bool_)
        self._talking = np.zeros(rings.capacity, np.bool_)  # the packet holds audio, not silence
        self._marked = np.zeros(rings.capacity, np.bool_)  # the packet has the marker bit set
        self._some_marked = False

    def open(self, slot: int) -> None:
        """A stream of its own, with random numbers (RFC 3550 section 8.1 and 5.1)."""
        rings = self._rings
        rings.tx_ssrc[slot] = secrets.randbits(32)
        rings.tx_sequence[slot] = secrets.randbits(16)
        rings.tx_timestamp[slot] = secrets.randbits(32)
        self.sending[slot] = False

    def resume(self, slot: int, gap_ns: int) -> None:
        """The stream another process left: the sequence goes on, the timestamp counts the frames not sent."""
        self.skip(np.array([slot]), max(gap_ns // FRAME_NS - 1, 0))
        self.sending[slot] = False

    def skip(self, slots: Ints, frames: int) -> None:
        """Time passed in which these slots were not served."""
        self._rings.tx_timestamp[slots] += np.uint32(frames * FRAME & 0xFFFFFFFF)

    def configure(self, slot: int, payload_type: int, send: bool) -> None:
        """May be repeated. The first packet after a stretch without packets gets the marker (RFC 3551 section 4.1)."""
        marker = self.packets[slot, 1] & _MARKER
        if send and not self.sending[slot]:
            marker = _MARKER
            self._marked[slot] = self._some_marked = True
        self.sending[slot] = send
        self.packets[slot, 1] = payload_type | marker
        self._alaw[slot] = payload_type == PCMA
        self._talking[slot] = False
        self._silence(np.array([slot]))
        self._ssrc[slot] = self._rings.tx_ssrc[slot]
        self.flush(np.array([slot]))

    def flush(self, slots: Ints) -> None:
        """Drops what main wants dropped, and says where playing stopped."""
        rings = self._rings
        cut = slots[rings.tx_flush[slots] > rings.tx_tail[slots]]
        rings.tx_cut[cut] = rings.tx_tail[cut]
        rings.tx_tail[cut] = rings.tx_flush[cut]

    def prepare(self, slots: Ints, sending: Ints, now_ns: int) -> None:
        """Makes the next packet of the slots that are sending; time passes for all of them."""
        rings = self._rings
        tails = rings.tx_tail[sending]
        talking = rings.tx_head[sending] > tails
        changed = talking != self._talking[sending]
        if changed.any():
            self._change(sending[changed], talking[changed])
        if talking.any():
            if talking.all():
                self._load(sending, tails, now_ns)
            else:
                self._load(sending[talking], tails[talking], now_ns)
        self._sequence[sending] = rings.tx_sequence[sending]
        self._timestamp[sending] = rings.tx_timestamp[sending]
        rings.tx_sequence[sending] += np.uint16(1)
        rings.tx_timestamp[slots] += np.uint32(FRAME)
        rings.counters[sending, Counter.PACKETS_OUT] += 1

    def sent(self, slots: Ints) -> None:
        """These packets have left: their markers are not repeated."""
        if self._some_marked:
            done = slots[self._marked[slots]]
            self.packets[done, 1] &= ~_MARKER & 0xFF
            self._marked[done] = False
            self._some_marked = bool(self._marked.any())

    def _change(self, slots: Ints, talking: NDArray[np.bool_]) -> None:
        """Talkspurts that begin, which are marked, and that end."""
        self._talking[slots] = talking
        begin = slots[talking]
        self.packets[begin, 1] |= _MARKER
        self._marked[begin] = True
        self._some_marked = True
        self._silence(slots[~talking])

    def _silence(self, slots: Ints) -> None:
        self.packets[slots, HEADER:] = np.where(self._alaw[slots], ALAW_SILENCE, ULAW_SILENCE)[:, None]

    def _load(self, slots: Ints, tails: Ints, now_ns: int) -> None:
        """Takes one queued frame of each of these slots."""
        rings = self._rings
        place = tails & _MASK
        pcm = rings.tx_pcm[slots, place].view(np.uint16)
        codes = np.take(LINEAR_TO_ULAW, pcm)
        alaw = self._alaw[slots]
        if alaw.any():
            codes[alaw] = np.take(LINEAR_TO_ALAW, pcm[alaw])
        self.packets[slots, HEADER:] = codes
        rings.tx_sent[slots, place] = now_ns
        rings.tx_tail[slots] = tails + 1
