"""Calls that share an RTP port: real sockets on loopback, the engine's slots without its process."""

import contextlib
import os
import select
import socket
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from sipagent.core.ipc import FrameBuffer
from sipagent.media.engine import Engine
from sipagent.media.g711 import ULAW_TO_LINEAR
from sipagent.media.protocol import (
    ClosePort,
    Connect,
    OpenPort,
    PortOpened,
    SourceChanged,
    Stop,
    notice_decoder,
)
from sipagent.media.rings import Counter, create_memory
from sipagent.media.rtp import RtpPacket
from sipagent.media.settings import MediaSettings
from sipagent.media.shared import MAX_STRAYS

MS = 1_000_000
PORT_MIN = 42460


class Far:
    """A peer on 127.0.0.x; `skip` and `say` go through its own stream."""

    def __init__(self, host="127.0.0.1", ssrc=7):
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.bind((host, 0))
        self.socket.setblocking(False)
        self.address = self.socket.getsockname()
        self.ssrc, self.sequence = ssrc, 100 * ssrc

    def packet(self, code=0x11, **changes):
        fields = {"payload_type": 0, "sequence": self.sequence & 0xFFFF, "timestamp": 160 * self.sequence} | changes
        self.sequence += 1
        return bytes(RtpPacket(payload=bytes([code]) * 160, **({"ssrc": self.ssrc} | fields)))

    def heard(self):
        """All that came to it so far."""
        packets = []
        with contextlib.suppress(BlockingIOError):
            while True:
                packets.append(RtpPacket.parse(self.socket.recv(999)))
        return packets


class Rig:
    """An engine with its loop turned by the test."""

    def __init__(self, memory, clock, **changes):
        options: dict[str, Any] = {"host": "127.0.0.1", "port_min": PORT_MIN, "port_max": PORT_MIN + 39, "capacity": 8}
        settings = MediaSettings(
            **(options | {"shared_ports": 1, "port_quarantine_s": 5.0, "accelerate": False} | changes)
        )
        self.main, control = socket.socketpair()
        self.main.setblocking(False)
        control.setblocking(False)
        self.control, self.wake = control, os.eventfd(0, os.EFD_NONBLOCK)
        self.engine = Engine(settings, control, memory, self.wake)
        self.rings, self.clock = self.engine._rings, clock
        self.buffer, self.notices = FrameBuffer(), []
        self.far: list[Far] = []

    def peer(self, *arguments, **options):
        self.far.append(Far(*arguments, **options))
        return self.far[-1]

    def obey(self, command):
        self.engine._obey(command, self.clock.now)

    def told(self, kind):
        with contextlib.suppress(BlockingIOError):
            self.notices += [notice_decoder.decode(each) for each in self.buffer.feed(self.main.recv(1 << 16))]
        return [notice for notice in self.notices if isinstance(notice, kind)]

    def call(self, slot, far, **options):
        """Opens and connects; `far` is the peer's address in the SDP."""
        self.obey(OpenPort(slot=slot, far=far, **options))
        if far is not None:
            self.connect(slot, far)
        return self.told(PortOpened)[-1].port

    def connect(self, slot, far, **options):
        self.obey(Connect(slot=slot, host=far[0], port=far[1], payload_type=0, telephone_event=101, **options))

    def tick(self, count=2):
        """What a tick of 10 ms does; each slot is played in two of them."""
        for _ in range(count):
            self.clock.now += 10 * MS
            self.engine._tick(self.clock.now, 0)

    def say(self, peer, port, count=1, code=0x11, **changes):
        """So many packets at once."""
        for _ in range(count):
            peer.socket.sendto(peer.packet(code, **changes), ("127.0.0.1", port))
        self.tick()

    def latched(self, slot, peer, port):
        self.say(peer, port, 2)
        return bool(self.engine._lines._lines[slot].source.learned == peer.address)

    def count(self, slot, counter):
        return int(self.rings.counters[slot, counter])

    def heard(self, slot, code):
        """How many frames of this slot hold that code's sample throughout."""
        frames = self.rings.rx_pcm[slot, : int(self.rings.rx_head[slot])]
        return int((frames == ULAW_TO_LINEAR[code]).all(axis=1).sum())

    def close(self):
        self.engine._lines.close_all()
        for shared in (self.engine._sockets.shared,):
            if shared is not None:
                for sock in [*shared._sockets.values(), *shared._controls.values()]:
                    sock.close()
        for peer in self.far:
            peer.socket.close()
        self.main.close()
        self.control.close()
        os.close(self.wake)


@pytest.fixture
def memory():
    memory = create_memory(8)
    yield memory
    os.close(memory)


@pytest.fixture
def clock(monkeypatch):
    clock = SimpleNamespace(now=1_000 * MS)
    monkeypatch.setattr("time.monotonic_ns", lambda: clock.now)
    return clock


