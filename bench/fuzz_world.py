"""An engine without its process, its sockets and its clock, and what must hold of it whatever comes."""

import ctypes
import os
import random
import select
import socket
from collections import deque
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from sipagent.media.batch import ROW, Batch, Stray
from sipagent.media.engine import Engine
from sipagent.media.hot import HotPath
from sipagent.media.jitter import JitterBuffer
from sipagent.media.lines import Lines
from sipagent.media.main_link import MainLink
from sipagent.media.native import NativePath
from sipagent.media.outgoing import PACKET, Outgoing
from sipagent.media.protocol import Digit, Notice, SourceChanged
from sipagent.media.rings import FLAG_CONCEALED, FLAG_DIGIT, FLAG_SILENCE, Counter, Rings, create_memory
from sipagent.media.rtp import FRAME
from sipagent.media.settings import MediaSettings
from sipagent.media.shared import SharedPorts
from sipagent.media.sockets import CallSockets
from sipagent.media.source import Address
from sipagent.media.telephone_event import PRESSES

TICK_NS = 10_000_000
MOST_HELD = 1024  # entries of any container of the engine's, with so few slots
SHARED_PORT = 42_500
_GAUGES = {Counter.LOST, Counter.JITTER_US, Counter.PLAYOUT_DELAY_US, Counter.TARGET_DELAY_US}
COUNTS = [counter for counter in Counter if counter not in _GAUGES]  # only grow


class NoSockets:
    """Sends nowhere, and knows whose packets would come to whom, as `CallSockets` and `SharedPorts` do."""

    shares = True  # so that the engine runs each tick itself

    def __init__(self, capacity: int) -> None:
        self.fds = np.full(capacity, -1, np.int64)
        self.source: dict[int, Address] = {}
        self.shared = None  # ports that the engine itself would read
        self.sharing: set[int] = set()
        self.sent: dict[int, list[bytes]] = {}  # of watched slots
        self.count = 0
        self.waiting = False

    def share(self, slot: int, port: int) -> None:
        self.sharing.add(slot)

    def aim(self, slot: int, target: Address | None) -> None:
        self.source.pop(slot, None)

    def latch(self, slot: int, source: Address) -> bool:
        taken = slot in self.sharing and any(self.source.get(other) == source for other in self.sharing - {slot})
        if not taken:
            self.source[slot] = source
        return not taken

    def settled(self, slot: int) -> bool:
        return slot not in self.sharing or self.sharing <= self.source.keys()

    def aimed(self, slot: int) -> bool:
        return True

    def bind(self, slot: int, port: int, *, ipv6: bool = False) -> None:
        pass

    def listen(self, slot: int) -> None:
        pass

    def close(self, slot: int) -> None:
        self.source.pop(slot, None)
        self.sharing.discard(slot)

    def send(self, slots: NDArray[np.int64], packets: list[memoryview]) -> None:
        for slot in slots.tolist():
            assert len(packets[slot]) == PACKET
            self._note(slot, packets[slot])

    def send_one(self, slot: int, packet: bytes) -> None:
        assert 12 <= len(packet) <= ROW
        self._note(slot, packet)

    def send_control(self, slot: int, packet: bytes, target: Address) -> None:
        assert 8 <= len(packet) <= ROW
        assert 0 <= target[1] <= 65_535, f"a socket sends to no port {target[1]}"
        self.count += 1

    def _note(self, slot: int, packet: bytes | memoryview) -> None:
        assert packet[0] >> 6 == 2
        self.count += 1
        if slot in self.sent:
            self.sent[slot].append(bytes(packet))


class _Port:
    """What `Lines` asks of shared ports."""

    ports = frozenset({SHARED_PORT})


