"""The engine's slots without its process: real sockets on loopback, the test is clock and peer."""

import contextlib
import os
import resource
import socket

import numpy as np
import pytest

from sipagent.media.batch import Stray
from sipagent.media.lines import Lines, signalled_address
from sipagent.media.outgoing import Outgoing
from sipagent.media.protocol import ClosePort, Connect, Digit, Notice, OpenPort, PortClosed, PortOpened, SourceChanged
from sipagent.media.rings import Counter, Header, Rings, create_memory
from sipagent.media.rtp import RtpPacket
from sipagent.media.settings import MediaSettings
from sipagent.media.sockets import CallSockets
from sipagent.media.telephone_event import EventPayload

MS = 1_000_000
BEGIN = 1_000_000_000
NOISE = b"\x11" * 160


class Bench:
    """Slot 0 of a new engine."""

    def __init__(self, memory):
        settings = MediaSettings(host="127.0.0.1", port_min=42420, port_max=42439, capacity=2)
        self.rings = Rings(memory, 2)
        self.sockets = CallSockets("127.0.0.1", 2, self.rings.counters)
        self.notices: list[Notice] = []
        self.lines = Lines(settings, self.rings, self.sockets, None, Outgoing(self.rings), self.notices.append)
        self.now = BEGIN

    def open(self, **options):
        self.lines.open(OpenPort(slot=0, **options), self.now)
        return self.told(PortOpened)[-1].port

    def connect(self, peer, **options):
        host, port = peer.getsockname()
        options = {"payload_type": 0, "telephone_event": 101} | options
        self.lines.connect(Connect(slot=0, host=host, port=port, **options), self.now)

    def stray(self, peer, sequence, ssrc, payload=NOISE, **changes):
        fields = {"payload_type": 0, "sequence": sequence, "timestamp": 160 * sequence, "ssrc": ssrc} | changes
        data = bytes(RtpPacket(payload=payload, **fields))
        self.lines.stray(Stray((0,), data, peer.getsockname(), False), self.now)

    def told(self, kind):
        return [notice for notice in self.notices if isinstance(notice, kind)]

    def count(self, counter):
        self.lines.reception.publish(np.array([0]))
        return int(self.rings.counters[0, counter])

    def sent_to(self, peer):
        """Whether a packet of slot 0 would reach this peer."""
        self.sockets.send(np.array([0]), [memoryview(b"a packet")])
        with contextlib.suppress(TimeoutError, BlockingIOError):
            return peer.recv(99) == b"a packet"
        return False


@pytest.fixture
def memory():
    memory = create_memory(2)
    yield memory
    os.close(memory)


@pytest.fixture
def bench(memory):
    bench = Bench(memory)
    yield bench
    bench.lines.close_all()


@pytest.fixture
def peers():
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) for _ in range(2)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
            each.settimeout(0.2)
        yield sockets


