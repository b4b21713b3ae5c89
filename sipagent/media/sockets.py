"""UDP sockets of the calls. All socket calls of the engine are here and in `shared`, none of its decisions.

Each port has a *wide* socket that hears everybody. Once the peer's source is known, a second socket on the same port is
connected to it: the kernel then hands that peer's packets to the connected socket and all others to the wide one, so
the busy path needs no address per packet in either direction, and a third party cannot reach it. The port above takes
RTCP (RFC 3550 section 11).

Calls on a port of several (`shared`) have no sockets of their own; both kinds fill the same `Batch`.
"""

import resource
import select
import socket
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress

import numpy as np
from numpy.typing import NDArray

from sipagent.media.batch import ROW, SO_TIMESTAMPNS, Batch, Stray
from sipagent.media.rings import Counter
from sipagent.media.shared import SharedPorts
from sipagent.media.source import Address

Ints = NDArray[np.int64]

MAX_CONTROL = 1500  # bytes read of an RTCP datagram
STRAYS = 16  # datagrams read from a wide socket in a tick; more wait, then the kernel drops
MAX_FILES = 1 << 20
_BUFFER = 1 << 18  # bytes of kernel buffer a port: about 300 packets; the kernel drops what comes beyond
_CONTROL_BUFFER = 1 << 14