@pytest.fixture
def rig(memory, clock):
    rig = Rig(memory, clock)
    yield rig
    rig.close()


@pytest.fixture
def two(rig):
    """Two calls on one port, both latched."""
    first, second = rig.peer(ssrc=1), rig.peer(ssrc=2)
    port = rig.call(0, first.address)
    assert rig.latched(0, first, port)
    assert rig.call(2, second.address) == port
    assert rig.latched(2, second, port)
    return rig, port, first, second


def test_two_calls_on_one_port_are_told_apart_by_address(two):
    rig, port, first, second = two
    rig.say(first, port, 10, code=0x11)
    rig.say(second, port, 10, code=0x22)
    rig.tick(60)
    assert rig.heard(0, 0x11) >= 8 and rig.heard(0, 0x22) == 0
    assert rig.heard(2, 0x22) >= 8
    assert rig.count(0, Counter.PACKETS_IN) == rig.count(2, Counter.PACKETS_IN) == 12
    assert {each.ssrc for each in first.heard()} == {int(rig.rings.tx_ssrc[0])}
    assert {each.ssrc for each in second.heard()} == {int(rig.rings.tx_ssrc[2])}


def test_newcomers_are_let_in_one_at_a_time(rig):
    first, second = rig.peer(ssrc=1), rig.peer(ssrc=2)
    port = rig.call(0, first.address)
    assert port == PORT_MIN
    assert rig.call(2, second.address) != port  # the first one's source is still unknown
    assert rig.latched(0, first, port)
    assert rig.call(4, rig.peer().address) == port


def test_outgoing_calls_and_addresses_that_cannot_be_told_never_share(rig):
    for slot, far in enumerate([None, ("0.0.0.0", 4000), ("192.0.2.1", 0), ("2001:db8::1", 4000), ("a.test", 4000)]):
        rig.obey(OpenPort(slot=slot, far=far))
        assert rig.told(PortOpened)[-1].port != PORT_MIN


def test_a_second_call_from_the_same_address_has_a_port_of_its_own(rig):
    first = rig.peer()
    port = rig.call(0, first.address)
    assert rig.latched(0, first, port)
    assert rig.call(2, first.address) != port


def test_a_newcomer_behind_nat_is_latched(two):
    rig, port, first, _ = two
    hidden = rig.peer("127.0.0.9", ssrc=3)
    assert rig.call(4, ("192.0.2.1", 4000)) == port
    rig.say(hidden, port, 3, code=0x33)
    assert rig.told(SourceChanged)[-1].slot == 4
    rig.tick(40)
    assert rig.heard(4, 0x33) == 3 and rig.heard(0, 0x33) == 0
    assert {each.ssrc for each in hidden.heard()} == {int(rig.rings.tx_ssrc[4])}


def test_a_source_that_is_another_calls_is_refused(two):
    """Both calls of a caller behind one address: the second one gets nothing rather than the first one's audio."""
    rig, port, first, _ = two
    assert rig.call(4, ("192.0.2.1", 4000)) == port
    assert not rig.engine._sockets.latch(4, first.address)
    rig.say(first, port, 3, code=0x44)
    rig.tick(40)
    assert rig.heard(0, 0x44) == 3 and rig.heard(4, 0x44) == 0


def test_an_unlatched_call_does_not_give_its_audio_to_another(two):
    """Packets of the newcomer from the address of another call: not a new stream of that call."""
    rig, port, first, _ = two
    assert rig.call(4, ("192.0.2.1", 4000)) == port
    rig.say(first, port, 5, code=0x55, ssrc=99)
    rig.tick(40)
    assert rig.heard(0, 0x55) == 0 and rig.count(0, Counter.FOREIGN) == 5
    hidden = rig.peer("127.0.0.9", ssrc=3)
    assert rig.latched(4, hidden, port)
    rig.say(first, port, 5, code=0x56, ssrc=98)  # now nobody else's
    rig.tick(60)
    assert rig.heard(0, 0x56) == 4 + 1


def test_a_third_party_changes_nothing_and_is_sent_nothing(two):
    rig, port, first, second = two
    third = rig.peer("127.0.0.66", ssrc=1)
    third.sequence = first.sequence
    first.heard(), second.heard()
    before = [rig.count(slot, Counter.PACKETS_IN) for slot in (0, 2)]
    for _ in range(20):
        rig.say(first, port, code=0x11)
        rig.say(second, port, code=0x22)
        rig.say(third, port, code=0x66)
    rig.tick(60)
    assert [rig.count(slot, Counter.PACKETS_IN) for slot in (0, 2)] == [each + 20 for each in before]
    assert rig.heard(0, 0x66) == rig.heard(2, 0x66) == 0
    assert rig.count(0, Counter.FOREIGN) == 20
    assert third.heard() == [] and len(rig.told(SourceChanged)) == 2


