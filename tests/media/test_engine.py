"""The real process, real sockets. Packets are mostly sent in bursts, so that no assertion depends on a quiet machine:
a packet's place is its timestamp, whenever within the playout delay it comes."""

import asyncio
import os
import random
import signal
import socket
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sipagent.core.errors import CapacityError, SetupError
from sipagent.core.events import ProcessEnded
from sipagent.media.batch import Stray
from sipagent.media.client import FLAG_CONCEALED, FLAG_DIGIT, FLAG_SILENCE, MediaClient
from sipagent.media.engine import Engine
from sipagent.media.port import KEPT
from sipagent.media.protocol import Connect, OpenPort
from sipagent.media.rings import TX_FRAMES, Counter, create_memory
from sipagent.media.rtp import PCMA, RtpPacket
from sipagent.media.settings import MediaSettings

from .peer import Events, Listener, Peer, codes, pcm_of

SETTINGS: dict[str, Any] = {
    "host": "127.0.0.1",
    "port_min": 42000,
    "port_max": 42399,
    "capacity": 8,
    "playout_min_ms": 200,
    "playout_max_ms": 200,
    "realtime": False,  # tests must not take a core from the rest of the machine
}


class Rig:
    def __init__(self, **changes):
        self.events = Events()
        self.client = MediaClient(MediaSettings(**(SETTINGS | changes)), self.events)
        self.peers: list[Peer] = []

    async def call(self, payload_type=0, host="127.0.0.1", **connect):
        peer = self.peer(payload_type=payload_type, host=host)
        port = await self.client.open(ipv6=":" in host)
        listener = Listener(port)
        peer.target = (port.host, port.port)
        port.connect(peer.host, peer.port, payload_type, 101, **connect)
        await listener.until(lambda: bool(listener.batches))  # the engine drops what came before it was connected
        return port, peer, listener

    def peer(self, **options):
        self.peers.append(Peer(**options))
        return self.peers[-1]

    async def __aenter__(self):
        await self.client.start()
        return self

    async def __aexit__(self, *_):
        await self.client.close()
        for peer in self.peers:
            peer.close()


@pytest.fixture
async def rig():
    async with Rig() as rig:
        yield rig


async def eventually(condition, limit_s=20.0):
    async with asyncio.timeout(limit_s):
        while not condition():
            await asyncio.sleep(0.005)


def gone(pid):
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return True
    return state == "Z"


def cpu_seconds(pid):
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


# --- audio ----------------------------------------------------------------------------------------------------


async def test_a_call_over_ipv6_beside_one_over_ipv4():
    """Its source is learned, strangers are not heard, and the other call hears nothing of it; its port goes on in a new
    engine."""
    async with Rig(host6="::1") as rig:
        (four, near, _), (six, far, listener) = await rig.call(), await rig.call(host="::1")
        assert (four.ipv6, six.ipv6) == (False, True)
        payloads = codes(20)
        await far.paced([far.packet(payload, skip=True) for payload in payloads])
        await listener.until(lambda: len(listener.heard()) >= 20)
        assert (listener.audio() == pcm_of(payloads, 0)).all() and listener.sources == [("::1", far.port)]
        stranger = rig.peer(host="::1")
        stranger.target = far.target
        for _ in range(6):
            stranger.packet(b"\x00" * 160)
        await eventually(lambda: six.figures().foreign == 6)
        six.write(pcm_of(codes(5, seed=3), 0))
        await eventually(lambda: len(far.received) > 30 and len(near.received) > 30)
        assert four.figures().packets_in == 0
        seen = len(far.received)
        os.kill(rig.client.pid, signal.SIGKILL)
        await eventually(lambda: len(far.received) > seen + 20)


async def test_no_ipv6_where_there_is_none(rig):
    with pytest.raises(SetupError, match="host6"):
        await rig.client.open(ipv6=True)


