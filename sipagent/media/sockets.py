"""RTP sockets, one call a port. All socket calls of the engine are here, none of its decisions.

Each port has a *wide* socket that hears everybody. Once the peer's source is known, a second socket on the same port is
connected to it: the kernel then hands that peer's packets to the connected socket and all others to the wide one, so
the busy path needs no address per packet in either direction, and a third party cannot reach it.

Another backend (shared sockets with recvmmsg, issue 3) can take this class's place: the engine uses nothing else.
"""

import select
import socket
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress

import numpy as np
from numpy.typing import NDArray

from sipagent.media.rings import Counter
from sipagent.media.source import Address

ROW = 512  # bytes kept of a datagram; 60 ms of G.711 with its header is 492
_BUFFER = 1 << 18  # bytes of kernel buffer a port: about 300 packets; the kernel drops what comes beyond
STRAYS = 16  # datagrams read from a wide socket in a tick; more wait, then the kernel drops


class CallSockets:
    def __init__(self, host: str, capacity: int, counters: NDArray[np.int64]) -> None:
        self._host = host
        self._family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self._counters = counters
        self._capacity = capacity
        self._wide: dict[int, socket.socket] = {}
        self._narrow: dict[int, socket.socket] = {}
        self._receivers: dict[int, tuple[Callable[[memoryview], int], int]] = {}
        self._senders: list[Callable[[memoryview], int]] = [_nowhere] * capacity
        self._busy = select.epoll()
        self._strays = select.epoll()
        self._stray_slots: dict[int, int] = {}
        self._told_unlatched = False
        self.rows = np.zeros((capacity, ROW), np.uint8)
        self._row_views = [row.data for row in self.rows]

    @property
    def strays_fd(self) -> int:
        """Readable when a wide socket is."""
        return self._strays.fileno()

    def bind(self, slot: int, port: int) -> None:
        """Raises OSError when the port is taken. Nothing is read before `listen`."""
        wide = self._socket()
        try:
            wide.bind((self._host, port))
        except OSError:
            wide.close()
            raise
        self._wide[slot] = wide

    def listen(self, slot: int) -> None:
        """Drops what has come so far, and reads from now on. May be repeated."""
        wide = self._wide[slot]
        if wide.fileno() not in self._stray_slots:
            _drain(wide)
            self._stray_slots[wide.fileno()] = slot
            self._strays.register(wide.fileno(), select.EPOLLIN)

    def aim(self, slot: int, target: Address | None) -> None:
        """Where to send while no source is latched; None sends nowhere."""
        self._unlatch(slot)
        self._senders[slot] = _nowhere if target is None else _sender(self._wide[slot], target)

    def latch(self, slot: int, source: Address) -> None:
        """Receives from this address on the busy path and sends to it.

        Without a socket for it, as when descriptors have run out, the peer is served through the wide one: at more
        cost, but the call goes on.
        """
        self.aim(slot, source)
        try:
            narrow = self._narrowed(self._wide[slot], source)
        except OSError as error:
            self._counters[slot, Counter.UNLATCHED] += 1
            if not self._told_unlatched:
                self._told_unlatched = True
                print(
                    f"media: a call is served at more cost, its peer has no socket of its own: {error}", file=sys.stderr
                )
            return
        self._narrow[slot] = narrow
        self._receivers[narrow.fileno()] = (narrow.recv_into, slot)
        self._senders[slot] = narrow.send

    def close(self, slot: int) -> None:
        self._unlatch(slot)
        self._senders[slot] = _nowhere
        wide = self._wide.pop(slot, None)
        if wide is not None:
            if self._stray_slots.pop(wide.fileno(), None) is not None:
                self._strays.unregister(wide.fileno())
            wide.close()

    def receive(self) -> tuple[list[int], list[int]]:
        """At most one datagram of each latched slot into `rows`; returns the slots and the lengths, row by row."""
        slots: list[int] = []
        lengths: list[int] = []
        rows, receivers = self._row_views, self._receivers
        for fd, _ in self._busy.poll(0, self._capacity):
            receive, slot = receivers[fd]
            try:
                lengths.append(receive(rows[len(slots)]))
            except OSError:
                continue  # an ICMP error of an earlier packet: the peer's port is closed; the media timeout decides
            slots.append(slot)
        return slots, lengths

    def strays(self) -> Iterator[tuple[int, bytes, Address]]:
        """Datagrams of the wide sockets: of unknown senders, and of the peer before it is latched."""
        for fd, _ in self._strays.poll(0, self._capacity):
            slot = self._stray_slots[fd]
            wide = self._wide[slot]
            for _ in range(STRAYS):
                try:
                    data, sender = wide.recvfrom(ROW)
                except OSError:
                    break
                yield slot, data, (sender[0], sender[1])

    def send(self, slots: NDArray[np.int64], packets: list[memoryview]) -> None:
        """Each slot's packet to its peer; `packets` is indexed by slot. What the kernel refuses is counted."""
        numbers = slots.tolist()
        senders = self._senders
        todo = iter(numbers)
        slot = -1
        while True:
            try:
                for slot in todo:
                    senders[slot](packets[slot])
                return
            except OSError:
                self._counters[slot, Counter.SEND_ERRORS] += 1

    def _socket(self) -> socket.socket:
        sock = socket.socket(self._family, socket.SOCK_DGRAM)
        sock.setblocking(False)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _BUFFER)
        return sock

    def _narrowed(self, wide: socket.socket, source: Address) -> socket.socket:
        """Another socket on the port of `wide`, connected to the source and polled. Raises OSError."""
        narrow = self._socket()
        try:
            # Two sockets may share the port only while both allow it, so nobody else can slip in.
            wide.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            narrow.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            narrow.bind(wide.getsockname())
            narrow.connect(source)
            narrow.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 0)
            _drain(narrow)  # between bind and connect it heard everybody
            self._busy.register(narrow.fileno(), select.EPOLLIN)
        except OSError:
            narrow.close()
            raise
        finally:
            wide.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 0)
        return narrow

    def _unlatch(self, slot: int) -> None:
        narrow = self._narrow.pop(slot, None)
        if narrow is not None:
            self._busy.unregister(narrow.fileno())
            del self._receivers[narrow.fileno()]
            narrow.close()


def _nowhere(packet: memoryview) -> int:
    return 0


def _sender(sock: socket.socket, target: Address) -> Callable[[memoryview], int]:
    return lambda packet: sock.sendto(packet, target)


def _drain(sock: socket.socket) -> None:
    with suppress(OSError):
        while True:
            sock.recv(1)
