"""The compiled hot path does to the same input exactly what the one in numpy does."""

import contextlib
import os
import random
import socket

import numpy as np
import pytest

from sipagent.media import native, watch
from sipagent.media.batch import Batch
from sipagent.media.g711 import ULAW_TO_LINEAR
from sipagent.media.hot import Expected, HotPath
from sipagent.media.jitter import JitterBuffer
from sipagent.media.looks import EVERY_NS, Looks
from sipagent.media.mixing import Mixing
from sipagent.media.outgoing import Outgoing
from sipagent.media.protocol import Hear
from sipagent.media.reception import Reception
from sipagent.media.rings import Counter, Rings, create_memory
from sipagent.media.rtp import RtpPacket
from sipagent.media.shared import SharedPorts
from sipagent.media.sockets import CallSockets

SLOTS = 6
AT_ONCE = 64  # datagrams that one system call takes
BUFFER = ("pcm", "arrived", "position", "solid", "end")
RINGS = (
    *("counters", "rx_head", "rx_pcm", "rx_flags", "rx_level", "rx_beside", "rx_arrival"),
    *("tx_tail", "tx_sent", "tx_sequence", "tx_timestamp"),
)


@pytest.fixture(scope="module")
def library():
    library = native.load()
    if library is None:
        pytest.fail("sipagent/media/_native.so is missing or old: apt-get install gcc libc6-dev, then pip install -e .")
    return library


class Twin:
    """One engine's arrays with a stream up on every slot."""

    def __init__(self, memory, make):
        self.rings = Rings(memory, SLOTS)
        self.expected, self.outgoing = Expected(SLOTS), Outgoing(self.rings)
        self.reception = Reception(SLOTS, self.rings.counters)
        self.buffer = JitterBuffer(SLOTS, 8000, 20, 200, self.rings.counters)
        self.heard_ns = np.zeros(SLOTS, np.int64)
        self.mixing = Mixing(self.rings, self.outgoing)
        state = (self.rings, self.expected, self.reception, self.buffer, self.outgoing, self.heard_ns, self.mixing)
        self.path = make(*state)
        self.told: list[object] = []
        buffers, limit_s = (self.buffer, JitterBuffer(SLOTS, 16000, 20, 200, self.rings.counters)), 1.5
        self.looks = Looks(
            self.rings, self.reception, *buffers, self.outgoing, self.heard_ns, limit_s, self.told.append
        )
        if isinstance(self.path, native.NativePath):
            self.path.look_for(self.looks)
        for slot in range(SLOTS):
            self.rings.reset(slot)
            self.rings.tx_ssrc[slot], self.rings.tx_sequence[slot] = 900 + slot, 65530
            self.rings.tx_timestamp[slot] = 0xFFFFFF00 + slot
            self.outgoing.configure(slot, 8 * (slot % 2), slot != 5)  # A-law on odd slots, the last one only listens
            self.reception.reset(slot)
            self.reception.start(slot, 77 + slot, 65500)

    def general(self, slot, data, stamp):
        """What the engine does with a packet that is not as expected."""
        packet = RtpPacket.parse(data)
        accepted = self.reception.accept(slot, packet.sequence)
        if accepted.fresh:
            pcm = ULAW_TO_LINEAR[np.frombuffer(packet.payload, np.uint8)]
            self.buffer.insert(slot, packet.timestamp, pcm, accepted.contiguous, stamp)
        self.expected.packet(slot, packet.payload_type, packet.ssrc, self.buffer.timestamp_at_end(slot))

    def take(self, batch):
        for row in self.path.ingest(batch):
            data = batch.rows[row, : batch.lengths[row]].tobytes()
            self.general(int(batch.slots[row]), data, int(batch.stamps[row]))

    def change_modes(self, tick, modes):
        """Now and then main wants some slots ducked or held."""
        if tick % 7 == 0:
            self.rings.tx_mode[:] = modes if tick // 70 % 2 else 0

    def say(self, slots, is_wide):
        if isinstance(self.path, native.NativePath):
            self.path._library.hot_say(self.path._pointer, self.path._mix_at, slots.ctypes.data, len(slots))
        else:
            self.mixing.say(slots, is_wide)

    def send(self, slots, sending, now):
        """The packets that would leave."""
        if isinstance(self.path, native.NativePath):
            marked = self.path._library.hot_prepare(self.path._pointer, slots.ctypes.data, len(slots), now)
            self.outgoing.some_marked |= bool(marked)
        else:
            self.outgoing.prepare(slots, sending, now)
        packets = self.outgoing.packets[sending].copy()
        self.outgoing.sent(sending)
        return packets


