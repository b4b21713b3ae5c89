"""Calls of ours that a machine answers: what is done about it, on the wire and on record."""

from pathlib import Path

import numpy as np
import pytest

from sipagent.media import g711
from tests.peers.sipp import Sipp
from tests.speech.prompts import SOUNDS, read_wav
from tests.system.node import Node
from tests.system.test_calls import originate
from tests.system.wire import Capture

pytestmark = [pytest.mark.peer, pytest.mark.models, pytest.mark.timeout(180)]

PCMU = 0
DIALPLAN = """\
routes:
  - {name: remind, called: ["remind"], steps: remind}
steps:
  remind: [answer, agent: reminder, hangup]
agents:
  reminder:
    greeting: "Hello, this is Harbour Dental."
    silence_s: 20
    intents: {yes: {examples: ["yes"], answer: "Thank you.", hangup: true}}
    callee:
      message: "You have an appointment tomorrow."
      keys: "7"
"""


def machine(folder: Path, *parts: np.ndarray) -> Path:
    path = folder / "machine.ulaw"
    pcm = np.concatenate([np.zeros(4000, np.int16), *parts])
    path.write_bytes(g711.encode(PCMU, pcm[: len(pcm) // 160 * 160]).tobytes())
    return path


def sound(name: str) -> np.ndarray:
    return read_wav(SOUNDS / f"{name}.wav")


def quiet(seconds: float) -> np.ndarray:
    return np.zeros(int(8000 * seconds), np.int16)


def detected(node: Node) -> list[str]:
    return [event["callee"] for event in node.events("CalleeDetected")]


async def test_a_message_is_left_after_the_beep_and_a_menu_gets_its_key(tmp_path):
    greeting = (sound("vm-theperson"), sound("vm-isunavail"), quiet(0.2), sound("vm-intro"), quiet(0.3), sound("beep"))
    async with Node(dialplan=DIALPLAN) as node:
        speech = machine(tmp_path, *greeting, quiet(8))
        async with Sipp("uas-outbound-plays-speech.xml", speech=speech, timeout_s=60) as callee:
            with Capture(callee.media_port, callee.media_port + 1) as wire:
                await originate(node, callee.uri, "remind")
                (await callee.wait()).check()
        (record,) = await node.ended(1, 30)
        assert record.call.detail == "a message was left on a voicemail" and record.call.ended_by == "agent"
        assert record.turns[-1].heard_text == "You have an appointment tomorrow."
        assert detected(node)[-1] == "voicemail"
        # The message begins behind the beep, and within a second of it.
        theirs = [packet for packet in wire.packets if packet.source == callee.media_port]
        beep_over = next(packet.at for packet in reversed(theirs) if packet.loud)
        ours = [packet.at for packet in wire.packets if packet.target == callee.media_port and packet.loud]
        message = next(at for at in ours if at > beep_over)
        assert message - beep_over < 1.0
        spoken_into_it = [at for at in ours if beep_over - 2.0 < at < beep_over]
        assert not spoken_into_it, "nothing is said while the machine speaks its last words"

        speech = machine(tmp_path, sound("basic-pbx-ivr-main"), quiet(2), sound("hello"), quiet(20))
        async with Sipp("uas-outbound-plays-speech.xml", speech=speech, timeout_s=90) as callee:
            with Capture(callee.media_port, callee.media_port + 1) as wire:
                call_id = await originate(node, callee.uri, "remind")

                async def keyed() -> bool:
                    return any(packet.payload_type == 101 and packet.payload[0] == 7 for packet in wire.packets)

                await node.until(keyed, 60)
                assert detected(node)[-1] == "menu"
                assert node.calls() and not node.record(call_id).call.ended_at
                async with node.http.post(f"/api/v1/voice/calls/{call_id}/hangup") as response:
                    assert response.status < 300, await response.text()
                await node.ended(2)
        assert await node.stop() == 0
