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


class Outgoing:
    """`packets` holds each slot's next packet ready to be sent: uint8 [C, 172]."""

    def __init__(self, rings: Rings) -> None:
        self._rings = rings
        self.packets = np.full((rings.capacity, PACKET), ULAW_SILENCE, np.uint8)
        self.packets[:, 0] = 0x80
        self._words = self.packets[:, :HEADER].view(">u2")
        self._longs = self.packets[:, :HEADER].view(">u4")
        self._payload_type = np.zeros(rings.capacity, np.uint8)
        self._alaw = np.zeros(rings.capacity, np.bool_)
        self._sending = np.zeros(rings.capacity, np.bool_)
        self._talking = np.zeros(rings.capacity, np.bool_)  # the packet holds audio, not silence
        self._mark = np.zeros(rings.capacity, np.bool_)  # the next packet follows a stretch without packets

    def open(self, slot: int) -> None:
        """A stream of its own, with random numbers (RFC 3550 section 8.1 and 5.1)."""
        rings = self._rings
        rings.tx_ssrc[slot] = secrets.randbits(32)
        rings.tx_sequence[slot] = secrets.randbits(16)
        rings.tx_timestamp[slot] = secrets.randbits(32)
        self._sending[slot] = False

    def resume(self, slot: int, gap_ns: int) -> None:
        """The stream another process left: the sequence goes on, the timestamp counts the frames not sent."""
        missed = max(gap_ns // FRAME_NS - 1, 0)
        self._rings.tx_timestamp[slot] = (int(self._rings.tx_timestamp[slot]) + missed * FRAME) & 0xFFFFFFFF
        self._sending[slot] = False

    def skip(self, slots: Ints, frames: int) -> None:
        """Time passed in which these slots were not served."""
        self._rings.tx_timestamp[slots] = (self._rings.tx_timestamp[slots] + frames * FRAME) & 0xFFFFFFFF

    def configure(self, slot: int, payload_type: int, send: bool) -> None:
        if send and not self._sending[slot]:
            self._mark[slot] = True
        self._sending[slot] = send
        self._payload_type[slot] = payload_type
        self._alaw[slot] = payload_type == PCMA
        self._talking[slot] = False
        self.packets[slot, HEADER:] = ALAW_SILENCE if payload_type == PCMA else ULAW_SILENCE
        self._longs[slot, 2] = self._rings.tx_ssrc[slot]

    def prepare(self, slots: Ints, now_ns: int) -> Ints:
        """Advances these slots by one frame; returns those whose packet is to be sent now."""
        rings = self._rings
        tails, flush = rings.tx_tail[slots], rings.tx_flush[slots]
        if (flush > tails).any():
            cut = slots[flush > tails]
            rings.tx_cut[cut] = rings.tx_tail[cut]
            rings.tx_tail[cut] = rings.tx_flush[cut]
        timestamps = rings.tx_timestamp[slots]
        rings.tx_timestamp[slots] = (timestamps + FRAME) & 0xFFFFFFFF
        sending = self._sending[slots]
        if not sending.all():
            slots, timestamps = slots[sending], timestamps[sending]
        talking = rings.tx_head[slots] > rings.tx_tail[slots]
        talked = self._talking[slots]
        if talking.any():
            self._load(slots[talking], now_ns)
        if (talked & ~talking).any():
            quiet = slots[talked & ~talking]
            self.packets[quiet, HEADER:] = np.where(self._alaw[quiet], ALAW_SILENCE, ULAW_SILENCE)[:, None]
        self._talking[slots] = talking
        marker = (talking & ~talked) | self._mark[slots]
        self._mark[slots] = False
        sequences = rings.tx_sequence[slots]
        self.packets[slots, 1] = self._payload_type[slots] | marker.view(np.uint8) << 7
        self._words[slots, 1] = sequences
        self._longs[slots, 1] = timestamps
        rings.tx_sequence[slots] = (sequences + 1) & 0xFFFF
        rings.counters[slots, Counter.PACKETS_OUT] += 1
        return slots

    def _load(self, slots: Ints, now_ns: int) -> None:
        """Takes one queued frame of each of these slots."""
        rings = self._rings
        tails = rings.tx_tail[slots]
        place = tails & _MASK
        pcm = rings.tx_pcm[slots, place].view(np.uint16)
        codes = np.take(LINEAR_TO_ULAW, pcm)
        alaw = self._alaw[slots]
        if alaw.any():
            codes[alaw] = np.take(LINEAR_TO_ALAW, pcm[alaw])
        self.packets[slots, HEADER:] = codes
        rings.tx_sent[slots, place] = now_ns
        rings.tx_tail[slots] = tails + 1