@pytest.fixture
def no_descriptors():
    """A function after which this process can open nothing more."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)

    def exhaust():
        free = os.dup(0)
        os.close(free)
        resource.setrlimit(resource.RLIMIT_NOFILE, (free, before[1]))

    yield exhaust
    resource.setrlimit(resource.RLIMIT_NOFILE, before)


def test_media_moves_to_the_new_address_though_the_old_one_still_speaks(bench, peers):
    old, new = peers
    bench.open()
    bench.connect(old)
    for sequence in (1, 2):
        bench.stray(old, sequence, 7)
    bench.connect(new)
    for sequence in (3, 4, 5):  # in flight
        bench.stray(old, sequence, 7)
    assert bench.told(SourceChanged)[-1].port == old.getsockname()[1]
    for sequence in (900, 901):
        bench.now += 20 * MS
        bench.stray(new, sequence, 8)
    assert bench.told(SourceChanged)[-1].port == new.getsockname()[1]
    assert bench.lines.reception.ssrc[0] == 8
    assert bench.sent_to(new)
    bench.stray(old, 6, 7)
    assert bench.count(Counter.FOREIGN) == 1


def test_a_third_party_that_was_faster_does_not_keep_the_call(bench, peers):
    peer, third = peers
    bench.open()
    bench.connect(peer)
    for sequence in (1, 2):
        bench.stray(third, sequence, 666)
    for sequence in (50, 51):
        bench.stray(peer, sequence, 7)
    assert bench.lines.reception.ssrc[0] == 7 and bench.sent_to(peer)


def test_a_binding_of_the_nat_that_changed_during_hold_is_found(bench, peers):
    before, after = peers
    bench.open()
    bench.connect(before)
    for sequence in (1, 2):
        bench.stray(before, sequence, 7)
    bench.connect(before, send=False, receive=False)
    bench.connect(before)
    bench.now += 1000 * MS
    for sequence in (3, 4):
        bench.stray(after, sequence, 7)
    assert bench.sent_to(after)


def test_a_call_goes_on_when_descriptors_have_run_out(bench, peers, no_descriptors, capfd):
    peer, _ = peers
    bench.open()
    bench.connect(peer)
    no_descriptors()
    for sequence in (1, 2, 3):
        bench.stray(peer, sequence, 7)
    assert bench.count(Counter.PACKETS_IN) == 3
    assert bench.sent_to(peer)
    assert bench.count(Counter.UNLATCHED) == 1
    assert "Too many open files" in capfd.readouterr().err
    bench.lines.close(ClosePort(slot=0), bench.now)


def test_losses_before_the_engine_died_stay_in_the_figures(bench, memory, peers):
    peer, _ = peers
    port = bench.open()
    bench.connect(peer)
    for sequence in (1, 2, 6):
        bench.stray(peer, sequence, 7)
    assert bench.count(Counter.LOST) == 3
    bench.lines.close_all()
    successor = Bench(memory)
    successor.open(port=port, resume=True, source=peer.getsockname())
    successor.connect(peer)
    for sequence in (20, 22):
        successor.stray(peer, sequence, 7)
    assert successor.count(Counter.LOST) == 4
    successor.lines.close_all()


def test_ports_that_could_not_be_bound_are_counted_on_by_a_successor(bench, memory):
    bench.rings.header[Header.BIND_FAILURES] = 5
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as squatter:
        first = bench.lines._ports._next * 2 + 42420
        squatter.bind(("127.0.0.1", first))
        assert bench.open() != first
    assert bench.rings.header[Header.BIND_FAILURES] == 6


def test_closing_a_slot_this_engine_never_played_removes_its_audio(bench):
    bench.rings.rx_pcm[0] = bench.rings.tx_pcm[0] = bench.rings.tx_pcm[1] = 7
    bench.lines.close(ClosePort(slot=0), bench.now)
    bench.lines.close(ClosePort(slot=2), bench.now)  # there is none
    assert not bench.rings.rx_pcm[0].any() and not bench.rings.tx_pcm[0].any()
    assert bench.rings.tx_pcm[1].all()
    assert [notice.slot for notice in bench.told(PortClosed)] == [0, 2]


def test_a_flood_of_digits_is_cut_off(bench, peers):
    peer, _ = peers
    bench.open()
    bench.connect(peer)
    pressed = bytes(EventPayload(5, True, 10, 800))
    for number in range(475):  # as many as get through in a second
        bench.now += 2 * MS
        bench.stray(peer, number, 7, pressed, payload_type=101, timestamp=160 * number)
    assert len(bench.told(Digit)) == bench.count(Counter.DIGITS_IN) == 20
    assert bench.count(Counter.MALFORMED) == 455


@pytest.mark.parametrize(
    ("host", "address"),
    [("2001:DB8:0::01", ("2001:db8::1", 4000)), ("192.0.2.1", ("192.0.2.1", 4000)), ("a.name.test", None)],
)
def test_addresses_are_written_as_the_kernel_does(host, address):
    assert signalled_address(host, 4000) == address