@pytest.fixture
def twins(library):
    with contextlib.ExitStack() as stack:
        memories = [create_memory(SLOTS) for _ in range(2)]
        for memory in memories:
            stack.callback(os.close, memory)
        yield Twin(memories[0], HotPath), Twin(memories[1], lambda *state: native.NativePath(library, *state))


def equal(one, other, stamps=True):
    for owner, names in (("buffer", BUFFER), ("rings", RINGS), ("reception", ("highest", "received", "seen"))):
        for name in names:
            a, b = getattr(getattr(one, owner), name), getattr(getattr(other, owner), name)
            if name == "arrived" and not stamps:
                continue
            if name == "rx_level":  # float32 may round the other way
                assert np.abs(a.astype(int) - b.astype(int)).max() <= 1
            else:
                assert np.array_equal(a, b), name
    assert np.array_equal(one.expected.timestamp, other.expected.timestamp)
    assert not stamps or np.array_equal(one.heard_ns, other.heard_ns)
    assert np.array_equal(one.outgoing.left, other.outgoing.left)
    assert np.array_equal(one.outgoing.mode, other.outgoing.mode)
    assert np.array_equal(one.rings.mix_pcm, other.rings.mix_pcm)


def traffic(choose, noise, vary):
    """Datagrams for every slot, tick by tick: a count, the time and the batch."""
    sequence, timestamp = [65500] * SLOTS, [0xFFFFF000 + 80 * slot for slot in range(SLOTS)]
    now = 10**9
    for tick in range(400):
        now += 20_000_000
        batch = Batch(64)
        batch.repeats = True
        for slot in range(SLOTS):
            # Sizes of 10 to 60 ms, so that writes wrap anywhere; now and then losses, doubles, odd sizes, other types.
            size = choose.choice((80, 160, 160, 160, 240, 320, 480)) if vary else 160
            fate = choose.random()
            data = bytes(
                RtpPacket(
                    payload_type=8 * (slot % 2) if fate > 0.02 else 13,
                    sequence=sequence[slot] & 0xFFFF,
                    timestamp=timestamp[slot] & 0xFFFFFFFF,
                    ssrc=77 + slot,
                    payload=noise.integers(0, 256, size, np.uint8).tobytes()[: size - (fate < 0.01)],
                    marker=choose.random() < 0.1,
                )
            )
            if tick * 160 >= timestamp[slot] - 0xFFFFF000:
                sequence[slot] += 1
                timestamp[slot] += size
                for _ in range(0 if 0.02 < fate < 0.05 else 2 if fate > 0.97 else 1):
                    row = batch.count
                    batch.rows[row, : len(data)] = np.frombuffer(data, np.uint8)
                    batch.slots[row], batch.lengths[row] = slot, len(data)
                    batch.stamps[row] = now - choose.randrange(5_000_000)
                    batch.count += 1
        yield tick, now, batch


