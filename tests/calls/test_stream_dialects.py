"""What applications may send, in each dialect: read, or refused with a sentence."""

import base64
import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sipagent.calls.streams.audiosocket import AudioSocket, call_uuid, packet
from sipagent.calls.streams.dialect import (
    CALLER,
    Audio,
    Clear,
    Dialect,
    Facts,
    Interrupt,
    Keys,
    Malformed,
    Mark,
    Message,
    Stop,
)
from sipagent.calls.streams.step import DIALECTS
from sipagent.calls.streams.teler import Teler
from sipagent.calls.streams.twilio import Twilio, signature

PCM = np.arange(-80, 80, dtype=np.int16)
B64 = base64.b64encode(PCM.tobytes()).decode()


def facts(**more: object) -> Facts:
    told: dict[str, object] = {
        "call_id": "call_1",
        "stream_id": "strm_1",
        "account_id": "default",
        "app_id": "plan",
        "rate": 8000,
        "tracks": (CALLER,),
        "both_ways": True,
    }
    return Facts(**{**told, **more})  # type: ignore[arg-type]


def read(dialect: Dialect, message: Message) -> list[object]:
    return list(dialect.read(message))


@pytest.mark.parametrize(
    "message",
    [
        {"type": "audio", "data": {"audio_b64": B64, "chunk_id": "7"}},
        {"type": "audio", "audio_b64": B64, "chunk_id": "7"},
        {"type": "audio", "audio_b64": B64, "chunk_id": 7, "more": {"of": "it"}},
    ],
)
def test_telers_audio_in_either_spelling(message):
    (audio,) = read(Teler(facts()), json.dumps(message))
    assert isinstance(audio, Audio)
    assert (audio.pcm == PCM).all() and (audio.rate, audio.chunk) == (8000, "7")


def test_what_else_telers_applications_say():
    teler = Teler(facts())
    assert read(teler, '{"type":"interrupt","chunk_id":3}') == [Interrupt("3")]
    assert read(teler, '{"type":"clear"}') == [Clear()]
    assert teler.mark("x") is None and teler.digit("1") is None and not list(teler.closing())


def test_what_twilios_applications_say():
    twilio = Twilio(facts())
    assert read(twilio, '{"event":"mark","streamSid":"MZ1","mark":{"name":"a"}}') == [Mark("a")]
    assert read(twilio, '{"event":"clear","streamSid":"MZ1"}') == [Clear()]
    (audio,) = read(twilio, '{"event":"media","media":{"payload":"gIA="}}')
    assert isinstance(audio, Audio) and audio.pcm.tolist() == [32124, 32124]
    assert Twilio(facts(both_ways=False)).digit("1") is None, "keys are for both ways"


@pytest.mark.parametrize(
    ("kind", "message", "why"),
    [
        (Teler, '{"type":"stop"}', "a type that"),
        (Teler, '{"type":"audio","audio_b64":"QQ=="}', "middle of a sample"),
        (Teler, '{"type":"audio","audio_b64":"?"}', "not base64"),
        (Twilio, '{"event":"mark"}', "lacks what belongs to it"),
        (Twilio, json.dumps({"event": "mark", "mark": {"name": "x" * 257}}), "longer than 256"),
        (Teler, json.dumps({"type": "audio", "audio_b64": B64, "chunk_id": "x" * 257}), "longer than 256"),
        (Teler, json.dumps({"type": "audio", "data": {"audio_b64": B64, "chunk_id": "x" * 257}}), "longer than 256"),
        (Teler, json.dumps({"type": "interrupt", "chunk_id": 10**300}), "longer than 256"),
        (Twilio, "[" * 100_000, "of another shape"),
        (Twilio, '{"event":"media","media":' * 10_000, "not JSON|another shape"),
        (Twilio, b"\xff\xfe", "not JSON"),
        (AudioSocket, packet(0x42), "a kind that"),
        (AudioSocket, packet(0x03, b"12"), "a kind that"),
        (AudioSocket, packet(0x10, b"1"), "middle of a sample"),
    ],
)
def test_what_cannot_be_read(kind, message, why):
    with pytest.raises(Malformed, match=why):
        read(kind(facts()), message)


def test_audiosocket_in_pieces_of_any_length():
    stream = packet(0x10, PCM.tobytes()) + packet(0x03, b"#") + packet(0x16, PCM.tobytes()) + packet(0x00)
    for size in (1, 2, 3, 7, 1000):
        dialect = AudioSocket(facts())
        said = [each for at in range(0, len(stream), size) for each in read(dialect, stream[at : at + size])]
        first, keys, second, stop = said
        assert isinstance(first, Audio) and isinstance(second, Audio)
        assert (first.rate, second.rate) == (8000, 48000) and (second.pcm == PCM).all()
        assert (keys, stop) == (Keys("#"), Stop())
    assert read(AudioSocket(facts()), packet(0xFF, b"\x01")) == [Stop("the application reports error 1")]


def test_audiosocket_tells_the_call_by_a_uuid():
    own = "6f1c1f1e-1f00-4b1d-8d7c-0123456789ab"
    assert next(AudioSocket(facts(parameters={"uuid": own})).opening()) == packet(
        0x01, bytes.fromhex(own.replace("-", ""))
    )
    for parameters in ({}, {"uuid": "no"}):
        assert next(AudioSocket(facts(parameters=parameters)).opening()) == packet(0x01, call_uuid("call_1").bytes)


def test_twilios_signature():
    """As `openssl dgst -sha1 -hmac 12345 -binary | base64` makes it of the URL (twilio.com/docs/usage/security)."""
    assert signature("12345", "wss://a.test/x") == "hVvDwFqJ7DliQOWIB8ZZMPPvqF4="


@given(st.sampled_from(sorted(DIALECTS)), st.binary(max_size=200) | st.text(max_size=200).map(str.encode))
def test_whatever_comes_is_read_or_refused(name: str, data: bytes) -> None:
    try:
        read(DIALECTS[name](facts()), data)
    except Malformed:
        pass