@pytest.mark.parametrize("payload_type", [0, PCMA])
async def test_audio_both_ways_sample_by_sample(rig, payload_type):
    port, peer, listener = await rig.call(payload_type)
    payloads = codes(20)
    await peer.paced([peer.packet(payload, skip=True) for payload in payloads])
    spoken = pcm_of(codes(30, seed=8), payload_type)
    assert port.write(spoken) == len(spoken) == 4800
    await listener.until(lambda: len(listener.heard()) >= 20)
    assert listener.heard() == [0] * 20
    assert (listener.audio() == pcm_of(payloads, payload_type)).all()
    await eventually(lambda: port.played == port.written == 30)
    await eventually(lambda: len(peer.received) > 32)
    assert pcm_of([peer.payloads()], payload_type).tobytes().find(spoken.tobytes()) >= 0
    assert (port.figures().packets_in, port.figures().lost, port.figures().concealed_ms) == (20, 0, 0)


@pytest.mark.parametrize("ptime", [10, 30, 40, 60])
async def test_any_packet_time(rig, ptime):
    _, peer, listener = await rig.call()
    stream = b"".join(codes(18))
    starts = range(0, len(stream), 8 * ptime)
    await peer.paced([peer.packet(stream[start : start + 8 * ptime], skip=True) for start in starts], ptime)
    await listener.until(lambda: len(listener.heard()) >= 18)
    assert listener.heard() == [0] * 18
    assert (listener.audio() == pcm_of([stream])).all()


async def test_outgoing_stream_is_unbroken_and_paced(rig):
    port, peer, _ = await rig.call()
    await eventually(lambda: len(peer.received) >= 10)
    port.write(pcm_of(codes(10)))
    await eventually(lambda: len(peer.received) >= 60)
    packets = peer.received
    assert [p.sequence - packets[0].sequence & 0xFFFF for p in packets] == list(range(len(packets)))
    assert [p.timestamp - packets[0].timestamp & 0xFFFFFFFF for p in packets] == [160 * n for n in range(len(packets))]
    assert {p.ssrc for p in packets} == {packets[0].ssrc}
    markers = [n for n, p in enumerate(packets) if p.marker]
    assert len(markers) == 2 and markers[0] == 0
    assert packets[markers[1]].payload == codes(10)[0]
    deviation = np.abs(np.diff(peer.arrived) / 1e6 - 20)
    print(f"pacing deviation ms: p50 {np.median(deviation):.2f}, max {deviation.max():.2f}")
    assert port.figures().packets_out >= 60


async def test_sent_at_tells_when_each_frame_left(rig):
    port, _, _ = await rig.call()
    port.write(pcm_of(codes(5)))
    begin = time.monotonic_ns()
    assert port.sent_at(0) == 0
    await eventually(lambda: port.queued == 0)
    times = [port.sent_at(position) for position in range(5)]
    assert begin - 1_000_000_000 < times[0] < times[4] <= time.monotonic_ns()
    assert times == sorted(times) and 0 not in times
    assert port.sent_at(5) == 0 and port.sent_at(-1) == 0


async def test_write_takes_what_fits_and_only_whole_frames(rig):
    port = await rig.client.open()
    with pytest.raises(ValueError, match="whole number of frames"):
        port.write(np.zeros(100, np.int16))
    room = TX_FRAMES - KEPT
    assert port.write(np.zeros(160 * 900, np.int16)) == 160 * 900
    assert port.write(np.zeros(160 * 100, np.int16)) == 160 * (room - 900)
    assert port.write(np.zeros(160, np.int16)) == 0
    assert port.queued == port.written == room


async def test_the_clock_of_main_runs_before_the_peer_speaks(rig):
    port, _, listener = await rig.call()
    await listener.until(lambda: len(listener.flags) >= 10)
    assert set(listener.flags) == {FLAG_SILENCE}
    assert [batch.position for batch in listener.batches] == list(range(len(listener.batches)))
    assert not listener.pcm.any()
    assert port.figures().packets_in == 0


