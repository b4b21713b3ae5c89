"""The memory that main and the media process share: audio both ways, counters, and what a call needs to go on.

A frame is 20 ms: 160 samples, or 320 on a line of 16 kHz, whose ring has half as many (`wide`).

One memfd, passed by file descriptor, so nothing is left behind wherever either process dies. Each position counts
20 ms frames since the port opened and only grows; a frame lies at its position modulo the ring's length. Every field
has one writer. Writers fill a frame first and move the head afterwards; the reader looks at the head after a system
call (the eventfd), which orders the two on every machine we know of.

Pages that were never touched cost nothing, and `forget` gives a slot's audio pages back.
"""

import math
import mmap
import os
from enum import IntEnum
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sipagent.media.rtp import FRAME, RATE

RX_FRAMES = 256  # 5 s: how long main may stall before audio is dropped
TICKS_A_FRAME = 2  # the even slots are played in the first, the odd ones in the second
TX_FRAMES = 1024  # 20 s of speech queued ahead; the writer is refused beyond

FLAG_CONCEALED = 1  # a packet was missing when its time came; at least half of the frame is invented
FLAG_SILENCE = 2  # no audio is due: nothing received yet, hold, a pause the sender announced
FLAG_DIGIT = 4  # a key is being pressed

MIXED = -2  # in `rx_beside`: what left was a mix, or ducked

_PAGE = 4096
_MAGIC = 0x7369706D65646961  # "sipmedia"
_LAYOUT = 5


class Counter(IntEnum):
    """Columns of `Rings.counters`; packets unless the name has a unit."""

    PACKETS_IN = 0
    PACKETS_OUT = 1
    LOST = 2  # expected minus received, duplicates left out: A.3's figure is this minus DUPLICATE
    LATE = 3
    DUPLICATE = 4
    REORDERED = 5
    MALFORMED = 6  # and digits beyond those `PressLimit` admits
    FOREIGN = 7
    IGNORED = 8  # of a payload type nobody negotiated, while receiving was off, or beyond all measure (a flood)
    CONCEALED_MS = 9
    JITTER_US = 10  # the present RFC 3550 A.8 estimate
    DIGITS_IN = 11
    RESYNCS = 12  # playout started over: new SSRC, sequence or timestamp jump, backlog
    SEND_ERRORS = 13
    UNLATCHED = 14  # times a source was learned and could not have a socket of its own
    PLAYOUT_DELAY_US = 15  # at present: age of the audio that is handed on
    TARGET_DELAY_US = 16  # what the jitter buffer holds to be right at present
    ACCELERATED_MS = 17  # audio taken out by time-stretching
    EXPANDED_MS = 18  # audio put in by time-stretching
    DIGITS_OUT = 19
    RTCP_IN = 20
    RTCP_OUT = 21
    RTCP_MALFORMED = 22
    SRTP_REFUSED = 23  # not authentic, or malformed
    SRTP_REPLAYED = 24
    _RESERVED = 31


class Header(IntEnum):
    """Columns of `Rings.header`."""

    MAGIC = 0
    LAYOUT = 1
    CAPACITY = 2
    TICKS = 3
    HEARTBEAT_NS = 4  # CLOCK_MONOTONIC of the last tick
    LATE_TICKS = 5  # begun more than 5 ms after their time
    RESYNCS = 6  # ticks skipped because the process was more than 200 ms behind
    WORST_LATENESS_NS = 7
    BIND_FAILURES = 8
    NOTICES_DROPPED = 9
    CPU_NS = 10  # user and system time of the process
    _RESERVED = 63


