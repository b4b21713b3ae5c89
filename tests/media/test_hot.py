"""The hot path does what the general path does, sooner: the same packets through both leave the same behind."""

import os
import random
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pytest

from sipagent.media.batch import Batch, Stray
from sipagent.media.g711 import decode
from sipagent.media.hot import HotPath
from sipagent.media.lines import Lines
from sipagent.media.outgoing import Outgoing
from sipagent.media.protocol import ClosePort, Connect, Crypto, OpenPort
from sipagent.media.rings import Counter, Rings, create_memory
from sipagent.media.rtp import RtpPacket
from sipagent.media.settings import MediaSettings
from sipagent.media.sockets import CallSockets

MS = 1_000_000
SLOTS = 4
FAR = ("192.0.2.1", 4000)


class NoSockets(CallSockets):
    """Sends nowhere; what is received the test puts into batches."""

    def __init__(self):
        pass

    def __getattribute__(self, name):
        return lambda *_, **__: True


class World:
    """An engine's arrays without its sockets and its clock."""

    def __init__(self, memory, *, general=False, crypto=None):
        settings = MediaSettings(host="127.0.0.1", port_min=42440, port_max=42459, capacity=SLOTS, playout_max_ms=200)
        self.rings = Rings(memory, SLOTS)
        self.outgoing = Outgoing(self.rings)
        self.lines = Lines(settings, self.rings, NoSockets(), None, self.outgoing, lambda notice: None)
        lines = self.lines
        state = (self.rings, lines.expected, lines.reception, lines.narrow, self.outgoing, lines.heard_ns)
        self.hot = HotPath(*state, lines.mixing)
        self.general = general
        self.taken = 0
        for slot in range(SLOTS):
            lines.open(OpenPort(slot=slot), 0)
            codec = 8 * (slot % 2)
            lines.connect(
                Connect(slot=slot, host=FAR[0], port=FAR[1], payload_type=codec, telephone_event=101, crypto=crypto), 0
            )
            lines._lines[slot].source.learned = FAR

    def receive(self, packets, now, *, repeats=True):
        """(slot, datagram, when it came) in the order they are read."""
        batch = Batch(64)
        batch.repeats, batch.count = repeats, len(packets)
        for row, (slot, data, stamp) in enumerate(packets):
            batch.rows[row, : len(data)] = np.frombuffer(data, np.uint8)
            batch.slots[row], batch.lengths[row], batch.stamps[row] = slot, len(data), stamp
        if self.general:
            for slot in range(SLOTS):
                self.lines.expected.nothing(slot)
        rows = self.hot.ingest(batch)
        self.taken += batch.count - len(rows)
        for row in rows:
            data = batch.rows[row, : batch.lengths[row]].tobytes()
            self.lines.odd(int(batch.slots[row]), data, int(batch.stamps[row]))

    def play(self, slots, now):
        self.outgoing.left[slots] = -1
        if self.general:
            self.hot.deliver(slots, *self.lines.narrow.play(slots, now))
        else:
            self.hot.play(slots, now)

    def left(self):
        """All that the packets have left behind; but `hot_out`, which a packet may set a frame sooner than the next
        frame does."""
        lines, buffer, reception = self.lines, self.lines.narrow, self.lines.reception
        names = ("rx_head", "rx_pcm", "rx_flags", "rx_level", "rx_beside", "rx_arrival", "counters")
        return {
            **{name: getattr(self.rings, name) for name in names},
            **{f"buffer.{name}": getattr(buffer, name) for name in ("position", "solid", "end", "arrived")},
            **{f"buffer.{name}": getattr(buffer, name) for name in ("pcm", "hot_in")},
            **{f"reception.{name}": getattr(reception, name) for name in ("highest", "received", "seen", "ssrc")},
            "heard_ns": lines.heard_ns,
        }


@pytest.fixture
def worlds() -> Iterator[list[World]]:
    memories = [create_memory(SLOTS) for _ in range(2)]
    yield [World(memories[0]), World(memories[1], general=True)]
    for memory in memories:
        os.close(memory)


@pytest.fixture
def world(worlds):
    return worlds[0]


