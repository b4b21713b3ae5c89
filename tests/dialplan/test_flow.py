"""Answers of flow URLs: those that the SDK makes are understood, and nothing else is done."""

import json
from typing import Any

import pytest
from teler.flows import CallFlow

from sipagent.dialplan.flow import FOREVER, MAX_ANSWER, BadAnswer, parse, steps_of
from sipagent.dialplan.model import DialStep, HangupStep, Instead, PlayStep, RecordStep, Step, StreamStep, WebhookStep

ASKED = "https://bot.example/flows/first?key=1"
FALLBACK = "https://bot.example/fallback"


def steps(answer: dict[str, Any]) -> list[Step]:
    return steps_of(parse(json.dumps(answer).encode()), ASKED, FALLBACK)


def test_what_the_sdk_makes():
    sound = "https://cdn.example/a.wav"
    assert steps(CallFlow.hangup()) == [HangupStep()]
    assert steps(CallFlow.play(sound)) == [PlayStep(file=sound)]
    assert steps(CallFlow.play(sound, flow_url="https://bot.example/next")) == [
        PlayStep(file=sound),
        WebhookStep(url="https://bot.example/next", fallback_url=FALLBACK),
    ]
    assert steps(CallFlow.dial("+4930123")) == [DialStep(to="+4930123", timeout_s=30)]
    dial = CallFlow.dial(
        "sip:desk@pbx.example",
        timeout=12,
        record="stereo",
        custom_headers={"X-Order": "7"},
        ringback="suppress",
        confirm_sound={"action": "play", "media_url": sound},
        on_no_answer={"action": "hangup"},
        on_busy={"action": "play", "media_url": sound, "loop": 2},
    )
    assert steps(dial) == [
        DialStep(
            to="sip:desk@pbx.example",
            timeout_s=12,
            record=True,
            headers={"X-Order": "7"},
            music="silence",
            confirm=sound,
            on_no_answer=Instead(hangup=True),
            on_busy=Instead(play=sound, times=2),
        )
    ]
    music = CallFlow.dial("1", dial_music={"action": "play", "media_url": sound, "loop": True})
    (step,) = steps(music)
    assert isinstance(step, DialStep) and step.music == sound


def test_a_stream():
    record, short = steps(CallFlow.stream("wss://bot.example/media"))
    assert record == RecordStep(action="start")
    assert short == StreamStep(url="wss://bot.example/media", dialect="teler", chunk_ms=400)
    (wide,) = steps(CallFlow.stream("wss://bot.example/media", sample_rate="16k", chunk_size=1990, record=False))
    assert wide == StreamStep(url="wss://bot.example/media", dialect="teler", sample_rate=16000, chunk_ms=1000)


def test_ours():
    assert steps({"action": "continue", "variables": {"tier": "gold"}}) == []
    assert steps({"action": "play", "file_url": "/b.wav", "loop": True}) == [
        PlayStep(file="https://bot.example/b.wav", times=FOREVER)
    ]
    (step,) = steps({"action": "dial", "to": "1", "on_failure": {"action": "say", "text": "Sorry."}})
    assert isinstance(step, DialStep) and step.on_failure == Instead(say="Sorry.")


@pytest.mark.parametrize(
    "answer, why",
    [
        ({}, "action"),
        ({"action": "fly"}, "action"),
        ({"action": "play"}, "media_url: is missing"),
        ({"action": "play", "media_url": "file:///etc/passwd"}, "media_url: is no URL"),
        ({"action": "play", "media_url": 7}, "media_url"),
        ({"action": "play", "media_url": "https://a.example/a.wav", "volume": 3}, "volume"),
        ({"action": "dial"}, "to"),
        ({"action": "dial", "to": "1\r\nX: y"}, "to"),
        ({"action": "dial", "to": "1", "timeout": 0}, "timeout"),
        ({"action": "dial", "to": "1", "timeout": 601}, "timeout"),
        ({"action": "dial", "to": "1", "custom_headers": {"Via": "x"}}, "custom_headers"),
        ({"action": "dial", "to": "1", "custom_headers": {"X-A": "x" * 257}}, "custom_headers"),
        ({"action": "dial", "to": "1", "custom_headers": {f"X-{i}": "" for i in range(17)}}, "custom_headers"),
        ({"action": "dial", "to": "1", "ringback": "loud"}, "ringback"),
        ({"action": "dial", "to": "1", "on_busy": {"action": "play"}}, "on_busy.media_url"),
        ({"action": "dial", "to": "1", "on_busy": {"action": "dial", "to": "1"}}, "on_busy"),
        ({"action": "dial", "to": "1", "confirm_sound": {"action": "hangup"}}, "confirm_sound.action"),
        ({"action": "dial", "to": "1", "dial_music": {"action": "hangup"}}, "dial_music.action"),
        ({"action": "stream", "ws_url": "https://bot.example/media"}, "ws_url"),
        ({"action": "stream", "ws_url": "tcp://127.0.0.1:1"}, "ws_url"),
        ({"action": "stream", "ws_url": "wss://bot.example", "sample_rate": "44k"}, "sample_rate"),
        ({"action": "hangup", "variables": {"7": "x"}}, "variables"),
        ({"action": "hangup", "variables": {"a": "x" * 1001}}, "variables"),
        ({"action": "hangup", "variables": {f"a{i}": "" for i in range(65)}}, "variables"),
    ],
)
def test_what_is_refused_names_the_field(answer, why):
    with pytest.raises(BadAnswer) as caught:
        steps(answer)
    assert why in str(caught.value)


@pytest.mark.parametrize(
    "body", [b"", b"<html>", b"[]", b"null", b"\xff", b"[" * 60_000, b" " * (MAX_ANSWER + 1), b'"hangup"']
)
def test_what_is_no_answer(body):
    with pytest.raises(BadAnswer):
        parse(body)
