"""Calls that are not plain G.711 all the time, by the real process: SRTP, G.722, keys sent and heard, pauses."""

import asyncio
import os
import signal
import time

import numpy as np
import pytest

from sipagent.media import g722
from sipagent.media.client import FLAG_CONCEALED, FLAG_DIGIT, FLAG_SILENCE
from sipagent.media.g711 import encode
from sipagent.media.protocol import Crypto
from sipagent.media.rings import Counter
from sipagent.media.rtp import RtpPacket
from sipagent.media.srtp import SrtpSession
from sipagent.media.telephone_event import EventPayload
from sipagent.media.tones import ToneDetector, tones

from .peer import codes, pcm_of
from .test_engine import Rig, eventually

SUITE = "AES_CM_128_HMAC_SHA1_80"
OURS, THEIRS = bytes(range(30)), bytes(range(100, 130))


@pytest.fixture
async def rig():
    async with Rig() as rig:
        yield rig


def counter(rig, port, which):
    return int(port._rings.counters[port.slot, which])


def speech(seconds, rate, seed=3):
    """Something smooth that a codec can follow."""
    t = np.arange(int(seconds * rate)) / rate
    rng = np.random.default_rng(seed)
    return sum(3000 * np.sin(2 * np.pi * f * t + rng.random() * 6) for f in (220, 700, 1500)).astype(np.int16)


async def paced(peer, payloads):
    """In real time, so that the jitter buffer leaves the audio as long as it is."""
    begin = time.monotonic()
    for number, payload in enumerate(payloads):
        await asyncio.sleep(max(begin + 0.02 * number - time.monotonic(), 0))
        peer.packet(payload)


def likeness(a, b):
    """The best normalised correlation over lags of `b` in `a`."""
    a, b = a.astype(float), b.astype(float)
    best = 0.0
    for lag in range(max(len(a) - len(b), 0) + 1):
        part = a[lag : lag + len(b)]
        norm = np.sqrt((part @ part) * (b @ b))
        best = max(best, float(part @ b / norm) if norm else 0.0)
    return best


# --- SRTP -----------------------------------------------------------------------------------------------------


async def test_an_encrypted_call_hears_its_peer_and_nobody_else(rig):
    crypto = Crypto(suite=SUITE, local_key=OURS, remote_key=THEIRS)
    port, peer, listener = await rig.call(crypto=crypto)
    theirs = SrtpSession(Crypto(suite=SUITE, local_key=THEIRS, remote_key=OURS))
    wrong = SrtpSession(Crypto(suite=SUITE, local_key=bytes(30), remote_key=OURS))
    payloads = codes(12)
    plain = [peer.packet(payload, skip=True) for payload in payloads]
    sent = [theirs.protect(packet) for packet in plain]
    for data in (*sent[:6], *sent[2:5], wrong.protect(plain[6]), plain[6], *sent[6:], b"\x80\x00 short"):
        peer.raw(data)
    await listener.until(lambda: len(listener.heard()) >= 12)
    assert listener.heard() == [0] * 12 and (listener.audio() == pcm_of(payloads)).all()
    assert counter(rig, port, Counter.SRTP_REPLAYED) == 3
    await eventually(lambda: counter(rig, port, Counter.SRTP_REFUSED) == 3)
    assert (port.figures().packets_in, port.figures().lost, port.figures().malformed) == (12, 0, 0)


