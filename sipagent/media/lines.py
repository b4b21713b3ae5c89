"""What happens on each slot's line that is not array work: ports, directions, sources, digits, odd packets."""

import random
import socket
import sys
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from sipagent.media.g711 import decode
from sipagent.media.jitter import BLOCK, MAX_BLOCKS, JitterBuffer
from sipagent.media.outgoing import Outgoing
from sipagent.media.ports import PortAllocator
from sipagent.media.protocol import (
    ClosePort,
    Connect,
    Digit,
    Notice,
    OpenPort,
    PortClosed,
    PortFailed,
    PortOpened,
    Resumed,
    Silent,
    SourceChanged,
)
from sipagent.media.reception import Reception
from sipagent.media.rings import FLAG_DIGIT, Counter, Header, Rings
from sipagent.media.rtp import RtpPacket
from sipagent.media.settings import MediaSettings
from sipagent.media.sockets import ROW, CallSockets
from sipagent.media.source import Address, SourceRule, Verdict, follows
from sipagent.media.telephone_event import EventPayload, EventReceiver, Press, PressLimit

BIND_TRIES = 16
_DIGIT_AHEAD = 480  # samples: a key's updates come every 20 to 50 ms, and until the next one it is still pressed


@dataclass(slots=True)
class Line:
    """One open slot."""

    port: int
    opened: OpenPort
    connect: Connect | None = None
    source: SourceRule = field(default_factory=SourceRule)
    events: EventReceiver = field(default_factory=EventReceiver)
    presses: PressLimit = field(default_factory=PressLimit)
    newcomer: tuple[RtpPacket, int] | None = None  # of another SSRC, and its arrival: a second one will confirm it


