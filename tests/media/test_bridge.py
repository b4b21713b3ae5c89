"""Two and three calls joined, by the real engine and real sockets."""

import asyncio
import os
import signal
from functools import partial

import numpy as np
import pytest

from sipagent.media import g722
from sipagent.media.g711 import encode
from sipagent.media.protocol import MOST_HEARD, Crypto
from sipagent.media.rtp import PCMA
from sipagent.media.srtp import SrtpSession
from sipagent.media.telephone_event import DIGITS, EventPayload, EventReceiver
from sipagent.media.tones import tones

from .peer import codes, pcm_of
from .test_engine import Rig, eventually
from .test_engine_codecs import OURS, SUITE, THEIRS, likeness, speech


@pytest.fixture
async def rig():
    async with Rig(capacity=16) as rig:
        yield rig


def join(*calls):
    """Each hears all the others."""
    for port, _, _ in calls:
        port.hear(*(other for other, _, _ in calls if other is not port))


async def say(peer, payloads):
    await peer.paced([peer.packet(payload, skip=True) for payload in payloads])


def audio(peer, since=0):
    return b"".join(packet.payload for packet in peer.received[since:] if packet.payload_type == peer.payload_type)


def pressed(peer, payload_type=101):
    """The keys that a phone would understand."""
    receiver = EventReceiver()
    return "".join(
        press.digit
        for packet in peer.received
        if packet.payload_type == payload_type
        for press in receiver.receive(EventPayload.parse(packet.payload), packet.timestamp, 0)
    )


@pytest.mark.parametrize(("payload_type", "apart", "accelerate"), [(0, 1, True), (PCMA, 0, True), (0, 0, False)])
async def test_codes_pass_through_both_ways_byte_by_byte(payload_type, apart, accelerate):
    """`apart`: the two are in opposite phases of the engine."""
    async with Rig(accelerate=accelerate) as rig:
        calls = [await rig.call(payload_type)]
        rig.client._free_slot = lambda _: 2 + apart
        calls.append(await rig.call(payload_type))
        join(*calls)
        await passes_through(calls, payload_type)


async def passes_through(calls, payload_type):
    (_, alice, hears_alice), (_, bob, hears_bob) = calls
    to_bob, to_alice = codes(100, seed=1), codes(100, seed=2)
    await asyncio.gather(say(alice, to_bob), say(bob, to_alice))
    await eventually(lambda: to_bob[-1] in audio(bob) and to_alice[-1] in audio(alice))
    assert b"".join(to_bob) in audio(bob) and b"".join(to_alice) in audio(alice)
    for peer in (alice, bob):
        numbers = [packet.sequence - peer.received[0].sequence & 0xFFFF for packet in peer.received]
        assert numbers == list(range(len(numbers)))
        stamps = [packet.timestamp - peer.received[0].timestamp & 0xFFFFFFFF for packet in peer.received]
        assert stamps == [160 * number for number in numbers]
    for listener in (hears_alice, hears_bob):
        await listener.until(lambda: len(listener.heard()) >= 100)  # noqa: B023
    assert (hears_alice.audio() == pcm_of(to_bob, payload_type)).all(), "main hears the caller, not the mix"
    assert (hears_bob.audio() == pcm_of(to_alice, payload_type)).all()


async def test_own_audio_is_added_and_waits_where_it_is_not_wanted(rig):
    calls = [await rig.call(), await rig.call()]
    (port, alice, listener), (other, bob, _) = calls
    port.hear(other, own=False)
    spoken = pcm_of(codes(10, seed=5))
    port.write(spoken)
    said = codes(30, seed=6)
    await say(bob, said)
    await eventually(lambda: said[-1] in audio(alice))
    assert b"".join(said) in audio(alice)
    assert port.queued == 10
    port.hear(other)
    await eventually(lambda: port.queued == 0)
    assert other.queued == 0
    port.hear()
    port.write(spoken)
    await eventually(lambda: encode(0, spoken).tobytes() in audio(alice))
    position = len(listener.flags) + 2
    await listener.until(lambda: len(listener.flags) > position)
    beside = port.sent_beside(0, position)
    assert beside is not None
    sent = beside.reshape(-1).tobytes()
    assert pcm_of(said).tobytes() in sent and spoken.tobytes() in sent


