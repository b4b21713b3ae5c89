"""Hostile packets: a short run of `bench.fuzz` with fixed seeds, and any bytes at all to each parser."""

import contextlib
import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bench import fuzz
from bench.fuzz_packets import Stream
from bench.fuzz_world import World, check_buffer, largest
from sipagent.media import native
from sipagent.media.comfort_noise import MAX_ORDER, ComfortNoise, response
from sipagent.media.jitter import JitterBuffer
from sipagent.media.protocol import SRTP_KEY, SRTP_SUITES, Crypto
from sipagent.media.rings import Counter, len_of
from sipagent.media.rtcp import MAX_BYTES, MAX_PARTS, Description, ExtendedReport, Goodbye, Report, parse_compound
from sipagent.media.rtp import RtpPacket
from sipagent.media.srtp import Refused, SrtpSession
from sipagent.media.telephone_event import EventPayload, EventReceiver, UnnegotiatedEvents

EPISODES, PACKETS = 4, 25_000  # an even number: numpy's hot path and the compiled one
FEW = settings(max_examples=300, deadline=None)
RTP_LIKE = st.builds(
    lambda head, rest: bytes(head) + rest,
    st.tuples(st.integers(0x80, 0xBF), *[st.integers(0, 255)] * 11),
    st.binary(max_size=600),
)


@pytest.fixture
def strict_numpy():
    with np.errstate(over="raise", divide="raise", invalid="raise"):
        yield


@pytest.mark.parametrize("number", range(EPISODES))
def test_an_engine_bears_whatever_comes(number, strict_numpy):
    if native.load() is None:
        pytest.fail("sipagent/media/_native.so is missing or old: apt-get install gcc libc6-dev, then pip install -e .")
    result = fuzz.episode(1955, number, PACKETS)
    assert not result.failure, result.failure
    assert result.packets >= PACKETS
    for counter in ("PACKETS_IN", "MALFORMED", "FOREIGN", "DUPLICATE", "SRTP_REFUSED", "SRTP_REPLAYED", "RTCP_IN"):
        assert result.counts[counter], f"the run never came by {counter}"


def test_the_same_seed_is_the_same_run(strict_numpy):
    one, other = (fuzz.episode(7, 0, 3_000).counts for _ in range(2))
    assert one == other


@contextlib.contextmanager
def a_world():
    world = World(len(fuzz.KINDS), None, repeats=True)
    yield world
    world.close()


def test_a_peer_that_sends_from_the_highest_port_gets_its_rtcp_somewhere(strict_numpy):
    with a_world() as world:
        call = fuzz.Call(world, random.Random(1), 0)
        call.source = ("198.51.100.1", 65_535)  # not where its SDP says, and there is no port above
        while world.now < 9_000_000_000:
            world.receive((0,), call.datagrams(0, 0.0))
            world.tick()
        assert world.sockets.source[0] == call.source
        assert world.rings.counters[0, Counter.RTCP_OUT] > 0


def test_audio_ahead_is_forgotten_when_timestamps_jump(strict_numpy):
    with a_world() as world:
        call = fuzz.Call(world, random.Random(1), 0)
        for lost, jump in ((0, 0), (0, 0), (0, 0), (2, 320), (2, 320), (1, 1 << 30), (0, 0)):
            call.peer.sequence = call.peer.sequence + lost & 0xFFFF
            call.peer.timestamp = call.peer.timestamp + jump & 0xFFFFFFFF
            packet = call.peer._packet(0, b"\x11" * 160, 160)
            world.receive((0,), [(packet, call.far, False)])
            world.check()


def test_a_backlog_is_skipped_with_all_that_came_in_pieces():
    buffer = JitterBuffer(1, 8000, 20, 200, np.zeros((1, len_of(Counter)), np.int64))
    for number, timestamp in enumerate((0, 160, 640, 1120, 1600, 5200)):  # holes, and then far ahead
        buffer.insert(0, timestamp, np.full(160, 1000, np.int16), number == 1, 10**9)
        check_buffer(buffer, 0)
    assert buffer.end[0] - buffer.position[0] <= buffer.AHEAD and len(buffer._islands.get(0, ())) <= 1


