"""A call's audio to applications and back: SIP and RTP on one side, an application's own protocol on the other.

What is on the wire is compared with what the application heard and said, µ-law code by code.
"""

import asyncio
import base64
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import numpy as np
import pytest
import pytest_asyncio

from sipagent.calls import saved
from sipagent.media import g711
from sipagent.phone import Phone, PhoneCall, PhoneSettings
from sipagent.speech.settings import SpeechSettings
from sipagent.state_folder import local_key
from sipagent.store.records import FullCall
from tests.peers.ports import free_block
from tests.peers.stream_apps import AudioSocketApp, TelerApp, TwilioBot, audiosocket_app, teler_app, twilio_bot
from tests.system.node import Node
from tests.system.test_survival import kill_main
from tests.system.wire import Capture

pytestmark = [
    pytest.mark.peer,
    pytest.mark.models,
    pytest.mark.timeout(180),
    pytest.mark.asyncio(loop_scope="module"),
]

PLAN = """\
routes:
  - {{called: ["twilio"], steps: twilio}}
  - {{called: ["teler"], steps: teler}}
  - {{called: ["wide"], steps: wide}}
  - {{called: ["socket"], steps: socket}}
  - {{called: ["nobody"], steps: nobody}}
  - {{called: ["inside"], steps: inside}}
  - {{called: ["listen"], steps: listen}}
steps:
  twilio:
    - stream:
        url: "{twilio}"
        dialect: twilio
        parameters: {{from: "{{from_number}}", plan: gold}}
        on_failure: sorry
    - press: "9"
    - hangup
  teler: [stream: "{teler}", hangup]
  wide: [stream: {{url: "{teler}", sample_rate: 16000, chunk_ms: 40}}, hangup]
  socket: [stream: "{socket}", hangup]
  nobody: [stream: {{url: "ws://127.0.0.1:9/x", on_failure: sorry}}, hangup]
  inside: [stream: {{url: "ws://10.1.2.3/x", on_failure: sorry}}, hangup]
  listen: [stream: {{url: "{twilio}", dialect: twilio, direction: listen, track: both}}, stream: "{teler}"]
  sorry: [press: "#", hangup]
"""


class World:
    """A node, its applications, and a phone that knows no words."""

    def __init__(self, node: Node, phone: Phone, twilio: TwilioBot, teler: TelerApp, socket: AudioSocketApp) -> None:
        self.node, self.phone, self.twilio, self.teler, self.socket = node, phone, twilio, teler, socket
        self.calls = 0

    @asynccontextmanager
    async def call(self, whom: str) -> AsyncIterator[PhoneCall]:
        self.twilio.messages.clear()
        self.teler.messages.clear()
        call = await self.phone.call(f"sip:{whom}@{self.node.target}")
        assert await call.answered(10)
        self.calls += 1
        try:
            yield call
        finally:
            await call.hang_up()  # gives its port back, whoever was first

    async def record(self) -> FullCall:
        """Of the call that has just ended."""
        return (await self.node.ended(self.calls))[0]

    def wire(self) -> Capture:
        return Capture(self.node.media_port, self.node.media_port + 255)

    def leaving(self, wire: Capture) -> bytes:
        """What the node has sent."""
        low, high = self.node.media_port, self.node.media_port + 255
        packets = [packet for packet in wire.packets if low <= packet.source <= high and packet.payload_type == 0]
        assert packets, "PCMU is agreed on"
        return b"".join(packet.payload for packet in sorted(packets, key=lambda packet: packet.sequence))


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def world() -> AsyncIterator[World]:
    low = free_block(64)
    async with twilio_bot() as twilio, teler_app() as teler, audiosocket_app() as socket:
        plan = PLAN.format(twilio=twilio.url, teler=teler.url, socket=socket.url)
        node = Node(dialplan=plan)
        twilio.token = local_key(node.folder)[0]  # a key of the API: the bot signs nothing else and hangs up with it
        extra = f'[web]\nallow = ["127.0.0.1"]\n[streams]\nauth_token = "{twilio.token}"\nreconnect_s = 3\n'
        node.config.write_text(node.config.read_text() + extra)
        async with node:
            phone = Phone(PhoneSettings(media_ports=(low, low + 62), ears=False), SpeechSettings())
            await phone.start()
            try:
                yield World(node, phone, twilio, teler, socket)
            finally:
                await phone.close()


