"""What happens on each slot's line that is not array work: ports, directions, sources, keys, odd packets.

`hot` takes the packets that simply continue a stream; all others come here one by one.
"""

import random
import socket
from collections.abc import Callable

import numpy as np

from sipagent.media.batch import ROW, Stray
from sipagent.media.codecs import CODECS, LONGEST_PAYLOAD, Codec
from sipagent.media.hot import Expected
from sipagent.media.jitter import JitterBuffer
from sipagent.media.line import NO_TONE, Line
from sipagent.media.looks import Looks
from sipagent.media.mixing import Mixing
from sipagent.media.outgoing import Outgoing
from sipagent.media.ports import PortAllocator
from sipagent.media.protocol import (
    ClosePort,
    Connect,
    Digit,
    Hear,
    Notice,
    OpenLine,
    OpenPort,
    PortClosed,
    PortFailed,
    PortOpened,
    Resumed,
    SendDigits,
    SourceChanged,
)
from sipagent.media.reception import Reception
from sipagent.media.reports import Reports
from sipagent.media.rings import FLAG_DIGIT, Counter, Header, Rings
from sipagent.media.rtcp import is_rtcp
from sipagent.media.rtp import COMFORT_NOISE, RtpPacket
from sipagent.media.sending import NOTED, Sending
from sipagent.media.settings import MediaSettings
from sipagent.media.shared import SharedPorts
from sipagent.media.sockets import CallSockets
from sipagent.media.source import Address, Verdict, follows
from sipagent.media.srtp import Progress, Refused, SrtpSession
from sipagent.media.telephone_event import (
    LONGEST_MS,
    SHORTEST_MS,
    EventPayload,
    EventReceiver,
    Press,
)
from sipagent.media.tones import ToneDetector

BIND_TRIES = 16
EXPIRE_NS = 100_000_000  # between two looks at unfinished keys
_DIGIT_AHEAD = 480  # samples: a key's updates come every 20 to 50 ms, and until the next one it is still pressed