@dataclass
class Sender:
    """One peer that sends noise, as the random script will have it."""

    slot: int
    rng: random.Random
    ptime: int = 20
    sequence: int = 65_500
    timestamp: int = 0xFFFFF000
    next_ms: int = 0
    marker: bool = True

    def due(self, now_ms):
        while self.next_ms <= now_ms:
            if self.rng.random() < 0.02:
                self.ptime = self.rng.choice((10, 20, 20, 30, 40, 60))
            if self.rng.random() < 0.01:  # a pause
                pause = self.rng.randrange(20, 400, 20)
                self.next_ms += pause
                self.timestamp += 8 * pause
                self.marker = True
            yield self.packet(8 * self.ptime)
            self.next_ms += self.ptime

    def packet(self, samples):
        payload = self.rng.randbytes(samples)
        data = bytes(
            RtpPacket(
                payload_type=8 * (self.slot % 2),
                sequence=self.sequence & 0xFFFF,
                timestamp=self.timestamp & 0xFFFFFFFF,
                ssrc=1000 + self.slot,
                payload=payload,
                marker=self.marker,
            )
        )
        self.marker = False
        self.sequence += 1
        self.timestamp += samples
        return data


def script(seed, seconds, trouble):
    """For each tick of 10 ms the packets that came in it: (slot, datagram, when)."""
    rng = random.Random(seed)
    senders = [Sender(slot, rng) for slot in range(SLOTS)]
    flying: list[tuple[float, int, bytes]] = []
    for tick in range(100 * seconds):
        for sender in senders:
            for data in sender.due(10 * tick):
                delay = rng.random() * 4
                if rng.random() < trouble:
                    delay += rng.random() * 120
                copies = rng.choices((1, 0, 2), (1, trouble, trouble))[0]
                flying += [(10 * tick + delay + 3 * copy, sender.slot, data) for copy in range(copies)]
        flying.sort(key=lambda each: each[0])
        come = [each for each in flying if each[0] < 10 * tick + 10]
        flying = flying[len(come) :]
        yield [(slot, data, 1_000 * MS + int(at * MS)) for at, slot, data in come]


def passes(packets):
    """Batches as sockets of their own make them: one packet of a slot in each."""
    while packets:
        slots = [slot for slot, _, _ in packets]
        first = [slots.index(slot) == row for row, slot in enumerate(slots)]
        yield [each for each, taken in zip(packets, first, strict=True) if taken]
        packets = [each for each, taken in zip(packets, first, strict=True) if not taken]


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("trouble", [0.0, 0.02, 0.15])
@pytest.mark.parametrize("repeats", [False, True])
def test_both_paths_leave_the_same_behind(worlds, seed, trouble, repeats):
    for tick, packets in enumerate(script(seed, 5, trouble)):
        now = 1_000 * MS + (tick + 1) * 10 * MS
        phase = np.arange(tick % 2, SLOTS, 2)
        for world in worlds:
            for batch in [packets] if repeats else passes(packets):
                world.receive(batch, now, repeats=repeats)
            world.play(phase, now)
            if tick % 10 == 9:
                world.lines.watch(now)
        if tick % 20 == 0:
            found = [world.left() for world in worlds]
            if repeats:  # those in order are taken first: not reordered then, and not the last ones heard
                for each in found:
                    each["counters"] = np.delete(each["counters"], Counter.REORDERED, axis=1)
                    del each["heard_ns"]
            different = [name for name in found[0] if not np.array_equal(found[0][name], found[1][name])]
            assert not different, f"after tick {tick}"
    hot, general = worlds
    assert general.taken == 0
    received = int(hot.rings.counters[:, Counter.PACKETS_IN].sum())
    print(f"{hot.taken} of {received} packets by the hot path")
    assert hot.taken > (0.8 if trouble < 0.1 else 0.3) * received