def codes(count: int, seed: int) -> bytes:
    """µ-law that stands for itself: 0x7F is the other zero, which comes out as 0xFF."""
    every = np.delete(np.arange(256, dtype=np.uint8), 0x7F)
    return bytes(np.random.default_rng(seed).choice(every, count))


async def heard_exactly(call: PhoneCall, seed: int, heard: Callable[[bytes], bool]) -> None:
    """What the phone plays reaches the application code by code. Where a busy machine delivers a packet too late it is
    concealed, as on any line: then something else is played."""
    for attempt in range(8):
        said = codes(4000, seed + attempt)
        await call.play(samples(said), 8000)
        try:
            await until(lambda: heard(said), 2.0)  # noqa: B023
        except TimeoutError:
            continue
        return
    raise AssertionError("nothing that was said was heard as it was said")


async def spoken_exactly(world: World, wire: Capture, count: int, say: Callable[[bytes], Awaitable[None]]) -> int:
    """What the application says leaves code by code, in its order and without a gap. Where the machine is so busy that
    the node sleeps longer than it has queued ahead, something else is said. How often it was tried."""
    for attempt in range(1, 5):
        said = codes(count, 900 + attempt)
        await say(said)
        try:
            await until(lambda: said in world.leaving(wire), count / 8000 + 3)  # noqa: B023
        except TimeoutError:
            continue
        return attempt
    raise AssertionError("nothing that the application said left as it was said")


def samples(ulaw: bytes) -> Any:
    return g711.decode(0, np.frombuffer(ulaw, np.uint8))


async def until(condition: Callable[[], object], within_s: float = 15.0) -> None:
    async def met() -> bool:
        return bool(condition())

    await Node.until(met, within_s)


def ended(record: FullCall) -> dict[str, Any]:
    (event,) = [event.data for event in record.events if event.type == "StreamEnded"]
    return event


async def test_a_twilio_bot_hears_and_speaks_code_by_code(world: World) -> None:
    bot = world.twilio
    with world.wire() as wire:
        async with world.call("twilio") as call:
            await until(lambda: bot.of("start"))
            await heard_exactly(call, 100, lambda said: said in bot.heard())
            spoken = await spoken_exactly(world, wire, 40_000, bot.say)  # five seconds at once
            await bot.mark("answered")
            await until(lambda: bot.of("mark"))
            await call.press("5")
            await until(lambda: bot.of("dtmf"))

            # Nothing of what is cleared is heard, and its mark comes back.
            await bot.say(codes(480_000, 3))
            await bot.mark("a minute")
            await until(lambda: sum(map(bool, map(np.any, call.tape.heard))) > 300)
            await bot.clear()
            await until(lambda: len(bot.of("mark")) == 2)
            heard = len(call.tape.heard)
            await until(lambda: len(call.tape.heard) > heard + 40)
            assert not np.any(call.tape.heard[heard + 15 :]), "silence"
            assert bot.ws is not None
            await bot.ws.close()  # it is through: the next step presses a key, and the call ends
            await until(lambda: call.over)
    kinds = [message["event"] for message in bot.messages]
    assert kinds[:3] == ["connected", "start", "media"] and bot.signed[-1]
    start = bot.of("start")[0]["start"]
    assert start["customParameters"] == {"from": "phone", "plan": "gold"}
    assert start["mediaFormat"] == {"encoding": "audio/x-mulaw", "sampleRate": 8000, "channels": 1}
    assert (start["callSid"][:2], len(start["callSid"]), start["tracks"]) == ("CA", 34, ["inbound"])
    assert [message["mark"]["name"] for message in bot.of("mark")] == ["answered", "a minute"]
    assert [message["dtmf"]["digit"] for message in bot.of("dtmf")] == ["5"]
    media = [message["media"] for message in bot.of("media")]
    assert [int(each["chunk"]) for each in media] == list(range(1, len(media) + 1))
    assert {int(b["timestamp"]) - int(a["timestamp"]) for a, b in zip(media, media[1:], strict=False)} == {20}
    numbers = [int(message["sequenceNumber"]) for message in bot.messages[1:]]
    assert numbers == list(range(1, len(numbers) + 1))
    figures = ended(await world.record())["figures"]
    assert figures["received_ms"] == 60_000 + 5_000 * spoken and 50_000 < figures["cleared_ms"] < 59_000
    assert figures["played_ms"] == figures["received_ms"] - figures["cleared_ms"]
    assert (figures["connections"], figures["malformed"], figures["unsent_ms"]) == (1, 0, 0)