class World:
    """`receive` and `tick` do what the engine's tick does, in its order; the caller has the clock."""

    def __init__(self, capacity: int, library: ctypes.CDLL | None, *, repeats: bool) -> None:
        self.memory = create_memory(capacity)
        settings = MediaSettings(host="127.0.0.1", port_min=42400, port_max=42439, capacity=capacity)
        self.rings = Rings(self.memory, capacity)
        self.outgoing = Outgoing(self.rings)
        self.sockets = NoSockets(capacity)
        self.told = 0
        self.digits: dict[int, deque[int]] = {slot: deque(maxlen=PRESSES + 1) for slot in range(capacity)}
        self.sources = 0
        self.lines = lines = Lines(
            settings,
            self.rings,
            cast(CallSockets, self.sockets),
            cast(SharedPorts, _Port()),
            self.outgoing,
            self._notice,
        )
        lines.reports._random = random.Random(1)  # so that a run can be repeated
        state = (self.rings, lines.expected, lines.reception, lines.narrow, self.outgoing, lines.heard_ns)
        self.hot = HotPath(*state, lines.mixing) if library is None else NativePath(library, *state, lines.mixing)
        self._deliver = self.hot.deliver
        self.hot.deliver = self._checked  # type: ignore[method-assign]
        self.now = 1_000_000_000
        self._ticks = 0
        self._engine = self._make_engine()
        self._batch = Batch(128)
        self._batch.repeats = repeats
        self._counted = self.rings.counters.copy()

    def _make_engine(self) -> Engine:
        """One that has these arrays, and no socket."""
        engine = Engine.__new__(Engine)
        self._main, theirs = socket.socketpair()  # nobody says anything there
        self._epoll = select.epoll()
        engine._main = MainLink(theirs, None, self._epoll, self.rings, [])
        self._wake = os.eventfd(0, os.EFD_NONBLOCK)
        engine._rings, engine._outgoing, engine._lines, engine._hot = self.rings, self.outgoing, self.lines, self.hot
        engine._sockets, engine._wake = cast(CallSockets, self.sockets), self._wake
        engine._flushed = False
        return engine

    def close(self) -> None:
        self.lines.close_all()
        os.close(self.memory)
        os.close(self._wake)
        self._main.close()
        self._engine._main.close()
        self._epoll.close()

    # ---- the engine's tick ----

    def receive(self, slots: tuple[int, ...], datagrams: list[tuple[bytes, Address, bool]]) -> None:
        """Datagrams that came to one port, of these slots; whether to its RTCP port."""
        batch, owners = self._batch, {self.sockets.source.get(slot): slot for slot in slots}
        batch.count = 0
        for data, sender, control in datagrams:
            slot = None if control else owners.get(sender)
            if slot is None:
                self._take_batch()
                self.lines.stray(Stray(slots, data if control else data[:ROW], sender, control), self.now)
                owners = {self.sockets.source.get(slot): slot for slot in slots}
                continue
            if batch.count == 128 or (batch.count and not batch.repeats):
                self._take_batch()
            row, length = batch.count, min(len(data), ROW)
            batch.rows[row, :length] = np.frombuffer(data, np.uint8, length)
            batch.slots[row], batch.lengths[row], batch.stamps[row] = slot, length, self.now - 1_000_000
            batch.count += 1
        self._take_batch()

    def _take_batch(self) -> None:
        batch = self._batch
        if batch.count:
            self._engine._take_odd(batch, self.hot.ingest(batch))
            batch.count = 0

    def tick(self) -> None:
        lines, engine = self.lines, self._engine
        if lines.changed or lines.mixing.stale:
            lines.mixing.settle()
            engine._regroup()
        group = engine._groups[self._ticks % 2]
        self._ticks += 1
        heads = self.rings.rx_head[group.slots].copy()
        engine._send(group, self.now)
        engine._play(group, self.now)
        assert (self.rings.rx_head[group.slots] == heads + 1).all(), "a slot did not get one frame"
        lines.watch(self.now)
        self.now += TICK_NS

    def stall(self, ns: int) -> None:
        """The engine was not run for so long."""
        self.now += ns
        self.lines.outgoing.skip(self.lines.slots, ns // (2 * TICK_NS))

    # ---- what must hold ----

    def _checked(
        self, slots: NDArray[np.int64], pcm: NDArray[np.int16], flags: NDArray[np.uint8], arrival: NDArray[np.int64]
    ) -> None:
        assert pcm.dtype == np.int16 and flags.dtype == np.uint8 and arrival.dtype == np.int64
        assert len(pcm) == len(slots) == len(flags) == len(arrival) and pcm.shape[1] in (FRAME, 2 * FRAME)
        assert not (flags & ~np.uint8(FLAG_CONCEALED | FLAG_SILENCE | FLAG_DIGIT)).any(), "unknown flags"
        assert (arrival >= 0).all() and (arrival <= self.now).all(), "audio of the future"
        self._deliver(slots, pcm, flags, arrival)

    def _notice(self, notice: Notice) -> None:
        self.told += 1
        if isinstance(notice, Digit):
            newest = self.digits[notice.slot]
            newest.append(self.now)
            assert len(newest) <= PRESSES or newest[-1] - newest[0] >= 990_000_000, "too many digits in a second"
        elif isinstance(notice, SourceChanged):
            self.sources += 1

    def check(self) -> None:
        counters = self.rings.counters
        assert (counters >= 0).all(), "a counter is negative"
        assert (counters[:, COUNTS] >= self._counted[:, COUNTS]).all(), "a counter has shrunk"
        self._counted[:] = counters
        for slot in self.lines.slots.tolist():
            for buffer in (self.lines.narrow, self.lines.wide):
                check_buffer(buffer, slot)
            check_reception(self, slot)
        size = largest(self.lines)
        assert size <= MOST_HELD, f"a container has {size} entries"

    def reopened(self, slot: int, *, resume: bool) -> None:
        """The slot's limits have begun anew, and its counters unless another engine's call goes on."""
        if not resume:
            self._counted[slot] = 0
        self.digits[slot].clear()

    def state(self, slots: list[int]) -> bytes:
        """All arrays' rows of these slots, to compare."""
        return b"".join(array[slots].tobytes() for array in self._arrays())

    def _arrays(self) -> list[NDArray[Any]]:
        lines, capacity = self.lines, self.rings.capacity
        owners: list[object] = [self.rings, lines, lines.reception, lines.expected, self.outgoing]
        for buffer in (lines.narrow, lines.wide):
            owners += [buffer, buffer.lateness]
        owners += lines.detectors
        found: list[NDArray[Any]] = []
        for owner in owners:
            for name, value in vars(owner).items():
                fits = isinstance(value, np.ndarray) and value.ndim and len(value) == capacity
                if fits and not name.startswith(("tx_pcm", "tx_wide", "rx_pcm", "rx_wide", "tx_sent", "_windows")):
                    found.append(value)
        return found


def check_buffer(buffer: JitterBuffer, slot: int) -> None:
    position, solid, end = (int(array[slot]) for array in (buffer.position, buffer.solid, buffer.end))
    assert position >= 0 and solid <= end, f"position {position}, solid {solid}, end {end}"
    assert (buffer.pcm[slot, buffer.ring :] == buffer.pcm[slot, : buffer.frame]).all(), "the mirror differs"
    assert (buffer.arrived[slot] >= 0).all()
    if not buffer.anchored(slot):
        assert not buffer.hot_in[slot] and not buffer.hot_out[slot], "no stream, but on the hot path"
        return
    longest = 60 * buffer.rate // 1000
    assert end - position <= buffer.AHEAD + longest, f"{end - position} samples lie ahead"
    assert position - end <= 200 * buffer.rate // 1000, f"playout is {position - end} samples past the end"
    if buffer.hot_in[slot]:
        assert solid == end
    islands = buffer._islands.get(slot, [])
    assert len(islands) <= 32
    reached = solid
    for start, stop in islands:
        assert reached < start < stop <= end, f"islands {islands}, solid {solid}, end {end}"
        reached = stop


def check_reception(world: World, slot: int) -> None:
    reception, lines = world.lines.reception, world.lines
    assert -1 <= reception.ssrc[slot] <= 0xFFFFFFFF
    assert 0 <= reception.jitter_ns(slot) < 1e10, f"jitter is {reception.jitter_ns(slot)} ns"
    assert reception.ssrc[slot] < 0 or reception.seen[slot].max() <= reception.highest[slot]
    if lines.narrow.hot_in[slot] and lines.expected.header[slot] & 0xFF == 0x80:
        assert lines.expected.timestamp[slot] == lines.narrow.timestamp_at_end(slot), "another timestamp is expected"


def largest(root: object) -> int:
    """Entries of the largest container that can be reached, and bytes of the longest string of bytes over 4."""
    most, seen, waiting = 0, set(), [root]
    while waiting:
        thing = waiting.pop()
        if id(thing) in seen or isinstance(thing, (int, float, str, np.ndarray, random.Random, type)):
            continue
        if callable(thing) and not hasattr(thing, "__dataclass_fields__"):
            continue
        seen.add(id(thing))
        if isinstance(thing, (bytes, bytearray)):
            most = max(most, len(thing) // 4)
        elif isinstance(thing, dict):
            most = max(most, len(thing))
            waiting += [*thing.keys(), *thing.values()]
        elif isinstance(thing, (list, tuple, set, frozenset, deque)):
            most = max(most, len(thing))
            waiting += thing
        elif type(thing).__module__.startswith("sipagent."):
            if isinstance(thing, Rings):
                continue
            waiting += vars(thing).values() if hasattr(thing, "__dict__") else []
            for kind in type(thing).__mro__:
                waiting += [getattr(thing, name, None) for name in getattr(kind, "__slots__", ())]
    return most