def packet(sequence, samples=160, **changes):
    fields = {"payload_type": 0, "timestamp": 160 * sequence & 0xFFFFFFFF, "ssrc": 7} | changes
    return bytes(RtpPacket(payload=bytes(range(80)) * (samples // 80), sequence=sequence & 0xFFFF, **fields))


def begin(world, slot=0, count=3, **changes):
    """A stream that runs; returns the sequence number that follows."""
    for sequence in range(1, count + 1):
        now = (1_000 + 20 * sequence) * MS
        world.receive([(slot, packet(sequence, **changes), now)], now)
        world.play(np.array([slot]), now + 10 * MS)
    assert world.lines.narrow.hot_in[slot]
    return count + 1


def test_several_packets_of_a_call_in_one_batch_are_all_taken_and_in_order(world):
    following = begin(world)
    taken, now = world.taken, 1_100 * MS
    world.receive([(0, packet(following + n), now) for n in range(5)], now)
    assert world.taken - taken == 5
    assert world.rings.counters[0, Counter.REORDERED] == 0
    end = int(world.lines.narrow.end[0])
    last = world.lines.narrow.pcm[0, np.arange(end - 160, end) % world.lines.narrow.ring]
    assert (last == decode(0, np.frombuffer(packet(0)[12:], np.uint8))).all()


@pytest.mark.parametrize(
    "changes",
    [
        {"ssrc": 8},
        {"payload_type": 8},
        {"payload_type": 101},
        {"timestamp": 1},
        {"samples": 88},
        {"samples": 8},
    ],
)
def test_what_is_not_as_expected_is_left(world, changes):
    following = begin(world)
    taken, now = world.taken, 1_100 * MS
    changes = dict(changes)
    samples = changes.pop("samples", 160)
    data = packet(following, **changes)[: 12 + samples]
    world.receive([(0, data, now)], now)
    assert world.taken == taken


@pytest.mark.parametrize("first", [0x90, 0xB0, 0x81, 0x40, 0x00])
def test_headers_that_need_a_look_are_left(world, first):
    """Extension, padding, CSRC list and other versions."""
    following = begin(world)
    taken, now = world.taken, 1_100 * MS
    data = bytes((first,)) + packet(following)[1:]
    world.receive([(0, data, now)], now)
    assert world.taken == taken


def test_a_marker_alone_is_taken(world):
    following = begin(world)
    taken, now = world.taken, 1_100 * MS
    world.receive([(0, packet(following, marker=True), now)], now)
    assert world.taken == taken + 1


@pytest.mark.parametrize("header", [b"\0\0", b"\0\x80", b"\x80\0", b"\x80\x80"])
def test_nothing_passes_an_encrypted_call_by(header, worlds):
    """Plain audio made up by a third party that sees the sequence numbers is not heard, whatever its header."""
    world = worlds[0]
    following = begin(world)
    end = int(world.lines.narrow.end[0])
    crypto = Crypto(suite="AES_CM_128_HMAC_SHA1_80", local_key=bytes(30), remote_key=bytes(30))
    connect = Connect(slot=0, host=FAR[0], port=FAR[1], payload_type=0, telephone_event=101, crypto=crypto)
    world.lines.connect(connect, 1_100 * MS)
    for ssrc in (0, 7):
        for timestamp in (0, 160 * following, int(world.lines.expected.timestamp[0])):
            forged = header + packet(following, ssrc=ssrc, timestamp=timestamp)[2:]
            world.receive([(0, forged, 1_100 * MS)], 1_100 * MS)
    assert int(world.lines.narrow.end[0]) == end
    assert world.rings.counters[0, Counter.SRTP_REFUSED] == 6


def test_a_closed_slot_takes_nothing(world):
    following = begin(world)
    world.lines.close(ClosePort(slot=0), 1_100 * MS)
    assert world.hot.ingest(batch_of(0, packet(following))) == [0]


def batch_of(slot, data):
    batch = Batch(1)
    batch.count, batch.slots[0], batch.lengths[0], batch.stamps[0] = 1, slot, len(data), 1
    batch.rows[0, : len(data)] = np.frombuffer(data, np.uint8)
    return batch


def test_a_stray_is_no_part_of_the_stream(world):
    following = begin(world)
    world.lines.stray(Stray((0,), packet(following), ("203.0.113.9", 9), False), 1_070 * MS)
    assert world.rings.counters[0, Counter.FOREIGN] == 1