async def test_not_connected_sends_nothing(rig):
    port, peer, listener = await rig.call()
    await listener.until(lambda: len(listener.flags) >= 2)
    other = await rig.client.open()
    other.write(np.zeros(1600, np.int16))
    await asyncio.sleep(0.1)
    assert other.played == 0 and other.figures().packets_out == 0


# --- a network that is not perfect ---------------------------------------------------------------------------


async def test_loss_reordering_and_duplicates_are_counted_exactly(rig):
    port, peer, listener = await rig.call()
    payloads = codes(20)
    packets = [peer.packet(payload, skip=True) for payload in payloads]
    await peer.paced(
        [packets[number] for number in (0, 1, 2, 3, 4, 7, 8, 9, 9, 11, 10, 12, 13, 14, 15, 16, 17, 18, 19, 19)]
    )
    await listener.until(lambda: len(listener.heard()) >= 20)
    assert listener.heard() == [0] * 5 + [FLAG_CONCEALED] * 2 + [0] * 13
    heard, sent = listener.audio().reshape(-1, 160), pcm_of(payloads).reshape(-1, 160)
    assert [n for n in range(20) if (heard[n] != sent[n]).any()] == [5, 6]
    figures = await port.close()
    assert (figures.packets_in, figures.lost, figures.duplicate, figures.reordered) == (20, 2, 2, 1)
    assert (figures.concealed_ms, figures.late, figures.malformed, figures.foreign) == (40, 0, 0, 0)


async def test_a_late_packet_is_counted_and_its_frame_stays_concealed(rig):
    port, peer, listener = await rig.call()
    packets = [peer.packet(payload, skip=True) for payload in codes(22)]
    await peer.paced([packets[number] for number in range(22) if number != 3])
    await listener.until(lambda: len(listener.heard()) >= 6)
    peer.raw(packets[3])
    await listener.until(lambda: len(listener.heard()) >= 22)
    assert listener.heard() == [0] * 3 + [FLAG_CONCEALED] + [0] * 18
    figures = await port.close()
    assert (figures.late, figures.lost, figures.concealed_ms) == (1, 0, 20)


async def test_a_pause_in_the_timestamps_is_silence(rig):
    port, peer, listener = await rig.call()
    payloads = codes(12)
    await peer.paced([peer.packet(payload, skip=True) for payload in payloads[:6]])
    await asyncio.sleep(0.12)
    peer.timestamp = peer.timestamp + 800 & 0xFFFFFFFF
    await peer.paced([peer.packet(payload, skip=True) for payload in payloads[6:]])
    await listener.until(lambda: len(listener.heard()) >= 17)
    assert listener.heard() == [0] * 6 + [FLAG_SILENCE] * 5 + [0] * 6
    figures = await port.close()
    assert (figures.concealed_ms, figures.lost) == (0, 0)


async def test_a_new_ssrc_is_followed(rig):
    port, peer, listener = await rig.call()
    for payload in codes(5):
        peer.packet(payload)
    await listener.until(lambda: len(listener.heard()) >= 5)
    peer.ssrc, peer.sequence, peer.timestamp = 0xBEEF, 17, 99
    payloads = codes(5, seed=2)
    for payload in payloads:
        peer.packet(payload)
    await listener.until(lambda: listener.flags.count(0) >= 10)
    assert (listener.audio()[-800:] == pcm_of(payloads)).all()
    assert port.figures().lost == 0


async def test_padding_csrc_and_extension_are_understood(rig):
    _, peer, listener = await rig.call()
    payloads = codes(6)
    for payload in payloads:
        plain = peer.packet(payload, skip=True)
        header = bytes([0xB2]) + plain[1:12]
        peer.raw(header + b"\1\1\1\1\2\2\2\2" + bytes.fromhex("bede0001aabbccdd") + payload + b"\0\0\0\4")
    await listener.until(lambda: len(listener.heard()) >= 6)
    assert (listener.audio() == pcm_of(payloads)).all()