class Rings:
    """numpy views over the shared memory; C is the capacity. Both processes build one over the same descriptor."""

    header: NDArray[np.int64]  # [64], see Header; media writes
    counters: NDArray[np.int64]  # [C, 32], see Counter; media writes
    rx_head: NDArray[np.int64]  # [C] position after the newest frame; media writes
    tx_tail: NDArray[np.int64]  # [C] position of the next frame to send; media writes
    tx_cut: NDArray[np.int64]  # [C] the tail when the last flush was obeyed; media writes
    tx_ssrc: NDArray[np.int64]  # [C] the outgoing stream, kept here to survive the process; media writes
    tx_sequence: NDArray[np.uint16]  # [C] of the next packet
    tx_timestamp: NDArray[np.uint32]  # [C] of the next packet
    ticked_ns: NDArray[np.int64]  # [C] when the slot's last frame was played, CLOCK_MONOTONIC, 0 if never
    rate: NDArray[np.int64]  # [C] samples per second of both rings, 8000 or 16000; media writes
    srtp: NDArray[np.int64]  # [C, 5] how far each encrypted call has come (`srtp.Progress`); media writes
    tx_head: NDArray[np.int64]  # [C] position after the last queued frame; main writes
    tx_flush: NDArray[np.int64]  # [C] everything before this position is to be dropped; main writes
    rx_wake: NDArray[np.int64]  # [C] `rx_head` from which main is to be woken; main writes
    tx_mode: NDArray[np.uint8]  # [C] how loud what is queued leaves, see `ducking.TxMode`; main writes
    flushes: NDArray[np.int64]  # [1] counts them, so that media need not look at each slot every tick; main writes
    rx_flags: NDArray[np.uint8]  # [C, RX_FRAMES]
    rx_level: NDArray[np.uint8]  # [C, RX_FRAMES] -dBov of the frame, 0 loudest, 127 silence (as RFC 6465 counts)
    rx_beside: NDArray[np.int64]  # [C, RX_FRAMES] position of the frame sent in the same tick, -1: none, or MIXED
    rx_arrival: NDArray[np.int64]  # [C, RX_FRAMES] ns, newest packet in the frame, 0 when none
    rx_pcm: NDArray[np.int16]  # [C, RX_FRAMES, 160]
    tx_sent: NDArray[np.int64]  # [C, TX_FRAMES] ns, 0 until sent; main clears, media sets
    tx_pcm: NDArray[np.int16]  # [C, TX_FRAMES, 160]
    mix_pcm: NDArray[np.int16]  # [C, RX_FRAMES, 160] what was sent beside each received frame where it was MIXED

    def __init__(self, fd: int, capacity: int) -> None:
        """Maps the memory; raises ValueError when `fd` holds another layout. The descriptor stays the caller's."""
        fields = _fields(capacity)
        size = sum(_bytes(dtype, shape) for _, dtype, shape in fields)
        if os.fstat(fd).st_size != size:
            raise ValueError(f"shared memory has {os.fstat(fd).st_size} bytes, {capacity} slots need {size}")
        self.capacity = capacity
        self._map = mmap.mmap(fd, size)
        self._offsets: dict[str, int] = {}
        offset = 0
        for name, dtype, shape in fields:
            view = np.frombuffer(self._map, dtype, math.prod(shape), offset).reshape(shape)
            setattr(self, name, view)
            self._offsets[name] = offset
            offset += _bytes(dtype, shape)
        found = (int(self.header[Header.MAGIC]), int(self.header[Header.LAYOUT]), int(self.header[Header.CAPACITY]))
        if found != (_MAGIC, _LAYOUT, capacity):
            raise ValueError(f"shared memory is not laid out for {capacity} slots")

        self.rx_wide = self.rx_pcm.reshape(capacity, RX_FRAMES // 2, 2 * FRAME)
        self.tx_wide = self.tx_pcm.reshape(capacity, TX_FRAMES // 2, 2 * FRAME)
        self.mix_wide = self.mix_pcm.reshape(capacity, RX_FRAMES // 2, 2 * FRAME)

    def reset(self, slot: int) -> None:
        """A new call begins at position 0. Neither side may be using the slot."""
        for field in (
            *(self.rx_head, self.rx_wake, self.ticked_ns),
            *(self.tx_tail, self.tx_cut, self.tx_head, self.tx_flush),
        ):
            field[slot] = 0
        self.tx_mode[slot] = 0
        self.counters[slot] = 0
        self.srtp[slot] = -1
        self.rate[slot] = RATE

    def beside(self, slot: int, places: NDArray[np.int64]) -> NDArray[np.int16] | None:
        """What was sent in the ticks of the received frames at these places: (n, 160 or 320), zeros where nothing was.

        None where nothing was at all.
        """
        wide = self.rate[slot] != RATE
        queue, mix = (self.tx_wide, self.mix_wide) if wide else (self.tx_pcm, self.mix_pcm)
        beside = self.rx_beside[slot, places]
        queued, mixed = beside >= 0, beside == MIXED
        if not (queued | mixed).any():
            return None
        sent = np.zeros((len(places), queue.shape[2]), np.int16)
        sent[queued] = queue[slot, beside[queued] % queue.shape[1]]
        sent[mixed] = mix[slot, places[mixed]]
        return sent

    def beside_one(self, slot: int, place: int) -> NDArray[np.int16] | None:
        """The same of one frame (1, 160 or 320): no copy, it changes when the ring comes round."""
        beside = int(self.rx_beside.item(slot, place))
        if beside == -1:
            return None
        wide = self.rate.item(slot) != RATE
        if beside == MIXED:
            return (self.mix_wide if wide else self.mix_pcm)[slot, place : place + 1]
        queue = self.tx_wide if wide else self.tx_pcm
        at = beside % queue.shape[1]
        return queue[slot, at : at + 1]

    def forget(self, slot: int) -> None:
        """Gives the slot's audio back to the system: nothing of a call stays in memory after it."""
        for name in ("rx_pcm", "tx_pcm", "tx_sent", "mix_pcm"):
            field = getattr(self, name)
            each = field[slot].nbytes
            self._map.madvise(mmap.MADV_REMOVE, self._offsets[name] + slot * each, each)


def create_memory(capacity: int) -> int:
    """A new memfd laid out for so many slots; the caller closes it."""
    fd = os.memfd_create("sipagent-media", os.MFD_CLOEXEC)
    try:
        os.ftruncate(fd, sum(_bytes(dtype, shape) for _, dtype, shape in _fields(capacity)))
        with mmap.mmap(fd, _PAGE) as page:
            page[: 3 * 8] = np.array([_MAGIC, _LAYOUT, capacity], np.int64).tobytes()
    except BaseException:
        os.close(fd)
        raise
    return fd


def _fields(capacity: int) -> list[tuple[str, Any, tuple[int, ...]]]:
    return [
        ("header", np.int64, (len_of(Header),)),
        ("counters", np.int64, (capacity, len_of(Counter))),
        *((name, np.int64, (capacity,)) for name in ("rx_head", "tx_tail", "tx_cut", "tx_ssrc")),
        ("tx_sequence", np.uint16, (capacity,)),
        ("tx_timestamp", np.uint32, (capacity,)),
        *((name, np.int64, (capacity,)) for name in ("ticked_ns", "tx_head", "tx_flush", "rx_wake")),
        ("tx_mode", np.uint8, (capacity,)),
        ("rate", np.int64, (capacity,)),
        ("srtp", np.int64, (capacity, 5)),
        ("flushes", np.int64, (1,)),
        ("rx_flags", np.uint8, (capacity, RX_FRAMES)),
        ("rx_level", np.uint8, (capacity, RX_FRAMES)),
        ("rx_beside", np.int64, (capacity, RX_FRAMES)),
        ("rx_arrival", np.int64, (capacity, RX_FRAMES)),
        ("rx_pcm", np.int16, (capacity, RX_FRAMES, FRAME)),
        ("tx_sent", np.int64, (capacity, TX_FRAMES)),
        ("tx_pcm", np.int16, (capacity, TX_FRAMES, FRAME)),
        ("mix_pcm", np.int16, (capacity, RX_FRAMES, FRAME)),
    ]


def len_of(columns: type[IntEnum]) -> int:
    last: int = max(columns)
    return last + 1


def _bytes(dtype: Any, shape: tuple[int, ...]) -> int:
    """Rounded up to pages, so that no field shares one with its neighbour and a slot's audio can be given back."""
    size = np.dtype(dtype).itemsize * math.prod(shape)
    pages: int = -(-size // _PAGE)
    return pages * _PAGE