@pytest.mark.parametrize("seed", range(6))
def test_both_paths_do_the_same(twins, seed):
    noise = np.random.default_rng(seed)
    for tick, now, batch in traffic(random.Random(seed), noise, seed % 2):
        slots = np.arange(SLOTS)
        sending = slots[twins[0].outgoing.sending[slots]]
        speech = noise.integers(-32768, 32768, (SLOTS, 160), np.int16)
        speaks = noise.random(SLOTS) < (0.9 if tick // 40 % 2 else 0.05)
        modes = noise.integers(0, 3, SLOTS) * (noise.random(SLOTS) < 0.5)
        packets = []
        for twin in twins:
            twin.take(batch)
            twin.change_modes(tick, modes)
            for slot in slots[speaks]:
                twin.rings.tx_pcm[slot, twin.rings.tx_head[slot] % 1024] = speech[slot]
                twin.rings.tx_head[slot] += 1
            packets.append(twin.send(slots, sending, now))
            twin.path.play(slots, now)
            if tick % 10 == 0:
                twin.buffer.adapt(slots, now, np.full(SLOTS, now))
        assert np.array_equal(*packets)
        if tick % 20 == 0:
            equal(*twins)
        if tick % 50 == 49:
            levels = [twin.path.levels(slot) for twin in twins for slot in range(SLOTS)]
            for one, other in zip(levels[:SLOTS], levels[SLOTS:], strict=True):
                assert one == pytest.approx(other, abs=0.5)
    assert twins[1].rings.counters[:, Counter.PACKETS_IN].min() > 100, "the paths had something to do"


@pytest.fixture
def hasty(monkeypatch):
    """Troubles are seen sooner, so that a test of seconds has some."""
    for name, seconds in (("AFTER", 0.9), ("HEARD_AFTER", 0.5), ("ENDS", 0.5), ("HEARS", 2), ("PAUSE", 1)):
        monkeypatch.setattr(watch, f"{name}_NS", int(seconds * 1e9))


@pytest.mark.parametrize("seed", range(4))
def test_both_look_at_the_lines_alike(hasty, twins, seed):
    choose, noise = random.Random(seed), np.random.default_rng(seed)
    slots, left, muted = np.arange(SLOTS), 0, set[int]()
    for tick, now, batch in traffic(choose, noise, seed % 2):
        if tick % 60 == 0:  # some send nothing for a while, some silence, some announce it, some are on hold
            gone = set(choose.sample(range(SLOTS), 2))
            muted = set(choose.sample(range(SLOTS), 3)) if tick % 120 == 0 else muted
            pausing, receiving = noise.random(SLOTS) < 0.3, noise.random(SLOTS) < 0.8
            for twin in twins:
                twin.looks.pausing[:], twin.looks.receiving[:] = pausing, receiving
        if tick % 50 == 25:
            for slot in slots.tolist():
                highest = tick if choose.random() < 0.6 else 7
                for twin in twins:
                    twin.looks.troubles.reported(slot, highest, now)
        keep = [row for row in range(batch.count) if int(batch.slots[row]) not in gone]
        for field in (batch.rows, batch.slots, batch.lengths, batch.stamps):
            field[: len(keep)] = field[keep]
        batch.count = len(keep)
        for row in range(batch.count):
            if int(batch.slots[row]) in muted:
                batch.rows[row, 12:] = 0xD5 if int(batch.slots[row]) % 2 else 0xFF
        sending = slots[twins[0].outgoing.sending[slots]]
        due = now >= twins[1].looks.due_ns
        for twin in twins:
            twin.take(batch)
            twin.send(slots, sending, now)
            twin.path.play(slots, now)
            twin.rings.ticked_ns[:] = now
            twin.looks.watch(slots, now)
        assert twins[0].told == twins[1].told
        if not due:
            continue
        equal(*twins)
        left += len(twins[1].path.left_of_looks())
        one, other = (twin.looks.looked_at() for twin in twins)
        for name in one:
            assert np.allclose(one[name], other[name], rtol=1e-4, atol=1e-4 if name == "histogram" else 1), name
    kinds = {getattr(notice, "kind", "packets") for notice in twins[0].told}
    assert kinds == {"packets", "no_media", "silent", "not_heard", "one_way"}, "there was something to tell"
    assert 0 < left < 400 * 20_000_000 // EVERY_NS * SLOTS, "some looks were completed in C, and some were not"


class Wire:
    """Keeps what is sent, as sockets that have not learned where the peer is."""

    def __init__(self):
        self.fds, self.shared = np.full(SLOTS, -1, np.int64), None
        self.sent = {}

    def send(self, slots, packets):
        self.sent |= {slot: bytes(packets[slot]) for slot in slots.tolist()}


@pytest.mark.parametrize("seed", range(6))
def test_both_paths_let_lines_hear_each_other_alike(twins, seed):
    choose, noise = random.Random(seed), np.random.default_rng(seed)
    slots, no = np.arange(SLOTS), np.zeros(SLOTS, np.bool_)
    loud = 0
    for tick, now, batch in traffic(choose, noise, seed % 2):
        if tick % 25 == 0:
            hear = [
                Hear(
                    slot=slot,
                    others=tuple(choose.sample(range(SLOTS), choose.randrange(4))),
                    said=tuple(choose.sample(range(SLOTS), choose.randrange(3))),
                    own=choose.random() < 0.7,
                )
                for slot in choose.sample(range(SLOTS), 3)
            ]
        speech = noise.integers(-32768, 32768, (SLOTS, 160), np.int16)
        speaks = noise.random(SLOTS) < (0.7 if tick // 40 % 2 else 0.05)
        modes = noise.integers(0, 3, SLOTS) * (noise.random(SLOTS) < 0.5)
        sent = []
        for twin in twins:
            if tick % 25 == 0:
                for command in hear:
                    twin.mixing.hear(command, range(SLOTS))
                    twin.mixing.muting[command.slot] = tick % 2 == 0
            twin.take(batch)
            twin.change_modes(tick, modes)
            for slot in slots[speaks]:
                if twin.rings.tx_head[slot] - twin.rings.tx_tail[slot] < 1000:
                    twin.rings.tx_pcm[slot, twin.rings.tx_head[slot] % 1024] = speech[slot]
                    twin.rings.tx_head[slot] += 1
            sent.append(Wire())
            twin.mixing.settle()
            join = twin.mixing.join(slots, no, no, twin.outgoing.sending, no)
            if join is not None:
                assert join.simple
                twin.say(join.saying, no)
                twin.path.converse(join, sent[-1], now)
            if tick % 10 == 0:
                twin.buffer.adapt(slots, now, np.full(len(slots), now))
        assert sent[0].sent == sent[1].sent
        loud += any(set(packet[12:]) - {0xFF, 0xD5} for packet in sent[0].sent.values())
        for name in ("taken", "count", "told", "silent", "pressed", "voiced", "narrow"):
            assert np.array_equal(getattr(twins[0].mixing, name), getattr(twins[1].mixing, name)), name
        if tick % 20 == 0:
            equal(*twins)
    assert loud > 100, "they had something to hear"


def test_an_old_library_is_not_used(tmp_path, monkeypatch, library):
    monkeypatch.setattr(native, "LIBRARY", tmp_path / "none.so")
    assert native.load() is None
    monkeypatch.undo()
    monkeypatch.setattr(native, "_LAYOUT", 99)
    assert native.load() is None


def test_shared_ports_are_read_and_written_alike(twins):
    """Two calls on a port, a stranger, and packets that are not as expected, through real sockets."""
    with contextlib.ExitStack() as stack:

        def bound():
            sock = stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
            sock.bind(("127.0.0.1", 0))
            sock.settimeout(2)
            return sock

        peers = [bound() for _ in range(3)]
        found = []
        for number, twin in enumerate(twins):
            first = 42560 + 4 * number
            counters = twin.rings.counters
            shared = SharedPorts("127.0.0.1", range(first, first + 2, 2), twin.outgoing.packets, counters)
            for sock in [*shared._sockets.values(), *shared._controls.values()]:
                stack.callback(sock.close)
            sockets = CallSockets("127.0.0.1", SLOTS, counters, shared)
            for slot in (0, 2):
                sockets.share(slot, first)
                assert sockets.latch(slot, peers[slot // 2].getsockname())
            for turn in range(3 * AT_ONCE):
                for peer, ssrc in zip(peers, (77, 79, 5), strict=True):
                    packet = RtpPacket(
                        payload_type=13 if turn == 7 else 0,
                        sequence=65500 + turn & 0xFFFF,
                        timestamp=160 * turn,
                        ssrc=ssrc,
                        payload=bytes([turn % 200]) * 160,
                    )
                    peer.sendto(bytes(packet), ("127.0.0.1", first))
                if turn % 50 == 49 or turn == 3 * AT_ONCE - 1:
                    batch, rows = twin.path.receive_shared(sockets)
                    kept = [(int(batch.slots[row]), batch.rows[row, : batch.lengths[row]].tobytes()) for row in rows]
                    for slot, data in kept:
                        twin.general(slot, data, 1)
                    found.append((number, kept, [(stray.slots, stray.sender) for stray in sockets.strays()]))
            assert twin.path.receive_shared(sockets) is None
            slots = np.array([0, 2, 4])
            twin.path.send(slots, slots, sockets, 10**9)
            received = [peer.recv(999)[12:] for peer in peers[:2]]
            assert [len(codes) for codes in received] == [160, 160]
        assert [each[1:] for each in found if each[0] == 0] == [each[1:] for each in found if each[0] == 1]
        assert sum(len(kept) for _, kept, _ in found) >= 4
        assert {sender for _, _, strays in found for _, sender in strays} == {peers[2].getsockname()}
    equal(twins[0], twins[1], stamps=False)
    assert twins[1].rings.counters[0, Counter.FOREIGN] == twins[0].rings.counters[0, Counter.FOREIGN]
