"""RTP ports that several calls share, read and written by recvmmsg and sendmmsg: one system call for many packets.

A call is told from the others on its port by the address its packets come from. So only a call whose peer has named
its address beforehand (it offered) may share, one at a time is let in until its source is known, and no two on a port
have the same source. All others have ports of their own (`sockets`). IPv4 only.
"""

import ctypes
import errno
import socket
import struct
import sys
import time
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from sipagent.media.batch import MAX_BATCH, ROW, SO_TIMESTAMPNS, Batch, Stray
from sipagent.media.rings import Counter
from sipagent.media.source import Address

Ints = NDArray[np.int64]

BUFFER = 4 << 20  # bytes of kernel buffer a port: 5 s of one call, 100 ms of 500
MAX_STRAYS = 64  # datagrams of unknown senders looked at in a tick; others are dropped and counted
MAX_CONTROLS = 64  # RTCP datagrams read in a tick; more wait
_STAMP = 32  # bytes of the control message that carries the time
_SOCKADDR = 16
_MSG_DONTWAIT = 0x40
_MESSAGE = np.dtype(  # struct mmsghdr
    [
        *(("name", "u8"), ("name_size", "u4"), ("_0", "u4"), ("iov", "u8"), ("iov_count", "u8")),
        *(("control", "u8"), ("control_size", "u8"), ("flags", "u4"), ("_1", "u4"), ("length", "u4"), ("_2", "u4")),
    ]
)
_libc = ctypes.CDLL(None, use_errno=True)
_recvmmsg, _sendmmsg = _libc.recvmmsg, _libc.sendmmsg
_recvmmsg.argtypes = [ctypes.c_int, ctypes.c_void_p, ctypes.c_uint, ctypes.c_int, ctypes.c_void_p]
_sendmmsg.argtypes = [ctypes.c_int, ctypes.c_void_p, ctypes.c_uint, ctypes.c_int]