async def test_three_hear_each_other(rig):
    calls = [await rig.call() for _ in range(3)]
    join(*calls)
    said = [(pcm_of(codes(40, seed=n)) // 4).astype(np.int16) for n in range(3)]
    payloads = [[encode(0, frame).tobytes() for frame in pcm.reshape(-1, 160)] for pcm in said]
    await asyncio.gather(*(say(peer, each) for (_, peer, _), each in zip(calls, payloads, strict=True)))
    coded = [pcm_of(each).astype(np.int64) for each in payloads]
    await asyncio.sleep(0.4)
    for number, (_, peer, _) in enumerate(calls):
        first, second = (coded[n] for n in range(3) if n != number)
        heard = pcm_of([audio(peer)]).astype(np.int64)
        # The two came with packets of their own, so one may be a frame or two behind the other.
        shifts = range(-480, 481, 160)
        sums = [first + np.roll(second, shift) for shift in shifts]
        best = max(likeness(heard, each[480:-480]) for each in sums)
        assert best > 0.99, f"{number} hears {best}"


async def test_whisper_and_listening_in(rig):
    calls = [await rig.call() for _ in range(3)]
    (agent, agent_phone, _), (caller, caller_phone, _), (boss, boss_phone, _) = calls
    agent.hear(caller, boss)
    caller.hear(agent)
    boss.hear(agent, caller)
    said = codes(30, seed=9)
    await say(boss_phone, said)
    await eventually(lambda: said[-1] in audio(agent_phone))
    assert b"".join(said) in audio(agent_phone)
    assert set(audio(caller_phone)) == {0xFF}, "the caller does not hear the whisper"
    assert set(audio(boss_phone)) == {0xFF}, "nor does the one who whispers"
    await say(caller_phone, said)
    await eventually(lambda: said[-1] in audio(boss_phone))


async def test_an_agent_is_heard_by_whoever_listens_in(rig):
    calls = [await rig.call(), await rig.call(PCMA)]
    (caller, caller_phone, _), (boss, boss_phone, _) = calls
    boss.hear(caller, said=[caller])
    for seed in (1, 2):
        spoken = pcm_of(codes(20, seed))
        caller.write(spoken)
        ours, theirs = encode(0, spoken).tobytes(), encode(PCMA, spoken).tobytes()
        await eventually(partial(heard, (caller_phone, ours), (boss_phone, theirs)))
        if seed == 1:
            os.kill(rig.client.pid, signal.SIGKILL)
            await eventually(lambda: all(listener.gaps for _, _, listener in calls))
    said = codes(20)
    await say(caller_phone, said)
    expected = encode(PCMA, pcm_of(said)).tobytes()
    await eventually(lambda: expected in audio(boss_phone))


def heard(*what):
    return all(part in audio(peer) for peer, part in what)


async def test_laws_are_converted(rig):
    calls = [await rig.call(0), await rig.call(PCMA)]
    join(*calls)
    said = codes(30)
    await say(calls[0][1], said)
    expected = encode(PCMA, pcm_of(said)).tobytes()
    await eventually(lambda: expected[-160:] in audio(calls[1][1]))
    assert expected in audio(calls[1][1])


async def test_wide_narrow_and_encrypted_lines_hear_each_other(rig):
    wide = await rig.call(9)
    keys = Crypto(suite=SUITE, local_key=OURS, remote_key=THEIRS)
    secret = await rig.call(0, crypto=keys)
    join(wide, secret)
    pcm = speech(1.0, 8000)
    phone = SrtpSession(Crypto(suite=SUITE, local_key=THEIRS, remote_key=OURS), None)
    packets = [secret[1].packet(encode(0, frame).tobytes(), skip=True) for frame in pcm.reshape(-1, 160)]
    await secret[1].paced([phone.protect(packet) for packet in packets])
    await asyncio.sleep(0.4)
    heard = g722.Decoder().decode(audio(wide[1]))
    assert likeness(heard[::2], pcm[800:6400]) > 0.98
    coded = g722.Encoder().encode(speech(1.0, 16000))
    await say(wide[1], [coded[at : at + 160] for at in range(0, len(coded), 160)])
    await asyncio.sleep(0.4)
    heard = pcm_of([phone.unprotect(bytes(packet))[12:] for packet in secret[1].received])
    assert likeness(heard, speech(1.0, 16000)[1600:12800:2]) > 0.95


async def test_keys_are_passed_on_between_two_as_events_or_as_tones(rig):
    events = [await rig.call(), await rig.call()]
    tone = await rig.call()
    tone[0].connect(tone[1].host, tone[1].port, 0, -1)
    join(*events)
    for _, peer, listener in events:
        await say(peer, codes(3))
        await listener.until(lambda: len(listener.heard()) >= 3)  # noqa: B023
    events[0][1].key(DIGITS.index("7"))
    await eventually(lambda: pressed(events[1][1]) == "7")
    assert events[0][2].digits == [("7", 100)], "and main is told"
    assert pressed(events[0][1]) == "" and events[1][2].digits == []
    join(events[0], tone)
    events[0][1].key(DIGITS.index("5"))
    expected = encode(0, tones("5", 100)[:800]).tobytes()
    await eventually(lambda: expected in audio(tone[1]))
    begin = len(events[0][1].received)
    await say(tone[1], [encode(0, frame).tobytes() for frame in tones("3", 100, 100).reshape(-1, 160)])
    await eventually(lambda: pressed(events[0][1]) == "3")
    loud = np.abs(pcm_of([audio(events[0][1], begin)]).astype(int)) > 1000
    assert loud.sum() < 8 * 40, "of the tone itself less is heard than a key lasts"


async def test_a_third_who_listens_gets_no_keys_unless_asked(rig):
    calls = [await rig.call() for _ in range(3)]
    join(*calls)
    await say(calls[0][1], codes(3))
    await calls[0][2].until(lambda: len(calls[0][2].heard()) >= 3)
    calls[2][0].hear(calls[0][0], calls[1][0], keys=True)
    calls[0][1].key(DIGITS.index("9"))
    await eventually(lambda: pressed(calls[2][1]) == "9")
    await asyncio.sleep(0.2)
    assert pressed(calls[1][1]) == ""


async def test_they_still_hear_each_other_after_the_process_died(rig):
    calls = [await rig.call(), await rig.call()]
    join(*calls)
    alice, bob = calls[0][1], calls[1][1]
    first = codes(20, seed=3)
    await say(alice, first)
    await eventually(lambda: first[-1] in audio(bob))
    os.kill(rig.client.pid, signal.SIGKILL)
    await eventually(lambda: bool(calls[0][2].gaps) and bool(calls[1][2].gaps))
    second = codes(60, seed=4)
    await say(alice, second)
    await eventually(lambda: second[-1] in audio(bob))
    assert b"".join(second[10:]) in audio(bob)


async def test_a_new_call_in_the_slot_of_an_old_one_is_not_heard(rig):
    calls = [await rig.call(), await rig.call()]
    join(*calls)
    slot = calls[1][0].slot
    await calls[1][0].close()
    stranger = await rig.call()
    assert stranger[0].slot == slot
    await say(stranger[1], codes(20))
    await eventually(lambda: len(stranger[2].heard()) >= 20)
    calls[0][0].hear(calls[1][0])  # late, as when the hang-up crosses it
    await say(stranger[1], codes(20))
    assert set(audio(calls[0][1])) == {0xFF}


async def test_only_open_ports_of_one_process_are_joined(rig):
    port = (await rig.call())[0]
    with pytest.raises(ValueError, match="its own media process"):
        port.hear(port)
    others = [await rig.client.open() for _ in range(MOST_HEARD + 1)]
    with pytest.raises(ValueError, match="at most"):
        port.hear(*others)
    async with Rig(port_min=42500, port_max=42599) as elsewhere:
        with pytest.raises(ValueError, match="its own media process"):
            port.hear(await elsewhere.client.open())
    port.hear(*others[:3])
    await others[0].close()
    assert port.hearing.others == (others[1].slot, others[2].slot)


async def test_loss_is_concealed_and_comfort_noise_is_heard(rig):
    calls = [await rig.call(), await rig.call(comfort_noise=13)]
    join(*calls)
    (_, alice, _), (_, bob, _) = calls
    said = [encode(0, frame).tobytes() for frame in speech(1.0, 8000).reshape(-1, 160)]
    packets = [bob.packet(payload, skip=True) for payload in said]
    del packets[20]
    await bob.paced(packets)
    await eventually(lambda: said[-1] in audio(alice))
    begin = audio(alice).index(said[19]) + 160
    concealed = pcm_of([audio(alice)[begin : begin + 160]]).astype(int)
    assert np.abs(concealed).max() > 1000, "no hole where a packet was lost"
    bob.packet(bytes([40]), payload_type=13)  # the level: -40 dBov
    begin = len(alice.received)
    await eventually(lambda: len(alice.received) > begin + 20)
    noise = pcm_of([audio(alice, begin + 15)]).astype(float)
    assert -50 < 20 * np.log10(np.sqrt(np.mean(noise**2)) / 32768) < -30
    numbers = [packet.sequence - alice.received[0].sequence & 0xFFFF for packet in alice.received]
    assert numbers == list(range(len(numbers)))


async def test_a_talkspurt_begins_with_the_marker_and_silence_is_silence(rig):
    calls = [await rig.call(), await rig.call()]
    join(*calls)
    (_, alice, _), (_, bob, _) = calls
    said = codes(10)
    await say(bob, said)
    await eventually(lambda: said[-1] in audio(alice))
    marked = [packet for packet in alice.received if packet.marker]
    assert [packet.payload for packet in marked] == [b"\xff" * 160, said[0]], "the stream's first, and the talkspurt's"
    await asyncio.sleep(0.5)  # longer than concealment goes on
    assert alice.received[-1].payload == b"\xff" * 160


async def test_a_line_on_hold_is_neither_heard_nor_plays(rig):
    calls = [await rig.call(), await rig.call()]
    join(*calls)
    (_, alice, _), (port, bob, _) = calls
    port.connect(bob.host, bob.port, 0, 101, send=False, receive=False)
    await asyncio.sleep(0.1)
    begin = len(bob.received)
    await asyncio.gather(say(alice, codes(15)), say(bob, codes(15)))
    assert len(bob.received) == begin and set(audio(alice)) == {0xFF}
    port.connect(bob.host, bob.port, 0, 101)
    said = codes(20, seed=4)
    await say(alice, said)
    await eventually(lambda: said[-1] in audio(bob))
