"""What is queued leaves in full, ducked, or is held back: the levels, and calls of every kind by the real process."""

import asyncio

import numpy as np
import pytest

from sipagent.media import g722
from sipagent.media.ducking import DUCKED, FULL, RAMP, RAMPS, TxMode, ducked
from sipagent.media.protocol import Crypto
from sipagent.media.rtp import RtpPacket
from sipagent.media.srtp import SrtpSession

from .peer import codes, pcm_of
from .test_engine import Rig, eventually
from .test_engine_codecs import OURS, SUITE, THEIRS, likeness, speech


@pytest.fixture
async def rig(request):
    async with Rig(accelerate=getattr(request, "param", True)) as rig:
        yield rig


def level(heard, said):
    """How loud `said` is in what was heard, 1 in full."""
    said = said.astype(float)
    return float(heard.astype(float) @ said / (said @ said))


def test_levels_change_by_a_ramp_and_stay():
    for before in TxMode:
        for mode in TxMode:
            ramp = RAMPS[before, mode] / FULL
            level = {TxMode.FULL: 1.0, TxMode.DUCKED: DUCKED / FULL, TxMode.HELD: 0.0}
            assert np.allclose(ramp[RAMP - 1 :], level[mode], atol=1e-4)
            steps = np.diff(np.concatenate([[level[before]], ramp]))
            assert np.abs(steps).max() <= 1.01 / RAMP
    assert 20 * np.log10(DUCKED / FULL) == pytest.approx(-15, abs=0.1)


def test_a_wide_frame_has_the_same_ramp():
    narrow = ducked(np.full(160, 20000, np.int16), TxMode.FULL, TxMode.DUCKED)
    wide = ducked(np.full(320, 20000, np.int16), TxMode.FULL, TxMode.DUCKED)
    assert (wide.reshape(-1, 2) == narrow[:, None]).all()
    assert ducked(np.array([-32768, 32767] * 80, np.int16), TxMode.FULL, TxMode.FULL).tolist() == [-32768, 32767] * 80


@pytest.mark.parametrize("rig", [True, False], ids=["compiled", "numpy"], indirect=True)
async def test_ducked_audio_moves_on_and_held_audio_stays(rig):
    port, peer, listener = await rig.call()
    payloads = codes(60)
    port.write(pcm_of(payloads))
    await eventually(lambda: port.played > 8)
    port.duck(True)
    await eventually(lambda: port.played > 16)
    port.duck(False)
    await eventually(lambda: port.played > 24)
    port.hold(True)
    await asyncio.sleep(0.1)
    stopped = port.played
    await asyncio.sleep(0.1)
    assert port.played == stopped < 60 and port.sent_at(stopped - 1) and not port.sent_at(stopped)
    port.hold(False)
    await eventually(lambda: port.queued == 0)
    await asyncio.sleep(0.05)
    begin = next(n for n, packet in enumerate(peer.received) if packet.payload == payloads[0])
    heard = [packet.payload for packet in peer.received[begin:]]

    # In full, softer from one frame to the next, and in full again: nothing is left out.
    loud = [number for number in range(60) if heard[number] == payloads[number]]
    first = next(number for number in range(60) if number not in loud)
    softer = [number for number in range(first, stopped) if number not in loud]
    assert len(softer) >= 8 and softer == list(range(first, first + len(softer)))
    middle = softer[2]
    assert level(pcm_of([heard[middle]]), pcm_of([payloads[middle]])) == pytest.approx(DUCKED / FULL, rel=0.05)

    # It fades out in the frame with which it goes on, after silence.
    pause = [number for number in range(stopped, len(heard)) if heard[number] == b"\xff" * 160]
    assert pause[0] == stopped + 1 and heard[stopped][100:] == b"\xff" * 60
    again = next(number for number in range(pause[0], len(heard)) if heard[number] != b"\xff" * 160)
    assert again - stopped > 5
    assert heard[again][80:] == payloads[stopped][80:]
    assert heard[again + 1 : again + 60 - stopped] == payloads[stopped + 1 :]
    assert [packet.sequence for packet in peer.received] == [
        (peer.received[0].sequence + n) & 0xFFFF for n in range(len(peer.received))
    ]

    # What was sent beside what came is what really left.
    position = len(listener.flags)
    beside = port.sent_beside(0, position)
    assert beside is not None
    left = [frame for frame in beside if frame.any()]
    told = [pcm for pcm in (pcm_of([payload]) for payload in heard) if pcm.any()]
    assert len(left) == len(told)
    errors = [
        np.abs(one.astype(int) - other).max() / max(np.abs(one).max(), 200)
        for one, other in zip(left, told, strict=True)
    ]
    assert max(errors) < 0.05