# --- parsers --------------------------------------------------------------------------------------------------


@FEW
@given(st.binary(max_size=600) | RTP_LIKE)
def test_rtp_is_parsed_or_refused(data):
    try:
        packet = RtpPacket.parse(data)
    except ValueError:
        return
    assert 0 <= packet.payload_type <= 127 and len(packet.payload) <= len(data) - 12
    assert packet.payload in data
    assert RtpPacket.parse(bytes(packet)) == packet


@FEW
@given(st.binary(max_size=MAX_BYTES + 10) | st.lists(RTP_LIKE, max_size=4).map(b"".join))
def test_any_bytes_are_rtcp_or_refused(data):
    _rtcp(data)


@FEW
@given(st.integers(0, 10_000), st.data())
def test_spoilt_rtcp_is_parsed_or_refused(seed, drawn):
    """Lengths, counts and types that lie, in compounds that are otherwise right."""
    rng = random.Random(seed)
    peer = Stream(rng, payload_type=0, event=101, noise=13, our_ssrc=1)
    data = bytearray(peer.report())
    assert isinstance(parse_compound(bytes(data))[0], Report)
    for _ in range(drawn.draw(st.integers(1, 6))):
        data[drawn.draw(st.integers(0, len(data) - 1))] = drawn.draw(st.integers(0, 255))
    _rtcp(bytes(data[: drawn.draw(st.integers(0, len(data)))]) if drawn.draw(st.booleans()) else bytes(data))


def _rtcp(data):
    try:
        packets = parse_compound(data)
    except ValueError:
        return
    assert isinstance(packets[0], Report) and len(packets) <= MAX_PARTS and len(data) <= MAX_BYTES
    assert all(isinstance(packet, Report | Description | Goodbye | ExtendedReport) for packet in packets)
    assert largest(packets) <= MAX_BYTES


@FEW
@given(st.lists(st.tuples(st.binary(max_size=8), st.integers(0, 0xFFFFFFFF), st.integers(0, 10**9)), max_size=30))
def test_telephone_events_of_any_bytes(packets):
    receiver, unnegotiated, now = EventReceiver(), UnnegotiatedEvents(), 0
    for data, timestamp, later in packets:
        now += later
        unnegotiated.observe(96 + data[0] % 32 if data else 96, data, timestamp)
        try:
            payload = EventPayload.parse(data)
        except ValueError:
            assert len(data) < 4
            continue
        assert bytes(payload) == bytes((data[0], data[1] & 0xBF)) + data[2:4]
        presses = receiver.receive(payload, timestamp, now) + receiver.expire(now)
        assert len(presses) <= 3 and all(0 <= press.duration_ms < 1 << 29 for press in presses)
    assert largest(unnegotiated) <= 128


@FEW
@given(st.binary(max_size=600))
def test_comfort_noise_of_any_payload(payload):
    with np.errstate(over="raise", divide="raise", invalid="raise"):
        assert np.isfinite(response(payload)).all()
        noise = ComfortNoise(1)
        noise.describe(0, payload)
        frame = noise.frame(np.array([0]), 160)
    assert frame.dtype == np.int16 and frame.shape == (1, 160)
    assert len(noise._payload[0]) <= 1 + MAX_ORDER


@FEW
@given(st.lists(st.binary(max_size=600) | RTP_LIKE, max_size=5))
def test_nothing_forged_passes_srtp(packets):
    session = SrtpSession(Crypto(suite=SRTP_SUITES[0], local_key=bytes(SRTP_KEY), remote_key=b"k" * SRTP_KEY))
    for data in packets:
        for unprotect in (session.unprotect, session.unprotect_rtcp):
            with pytest.raises(Refused):
                unprotect(data)
    assert not session._received