async def test_key_presses(rig):
    port, peer, listener = await rig.call()
    for payload in codes(3):
        peer.packet(payload)
    for event in (1, 11, 0):
        peer.key(event)
    for payload in codes(3):
        peer.packet(payload)
    await eventually(lambda: len(listener.digits) == 3)
    await listener.until(lambda: listener.flags.count(0) >= 5)
    assert listener.digits == [("1", 100), ("#", 100), ("0", 100)]
    # Of so much audio at once playout may leave out a frame where nothing sounds, which is while a key is held.
    heard = listener.heard()
    assert heard[:3] == [0] * 3 and 13 <= heard.count(FLAG_DIGIT) <= 15
    assert set(heard[3 : 3 + heard.count(FLAG_DIGIT)]) == {FLAG_DIGIT} and heard[3 + heard.count(FLAG_DIGIT)] == 0
    figures = await port.close()
    assert (figures.digits_in, figures.lost, figures.concealed_ms) == (3, 0, 0)


async def test_junk_is_counted_and_harms_nobody(rig):
    port, peer, listener = await rig.call()
    for payload in codes(5):
        peer.packet(payload)
    await eventually(lambda: listener.sources)
    rng = random.Random(20_000)
    for number in range(2_000):
        peer.raw(rng.randbytes(rng.randrange(600)))
        if number % 20 == 0:
            await asyncio.sleep(0.005)
    seen = -1
    while seen != (seen := port.figures().malformed):
        await asyncio.sleep(0.2)  # the queue of its socket empties
    peer.timestamp = peer.timestamp + 8000 & 0xFFFFFFFF
    payloads = codes(5, seed=4)
    for payload in payloads:
        peer.packet(payload)
    await listener.until(lambda: listener.flags.count(0) == 10, limit_s=20)
    assert (listener.audio()[-800:] == pcm_of(payloads)).all()
    assert seen > 300
    assert len(listener.sources) == 1


# --- whose audio it is ----------------------------------------------------------------------------------------


async def test_the_source_is_learned_and_a_third_party_changes_nothing(rig):
    port, signalled, listener = await rig.call()
    await eventually(lambda: signalled.received)
    peer = rig.peer()
    peer.target = signalled.target
    payloads = codes(20)
    await peer.paced([peer.packet(payload, skip=True) for payload in payloads[:10]])
    await eventually(lambda: peer.received)
    assert listener.sources == [(peer.host, peer.port)]
    already = len(signalled.received)

    third = rig.peer(ssrc=peer.ssrc)
    third.target, third.sequence, third.timestamp = peer.target, peer.sequence, peer.timestamp
    for payload in codes(30, seed=666):
        third.packet(payload)
    await peer.paced([peer.packet(payload, skip=True) for payload in payloads[10:]])
    await listener.until(lambda: len(listener.heard()) >= 20)
    await eventually(lambda: port.figures().foreign == 30)
    assert (listener.audio() == pcm_of(payloads)).all()
    assert third.received == [] and len(signalled.received) <= already + 1
    assert listener.sources == [(peer.host, peer.port)]
    assert port.figures().packets_in == 20


async def test_a_silent_source_may_move_with_its_stream(rig):
    port, peer, listener = await rig.call()
    for payload in codes(3):
        peer.packet(payload)
    await eventually(lambda: listener.sources)
    await asyncio.sleep(1.1)
    moved, other = rig.peer(ssrc=peer.ssrc), rig.peer(ssrc=999)
    moved.target = other.target = peer.target
    moved.sequence, moved.timestamp = peer.sequence, peer.timestamp + 8800 & 0xFFFFFFFF
    for payload in codes(3):
        other.packet(payload)
    for payload in codes(3):
        moved.packet(payload)
    await eventually(lambda: moved.received)
    assert listener.sources == [(peer.host, peer.port), (moved.host, moved.port)]
    assert port.figures().foreign == 3 and other.received == []


async def test_a_new_address_in_the_sdp_is_served_at_once(rig):
    port, peer, listener = await rig.call()
    for payload in codes(3):
        peer.packet(payload)
    await eventually(lambda: listener.sources)
    new = rig.peer()
    port.connect(new.host, new.port, 0, 101)
    await eventually(lambda: len(new.received) > 3)
    assert new.received[-1].ssrc == peer.received[-1].ssrc