async def test_the_call_ends_and_the_bot_is_told(world: World) -> None:
    bot = world.twilio
    async with world.call("twilio"):
        await until(lambda: bot.of("media"))
    await until(lambda: bot.of("stop"))
    assert bot.messages[-1]["stop"]["callSid"] == bot.call_sid
    event = ended(await world.record())
    assert (event["failed"], event["reason"]) == (False, "the call has left it")


async def test_the_bot_ends_the_call_as_it_does_at_twilio(world: World) -> None:
    bot, api = world.twilio, f"http://127.0.0.1:{world.node.api_port}"
    async with world.call("twilio") as call:
        await until(lambda: bot.of("media"))
        right, bot.token = bot.token, "wrong"
        assert await bot.hang_up(api) == 401
        bot.token = right
        assert await bot.hang_up(api) == 200
        await until(lambda: call.over and bot.of("stop"))
    assert (await world.record()).call.ended_by == "operator"
    assert await bot.hang_up(api) == 404, "it has ended already"


async def test_a_lost_application_is_connected_again_within_the_call(world: World) -> None:
    bot = world.twilio
    async with world.call("twilio"):
        await until(lambda: len(bot.of("media")) > 10)
        bot.refusals[:] = [503]
        assert bot.ws is not None
        await bot.ws.close(code=1011)
        await until(lambda: len(bot.of("start")) == 2 and bot.messages[-1]["event"] == "media")
        first, second = bot.of("start")
        assert first["start"] == second["start"]
    record = await world.record()
    assert ended(record)["figures"]["connections"] == 2
    problems = [event.data["what"] for event in record.events if event.type == "Problem"]
    assert any("closed the connection (1011)" in what for what in problems)


async def test_what_cannot_be_reached_leads_to_other_steps(world: World) -> None:
    for whom, reason in (("nobody", "cannot be reached"), ("inside", "not public")):
        async with world.call(whom) as call:
            await until(lambda call=call: call.over)  # type: ignore[misc]
        record = await world.record()
        assert ended(record)["failed"] and reason in ended(record)["reason"]
        assert record.call.ended_by == "agent"


async def test_messages_that_cannot_be_read_end_the_stream_and_nothing_else(world: World) -> None:
    bot = world.twilio
    async with world.call("twilio") as call:
        await until(lambda: bot.of("media"))
        assert bot.ws is not None
        for text in ("{", "[]", '{"event":1}', '{"event":"media"}', '{"event":"media","media":{"payload":"%"}}') * 5:
            await bot.ws.send_str(text)
        await until(lambda: call.over)
    record = await world.record()
    assert ended(record)["figures"]["malformed"] == 21 and "cannot be read" in ended(record)["reason"]
    assert record.call.ended_by == "agent"


async def test_who_only_listens_hears_both_sides_while_the_steps_go_on(world: World) -> None:
    bot, app, answer = world.twilio, world.teler, codes(8000, 5)
    sockets: list[Any] = []

    async def keep(ws: Any, message: dict[str, Any]) -> None:
        sockets[:] = [ws]

    app.on_message = keep
    async with world.call("listen") as call:
        await until(lambda: bot.of("media") and sockets)
        await heard_exactly(call, 200, lambda said: said in bot.heard("inbound"))
        await sockets[0].send(json.dumps(spoken(samples(answer))))
        await until(lambda: answer in bot.heard("outbound"))
        await bot.say(codes(8000, 5))  # nobody hears it
    await until(lambda: bot.of("stop"))
    assert bot.of("start")[0]["start"]["tracks"] == ["inbound", "outbound"]
    events = [event.data for event in (await world.record()).events if event.type == "StreamEnded"]
    assert sorted(event["figures"]["received_ms"] for event in events) == [0, 1000]