class Lines:
    """The open slots. `slots` lists the connected ones, which the engine plays."""

    def __init__(
        self,
        settings: MediaSettings,
        rings: Rings,
        sockets: CallSockets,
        shared: SharedPorts | None,
        outgoing: Outgoing,
        notify: Callable[[Notice], None],
    ) -> None:
        self._settings = settings
        self._rings = rings
        self._sockets = sockets
        self._shared = shared
        self._notify = notify
        self._counters = rings.counters
        self._lines: dict[int, Line] = {}
        self._ports = PortAllocator(
            settings.port_min + 2 * settings.shared_ports,
            settings.port_max,
            settings.port_quarantine_s,
            start=random.randrange(1 << 16),
        )
        self.outgoing = outgoing
        self.reception = Reception(rings.capacity, rings.counters)
        limits = (settings.playout_min_ms, settings.playout_max_ms, rings.counters)
        self.narrow = JitterBuffer(rings.capacity, 8000, *limits)
        self.wide = JitterBuffer(rings.capacity, 16000, *limits)
        self.expected = Expected(rings.capacity)
        self.heard_ns = np.zeros(rings.capacity, np.int64)
        buffers, limit_s = (self.narrow, self.wide), settings.media_timeout_s
        self.looks = Looks(rings, self.reception, *buffers, outgoing, self.heard_ns, limit_s, notify)
        self.is_wide, self.receiving = self.looks.is_wide, self.looks.receiving
        troubles = self.looks.troubles
        self.reports = Reports(rings, self.reception, sockets, troubles, settings.playout_max_ms, notify)
        self.mixing = Mixing(rings, outgoing)
        self._sending = Sending(rings, sockets, outgoing, self.mixing, notify, self._regroup)
        self.by_packet = self._sending.by_packet
        self.detectors = (ToneDetector(rings.capacity, 8000), ToneDetector(rings.capacity, 16000))
        self.listening = np.zeros(rings.capacity, np.bool_)  # for keys pressed as tones
        self._resting: dict[tuple[int, Address | None], int] = {}  # shared port and address -> ns until when, in order
        self._pressing: set[int] = set()  # slots with an unfinished telephone-event
        self._expired_ns = 0
        self.slots = np.zeros(0, np.int64)
        self.changed = True  # since the engine grouped its slots: which there are, and how they are served

    def open(self, command: OpenPort, now_ns: int) -> None:
        slot = command.slot
        if slot in self._lines or not 0 <= slot < self._rings.capacity:
            self._notify(PortFailed(slot=slot, reason=f"slot {slot} is in use or out of range"))
            return
        if command.ipv6 and not self._settings.host6:
            self._notify(PortFailed(slot=slot, reason="RTP over IPv6 needs `host6` in [media] or [sip]"))
            return
        port = self._share(slot, command) or self._bind(slot, command, now_ns)
        if isinstance(port, str):
            self._notify(PortFailed(slot=slot, reason=port))
            return
        if not command.resume:
            self._rings.reset(slot)
            self.outgoing.open(slot)
        self.reception.reset(slot)
        if command.resume:
            self.reception.resume(slot)
        self.narrow.reset(slot)
        self.wide.reset(slot)
        for detector in self.detectors:
            detector.reset(slot)
        self.expected.nothing(slot)
        self.by_packet[slot] = self.is_wide[slot] = self.listening[slot] = False
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
            self.looks.pausing[slot] = False
            self.looks.troubles.start(slot, now_ns)
            self._sockets.listen(slot)
        started_receiving = command.receive and not self.receiving[slot]
        payload_types = frozenset(
            {command.payload_type, command.telephone_event, command.telephone_event_in, command.comfort_noise} - {-1}
        )
        if line.connect is None or command.crypto != line.connect.crypto:
            self._encrypt(slot, line, command)
        if line.connect is None or command.payload_type != line.connect.payload_type:
            self._speak(slot, line, CODECS[command.payload_type])
        if line.source.expect(signalled_address(command.host, command.port), payload_types):
            self._sockets.aim(slot, line.source.target)
            self.heard_ns[slot] = now_ns
        if line.connect is None and line.opened.source is not None:
            line.source.learned = line.opened.source
            self._sockets.latch(slot, line.opened.source)
        if started_receiving:
            self.heard_ns[slot] = now_ns
            self.looks.told_silent[slot] = False
        elif not command.receive:
            self.reception.stop(slot)
            self._buffer(slot).reset(slot)
        line.connect = command
        host = line.source.target[0] if line.source.target is not None else ""
        self.reports.connect(slot, command, host, line.srtp, now_ns)
        self.listening[slot] = command.receive and command.telephone_event < 0
        self.receiving[slot] = command.receive
        self.outgoing.configure(slot, command.payload_type, command.send)
        self._sending.connect(slot, line)
        self._mute(slot)
        self._expect(slot)
        self._list_slots()

    def close(self, command: ClosePort, now_ns: int) -> None:
        slot = command.slot
        line = self._lines.pop(slot, None)
        if line is not None:
            self.reception.publish(np.array([slot]))
            self.reports.close(slot, now_ns)
            self._sockets.close(slot)
            if self._is_shared(line.port):
                self._rest(line, now_ns)
            else:
                self._ports.release(line.port, now_ns)
            self.expected.nothing(slot)
            self.receiving[slot] = False
            self._pressing.discard(slot)
            self.outgoing.sending[slot] = False
            self.mixing.forget(slot)
            self._list_slots()
        if 0 <= slot < self._rings.capacity:
            self._rings.forget(slot)  # also when an engine before us played it, and we were never told of it
        self._notify(PortClosed(slot=slot))

    def hear(self, command: Hear) -> None:
        if command.slot in self._lines:
            self.mixing.hear(command, self._lines)
            self._mute(command.slot)
            self._regroup()

    def _mute(self, slot: int) -> None:
        """A peer that is told keys by events should not hear them as tones besides."""
        connect = self._lines[slot].connect
        told = connect is not None and connect.telephone_event >= 0
        self.mixing.muting[slot] = told and self.mixing.gets_keys(slot)

    @property
    def open_lines(self) -> list[OpenLine]:
        return [
            OpenLine(
                slot=slot,
                port=line.port,
                connect=line.connect,
                source=line.source.learned,
                ipv6=line.opened.ipv6,
            )
            for slot, line in self._lines.items()
        ]

    def close_all(self) -> None:
        for slot in list(self._lines):
            self._sockets.close(slot)
        self._lines.clear()
        self._list_slots()

    def press(self, command: SendDigits) -> None:
        """Keys that main asks for."""
        line = self._lines.get(command.slot)
        if line is not None and line.connect is not None:
            line.asked = True
            self._sending.press(line, command)

    def transmit(self, slot: int, now_ns: int) -> None:
        """The next packet of a slot that is served packet by packet; time passes for it."""
        self._sending.transmit(slot, self._lines[slot], now_ns)

    def stray(self, stray: Stray, now_ns: int) -> None:
        """A datagram of an unknown sender: decide whose it is, learn the source, take what is the peer's."""
        if stray.control:
            reported = self.reports.meant(stray.slots, stray.data, stray.sender)
            if reported is not None:
                self.reports.receive(reported, stray.data, stray.sender, now_ns)
            return
        # A call of a shared port may have been closed since this was read.
        stray = stray._replace(slots=tuple(slot for slot in stray.slots if slot in self._lines))
        slot = self._meant(stray, now_ns)
        if slot is None or self._rests(slot, stray.sender, now_ns):
            self._counters[list(stray.slots), Counter.FOREIGN] += 1
            return
        line = self._lines[slot]
        heard = int(self.heard_ns[slot])
        if line.source.bars(stray.sender, heard, now_ns):
            self._counters[slot, Counter.FOREIGN] += 1
            return
        packet = self._parse(slot, line, stray.data)
        if packet is None:
            return
        if not self.receiving[slot]:
            self._counters[slot, Counter.IGNORED] += 1
            return
        judgement = line.source.judge(stray.sender, packet, int(self.reception.ssrc[slot]), heard, now_ns)
        if judgement.verdict is Verdict.LEARNED:
            if not self._sockets.latch(slot, stray.sender):
                line.source.learned = None
                self._counters[slot, Counter.FOREIGN] += 1
                return
            self.reports.learned(slot, stray.sender)
            self._notify(SourceChanged(slot=slot, host=stray.sender[0], port=stray.sender[1]))
        elif judgement.verdict is Verdict.FOREIGN:
            self._counters[slot, Counter.FOREIGN] += 1
        elif judgement.verdict is Verdict.IGNORE:
            self._counters[slot, Counter.IGNORED] += 1
        for accepted, arrival_ns in judgement.packets:
            self._take(slot, line, accepted, arrival_ns)

    def _meant(self, stray: Stray, now_ns: int) -> int | None:
        """Whose datagram this may be. On a shared port: the call whose SDP names the sender, else the only call that
        would take it."""
        if len(stray.slots) == 1:
            return stray.slots[0]
        lines = {slot: self._lines[slot] for slot in stray.slots}
        for slot, line in lines.items():
            if line.source.signalled == stray.sender:
                return slot
        open_to_it = [
            slot for slot, line in lines.items() if not line.source.bars(stray.sender, int(self.heard_ns[slot]), now_ns)
        ]
        return open_to_it[0] if len(open_to_it) == 1 else None

    def odd(self, slot: int, data: bytes, now_ns: int) -> None:
        """A datagram of the peer that is not plain audio that continues the stream."""
        line = self._lines.get(slot)
        if line is None:
            return  # closed in the tick in which it was read
        if line.connect is not None and line.connect.rtcp_mux and is_rtcp(data):
            self.reports.receive(slot, data, None, now_ns)
            return
        packet = self._parse(slot, line, data)
        if packet is not None and self.receiving[slot]:
            self._take(slot, line, packet, now_ns)
        elif packet is not None:
            self._counters[slot, Counter.IGNORED] += 1

    def watch(self, now_ns: int) -> None:
        """Every tick: what is due, a part of the slots at a time, so that many calls make no tick much longer."""
        self.reports.watch(self.slots, now_ns)
        self.looks.watch(self.slots, now_ns)
        if self._pressing and now_ns - self._expired_ns >= EXPIRE_NS:
            self._expired_ns = now_ns
            for slot in tuple(self._pressing):
                self._pressed(slot, self._lines[slot].events.expire(now_ns), now_ns)

    def due_ns(self) -> int:
        """When `watch` has something to do besides looks."""
        earliest = self.reports.earliest_ns
        return min(self._expired_ns + EXPIRE_NS, earliest) if self._pressing else earliest

    def _bind(self, slot: int, command: OpenPort, now_ns: int) -> int | str:
        """The port bound, or the sentence why there is none."""
        wanted = command.port
        host = self._settings.host6 if command.ipv6 else self._settings.host
        if wanted:
            try:
                self._sockets.bind(slot, wanted, ipv6=command.ipv6)
            except OSError as error:
                return f"RTP port {wanted} cannot be bound on {host}: {error.strerror}"
            self._ports.take_exactly(wanted)
            return wanted
        reason = "no RTP port is free: widen port_min..port_max or shorten port_quarantine_s"
        for _ in range(BIND_TRIES):
            port = self._ports.take(now_ns)
            if port is None:
                break
            try:
                self._sockets.bind(slot, port, ipv6=command.ipv6)
            except OSError as error:
                self._ports.failed(port, now_ns)
                self._rings.header[Header.BIND_FAILURES] += 1
                reason = f"RTP port {port} cannot be bound on {host}: {error.strerror}"
                continue
            return port
        return reason

    def _resume(self, slot: int, now_ns: int) -> None:
        ticked = int(self._rings.ticked_ns[slot])
        if ticked:
            self.outgoing.resume(slot, now_ns - ticked)
            self._notify(Resumed(slot=slot, gap_ms=(now_ns - ticked) / 1e6))

    def _regroup(self) -> None:
        self.changed = True

    def _list_slots(self) -> None:
        self._regroup()
        self.slots = np.array(sorted(s for s, line in self._lines.items() if line.connect is not None), np.int64)

    def _share(self, slot: int, command: OpenPort) -> int | None:
        """A port shared with other calls, None when this one needs its own."""
        if self._shared is None or command.ipv6:
            return None
        port = command.port if command.port in self._shared.ports else None
        if not command.port:
            port = self._shared.choose(signalled_address(*command.far)) if command.far is not None else None
        if port is not None:
            self._sockets.share(slot, port)
        return port

    def _is_shared(self, port: int) -> bool:
        return self._shared is not None and port in self._shared.ports

    def _rest(self, line: Line, now_ns: int) -> None:
        """The peer may go on sending after its call: on a shared port its address rests, as a port of its own would."""
        while self._resting and next(iter(self._resting.values())) <= now_ns:
            del self._resting[next(iter(self._resting))]
        for address in {line.source.learned, line.source.signalled} - {None}:
            self._resting.pop((line.port, address), None)
            self._resting[line.port, address] = now_ns + int(self._settings.port_quarantine_s * 1e9)

    def _rests(self, slot: int, sender: Address, now_ns: int) -> bool:
        line = self._lines[slot]
        return sender != line.source.signalled and self._resting.get((line.port, sender), 0) > now_ns

    def _buffer(self, slot: int) -> JitterBuffer:
        return self.wide if self.is_wide[slot] else self.narrow

    def _encrypt(self, slot: int, line: Line, command: Connect) -> None:
        if command.crypto is None:
            line.srtp = None
            return
        progress = Progress(*self._rings.srtp[slot].tolist()) if self._rings.srtp[slot, 0] >= 0 else None
        line.srtp = SrtpSession(command.crypto, progress if line.connect is None else None)
        self._rings.srtp[slot] = line.srtp.progress if line.connect is None else -1

    def _speak(self, slot: int, line: Line, codec: Codec) -> None:
        """From now on this codec, both ways."""
        self._buffer(slot).reset(slot)
        if codec.rate != line.codec.rate:
            line.tone = NO_TONE
        line.codec, line.decoder, line.encoder = codec, codec.decoder(), codec.encoder()
        self.is_wide[slot] = codec.rate != 8000
        self._rings.rate[slot] = codec.rate

    def _parse(self, slot: int, line: Line, data: bytes) -> RtpPacket | None:
        """None, and counted, for what is no RTP packet that we could have negotiated."""
        try:
            if len(data) >= ROW:
                raise ValueError(f"datagram of {len(data)} bytes or more is longer than 60 ms of G.711")
            if line.srtp is not None:
                data = line.srtp.unprotect(data)
                if not data[3] & NOTED:
                    self._rings.srtp[slot] = line.srtp.progress
            return RtpPacket.parse(data)
        except ValueError:
            self._counters[slot, Counter.MALFORMED] += 1
        except Refused as refused:
            replayed = refused.reason == "replay"
            self._counters[slot, Counter.SRTP_REPLAYED if replayed else Counter.SRTP_REFUSED] += 1
        return None

    def _take(self, slot: int, line: Line, packet: RtpPacket, now_ns: int) -> None:
        assert line.connect is not None
        self.heard_ns[slot] = now_ns
        self._counters[slot, Counter.PACKETS_IN] += 1
        if packet.payload_type == line.codec.payload_type and packet.payload:
            self._take_audio(slot, line, packet, now_ns)
            return
        if packet.ssrc == self.reception.ssrc[slot]:
            accepted = self.reception.accept(slot, packet.sequence)
            if accepted.restarted:
                self.reports.restarted(slot)
            if accepted.fresh:
                self.reports.took(slot, accepted, True)
        if packet.payload_type in (line.connect.telephone_event, line.connect.telephone_event_in):
            self._take_event(slot, line, packet, now_ns)
        elif packet.payload_type in (line.connect.comfort_noise, COMFORT_NOISE):  # 13 is never anything else
            self._take_noise(slot, packet, now_ns)
        elif line.connect.telephone_event < 0 and line.unnegotiated.observe(
            packet.payload_type, packet.payload, packet.timestamp
        ):
            self._take_event(slot, line, packet, now_ns)
        else:
            self._counters[slot, Counter.IGNORED] += 1
        self._expect(slot)

    def _take_audio(self, slot: int, line: Line, packet: RtpPacket, now_ns: int) -> None:
        if len(packet.payload) > LONGEST_PAYLOAD:
            self._counters[slot, Counter.MALFORMED] += 1
            return
        if packet.ssrc == self.reception.ssrc[slot]:
            self._play_later(slot, line, packet, now_ns)
            return
        if self.reception.ssrc[slot] >= 0 and not self._sockets.settled(slot):
            self._counters[slot, Counter.FOREIGN] += 1  # it may be the stream of the call that has no source yet
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
        self.reports.restarted(slot)
        self._buffer(slot).reset(slot)
        line.decoder, line.events = line.codec.decoder(), EventReceiver()  # the sender's are new as well
        for each, arrival_ns in (first, line.newcomer) if first is held else (first,):
            self._play_later(slot, line, each, arrival_ns)
        line.newcomer = None

    def _take_noise(self, slot: int, packet: RtpPacket, now_ns: int) -> None:
        buffer = self._buffer(slot)
        if packet.ssrc == self.reception.ssrc[slot] and buffer.anchored(slot):
            self.looks.pausing[slot] = True
            buffer.noise(slot, packet.timestamp, packet.payload, now_ns)

    def _play_later(self, slot: int, line: Line, packet: RtpPacket, now_ns: int) -> None:
        buffer = self._buffer(slot)
        self.looks.pausing[slot] = False
        accepted = self.reception.accept(slot, packet.sequence)
        if accepted.restarted:
            buffer.reset(slot)
            line.decoder = line.codec.decoder()
            self.reports.restarted(slot)
        if accepted.fresh:
            pcm = line.decoder.decode(packet.payload)
            in_time = buffer.insert(slot, packet.timestamp, pcm, accepted.contiguous, now_ns)
            self.reports.took(slot, accepted, in_time)
        self._expect(slot)

    def _expect(self, slot: int) -> None:
        """What the hot path may take without a look by us; nothing while no plain stream is received."""
        line = self._lines[slot]
        ssrc = int(self.reception.ssrc[slot])
        if self.is_wide[slot] or line.srtp is not None or ssrc < 0 or not self.receiving[slot]:
            self.expected.nothing(slot)
        else:
            self.expected.packet(slot, line.codec.payload_type, ssrc, self.narrow.timestamp_at_end(slot))

    def _take_event(self, slot: int, line: Line, packet: RtpPacket, now_ns: int) -> None:
        try:
            payload = EventPayload.parse(packet.payload)
        except ValueError:
            self._counters[slot, Counter.MALFORMED] += 1
            return
        presses = line.events.receive(payload, packet.timestamp, now_ns)
        buffer = self._buffer(slot)
        if buffer.anchored(slot) and packet.ssrc == self.reception.ssrc[slot]:
            samples = payload.duration + (0 if payload.end else _DIGIT_AHEAD)
            buffer.mark(slot, packet.timestamp, samples, FLAG_DIGIT, now_ns)
        if line.events.active:
            self._pressing.add(slot)
        self._pressed(slot, presses, now_ns)

    def _pressed(self, slot: int, presses: list[Press], now_ns: int) -> None:
        line = self._lines[slot]
        if not line.events.active:
            self._pressing.discard(slot)
        for press in presses:
            self._tell_press(slot, line, press, now_ns, inband=False)

    def toned(self, pressed: list[tuple[int, str, int]], now_ns: int) -> None:
        """Keys that were heard in the audio: slot, digit, ms."""
        for slot, digit, duration_ms in pressed:
            self._tell_press(slot, self._lines[slot], Press(digit, duration_ms), now_ns, inband=True)

    def _tell_press(self, slot: int, line: Line, press: Press, now_ns: int, *, inband: bool) -> None:
        if not line.presses.admits(now_ns):
            self._counters[slot, Counter.MALFORMED] += 1
            return
        self._counters[slot, Counter.DIGITS_IN] += 1
        self._notify(Digit(slot=slot, digit=press.digit, duration_ms=press.duration_ms, inband=inband))
        for listener in self.mixing.keys_to(slot):
            self._pass_on(listener, press, inband)

    def _pass_on(self, listener: int, press: Press, inband: bool) -> None:
        line = self._lines[listener]
        if line.connect is None or (inband and line.connect.telephone_event < 0):  # there the tone itself is heard
            return
        held = min(max(press.duration_ms, SHORTEST_MS), LONGEST_MS)
        self._sending.press(line, SendDigits(slot=listener, digits=press.digit, duration_ms=held))


def signalled_address(host: str, port: int) -> Address | None:
    """The SDP's address; None for port 0 and for 0.0.0.0, by which old phones hold a call (RFC 2543)."""
    if not 0 < port < 65536 or host in ("0.0.0.0", "::"):
        return None
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.inet_ntop(family, socket.inet_pton(family, host)), port  # written as the kernel does
    except (OSError, ValueError):
        return None  # a name: resolving it here would stop everybody's audio
