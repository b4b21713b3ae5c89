"""Recordings and what a call can be made to hear, say and answer: a phone on the wire, files on the disk."""

import asyncio
import io
import wave
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import numpy as np
import pytest

try:
    import teler
except ModuleNotFoundError as error:
    raise ModuleNotFoundError("the Teler client is missing: pip install 'sipagent[dev]'") from error

from sipagent.calls.sounds import write_stereo_wav
from sipagent.phone import Phone, PhoneCall, PhoneSettings
from sipagent.speech.settings import SpeechSettings
from sipagent.state_folder import local_key
from tests.peers.ports import free_block
from tests.peers.sipp import Sipp
from tests.speech.prompts import prompts
from tests.system.node import DIALPLAN, Node
from tests.system.test_survival import another_main, kill_main

pytestmark = [pytest.mark.peer, pytest.mark.models, pytest.mark.timeout(240)]

RATE = 8000
CALLS = "/api/v1/voice/calls"
MORE_ROUTES = "".join(f'  - {{name: {name}, called: ["{name}"], steps: {name}}}\n' for name in ("rings", "recorded"))
MORE_STEPS = "  rings: [ring: 60, reject: 480]\n  recorded: [record, agent: listener]\n"
PLAN = DIALPLAN.replace("routes:\n", "routes:\n" + MORE_ROUTES, 1).replace("steps:\n", "steps:\n" + MORE_STEPS, 1)
LEVEL = 8000  # of the tones


def tone(hertz: float, seconds: float) -> np.ndarray[Any, np.dtype[np.int16]]:
    at = np.arange(int(seconds * RATE)) / RATE
    return (LEVEL * np.sin(2 * np.pi * hertz * at)).astype(np.int16)


def silence(seconds: float) -> np.ndarray[Any, np.dtype[np.int16]]:
    return np.zeros(int(seconds * RATE), np.int16)