async def test_an_encrypted_call_speaks_to_those_who_have_the_key(rig):
    crypto = Crypto(suite=SUITE, local_key=OURS, remote_key=THEIRS)
    peer = rig.peer()
    datagrams: list[bytes] = []
    asyncio.get_running_loop().remove_reader(peer.socket)
    asyncio.get_running_loop().add_reader(peer.socket, lambda: datagrams.append(peer.socket.recv(2048)))
    port = await rig.client.open()
    port.connect(peer.host, peer.port, 0, 101, crypto=crypto)
    payloads = codes(10)
    port.write(pcm_of(payloads))
    await eventually(lambda: len(datagrams) > 15)
    theirs = SrtpSession(Crypto(suite=SUITE, local_key=THEIRS, remote_key=OURS))
    packets = [RtpPacket.parse(theirs.unprotect(data)) for data in datagrams]
    assert b"".join(packet.payload for packet in packets).find(b"".join(payloads)) >= 0
    assert packets[0].marker and sum(packet.marker for packet in packets) <= 2
    port.connect(peer.host, peer.port, 0, 101)  # and now in the clear
    before = len(datagrams)
    await eventually(lambda: len(datagrams) > before + 10)
    clear = [RtpPacket.parse(data) for data in datagrams[before + 2 :]]
    assert {packet.payload for packet in clear} == {b"\xff" * 160}
    assert not any(packet.marker for packet in clear)


async def test_an_encrypted_call_survives_its_engine(rig):
    crypto = Crypto(suite=SUITE, local_key=OURS, remote_key=THEIRS)
    port, peer, listener = await rig.call(crypto=crypto)
    theirs = SrtpSession(Crypto(suite=SUITE, local_key=THEIRS, remote_key=OURS))
    for payload in codes(40):  # over the wrap of the sequence numbers
        peer.raw(theirs.protect(peer.packet(payload, skip=True)))
        await asyncio.sleep(0.005)
    await eventually(lambda: counter(rig, port, Counter.PACKETS_IN) == 40)
    await asyncio.sleep(0.1)
    kill(rig)
    await eventually(lambda: listener.gaps)
    for payload in codes(5):
        peer.raw(theirs.protect(peer.packet(payload, skip=True)))
    await eventually(lambda: counter(rig, port, Counter.PACKETS_IN) == 45)
    assert counter(rig, port, Counter.SRTP_REFUSED) == 0


def kill(rig):
    os.kill(rig.client.pid, signal.SIGKILL)


# --- G.722 ----------------------------------------------------------------------------------------------------


async def test_a_wide_call_both_ways(rig):
    port, peer, listener = await rig.call(9)
    assert port.rate == 16000
    encoder, audio = g722.Encoder(), speech(0.6, 16000)
    port.write(audio)
    await paced(peer, [encoder.encode(audio[start : start + 320]) for start in range(0, len(audio), 320)])
    await listener.until(lambda: len(listener.heard()) >= 30)
    assert listener.heard() == [0] * 30
    assert {batch.pcm.shape[1] for batch in listener.batches} == {320}
    flags = listener.flags
    heard = np.concatenate([batch.pcm for batch in listener.batches])[[n for n, f in enumerate(flags) if f == 0]]
    assert likeness(heard.reshape(-1), audio[: 320 * 28]) > 0.98
    await eventually(lambda: len(peer.received) > 40)
    decoded = g722.Decoder().decode(peer.payloads())
    assert {packet.payload_type for packet in peer.received} == {9}
    assert likeness(decoded, audio[: 320 * 28]) > 0.98
    steps = {b.timestamp - a.timestamp & 0xFFFFFFFF for a, b in zip(peer.received, peer.received[1:], strict=False)}
    assert steps == {160}  # RFC 3551: the clock of G.722 is 8 kHz
    assert port.figures().lost == port.figures().concealed_ms == 0