class CallSockets:
    def __init__(
        self, host: str, capacity: int, counters: Ints, shared: SharedPorts | None = None, host6: str = ""
    ) -> None:
        """`host6`: for slots whose media is on IPv6; "" is none. Shared ports are IPv4's."""
        self._host, self._host6 = host, host6
        self._counters = counters
        self.shared = shared
        self._wide: dict[int, socket.socket] = {}
        self._narrow: dict[int, socket.socket] = {}
        self._control: dict[int, socket.socket] = {}
        self._receivers: dict[int, tuple[Callable[[memoryview], int], int]] = {}
        self._senders: list[Callable[[memoryview], int]] = [_nowhere] * capacity
        self._busy = select.epoll()
        self._strays = select.epoll()
        self._stray_slots: dict[int, tuple[int, bool]] = {}  # descriptor -> slot, whether RTCP
        self._told_unlatched = False
        for sock in shared.control_sockets if shared is not None else ():
            self._strays.register(sock.fileno(), select.EPOLLIN)
        self.batch = Batch(capacity)
        self._most = max(capacity, 1)
        self._row_views = [row.data for row in self.batch.rows]
        self.fds = np.full(capacity, -1, np.int64)  # the connected socket of each latched slot
        # As many as there can be; what is not used is never touched.
        files = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        self.fd_slots = np.zeros(min(files, MAX_FILES) if files >= 0 else MAX_FILES, np.int64)

    @property
    def strays_fd(self) -> int:
        """Readable when a wide or an RTCP socket is."""
        return self._strays.fileno()

    @property
    def busy_fd(self) -> int:
        """Readable when a latched peer has sent something."""
        return self._busy.fileno()

    def bind(self, slot: int, port: int, *, ipv6: bool = False) -> None:
        """RTP on this port, RTCP on the next. Raises OSError when one is taken. Nothing is read before `listen`."""
        host = self._host6 if ipv6 else self._host
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        wide, control = _socket(family, _BUFFER), _socket(family, _CONTROL_BUFFER)
        try:
            wide.bind((host, port))
            control.bind((host, port + 1))
        except OSError:
            wide.close()
            control.close()
            raise
        self._wide[slot], self._control[slot] = wide, control

    def share(self, slot: int, port: int) -> None:
        """The slot lives on a shared port."""
        assert self.shared is not None
        self.shared.join(slot, port)

    def listen(self, slot: int) -> None:
        """Drops what has come so far, and reads from now on. May be repeated."""
        if self.shared is not None and self.shared.has(slot):
            return
        for sock, control in ((self._wide[slot], False), (self._control[slot], True)):
            if sock.fileno() not in self._stray_slots:
                _drain(sock)
                self._stray_slots[sock.fileno()] = (slot, control)
                self._strays.register(sock.fileno(), select.EPOLLIN)

    def aim(self, slot: int, target: Address | None) -> None:
        """Where to send while no source is latched; None sends nowhere."""
        if self.shared is not None and self.shared.has(slot):
            self.shared.aim(slot, target)
            return
        self._unlatch(slot)
        self._senders[slot] = _nowhere if target is None else _sender(self._wide[slot], target)

    @property
    def waiting(self) -> bool:
        """Whether `strays` has something that `strays_fd` does not tell."""
        return self.shared is not None and self.shared.waiting

    def settled(self, slot: int) -> bool:
        """Whether packets of this slot's source can be nobody else's."""
        return self.shared is None or not self.shared.has(slot) or self.shared.settled(slot)

    def aimed(self, slot: int) -> bool:
        """Whether a packet of this slot would go anywhere."""
        return self._senders[slot] is not _nowhere or (self.shared is not None and self.shared.aimed(slot))

    def latch(self, slot: int, source: Address) -> bool:
        """Receives from this address on the busy path and sends to it; False when it is already another call's.

        Without a socket for it, as when descriptors have run out, the peer is served through the wide one: at more
        cost, but the call goes on.
        """
        if self.shared is not None and self.shared.has(slot):
            return self.shared.latch(slot, source)
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
            return True
        self._narrow[slot] = narrow
        self._receivers[narrow.fileno()] = (narrow.recv_into, slot)
        self._senders[slot] = narrow.send
        self.fds[slot] = narrow.fileno()
        self._belongs(narrow.fileno(), slot)
        return True

    def _belongs(self, fd: int, slot: int) -> None:
        self.fd_slots[fd] = slot

    def close(self, slot: int) -> None:
        if self.shared is not None and self.shared.has(slot):
            self.shared.leave(slot)
            return
        self._unlatch(slot)
        self._senders[slot] = _nowhere
        for owners in (self._wide, self._control):
            sock = owners.pop(slot, None)
            if sock is not None:
                if self._stray_slots.pop(sock.fileno(), None) is not None:
                    self._strays.unregister(sock.fileno())
                sock.close()

    def receive(self) -> Batch:
        """At most one datagram of each latched slot that has sockets of its own."""
        batch = self.batch
        slots: list[int] = []
        lengths: list[int] = []
        rows, receivers = self._row_views, self._receivers
        for fd, _ in self._busy.poll(0, self._most):
            receive, slot = receivers[fd]
            try:
                lengths.append(receive(rows[len(slots)]))
            except OSError:
                continue  # an ICMP error of an earlier packet: the peer's port is closed; the media timeout decides
            slots.append(slot)
        count = batch.count = len(slots)
        if count:
            batch.slots[:count] = slots
            batch.lengths[:count] = lengths
            batch.stamps[:count] = time.monotonic_ns()
        return batch

    def strays(self) -> Iterator[Stray]:
        """Datagrams of the wide sockets: of unknown senders, and of the peer before it is latched; and RTCP."""
        for fd, _ in self._strays.poll(0, 2 * self._most):
            if fd not in self._stray_slots:
                continue  # RTCP of a shared port: below
            slot, control = self._stray_slots[fd]
            sock = self._control[slot] if control else self._wide[slot]
            for _ in range(STRAYS):
                try:
                    data, sender = sock.recvfrom(MAX_CONTROL if control else ROW)
                except OSError:
                    break
                yield Stray((slot,), data, (sender[0], sender[1]), control)
        if self.shared is not None:
            yield from self.shared.strays()

    def send(self, slots: Ints, packets: list[memoryview]) -> None:
        """Each slot's packet to its peer; `packets` is indexed by slot. What the kernel refuses is counted."""
        if self.shared is not None and self.shared.busy:
            slots = self.shared.send(slots)
        senders = self._senders
        todo = iter(slots.tolist())
        slot = -1
        while True:
            try:
                for slot in todo:
                    senders[slot](packets[slot])
                return
            except OSError:
                self._counters[slot, Counter.SEND_ERRORS] += 1

    def send_one(self, slot: int, packet: bytes | memoryview) -> None:
        """A packet that does not lie in the array."""
        try:
            if self.shared is not None and self.shared.has(slot):
                self.shared.send_one(slot, packet)
            else:
                self._senders[slot](memoryview(packet))
        except OSError:
            self._counters[slot, Counter.SEND_ERRORS] += 1

    def send_control(self, slot: int, packet: bytes, target: Address) -> None:
        """From the RTCP port."""
        try:
            if self.shared is not None and self.shared.has(slot):
                self.shared.send_control(slot, packet, target)
            else:
                self._control[slot].sendto(packet, target)
        except OSError:
            self._counters[slot, Counter.SEND_ERRORS] += 1

    def _narrowed(self, wide: socket.socket, source: Address) -> socket.socket:
        """Another socket on the port of `wide`, connected to the source and polled. Raises OSError."""
        narrow = _socket(wide.family, _BUFFER)
        try:
            # Two sockets may share the port only while both allow it, so nobody else can slip in.
            wide.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            narrow.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            narrow.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)
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
            self.fds[slot] = -1
            self._busy.unregister(narrow.fileno())
            del self._receivers[narrow.fileno()]
            narrow.close()


def _socket(family: int, buffer: int) -> socket.socket:
    sock = socket.socket(family, socket.SOCK_DGRAM)
    sock.setblocking(False)
    if family == socket.AF_INET6:
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)  # IPv4 has sockets of its own
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer)
    return sock


def _nowhere(packet: memoryview) -> int:
    return 0


def _sender(sock: socket.socket, target: Address) -> Callable[[memoryview], int]:
    return lambda packet: sock.sendto(packet, target)


def _drain(sock: socket.socket) -> None:
    with suppress(OSError):
        while True:
            sock.recv(1)