def level(pcm: Any, hertz: float) -> Any:
    """Amplitude of a tone in each 20 ms."""
    frames = np.asarray(pcm, np.float64)[: len(pcm) // 160 * 160].reshape(-1, 160)
    wheel = np.exp(-2j * np.pi * hertz * np.arange(160) / RATE)
    return np.abs(frames @ wheel) / 80


def heard_by(call: PhoneCall) -> Any:
    return np.concatenate(call.tape.heard) if call.tape.heard else silence(0)


def parsed(data: bytes) -> Any:
    with wave.open(io.BytesIO(data), "rb") as file:
        assert (file.getnchannels(), file.getsampwidth(), file.getframerate()) == (2, 2, RATE)
        return np.frombuffer(file.readframes(file.getnframes()), "<i2").reshape(-1, 2)


class World:
    def __init__(self, node: Node, phone: Phone) -> None:
        self.node, self.phone = node, phone

    async def post(self, path: str, body: Any = None, status: int = 200) -> Any:
        async with self.node.http.post(path, json=body or {}) as response:
            answer = await response.json()
            assert response.status == status, answer
            return answer

    async def get(self, path: str) -> Any:
        async with self.node.http.get(path) as response:
            answer = await response.json()
            assert response.status == 200, answer
            return answer

    async def call(self, user: str, *, answered: bool = True) -> tuple[PhoneCall, str]:
        """The phone's side of it, and its id."""
        before = {call["id"] for call in (await self.get("/api/v1/live-calls"))["data"]}
        call = await self.phone.call(f"sip:{user}@{self.node.target}")
        if answered:
            assert await call.answered(10)
        found: list[str] = []

        async def there() -> bool:
            live = (await self.get("/api/v1/live-calls"))["data"]
            found[:] = [one["id"] for one in live if one["id"] not in before and (one["answered_at"] or not answered)]
            return bool(found)

        await self.node.until(there, 30)
        return call, found[0]

    async def recording(self, call_id: str, state: str = "done") -> dict[str, Any]:
        found: list[dict[str, Any]] = []

        async def there() -> bool:
            data = (await self.get(f"{CALLS}/{call_id}/recordings"))["data"]
            found[:] = [one for one in data if one["state"] == state]
            return bool(found)

        await self.node.until(there, 15)
        return found[0]

    def signed(self, recording_id: str) -> Any:
        """As the SDK finds it."""
        key, url = local_key(self.node.folder)[0], f"http://127.0.0.1:{self.node.api_port}/api/v1"
        with teler.Client(api_key=key, base_url=url) as client:
            return client.recordings.retrieve(recording_id, expires_in=60)

    async def download(self, recording_id: str) -> bytes:
        """By the SDK, and then by whoever has the URL."""
        found = await asyncio.to_thread(self.signed, recording_id)
        assert found.expires_in == 60
        async with aiohttp.ClientSession() as stranger:
            async with stranger.get(found.url) as response:
                assert (response.status, response.content_type) == (200, "audio/wav")
                data = await response.read()
            async with stranger.get(found.url, headers={"Range": "bytes=0-3"}) as response:
                assert (response.status, await response.read()) == (206, b"RIFF")
            async with stranger.get(found.url.replace("expires=", "expires=9")) as response:
                assert response.status == 403
        return data


@asynccontextmanager
async def world(**options: Any) -> AsyncIterator[World]:
    low = free_block(64)
    async with Node(dialplan=PLAN, **options) as node:
        folder = node.folder / "dialplans"
        mono = tone(440, 1.0)
        write_stereo_wav(folder / "tone.wav", mono, mono, RATE)
        phone = Phone(PhoneSettings(media_ports=(low, low + 62), ears=False), SpeechSettings())
        await phone.start()
        try:
            yield World(node, phone)
        finally:
            await phone.close()


async def test_a_call_is_recorded_steered_and_downloaded() -> None:
    """One node, one call after another: a node takes seconds to start."""
    async with world() as it:
        await _both_sides(it)
        await _keys_and_words(it)
        await _answered_and_refused(it)
        await _recorded_from_the_beginning(it)
        await _goes_on_in_another_main(it)
        assert await it.node.stop() == 0


async def _both_sides(it: World) -> None:
    call, call_id = await it.call("listen")
    (leg,) = [leg.id for leg in it.node.record(call_id).call.legs] if it.node.calls() else [""]
    started = await it.post(f"{CALLS}/{call_id}/recordings")
    await it.post(f"{CALLS}/{call_id}/recordings", status=409)
    # Two beeps that are exactly a second apart; then the file; then a beep that nobody hears.
    await call.play(np.concatenate([tone(1000, 0.4), silence(0.6), tone(1000, 0.4), silence(0.2)]), RATE)
    played = await it.post(f"{CALLS}/{call_id}/play", {"media_url": "tone.wav", "loop": 2})
    await it.node.until(lambda: _length(call, 440, 1.9), 30)

    if not leg:
        leg = (await it.get(f"{CALLS}/{call_id}/legs"))["data"][0]["id"]
    await it.post(f"{CALLS}/{call_id}/mute", {"leg_id": leg, "on": True})
    await call.play(np.concatenate([tone(1500, 0.5), silence(0.2)]), RATE)
    await it.post(f"{CALLS}/{call_id}/mute", {"leg_id": leg, "on": False})
    await call.play(np.concatenate([silence(0.1), tone(2000, 0.5), silence(0.3)]), RATE)
    stopped = await it.post(f"{CALLS}/{call_id}/recordings/stop")
    assert stopped["recording_id"] == started["recording_id"]
    await it.post(f"{CALLS}/{call_id}/recordings/stop", status=409)
    await call.play(tone(1000, 0.3), RATE)  # after its end
    about = await it.recording(call_id)
    data = await it.download(about["id"])
    assert len(data) == about["bytes"] and about["detail"] == ""
    both = parsed(data)
    assert len(both) * 1000 // RATE == about["ms"]

    left = level(both[:, 0], 1000)
    loud = np.flatnonzero(left > LEVEL / 2)
    beeps = np.split(loud, np.flatnonzero(np.diff(loud) > 5) + 1)
    assert [len(beep) for beep in beeps] == [pytest.approx(20, abs=3)] * 2, "the third is after the end"
    assert abs((beeps[1][0] - beeps[0][0]) - 50) <= 2, "a second apart"
    assert 20 * abs(np.log10(np.median(left[beeps[0]][2:-2]) / LEVEL)) < 1, "as loud as it was said"
    right = level(both[:, 1], 440)
    file = np.flatnonzero(right > LEVEL / 2)
    assert len(file) == pytest.approx(100, abs=3) and file[0] > beeps[1][-1]
    assert 20 * abs(np.log10(np.median(right[file]) / LEVEL)) < 1
    assert level(both[:, 1], 1000).max() < LEVEL / 10 and level(both[:, 0], 440).max() < LEVEL / 10, (
        "each on its own side"
    )
    assert level(both[:, 0], 1500).max() < LEVEL / 10, "muted: nobody hears it"
    assert (level(both[:, 0], 2000) > LEVEL / 2).sum() == pytest.approx(25, abs=4)
    # The same on the wire: what left on the right came to the phone.
    assert (level(heard_by(call), 440) > LEVEL / 2).sum() == pytest.approx(100, abs=5)

    # A playback that a key ends, one that cannot be had, one that the guard refuses.
    body = {"media_url": "tone.wav", "loop": 50, "on_dtmf": "stop"}
    stopped = await it.post(f"{CALLS}/{call_id}/play", body)
    await it.node.until(lambda: _length(call, 440, 2.5), 30)
    await call.press("1")
    await it.post(f"{CALLS}/{call_id}/play", {"media_url": "none.wav"})
    await it.post(f"{CALLS}/{call_id}/play", {"media_url": f"http://127.0.0.1:{it.node.api_port}/healthz"})
    reasons: dict[str, str] = {}

    async def three() -> bool:
        record = await it.get(f"{CALLS}/{call_id}/record")
        ended = [event["data"] for event in record["events"] if event["type"] == "PlaybackEnded"]
        reasons.update({one["playback_id"]: one["reason"] for one in ended})
        return len(reasons) == 4

    await it.node.until(three, 15)
    assert reasons[played["playback_id"]] == "played"
    assert reasons[stopped["playback_id"]] == "key"
    assert any("none.wav" in reason for reason in reasons.values())
    assert any("[web] allow" in reason for reason in reasons.values())
    await call.hang_up()
    await it.node.until(lambda: _over(it), 30)
    legs = it.node.record(call_id).call.legs
    assert legs[0].recordings == [about["id"]]


async def _length(call: PhoneCall, hertz: float, seconds: float) -> bool:
    return bool((level(heard_by(call), hertz) > LEVEL / 2).sum() >= seconds * 50)


async def _over(it: World) -> bool:
    """No call is up, and all are written down."""
    return int((await it.node.health())["calls_active"]) == 0 and all(call.ended_at for call in it.node.calls())


async def _keys_and_words(it: World) -> None:
    call, call_id = await it.call("listen")
    pressed: list[str] = []
    call.leg.on_digit.append(pressed.append)
    await it.post(f"{CALLS}/{call_id}/dtmf", {"digits": "47#", "duration_ms": 100})

    async def arrived() -> bool:
        return "".join(pressed) == "47#"

    await it.node.until(arrived, 30)
    await it.post(f"{CALLS}/{call_id}/dtmf", {"digits": "x"}, 422)

    asking = asyncio.create_task(it.post(f"{CALLS}/{call_id}/gather", {"digits": {"most": 4}, "first_s": 15}))
    await asyncio.sleep(0.5)
    await call.press("42#")
    answer = await asking
    assert (answer["by"], answer["digits"], answer["reason"]) == ("digits", "42", "complete")

    (prompt,) = [prompt for prompt in prompts(40) if len(prompt.text.split()) == 5][:1]
    body = {"text": "Who is calling?", "speech": True, "first_s": 15}
    asking = asyncio.create_task(it.post(f"{CALLS}/{call_id}/gather", body))

    async def asked() -> bool:
        return any(abs(heard_by(call)[-RATE:].astype(int)) > 2000) if call.tape.heard else False

    await it.node.until(asked, 15)
    await asyncio.sleep(1.5)
    await call.play(np.concatenate([prompt.pcm, silence(1.5)]), RATE)
    answer = await asking
    assert answer["by"] == "speech", answer
    assert set(answer["text"].lower().strip(".").split()) & set(prompt.text.lower().strip(".").split())

    answer = await it.post(f"{CALLS}/{call_id}/gather", {"digits": {}, "first_s": 1})
    assert (answer["by"], answer["reason"]) == ("nothing", "silence")
    await it.post(f"{CALLS}/{call_id}/gather", {}, 422)

    before = len(call.tape.heard)
    await it.post(f"{CALLS}/{call_id}/say", {"text": "Somebody will be with you soon."})

    async def said() -> bool:
        new = call.tape.heard[before:]
        return bool(new) and bool(abs(np.concatenate(new).astype(int)).max() > 2000)

    await it.node.until(said, 30)
    await call.hang_up()
    await it.node.until(lambda: _over(it), 30)
    turns = it.node.record(call_id).turns
    assert {"Who is calling?", "Somebody will be with you soon."} <= {turn.agent_text for turn in turns}


async def _answered_and_refused(it: World) -> None:
    call, call_id = await it.call("rings", answered=False)
    await it.post(f"{CALLS}/{call_id}/play", {"media_url": "tone.wav"}, 409)
    await it.post(f"{CALLS}/{call_id}/answer", {"dialplan": "nothing-like-it"}, 422)
    await it.post(f"{CALLS}/{call_id}/answer", {"dialplan": "hello"})
    assert await call.answered(10)
    await it.post(f"{CALLS}/{call_id}/answer", {}, 409)
    await it.node.until(lambda: _over(it), 15)  # it has said hello
    assert it.node.record(call_id).call.cause == "normal"
    await call.hang_up()

    call, call_id = await it.call("rings", answered=False)
    await it.post(f"{CALLS}/{call_id}/reject", {"status": 486, "reason": "Busy Here"})
    end = await asyncio.wait_for(asyncio.shield(call.leg.ended), 10)
    assert end.sip_status == 486
    await it.node.until(lambda: _over(it), 30)
    assert it.node.record(call_id).call.disposition == "rejected"
    await call.hang_up()


async def _recorded_from_the_beginning(it: World) -> None:
    """A call of ours, by `record: true`."""
    async with Sipp("uas-outbound-answered.xml", timeout_s=30) as callee:
        body = {"to_number": callee.uri, "dialplan": "hello", "record": True}
        started = await it.post(f"{CALLS}/initiate", body, 201)
        assert started["record"] is True
        (await callee.wait()).check()
    both = parsed(await it.download((await it.recording(started["id"]))["id"]))
    assert abs(both[:, 1].astype(int)).max() > 2000, "the agent's words"


async def _goes_on_in_another_main(it: World) -> None:
    """By the dialplan's step; the main process dies in between."""
    call, call_id = await it.call("recorded")
    await call.play(np.concatenate([tone(1000, 0.5), silence(0.5)]), RATE)
    await it.recording(call_id, "recording")
    await another_main(it.node, await kill_main(it.node))
    files = list((it.node.folder / "recordings").rglob("*.wav"))
    (name,) = [one["id"] for one in (await it.get(f"{CALLS}/{call_id}/recordings"))["data"]]
    (file,) = [one for one in files if one.stem == name]
    cut = parsed(file.read_bytes())
    assert (level(cut[:, 0], 1000) > LEVEL / 2).sum() >= 20, "whole, though nobody has ended it"
    await call.play(np.concatenate([tone(1500, 0.5), silence(0.5)]), RATE)
    await call.hang_up()
    both = parsed(await it.download((await it.recording(call_id))["id"]))
    first, second = (np.flatnonzero(level(both[:, 0], hertz) > LEVEL / 2) for hertz in (1000, 1500))
    assert len(first) == pytest.approx(25, abs=3) and len(second) == pytest.approx(25, abs=3)
    said = np.concatenate([frame for _, frame in call.tape.said])
    assert second[0] - first[0] >= np.flatnonzero(level(said, 1500) > LEVEL / 2)[0], "the time between them is kept"