async def test_streams_begin_again_when_the_main_process_has_died(world: World) -> None:
    bot, app, node = world.twilio, world.teler, world.node

    def starts() -> int:
        return sum(message["type"] == "start" for message in app.messages)

    def on_disk() -> bool:
        return any(len(one.under_way) == 2 and one.listening for one in saved.read_all(node.folder / "calls"))

    async with world.call("listen") as call:
        await until(lambda: bot.of("media") and starts() == 1 and on_disk())
        main = await kill_main(node)
        await until(lambda: len(bot.of("start")) == 2 and starts() == 2, 30)
        assert (await node.pids())["main"] != main
        await heard_exactly(call, 400, lambda said: said in bot.heard("inbound"))
        await until(on_disk)
    record = await world.record()
    begun = [event.data["stream_id"] for event in record.events if event.type == "StreamStarted"]
    over = {event.data["stream_id"]: event.data["reason"] for event in record.events if event.type == "StreamEnded"}
    assert len(begun) == len(set(begun)) == 4 and set(over) == set(begun)
    assert sum(reason == "the main process died" for reason in over.values()) == 2


def spoken(pcm: Any, **more: object) -> dict[str, Any]:
    """A message of Teler's SDK."""
    return {"type": "audio", "audio_b64": base64.b64encode(pcm.tobytes()).decode(), **more}


async def test_telers_own_sdk_joins_the_call_with_a_bot(world: World) -> None:
    app, more = world.teler, samples(codes(12_000, 7))
    sockets: list[Any] = []

    async def keep(ws: Any, message: dict[str, Any]) -> None:
        sockets[:] = [ws]

    async def say(ulaw: bytes) -> None:
        """Half of it in each of the two spellings."""
        first, second = np.split(samples(ulaw), 2)
        nested = spoken(second, chunk_id=2)
        await sockets[0].send(json.dumps(spoken(first, chunk_id=1)))
        await sockets[0].send(json.dumps({"type": nested.pop("type"), "data": nested}))

    def heard() -> bytes:
        audio = [message["data"]["audio_b64"] for message in app.messages if message["type"] == "audio"]
        return b"".join(map(base64.b64decode, audio))

    app.on_message = keep
    with world.wire() as wire:
        async with world.call("teler") as call:
            await until(lambda: app.messages)
            await heard_exactly(call, 300, lambda said: samples(said).tobytes() in heard())
            tries = await spoken_exactly(world, wire, 24_000, say)
            # One chunk is taken back, all are.
            for message in (
                spoken(more, chunk_id=3),
                {"type": "interrupt", "chunk_id": 3},
                spoken(more, chunk_id=4),
                {"type": "clear"},
            ):
                await sockets[0].send(json.dumps(message))
            await asyncio.sleep(0.3)
    start = app.messages[0]
    assert (start["type"], start["message_id"]) == ("start", 1)
    assert start["data"] == {"encoding": "audio/l16", "sample_rate": 8000, "channels": 1}
    assert [message["message_id"] for message in app.messages] == list(range(1, len(app.messages) + 1))
    record = await world.record()
    assert start["call_id"] == record.call.id
    figures = ended(record)["figures"]
    assert figures["received_ms"] == 3000 + 3000 * tries and figures["cleared_ms"] > 2000 and figures["malformed"] == 0


async def test_wideband_to_the_application_of_a_narrowband_call(world: World) -> None:
    app, tone = world.teler, (8000 * np.sin(2 * np.pi * 1000 * np.arange(8000) / 8000)).astype(np.int16)
    app.on_message = None
    async with world.call("wide") as call:
        await until(lambda: app.messages)
        await call.play(tone, 8000)
    assert app.messages[0]["data"]["sample_rate"] == 16000
    audio = [base64.b64decode(each["data"]["audio_b64"]) for each in app.messages[1:]]
    assert {len(each) for each in audio} == {2 * 16 * 40}
    pcm = np.frombuffer(b"".join(audio), "<i2").astype(float)
    spectrum = np.abs(np.fft.rfft(pcm))
    assert abs(spectrum.argmax() * 16000 / len(pcm) - 1000) < 5


async def test_an_audiosocket_server_hears_and_speaks(world: World) -> None:
    app = world.socket
    with world.wire() as wire:
        async with world.call("socket") as call:
            await until(lambda: app.heard)
            await heard_exactly(call, 400, lambda said: samples(said).tobytes() in app.heard)
            await heard_exactly(call, 500, lambda said: said in world.leaving(wire))  # it sends back what it hears
            await call.press("7")
            await until(lambda: app.keys == "7")
            app.hangs_up_after = len(app.heard) + 3200
            await until(lambda: call.over)
    assert app.kinds[0] == 0x01 and len(app.ids[0]) == 16
    assert not ended(await world.record())["failed"]