class SharedPorts:
    """`packets` holds each slot's next packet: uint8 [C, n]."""

    def __init__(self, host: str, numbers: range, packets: NDArray[np.uint8], counters: Ints) -> None:
        capacity = len(packets)
        self._counters = counters
        self._sockets: dict[int, socket.socket] = {}  # by port
        self._controls: dict[int, socket.socket] = {}
        for number in numbers:
            try:
                self._sockets[number] = _bound(host, number, BUFFER)
                self._controls[number] = _bound(host, number + 1, BUFFER >> 4)
            except OSError as error:
                self._sockets.pop(number, socket.socket()).close()
                print(f"media: port {number} or {number + 1} cannot be shared by calls: {error}", file=sys.stderr)
        self._port = np.zeros(capacity, np.int64)  # of each slot, 0 when it does not share
        self._source: dict[int, Address] = {}  # learned
        self._target: dict[int, Address | None] = {}
        self._keys: dict[int, tuple[NDArray[np.uint64], Ints]] = {port: _no_keys() for port in self._sockets}
        self._waiting: list[Stray] = []
        self.batch = Batch(2 * MAX_BATCH)
        self.batch.repeats = True
        self.senders = np.zeros((len(self.batch.rows), _SOCKADDR), np.uint8)  # of the batch's rows
        self.targets = np.zeros((capacity, _SOCKADDR), np.uint8)
        self.is_aimed = np.zeros(capacity, np.bool_)
        self.changes = 0  # of who is on which port, from which source
        self._stamps = np.zeros((len(self.batch.rows), _STAMP), np.uint8)
        self._in, self._in_iov = _messages(self.batch.rows, ROW, self.senders)
        self._in["control"] = _addresses(self._stamps)
        self._out, self._out_iov = _messages(packets, packets.shape[1], self.targets)

    @property
    def ports(self) -> frozenset[int]:
        return frozenset(self._sockets)

    @property
    def control_sockets(self) -> list[socket.socket]:
        return list(self._controls.values())

    @property
    def waiting(self) -> bool:
        """Whether `strays` has something of the RTP ports to tell."""
        return bool(self._waiting)

    @property
    def busy(self) -> bool:
        return bool(self._target)

    def has(self, slot: int) -> bool:
        return bool(self._port[slot])

    def aimed(self, slot: int) -> bool:
        return bool(self.is_aimed[slot])

    def choose(self, far: Address | None) -> int | None:
        """A port on which a call with this signalled address can be told from all others; None when there is none."""
        if far is None or ":" in far[0]:
            return None
        for port in sorted(self._sockets, key=lambda port: len(self._keys[port][1])):
            slots = self._slots(port)
            if all(slot in self._source for slot in slots) and not any(
                far in (self._source[slot], self._target[slot]) for slot in slots
            ):
                return port
        return None

    def join(self, slot: int, port: int) -> None:
        self._port[slot] = port
        self.changes += 1
        self._target[slot] = None

    def leave(self, slot: int) -> None:
        port = int(self._port[slot])
        self._port[slot] = 0
        self.is_aimed[slot] = False
        self._target.pop(slot, None)
        self._source.pop(slot, None)
        self._list_keys(port)

    def aim(self, slot: int, target: Address | None) -> None:
        if target is not None and ":" in target[0]:
            target = None  # no way leads there from an IPv4 port
        self._target[slot] = target
        self.is_aimed[slot] = target is not None
        if target is not None:
            self.targets[slot] = np.frombuffer(_sockaddr(target), np.uint8)
        if self._source.pop(slot, None) is not None:
            self._list_keys(int(self._port[slot]))

    def latch(self, slot: int, source: Address) -> bool:
        """False when another call of the port has this source: the two cannot be told apart."""
        port = int(self._port[slot])
        if any(self._source.get(other) == source for other in self._slots(port) if other != slot):
            return False
        self.aim(slot, source)
        self._source[slot] = source
        self._list_keys(port)
        return True

    def settled(self, slot: int) -> bool:
        """Whether every call on this slot's port has a source. Until then a known source may be another call's too."""
        return all(other in self._source for other in self._slots(int(self._port[slot])))

    def receive(self) -> Batch:
        """All there is, up to the batch's size; datagrams of unknown senders are kept for `strays`."""
        batch, count = self.batch, 0
        for number, (port, sock) in enumerate(self._sockets.items()):
            room = min(MAX_BATCH, len(batch.rows) - count)
            self._in["name_size"][count : count + room] = _SOCKADDR
            self._in["control_size"][count : count + room] = _STAMP
            address = self._in.ctypes.data + count * _MESSAGE.itemsize
            got = _recvmmsg(sock.fileno(), address, room, _MSG_DONTWAIT, None)
            if got > 0:
                self._attribute(number, port, slice(count, count + got))
                count += got
        if count:
            batch.lengths[:count] = self._in["length"][:count]
            # The stamps are the wall clock's: what counts is how long ago each was.
            now, wall = time.monotonic_ns(), time.clock_gettime_ns(time.CLOCK_REALTIME)
            seconds = self._stamps.view(np.int64)[:count, 2:4]
            age = wall - (seconds[:, 0] * 1_000_000_000 + seconds[:, 1])
            batch.stamps[:count] = now - np.clip(age, 0, 1_000_000_000)
        return self.sort_out(count, 0)

    def sort_out(self, count: int, beyond: int) -> Batch:
        """The batch's first rows without those of unknown senders, whose slot is -1 - port; these wait for `strays`.

        `beyond`: so many more of them have been thrown away.
        """
        batch = self.batch
        batch.count = count
        strange = np.flatnonzero(batch.slots[:count] < 0)
        if not len(strange) and not beyond:
            return batch
        ports = list(self._sockets)
        everybody: dict[int, tuple[int, ...]] = {}
        for row in strange[: max(MAX_STRAYS - len(self._waiting), 0)].tolist():
            data = batch.rows[row, : int(batch.lengths[row])].tobytes()
            port = ports[-1 - int(batch.slots[row])]
            if port not in everybody:
                everybody[port] = self._slots(port)
            self._waiting.append(Stray(everybody[port], data, _address(self.senders[row].tobytes()), False))
            beyond -= 1
        # A flood is nobody's in particular; the record of one call shows it.
        beyond += len(strange)
        if beyond > 0 and self._target:
            self._counters[next(iter(self._target)), Counter.FOREIGN] += beyond
        known = np.flatnonzero(batch.slots[:count] >= 0)
        batch.count = len(known)
        for field in (batch.rows, batch.slots, batch.lengths, batch.stamps):
            field[: len(known)] = field[known]
        return batch

    def strays(self) -> Iterator[Stray]:
        waiting, self._waiting = self._waiting, []
        yield from waiting
        for port, sock in self._controls.items():
            for _ in range(MAX_CONTROLS):
                try:
                    data, sender = sock.recvfrom(1500)
                except OSError:
                    break
                yield Stray(self._slots(port), data, (sender[0], sender[1]), True)

    def send(self, slots: Ints) -> Ints:
        """Sends the packets of those slots that share; returns the others."""
        port = self._port[slots]
        for number, sock in self._sockets.items():
            mine = slots[(port == number) & self.is_aimed[slots]]
            if len(mine):
                self._send(sock.fileno(), mine)
        others: Ints = slots[port == 0]
        return others

    def send_one(self, slot: int, packet: bytes | memoryview) -> None:
        """Raises OSError."""
        target = self._target[slot]
        if target is not None:
            self._sockets[int(self._port[slot])].sendto(packet, target)

    def send_control(self, slot: int, packet: bytes, target: Address) -> None:
        """Raises OSError."""
        self._controls[int(self._port[slot])].sendto(packet, target)

    def _send(self, fd: int, slots: Ints) -> None:
        messages = self._out[slots]
        address, done = messages.ctypes.data, 0
        while done < len(slots):
            sent = _sendmmsg(fd, address + done * _MESSAGE.itemsize, min(MAX_BATCH, len(slots) - done), _MSG_DONTWAIT)
            if sent > 0:
                done += sent
                continue
            if ctypes.get_errno() == errno.EINTR:
                continue
            self._counters[slots[done], Counter.SEND_ERRORS] += 1
            done += 1  # what the kernel refuses is this one; the others have their chance

    def _attribute(self, number: int, port: int, rows: slice) -> None:
        keys, slots = self._keys[port]
        found = self.senders.view(np.uint64)[rows, 0]
        self.batch.slots[rows] = -1 - number
        if len(keys):
            at = np.minimum(np.searchsorted(keys, found), len(keys) - 1)
            self.batch.slots[rows] = np.where(keys[at] == found, slots[at], -1 - number)

    def tables(self) -> tuple[Ints, Ints, NDArray[np.uint64], Ints, Ints]:
        """Descriptors, the beginning of each port's keys with the end of all, keys, their slots, and each slot's port.

        A key is the first 8 bytes of a struct sockaddr_in; a port is its place among the descriptors, -1 for none.
        """
        ports = list(self._sockets)
        fds = np.array([sock.fileno() for sock in self._sockets.values()], np.int64)
        starts = np.cumsum([0, *(len(keys) for keys, _ in self._keys.values())], dtype=np.int64)
        every = [*self._keys.values(), _no_keys()]
        keys, slots = np.concatenate([keys for keys, _ in every]), np.concatenate([slots for _, slots in every])
        port_of = np.full(len(self._port), -1, np.int64)
        for number, port in enumerate(ports):
            port_of[self._port == port] = number
        return fds, starts, keys, slots, port_of

    def _slots(self, port: int) -> tuple[int, ...]:
        return tuple(np.flatnonzero(self._port == port).tolist())

    def _list_keys(self, port: int) -> None:
        latched = [slot for slot in self._slots(port) if slot in self._source]
        keys = np.array([struct.unpack_from("=Q", _sockaddr(self._source[slot]))[0] for slot in latched], np.uint64)
        order = np.argsort(keys)
        self._keys[port] = keys[order], np.array(latched, np.int64)[order]
        self.changes += 1