class Lines:
    """The open slots. `slots` lists the connected ones, which the engine plays."""

    def __init__(
        self,
        settings: MediaSettings,
        rings: Rings,
        sockets: CallSockets,
        notify: Callable[[Notice], None],
    ) -> None:
        self._settings = settings
        self._rings = rings
        self._sockets = sockets
        self._notify = notify
        self._counters = rings.counters
        self._lines: dict[int, Line] = {}
        self._ports = PortAllocator(
            settings.port_min, settings.port_max, settings.port_quarantine_s, start=random.randrange(1 << 16)
        )
        self.reception = Reception(rings.capacity, rings.counters)
        self.jitter = JitterBuffer(rings.capacity, settings.playout_delay_ms, rings.counters)
        self.outgoing = Outgoing(rings)
        self.payload_type = np.zeros(rings.capacity, np.int64)
        self.plain_header = np.zeros(rings.capacity, np.uint16)  # first two bytes of the packet all expect, as read
        self.plain_ssrc = np.zeros(rings.capacity, np.uint32)  # its SSRC, as read
        self.receiving = np.zeros(rings.capacity, np.bool_)
        self.heard_ns = np.zeros(rings.capacity, np.int64)
        self._told_silent = np.zeros(rings.capacity, np.bool_)
        self._pressing: set[int] = set()  # slots with an unfinished telephone-event
        self.slots = np.zeros(0, np.int64)

    def open(self, command: OpenPort, now_ns: int) -> None:
        slot = command.slot
        if slot in self._lines or not 0 <= slot < self._rings.capacity:
            self._notify(PortFailed(slot=slot, reason=f"slot {slot} is in use or out of range"))
            return
        port = self._bind(slot, command.port, now_ns)
        if isinstance(port, str):
            self._notify(PortFailed(slot=slot, reason=port))
            return
        if not command.resume:
            self._rings.reset(slot)
            self.outgoing.open(slot)
        self.reception.reset(slot)
        if command.resume:
            self.reception.resume(slot)
        self.jitter.reset(slot)
        self._lines[slot] = Line(port, command)
        self._notify(PortOpened(slot=slot, port=port))

    def connect(self, command: Connect, now_ns: int) -> None:
        """The first one starts the slot's clock; later ones change codec, direction or the far end's address."""
        slot = command.slot
        line = self._lines.get(slot)
        if line is None:
            return
        if line.connect is None:
            if line.opened.resume:
                self._resume(slot, now_ns)
            self._rings.ticked_ns[slot] = now_ns
            self._sockets.listen(slot)
        started_receiving = command.receive and not self.receiving[slot]
        payload_types = frozenset({command.payload_type, command.telephone_event} - {-1})
        if line.source.expect(signalled_address(command), payload_types):
            self._sockets.aim(slot, line.source.target)
            self.heard_ns[slot] = now_ns
        if line.connect is None and line.opened.source is not None:
            line.source.learned = line.opened.source
            self._sockets.latch(slot, line.opened.source)
        if started_receiving:
            self.heard_ns[slot] = now_ns
            self._told_silent[slot] = False
        elif not command.receive:
            self.reception.stop(slot)
            self.jitter.reset(slot)
        line.connect = command
        self.payload_type[slot] = command.payload_type
        self.receiving[slot] = command.receive
        self.outgoing.configure(slot, command.payload_type, command.send)
        self._expect_plain(slot)
        self._list_slots()

    def close(self, command: ClosePort, now_ns: int) -> None:
        slot = command.slot
        line = self._lines.pop(slot, None)
        if line is not None:
            self._sockets.close(slot)
            self._ports.release(line.port, now_ns)
            self.reception.publish(np.array([slot]))
            self.receiving[slot] = False
            self._pressing.discard(slot)
            self.outgoing.sending[slot] = False
            self._list_slots()
        if 0 <= slot < self._rings.capacity:
            self._rings.forget(slot)  # also when an engine before us played it, and we were never told of it
        self._notify(PortClosed(slot=slot))

    def close_all(self) -> None:
        for slot in list(self._lines):
            self._sockets.close(slot)
        self._lines.clear()
        self._list_slots()

    def stray(self, slot: int, data: bytes, sender: Address, now_ns: int) -> None:
        """A datagram of the wide socket: decide whose it is, learn the source, take what is the peer's."""
        line = self._lines[slot]
        heard = int(self.heard_ns[slot])
        if line.source.bars(sender, heard, now_ns):
            self._counters[slot, Counter.FOREIGN] += 1
            return
        packet = self._parse(slot, data)
        if packet is None:
            return
        if not self.receiving[slot]:
            self._counters[slot, Counter.IGNORED] += 1
            return
        judgement = line.source.judge(sender, packet, int(self.reception.ssrc[slot]), heard, now_ns)
        if judgement.verdict is Verdict.LEARNED:
            self._sockets.latch(slot, sender)
            self._notify(SourceChanged(slot=slot, host=sender[0], port=sender[1]))
        elif judgement.verdict is Verdict.FOREIGN:
            self._counters[slot, Counter.FOREIGN] += 1
        elif judgement.verdict is Verdict.IGNORE:
            self._counters[slot, Counter.IGNORED] += 1
        for accepted, arrival_ns in judgement.packets:
            self._take(slot, line, accepted, arrival_ns)

    def odd(self, slot: int, data: bytes, now_ns: int) -> None:
        """A datagram of the peer that is not plain audio of the running stream."""
        line = self._lines[slot]
        packet = self._parse(slot, data)
        if packet is not None and self.receiving[slot]:
            self._take(slot, line, packet, now_ns)
        elif packet is not None:
            self._counters[slot, Counter.IGNORED] += 1

    def watch(self, now_ns: int) -> None:
        """Ten times a second: unfinished digits, silent peers, derived figures."""
        for slot in tuple(self._pressing):
            self._pressed(slot, self._lines[slot].events.expire(now_ns), now_ns)
        slots = self.slots
        self.reception.publish(slots)
        limit = self._settings.media_timeout_s
        if not limit:
            return
        quiet = (now_ns - self.heard_ns[slots] > limit * 1e9) & self.receiving[slots]
        for slot in slots[quiet & ~self._told_silent[slots]]:
            self._notify(Silent(slot=int(slot), seconds=float((now_ns - self.heard_ns[slot]) / 1e9)))
        self._told_silent[slots] = quiet

    def _bind(self, slot: int, wanted: int, now_ns: int) -> int | str:
        """The port bound, or the sentence why there is none."""
        if wanted:
            try:
                self._sockets.bind(slot, wanted)
            except OSError as error:
                return f"RTP port {wanted} cannot be bound on {self._settings.host}: {error.strerror}"
            self._ports.take_exactly(wanted)
            return wanted
        reason = "no RTP port is free: widen port_min..port_max or shorten port_quarantine_s"
        for _ in range(BIND_TRIES):
            port = self._ports.take(now_ns)
            if port is None:
                break
            try:
                self._sockets.bind(slot, port)
            except OSError as error:
                self._ports.failed(port, now_ns)
                self._rings.header[Header.BIND_FAILURES] += 1
                reason = f"RTP port {port} cannot be bound on {self._settings.host}: {error.strerror}"
                continue
            return port
        return reason

    def _resume(self, slot: int, now_ns: int) -> None:
        ticked = int(self._rings.ticked_ns[slot])
        if ticked:
            self.outgoing.resume(slot, now_ns - ticked)
            self._notify(Resumed(slot=slot, gap_ms=(now_ns - ticked) / 1e6))

    def _list_slots(self) -> None:
        self.slots = np.array(sorted(s for s, line in self._lines.items() if line.connect is not None), np.int64)

    def _parse(self, slot: int, data: bytes) -> RtpPacket | None:
        """None, and counted, for what is no RTP packet that we could have negotiated."""
        try:
            if len(data) >= ROW:
                raise ValueError(f"datagram of {len(data)} bytes or more is longer than 60 ms of G.711")
            return RtpPacket.parse(data)
        except ValueError:
            self._counters[slot, Counter.MALFORMED] += 1
            return None

    def _take(self, slot: int, line: Line, packet: RtpPacket, now_ns: int) -> None:
        assert line.connect is not None
        self.heard_ns[slot] = now_ns
        self._counters[slot, Counter.PACKETS_IN] += 1
        if packet.payload_type == line.connect.payload_type and packet.payload:
            self._take_audio(slot, line, packet, now_ns)
            return
        one = np.array([slot])
        if packet.ssrc == self.reception.ssrc[slot]:
            self.reception.accept(one, np.array([packet.sequence]))
        if packet.payload_type == line.connect.telephone_event:
            self._take_event(slot, line, packet, now_ns)
        else:
            self._counters[slot, Counter.IGNORED] += 1

    def _take_audio(self, slot: int, line: Line, packet: RtpPacket, now_ns: int) -> None:
        if len(packet.payload) > MAX_BLOCKS * BLOCK:
            self._counters[slot, Counter.MALFORMED] += 1
            return
        if packet.ssrc == self.reception.ssrc[slot]:
            self._play_later(slot, packet, now_ns)
            return
        held, line.newcomer = line.newcomer, (packet, now_ns)
        if self.reception.ssrc[slot] < 0:
            first = line.newcomer
        elif held is not None and follows(packet, held[0]):
            first = held
            self._counters[slot, Counter.RESYNCS] += 1
        else:
            return  # one stray packet must not end the stream (RFC 3550 A.1 asks for two in a row)
        self.reception.start(slot, packet.ssrc, first[0].sequence)
        self.jitter.reset(slot)
        self._expect_plain(slot)
        for each, arrival_ns in (first, line.newcomer) if first is held else (first,):
            self._play_later(slot, each, arrival_ns)
        line.newcomer = None

    def _play_later(self, slot: int, packet: RtpPacket, now_ns: int) -> None:
        one = np.array([slot])
        accepted = self.reception.accept(one, np.array([packet.sequence]))
        if accepted is not None:
            if accepted.restarted[0]:
                self.jitter.reset(slot)
            if not accepted.fresh[0]:
                return
        timestamp = np.array([packet.timestamp])
        if self.reception.timed(slot):
            self.reception.time(one, timestamp, now_ns)
        else:
            self.reception.time_first(slot, packet.timestamp, now_ns)
        pcm = decode(packet.payload_type, np.frombuffer(packet.payload, np.uint8))
        if len(pcm) % BLOCK == 0:
            self.jitter.insert(one, timestamp, pcm[None, :], accepted, now_ns)
        else:
            contiguous = accepted is None or bool(accepted.contiguous[0])
            self.jitter.insert_odd(slot, packet.timestamp, pcm, contiguous, now_ns)

    def _expect_plain(self, slot: int) -> None:
        """What the engine's short way may take without a look by us; nothing while no stream is received."""
        running = self.receiving[slot] and self.reception.ssrc[slot] >= 0
        header = bytes((0x80, self.payload_type[slot])) if running else b"\0\0"
        self.plain_header[slot] = int.from_bytes(header, sys.byteorder)
        ssrc = int(self.reception.ssrc[slot]) & 0xFFFFFFFF
        self.plain_ssrc[slot] = int.from_bytes(ssrc.to_bytes(4, "big"), sys.byteorder)

    def _take_event(self, slot: int, line: Line, packet: RtpPacket, now_ns: int) -> None:
        try:
            payload = EventPayload.parse(packet.payload)
        except ValueError:
            self._counters[slot, Counter.MALFORMED] += 1
            return
        presses = line.events.receive(payload, packet.timestamp, now_ns)
        if self.jitter.anchored(slot) and packet.ssrc == self.reception.ssrc[slot]:
            samples = payload.duration + (0 if payload.end else _DIGIT_AHEAD)
            self.jitter.mark(slot, packet.timestamp, samples, FLAG_DIGIT, now_ns)
        if line.events.active:
            self._pressing.add(slot)
        self._pressed(slot, presses, now_ns)

    def _pressed(self, slot: int, presses: list[Press], now_ns: int) -> None:
        line = self._lines[slot]
        if not line.events.active:
            self._pressing.discard(slot)
        for press in presses:
            if not line.presses.admits(now_ns):
                self._counters[slot, Counter.MALFORMED] += 1
                continue
            self._counters[slot, Counter.DIGITS_IN] += 1
            self._notify(Digit(slot=slot, digit=press.digit, duration_ms=press.duration_ms))


def signalled_address(command: Connect) -> Address | None:
    """The SDP's address; None for port 0 and for 0.0.0.0, by which old phones hold a call (RFC 2543)."""
    if command.port == 0 or command.host in ("0.0.0.0", "::"):
        return None
    family = socket.AF_INET6 if ":" in command.host else socket.AF_INET
    try:
        host = socket.inet_ntop(family, socket.inet_pton(family, command.host))  # written as the kernel does
    except OSError:
        return None  # a name: resolving it here would stop everybody's audio
    return host, command.port