async def test_a_flush_ends_what_is_held_and_the_next_call_of_the_slot_is_at_full_level(rig):
    port, peer, _ = await rig.call()
    port.hold(True)
    port.write(pcm_of(codes(20)))
    await asyncio.sleep(0.1)
    assert await port.flush() == 0 and port.queued == 0
    slot = port.slot
    await port.close()
    port, peer, _ = await rig.call()
    assert port.slot == slot
    payloads = codes(5, seed=4)
    port.write(pcm_of(payloads))
    await eventually(lambda: peer.payloads().find(b"".join(payloads)) >= 0)


@pytest.mark.parametrize("kind", ["srtp", "g722"])
async def test_calls_made_packet_by_packet_are_ducked_and_held(rig, kind):
    crypto = Crypto(suite=SUITE, local_key=OURS, remote_key=THEIRS) if kind == "srtp" else None
    payload_type, rate = (0, 8000) if kind == "srtp" else (9, 16000)
    peer = rig.peer(payload_type=payload_type)
    datagrams: list[bytes] = []
    asyncio.get_running_loop().remove_reader(peer.socket)
    asyncio.get_running_loop().add_reader(peer.socket, lambda: datagrams.append(peer.socket.recv(2048)))
    port = await rig.client.open()
    port.connect(peer.host, peer.port, payload_type, 101, crypto=crypto)
    spoken = speech(1.6, rate)
    port.write(spoken)
    await eventually(lambda: port.played > 15)
    port.duck(True)
    await eventually(lambda: port.played > 30)
    port.hold(True)
    await asyncio.sleep(0.1)
    stopped = port.played
    await asyncio.sleep(0.1)
    assert port.played == stopped < 70
    port.duck(False)
    port.hold(False)
    await eventually(lambda: port.queued == 0)
    await asyncio.sleep(0.06)
    theirs = SrtpSession(Crypto(suite=SUITE, local_key=THEIRS, remote_key=OURS))
    payloads = [RtpPacket.parse(theirs.unprotect(data) if crypto else data).payload for data in datagrams]
    decoder = g722.Decoder()
    heard = np.concatenate([pcm_of([each]) if crypto else decoder.decode(each) for each in payloads])
    frame = rate // 50
    level = np.abs(heard[: len(heard) // frame * frame].reshape(-1, frame)).max(axis=1)
    loud = level > 4000
    first, last = int(loud.argmax()), len(loud) - int(loud[::-1].argmax())
    assert (level[first + 18 : first + 29] < 2500).all() and (level[first + 18 : first + 29] > 700).all()
    assert (level[first:last] < 300).sum() > 6
    rest = spoken[(stopped + 1) * frame :]
    begin = (last - (80 - stopped) - 2) * frame
    assert likeness(heard[begin : begin + len(rest) + 4 * frame], rest) > 0.98


async def test_joined_lines_are_ducked_below_what_they_hear(rig):
    (port, peer, _), (other, other_peer, _) = await rig.call(), await rig.call()
    port.hear(other)
    own, said = pcm_of(codes(50, seed=5)), codes(50, seed=6)
    port.hold(True)
    port.write(own)
    await other_peer.paced([other_peer.packet(payload, skip=True) for payload in said])
    await eventually(lambda: said[-1] in peer.payloads())
    assert b"".join(said) in peer.payloads() and port.played == 0
    port.hold(False)
    port.duck(True)
    await eventually(lambda: port.queued == 0)
    await asyncio.sleep(0.05)
    frame = own.reshape(-1, 160)[30]
    levels = [level(pcm_of([packet.payload]), frame) for packet in peer.received]
    assert max(levels) == pytest.approx(DUCKED / FULL, rel=0.05)