async def test_address_zero_is_sent_nothing_until_the_peer_is_heard(rig):
    port, peer, listener = await rig.call()
    port.connect("0.0.0.0", 9, 0)
    await listener.until(lambda: len(listener.flags) > 5)
    peer.received.clear()
    await listener.until(lambda: len(listener.flags) > 10)
    assert peer.received == []
    for payload in codes(3):
        peer.packet(payload)
    await eventually(lambda: peer.received)


# --- hold, flush, silence -------------------------------------------------------------------------------------


async def test_hold_stops_both_ways_and_comes_back(rig):
    port, peer, listener = await rig.call()
    for payload in codes(3):
        peer.packet(payload)
    await listener.until(lambda: listener.flags.count(0) == 3)
    port.connect(peer.host, peer.port, 0, 101, send=False, receive=False)
    await listener.until(lambda: listener.flags[-3:] == [FLAG_SILENCE] * 3)
    sent = len(peer.received)
    for payload in codes(3):
        peer.packet(payload)
    await listener.until(lambda: listener.flags[-12:] == [FLAG_SILENCE] * 12)
    assert len(peer.received) <= sent + 1
    last = peer.received[-1]
    port.connect(peer.host, peer.port, 0, 101)
    for payload in codes(3, seed=5):
        peer.packet(payload)
    await listener.until(lambda: listener.flags.count(0) == 6)
    first = peer.received[[p.sequence for p in peer.received].index(last.sequence) + 1]
    assert first.sequence == last.sequence + 1 & 0xFFFF and first.marker
    assert (first.timestamp - last.timestamp & 0xFFFFFFFF) >= 12 * 160
    assert port.figures().lost == 0


async def test_flush_stops_audio_on_the_wire_and_tells_where(rig):
    port, peer, listener = await rig.call()
    payloads = codes(100)
    port.write(pcm_of(payloads))
    await eventually(lambda: port.played >= 5)
    asked = time.monotonic_ns()
    position = await port.flush()
    await eventually(lambda: peer.arrived[-1] > time.monotonic_ns() - 15_000_000 and peer.arrived[-1] > asked + 1e8)
    loud = [n for n, packet in enumerate(peer.received) if packet.payload in payloads]
    assert [peer.received[n].payload for n in loud] == payloads[:position]
    after = sum(peer.arrived[n] > asked for n in loud)
    print(f"frames on the wire after the flush: {after}")
    assert after <= 2  # 40 ms
    assert port.sent_at(position - 1) and not port.sent_at(position)
    assert (port.queued, port.written, port.played) == (0, 100, 100)
    port.write(pcm_of(payloads[:2]))
    await eventually(lambda: port.queued == 0 and payloads[1] == peer.received[-1].payload)


@pytest.mark.parametrize("accelerate", [True, False])
async def test_who_wants_many_frames_is_handed_them_together_with_the_others(accelerate):
    """Main wakes once for all of them; every frame comes, and a flush is not kept waiting."""
    async with Rig(accelerate=accelerate) as rig:
        ports = [(await rig.call())[0] for _ in range(4)]
        handed: list[tuple[int, int, int]] = []  # slot, position, frames
        for port in ports:
            port.on_frames = lambda frames, slot=port.slot: handed.append((slot, frames.position, len(frames.pcm)))
            port.gather(25)
        await eventually(lambda: len(handed) >= 16, 10)
        for port in ports:
            mine = [(position, count) for slot, position, count in handed if slot == port.slot]
            for (position, count), (following, _) in zip(mine, mine[1:], strict=False):
                assert position + count == following
            assert 25 in [count for _, count in mine[1:]]  # one that comes late brings more
        slots = [slot for slot, _, _ in handed]
        assert all(len(set(slots[i : i + 4])) == 4 for i in range(4, 16, 4))  # one after another, in one tick
        ports[0].write(np.ones(160 * 50, np.int16))
        await asyncio.sleep(0.05)
        assert await ports[0].flush() < 50