def _no_keys() -> tuple[NDArray[np.uint64], Ints]:
    return np.zeros(0, np.uint64), np.zeros(0, np.int64)


def _bound(host: str, port: int, buffer: int) -> socket.socket:
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.setblocking(False)
    # Beyond the system's limit where that is permitted; all calls of the port wait in this buffer.
    for option in (socket.SO_RCVBUF, _SO_RCVBUFFORCE):
        try:
            sock.setsockopt(socket.SOL_SOCKET, option, buffer)
        except PermissionError:
            break
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, buffer)
    sock.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)
    try:
        sock.bind((host, port))
    except OSError:
        sock.close()
        raise
    return sock


_SO_RCVBUFFORCE = 33  # asm-generic/socket.h


def _addresses(rows: NDArray[np.uint8]) -> NDArray[np.uint64]:
    return (rows.ctypes.data + np.arange(len(rows)) * rows.strides[0]).astype(np.uint64)


def _messages(
    rows: NDArray[np.uint8], width: int, names: NDArray[np.uint8]
) -> tuple[NDArray[np.void], NDArray[np.uint64]]:
    """A struct mmsghdr a row, and the struct iovec they point at, which must live as long."""
    iov = np.zeros((len(rows), 2), np.uint64)
    iov[:, 0], iov[:, 1] = _addresses(rows), width
    messages = np.zeros(len(rows), _MESSAGE)
    messages["name"], messages["name_size"] = _addresses(names), _SOCKADDR
    messages["iov"], messages["iov_count"] = iov.ctypes.data + np.arange(len(rows)) * 16, 1
    return messages, iov


def _sockaddr(address: Address) -> bytes:
    return struct.pack("=H", socket.AF_INET) + struct.pack(">H", address[1]) + socket.inet_aton(address[0]) + bytes(8)


def _address(name: bytes) -> Address:
    return socket.inet_ntoa(name[4:8]), int.from_bytes(name[2:4], "big")
