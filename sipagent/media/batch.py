"""What sockets hand to the engine: many datagrams at once, and single ones that need a look."""

from typing import NamedTuple

import numpy as np

from sipagent.media.source import Address

ROW = 512  # bytes kept of a datagram; 60 ms of G.711 with its header is 492, with SRTP's tag 502
MAX_BATCH = 1024  # what recvmmsg and sendmmsg take at once
SO_TIMESTAMPNS = 35  # asm-generic/socket.h: when a datagram came, by CLOCK_REALTIME


class Batch:
    """Datagrams as they were read, row by row; `count` of them."""

    def __init__(self, size: int) -> None:
        self.rows = np.zeros((size, ROW), np.uint8)
        self.slots = np.zeros(size, np.int64)
        self.lengths = np.zeros(size, np.int64)
        self.stamps = np.zeros(size, np.int64)  # ns of CLOCK_MONOTONIC: when they came, as exactly as can be known
        self.count = 0
        self.repeats = False  # whether a slot may be in several rows


class Stray(NamedTuple):
    """A datagram of an unknown sender, or RTCP. Slots that may be meant: one, or all of a shared port."""

    slots: tuple[int, ...]
    data: bytes
    sender: Address
    control: bool  # came to the RTCP port