async def test_flush_of_an_empty_queue_returns_at_once(rig):
    port, _, _ = await rig.call()
    assert await port.flush() == 0


async def test_a_silent_peer_is_told_once():
    async with Rig(media_timeout_s=0.3) as rig:
        port, peer, listener = await rig.call()
        held, _, quiet = await rig.call(receive=False)
        await listener.until(lambda: len(listener.flags) > 45)
        assert len(listener.silent) == 1 and 0.3 <= listener.silent[0] < 1.0
        peer.packet(codes(1)[0])
        peer.packet(codes(1)[0])
        await listener.until(lambda: len(listener.silent) == 2)
        assert quiet.silent == []


async def test_main_that_does_not_look_loses_only_the_oldest(rig):
    port, peer, listener = await rig.call()
    await listener.until(lambda: len(listener.flags) > 2)
    rig.client._hand_over._seen[port.slot] -= 300  # as if it had not looked for six seconds
    before = len(listener.flags)
    await listener.until(lambda: len(listener.flags) > before)
    assert port.figures().dropped_ms > 0
    sizes = [len(batch.flags) for batch in listener.batches]
    assert max(sizes) == 254


# --- ports and processes --------------------------------------------------------------------------------------


async def test_ports_are_quarantined():
    async with Rig(port_min=42400, port_max=42405, capacity=3, port_quarantine_s=0.6) as rig:
        first = await rig.client.open()
        await first.close()
        others = [await rig.client.open() for _ in range(2)]
        assert first.port not in {port.port for port in others}
        with pytest.raises(SetupError, match="no RTP port is free"):
            await rig.client.open()
        await asyncio.sleep(0.7)
        assert (await rig.client.open()).port == first.port


async def test_taken_ports_are_skipped():
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as squatter:
        squatter.bind(("127.0.0.1", 42408))
        async with Rig(port_min=42408, port_max=42411, capacity=2) as rig:
            assert (await rig.client.open()).port == 42410
            with pytest.raises(SetupError):
                await rig.client.open()


async def test_capacity_is_a_limit(rig):
    ports = [await rig.client.open() for _ in range(8)]
    with pytest.raises(CapacityError, match="all 8 media slots"):
        await rig.client.open()
    assert [port.slot for port in ports] == [0, 2, 4, 6, 1, 3, 5, 7]  # one phase of the clock for few calls
    await ports[3].close()
    assert (await rig.client.open()).slot == 6


async def test_a_reused_slot_starts_from_nothing(rig):
    port, peer, _ = await rig.call()
    port.write(pcm_of(codes(20)))
    for payload in codes(5):
        peer.packet(payload)
    await eventually(lambda: port.played > 3)
    figures = await port.close()
    assert figures.packets_in == 5 and port.figures() is figures and await port.close() is figures
    assert (port.write(np.zeros(160, np.int16)), port.sent_at(0)) == (0, 0)
    again, other, listener = await rig.call()
    assert again.slot == port.slot and again.port != port.port
    await eventually(lambda: len(other.received) > 5)
    assert set(other.payloads()) == {0xFF}
    assert other.received[0].ssrc != peer.received[0].ssrc
    assert (again.queued, again.figures().packets_in) == (0, 0)