def test_packets_of_a_call_that_is_over_do_not_reach_the_next_one(two):
    """As ports rest after use, so do the addresses on a shared one."""
    rig, port, first, _ = two
    rig.obey(ClosePort(slot=0))
    hidden = rig.peer("127.0.0.9", ssrc=3)
    assert rig.call(4, ("192.0.2.1", 4000)) == port
    rig.say(first, port, 5, code=0x77)  # goes on sending
    assert len(rig.told(SourceChanged)) == 2 and rig.heard(4, 0x77) == 0
    assert rig.latched(4, hidden, port)
    first.heard()
    rig.tick(10)
    assert first.heard() == []


def test_the_peer_of_a_call_that_is_over_may_call_again(two):
    rig, port, first, _ = two
    rig.obey(ClosePort(slot=0))
    assert rig.call(4, first.address) == port
    assert rig.latched(4, first, port)


def test_more_unknown_datagrams_than_are_looked_at_are_dropped_and_counted(two):
    rig, port, first, _ = two
    third = rig.peer("127.0.0.66")
    rig.tick()
    for _ in range(3 * MAX_STRAYS):
        third.socket.sendto(b"junk", ("127.0.0.1", port))
    rig.tick(1)
    assert rig.count(0, Counter.FOREIGN) == 3 * MAX_STRAYS
    assert rig.engine._sockets.shared is not None and not rig.engine._sockets.shared.waiting
    assert rig.latched(0, first, port)


def test_an_address_of_ipv6_is_sent_nothing_and_costs_nobody_anything(two):
    rig, port, first, second = two
    rig.connect(0, ("2001:db8::1", 4000))
    second.heard()
    rig.tick(10)
    assert len(second.heard()) == 5
    rig.connect(0, first.address)
    assert rig.latched(0, first, port)


@pytest.mark.parametrize("far", [("192.0.2.1", 70000), ("192.0.2.1", -1), ("1\0", 9), ("255.255.255.255", 9)])
def test_addresses_that_are_none_end_no_engine(rig, far):
    rig.obey(OpenPort(slot=1))
    rig.connect(1, far)
    rig.call(0, rig.peer().address)
    rig.connect(0, far)
    rig.tick(10)
    assert int(rig.rings.rx_head[1]) == int(rig.rings.rx_head[0]) == 5


def test_calls_go_on_in_a_successor(two, memory):
    rig, port, first, second = two
    third = ("192.0.2.1", 4000)
    assert rig.call(4, third) == port  # not latched yet
    rig.close()
    rig.close = lambda: None
    successor = Rig(memory, rig.clock)
    try:
        for peer in (first, second):
            peer.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            peer.socket.setblocking(False)
            peer.socket.bind(peer.address)
            successor.far.append(peer)
        for slot, far, source in ((0, first.address, first), (2, second.address, second), (4, third, None)):
            learned = source.address if source is not None else None
            successor.obey(OpenPort(slot=slot, port=port, resume=True, source=learned))
            assert successor.told(PortOpened)[-1].port == port
            successor.connect(slot, far)
        successor.say(first, port, 4, code=0x18)
        successor.say(second, port, 4, code=0x28)
        successor.tick(60)
        assert successor.heard(0, 0x18) == 4 and successor.heard(2, 0x28) == 4
        assert first.heard() and second.heard()
        assert successor.told(SourceChanged) == []
    finally:
        successor.close()


def test_notices_that_main_did_not_read_are_sent_though_no_call_is_up(rig):
    """500 ports closed at once are more than the socket holds; nothing else may happen on the engine afterwards."""
    for _ in range(500):
        rig.obey(ClosePort(slot=0))
    assert rig.engine._main.waiting
    poll, answered = select.poll(), 0
    poll.register(rig.main, select.POLLIN)

    def main_reads(timeout, attend=rig.engine._attend):
        nonlocal answered
        answered = len(rig.told(object))
        if answered == 501:
            rig.obey(Stop())
        else:
            assert timeout >= 0, "it would sleep"
            attend(0)

    rig.engine._attend = main_reads
    rig.engine.run("other")
    assert answered == 501 and np.all(rig.rings.header[3:5] == 0)


def test_a_call_that_ends_while_a_strangers_packet_waits_ends_no_engine(two):
    rig, port, _, second = two
    rig.peer("127.0.0.66").socket.sendto(b"junk", ("127.0.0.1", port))
    rig.engine._hot.receive_shared(rig.engine._sockets)
    rig.obey(ClosePort(slot=0))
    rig.engine._take_strays()
    assert not rig.engine._sockets.waiting
    rig.say(second, port, 3, code=0x21)
    rig.tick(20)
    assert rig.heard(2, 0x21) == 3