async def test_a_codec_may_change_in_mid_call_and_back(rig):
    port, peer, listener = await rig.call(0)
    stages = []
    for payload_type in (0, 9, 0):
        peer.payload_type = payload_type
        port.connect(peer.host, peer.port, payload_type, 101)
        rate = port.rate
        await listener.until(lambda rate=rate: listener.batches[-1].pcm.shape[1] == rate // 50)
        begin = len(listener.batches)
        await eventually(lambda p=payload_type: peer.received[-1].payload_type == p)
        already = len(peer.received)
        audio = speech(0.4, rate)
        encoder = g722.Encoder()
        chunks = audio.reshape(-1, rate // 50)
        port.write(audio)
        await paced(peer, [encoder.encode(chunk) if payload_type == 9 else ulaw(chunk) for chunk in chunks])
        await listener.until(lambda b=begin: sum((x.flags == 0).sum() for x in listener.batches[b:]) >= 18)
        await asyncio.sleep(0.1)
        heard = np.concatenate([x.pcm[x.flags == 0] for x in listener.batches[begin:]]).reshape(-1)
        await eventually(lambda: port.queued == 0)
        stages.append((payload_type, likeness(heard, audio[: len(heard) * 3 // 4])))
        markers = sum(packet.marker for packet in peer.received[already:])
        assert markers <= 2, f"{markers} markers with payload type {payload_type}"
    assert all(alike > 0.97 for _, alike in stages), stages
    packets = peer.received
    assert [p.sequence - packets[0].sequence & 0xFFFF for p in packets] == list(range(len(packets)))
    assert len({packet.ssrc for packet in packets}) == 1


def ulaw(pcm):
    return encode(0, np.ascontiguousarray(pcm)).tobytes()


# --- keys -----------------------------------------------------------------------------------------------------


def presses(packets, payload_type=101):
    """Digit and length in timestamp units of the events among these packets, by their timestamps."""
    found: dict[int, tuple[int, int]] = {}
    for packet in packets:
        if packet.payload_type == payload_type:
            event = EventPayload.parse(packet.payload)
            found[packet.timestamp] = (event.event, event.duration)
    return list(found.values())


async def test_keys_are_sent_as_events_and_speech_waits(rig):
    port, peer, listener = await rig.call()
    told = []
    port.on_digits_sent = lambda: told.append(port.queued)
    payloads = codes(30)
    port.write(pcm_of(payloads))
    await eventually(lambda: port.played >= 5)
    port.press("1#", 100, 60)
    await eventually(lambda: told)
    await eventually(lambda: port.queued == 0 and peer.received[-1].payload == b"\xff" * 160)
    packets = peer.received
    assert presses(packets) == [(1, 800), (11, 800)]
    events = [n for n, packet in enumerate(packets) if packet.payload_type == 101]
    between = [packet.payload for packet in packets[events[0] : events[-1] + 1] if packet.payload_type == 0]
    assert between and set(between) == {b"\xff" * 160}
    assert b"".join(p.payload for p in packets if p.payload in payloads) == b"".join(payloads)
    assert [p.sequence - packets[0].sequence & 0xFFFF for p in packets] == list(range(len(packets)))
    assert told[0] > 0 and counter(rig, port, Counter.DIGITS_OUT) == 2
    markers = [n for n, packet in enumerate(packets) if packet.marker]
    assert len(markers) <= 6  # the stream, both talkspurts, two keys


async def test_keys_are_sent_as_tones_where_no_event_was_negotiated(rig):
    port, peer, listener = await rig.call()
    port.connect(peer.host, peer.port, 0, -1)
    told = []
    port.on_digits_sent = lambda: told.append(True)
    port.write(pcm_of(codes(5)))
    port.press("5D", 100, 80)
    port.press(",9", 100, 80)
    await eventually(lambda: told)
    await eventually(lambda: port.queued == 0)
    detector, slots = ToneDetector(1), np.array([0])
    heard = []
    for packet in peer.received:
        heard += detector.detect(slots, pcm_of([packet.payload])[None, :]).pressed
    assert [digit for _, digit, _ in heard] == ["5", "D", "9"]
    assert all(abs(ms - 100) <= 20 for _, _, ms in heard)
    assert counter(rig, port, Counter.DIGITS_OUT) == 3


async def test_too_many_keys_a_pause_alone_and_a_renegotiation_end_nothing(rig):
    port, peer, listener = await rig.call()
    pid, told = rig.client.pid, []
    port.on_digits_sent = lambda: told.append(True)
    with pytest.raises(ValueError, match="too many"):
        port.press("1" * 129)
    for _ in range(4):
        port.press("1" * 100, 30_000)
    await eventually(lambda: presses(peer.received))
    port.connect(peer.host, peer.port, 0, -1)  # they wait no longer
    await eventually(lambda: len(told) == 1)
    for _ in range(4):
        port.press("2" * 100, 30_000)
    await eventually(lambda: not presses(peer.received[-5:]))
    port.connect(peer.host, peer.port, 0, 101)
    port.connect(peer.host, peer.port, 9, 101)
    await eventually(lambda: peer.received[-1].payload_type == 9)
    other, far, _ = await rig.call()
    other.on_digits_sent = lambda: told.append(True)
    other.press(",")
    await eventually(lambda: len(told) == 2)
    assert rig.client.pid == pid and rig.events.names() == ["ProcessStarted"]


async def test_keys_before_the_line_is_connected_are_nobodys(rig):
    port = await rig.client.open()
    port.press("123")
    other, peer, _ = await rig.call()
    await eventually(lambda: len(peer.received) > 5)
    assert rig.events.names() == ["ProcessStarted"]


async def test_a_key_heard_as_a_tone_is_told_and_its_frames_are_flagged(rig):
    port, peer, listener = await rig.call()
    port.connect(peer.host, peer.port, 0, -1)
    audio = np.concatenate([np.zeros(1600, np.int16), tones("7", 100, 100)])
    await paced(peer, [ulaw(chunk) for chunk in audio.reshape(-1, 160)])
    await eventually(lambda: listener.digits)
    assert [digit for digit, _ in listener.digits] == ["7"] and abs(listener.digits[0][1] - 100) <= 20
    flagged = [flag for flag in listener.flags if flag & FLAG_DIGIT]
    assert 4 <= len(flagged) <= 6
    assert port.figures().digits_in == 1


async def test_events_that_nobody_negotiated_are_understood_when_only_one_fits(rig):
    port, peer, listener = await rig.call()
    port.connect(peer.host, peer.port, 0, -1)
    for payload in codes(3):
        peer.packet(payload)
    peer.key(4, payload_type=97)
    await eventually(lambda: listener.digits)
    assert [digit for digit, _ in listener.digits] == ["4"]


# --- pauses ---------------------------------------------------------------------------------------------------


async def test_comfort_noise_is_heard_in_a_pause_and_is_no_loss(rig):
    port, peer, listener = await rig.call()
    port.connect(peer.host, peer.port, 0, 101, comfort_noise=13)
    for payload in codes(5):
        peer.packet(payload)
    peer.packet(bytes([60]), payload_type=13, samples=160 * 30)
    await listener.until(lambda: listener.flags.count(0) >= 5 and len(listener.flags) >= 45)
    noise = listener.pcm.reshape(-1, 160)[-10:].astype(float)
    level = 20 * np.log10(np.sqrt((noise**2).mean()) / 32768)
    assert -66 < level < -54
    for payload in codes(5, seed=9):
        peer.packet(payload)
    await listener.until(lambda: listener.flags.count(0) >= 10)
    assert FLAG_CONCEALED not in listener.flags
    figures = port.figures()
    assert (figures.lost, figures.concealed_ms) == (0, 0)
    assert set(listener.flags) == {0, FLAG_SILENCE}


async def test_what_was_sent_beside_each_frame_is_known(rig):
    port, peer, listener = await rig.call()
    begin = len(listener.flags)
    assert port.sent_beside(0, begin) is None
    spoken = pcm_of(codes(8))
    port.write(spoken)
    await eventually(lambda: port.queued == 0)
    await listener.until(lambda: len(listener.flags) > begin + 15)
    beside = port.sent_beside(0, len(listener.flags))
    assert beside is not None
    loud = beside[beside.any(axis=1)]
    assert (loud.reshape(-1) == spoken).all()
    port.connect(peer.host, peer.port, 0, 101, send=False)
    await asyncio.sleep(0.2)
    count = len(listener.flags)
    assert port.sent_beside(count - 3, 3) is None