async def test_killed_engine_is_replaced_and_calls_go_on(rig):
    port, peer, listener = await rig.call()
    for payload in codes(3):
        peer.packet(payload)
    await eventually(lambda: len(peer.received) > 20)
    port.write(pcm_of(codes(100)))
    old = rig.client.pid
    os.kill(old, signal.SIGKILL)
    await eventually(lambda: listener.gaps)
    resumed = len(peer.received)
    await eventually(lambda: len(peer.received) > resumed + 20)
    assert rig.client.pid not in (0, old)
    packets = peer.received
    assert [p.sequence - packets[0].sequence & 0xFFFF for p in packets] == list(range(len(packets)))
    assert {p.ssrc for p in packets} == {packets[0].ssrc}
    steps = [b.timestamp - a.timestamp & 0xFFFFFFFF for a, b in zip(packets, packets[1:], strict=False)]
    jumps = [step for step in steps if step != 160]
    assert len(jumps) == 1 and abs(jumps[0] / 8 - listener.gaps[0]) <= 25
    print(f"gap {listener.gaps[0]:.0f} ms")
    spoken = [p.payload for p in packets if p.payload in codes(100)]
    assert spoken == codes(100)[: len(spoken)] and len(spoken) > 15  # what was queued goes on where it stopped
    for payload in codes(4, seed=3):  # and the peer is heard again
        peer.packet(payload)
    await listener.until(lambda: listener.flags.count(0) >= 7)
    assert rig.events.names() == ["ProcessStarted", "ProcessEnded", "ProcessStarted"]
    ended = next(event for event in rig.events if isinstance(event, ProcessEnded))
    assert (ended.pid, ended.calls_affected, ended.reason) == (old, 1, "killed by signal 9")


async def test_audio_of_a_port_that_was_closing_when_the_engine_died_is_removed(rig):
    port, _, listener = await rig.call()
    port.write(pcm_of(codes(1000)))
    os.kill(rig.client.pid, signal.SIGSTOP)  # it will not obey any more
    closing = asyncio.create_task(port.close())
    await asyncio.sleep(0.01)
    os.kill(rig.client.pid, signal.SIGKILL)
    await closing
    assert not rig.client._rings.tx_pcm[port.slot].any() and not rig.client._closing


async def test_audio_of_a_port_closed_while_a_new_engine_starts_is_removed(rig):
    port, _, listener = await rig.call()
    port.write(pcm_of(codes(1000)))
    old = rig.client.pid
    os.kill(old, signal.SIGKILL)
    await eventually(lambda: rig.client.pid not in (0, old))
    assert rig.client._ready is not None  # there is a process, but it does not listen yet
    await port.close()
    assert not rig.client._rings.tx_pcm[port.slot].any() and not rig.client._closing


async def test_a_port_closed_while_an_engine_fails_to_start_gives_its_slot_back(rig):
    port, _, listener = await rig.call()
    port.write(pcm_of(codes(1000)))
    old = rig.client.pid
    os.kill(old, signal.SIGKILL)
    await eventually(lambda: rig.client.pid not in (0, old))
    os.kill(rig.client.pid, signal.SIGKILL)
    await port.close()
    assert not rig.client._rings.tx_pcm[port.slot].any()
    assert (await rig.client.open()).slot == port.slot


async def test_an_engine_that_keeps_dying_is_given_up_and_tried_again_later(rig):
    port, _, listener = await rig.call()
    for _ in range(4):
        await eventually(lambda: rig.client.pid and not rig.client._restarting)
        pid = rig.client.pid
        os.kill(pid, signal.SIGKILL)
        await eventually(lambda pid=pid: rig.client.pid != pid)
    await eventually(lambda: listener.lost)
    assert listener.lost == 1 and rig.client.pid == 0
    await port.close()
    again, peer, _ = await rig.call()
    await eventually(lambda: peer.received)


async def test_a_hanging_engine_is_replaced(rig):
    port, peer, listener = await rig.call()
    os.kill(rig.client.pid, signal.SIGSTOP)
    await eventually(lambda: listener.gaps)
    assert 1_000 < listener.gaps[0] < 4_500
    assert rig.events.names() == ["ProcessStarted", "ProcessEnded", "ProcessStarted"]


async def test_a_successor_serves_the_learned_source_at_once(rig):
    port, signalled, listener = await rig.call()
    peer = rig.peer()
    peer.target = signalled.target
    for payload in codes(3):
        peer.packet(payload)
    await eventually(lambda: peer.received)
    already = len(signalled.received)
    os.kill(rig.client.pid, signal.SIGKILL)
    await eventually(lambda: listener.gaps)
    before = len(peer.received)
    await eventually(lambda: len(peer.received) > before + 3)
    assert len(signalled.received) <= already + 1


async def test_an_idle_engine_sleeps(rig):
    port, _, _ = await rig.call()
    await asyncio.sleep(0.1)
    await port.close()
    await asyncio.sleep(0.1)
    before = cpu_seconds(rig.client.pid)
    status = Path(f"/proc/{rig.client.pid}/status")
    switches = [line for line in status.read_text().splitlines() if "ctxt" in line]
    await asyncio.sleep(0.5)
    assert cpu_seconds(rig.client.pid) == before
    assert [line for line in status.read_text().splitlines() if "ctxt" in line] == switches


async def test_close_leaves_nothing_behind():
    rig = Rig()
    async with rig:
        port, peer, _ = await rig.call()
        await eventually(lambda: peer.received)
        pid = rig.client.pid
        open_files = len(os.listdir("/proc/self/fd"))
    assert gone(pid)
    await rig.client.close()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as again:
        again.bind((port.host, port.port))
    assert len(os.listdir("/proc/self/fd")) < open_files
    assert port.figures().packets_out > 0
    assert rig.events.names() == ["ProcessStarted", "ProcessEnded"]
    with pytest.raises(SetupError, match="closed"):
        await rig.client.open()


async def test_signals_to_the_whole_group_do_not_end_the_engine(rig):
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        os.kill(rig.client.pid, number)
    port, peer, _ = await rig.call()
    await eventually(lambda: peer.received)
    assert rig.events.names() == ["ProcessStarted"]


async def test_a_callback_that_raises_costs_nobody_else_audio(rig):
    reported = []
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: reported.append(context["exception"]))
    broken, _, _ = await rig.call()
    _, _, listener = await rig.call()

    def fail(frames):
        raise RuntimeError("broken")

    broken.on_frames = fail
    await listener.until(lambda: len(listener.flags) > 5)
    assert [str(error) for error in reported[:3]] == ["broken"] * 3


def test_a_fuzz_of_twenty_thousand_datagrams(tmp_path):
    """The engine's own code without its process: whatever the peer's socket brings is counted, nothing raises."""
    settings = MediaSettings(**SETTINGS)
    memory, (control, far_end) = create_memory(settings.capacity), socket.socketpair()
    engine = Engine(settings, control, memory, os.eventfd(0))
    now, rng = 1_000_000_000, random.Random(5)
    engine._obey(OpenPort(slot=0), now)
    engine._obey(Connect(slot=0, host="127.0.0.1", port=9, payload_type=0, telephone_event=101), now)
    lines, batch = engine._lines, engine._sockets.batch
    valid = bytes(RtpPacket(payload_type=0, sequence=0, timestamp=0, ssrc=7, payload=b"\xff" * 160))
    for number in range(20_000):
        now += 1_000_000
        mutated = bytearray(valid)
        for _ in range(rng.randrange(6)):
            mutated[rng.randrange(16)] = rng.randrange(256)
        mutated[2:4] = (number & 0xFFFF).to_bytes(2, "big") if rng.random() < 0.7 else mutated[2:4]
        junk = bytes(mutated[: rng.randrange(173)]) if number % 3 else rng.randbytes(rng.randrange(520))
        if number % 7 == 0:
            lines.stray(Stray((0,), junk, ("127.0.0.1", rng.choice((9, 10))), rng.random() < 0.3), now)
        else:
            batch.count, batch.lengths[0] = 1, min(len(junk), 512)
            batch.rows[0, : batch.lengths[0]] = np.frombuffer(junk[:512], np.uint8)
            batch.slots[0], batch.stamps[0] = 0, now
            engine._take_odd(batch, engine._hot.ingest(batch))
        if number % 20 == 0:
            engine._regroup()
            engine._play(engine._groups[0], now)
            lines.watch(now)
    counters = engine._rings.counters[0]
    assert counters[Counter.MALFORMED] > 5_000 and counters[Counter.IGNORED] > 100
    engine._lines.close_all()
    control.close()
    far_end.close()
    os.close(memory)
