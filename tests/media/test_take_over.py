"""kill -9 of main as the media engine sees it: it plays on, and the next main has the line again."""

import asyncio
import dataclasses
import json
import os
import signal
import socket
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest

from sipagent.core.events import EventHub
from sipagent.media.client import MediaClient
from sipagent.media.codecs import CODECS, G722
from sipagent.media.rtp import PCMU, RtpPacket
from sipagent.media.settings import MediaSettings
from tests.peers.ports import free_block

FIRST_MAIN = """
import asyncio, json, sys
import numpy as np
from pathlib import Path
from sipagent.core.events import EventHub
from sipagent.media.client import MediaClient
from sipagent.media.settings import MediaSettings

async def main(door, base, far, payload_type):
    settings = MediaSettings(host="127.0.0.1", port_min=base, port_max=base + 31, capacity=4)
    client = MediaClient(settings, EventHub(), Path(door))
    await client.start()
    client.leave_sound("wait", np.full(8000, 2000, np.int16), np.full(16000, 2000, np.int16))
    client.leave_sound("music", np.full(800, -9000, np.int16), np.full(1600, -9000, np.int16))
    port = await client.open()
    port.connect("127.0.0.1", far, payload_type, 101)
    port.leave("wait")
    print(json.dumps([client.pid, port.slot, port.port]), flush=True)
    await asyncio.sleep(60)

asyncio.run(main(sys.argv[1], *map(int, sys.argv[2:])))
"""


def heard(sock: socket.socket, seconds: float) -> list[RtpPacket]:
    """What comes in so long, at 50 packets a second; each is answered by one of ours."""
    sock.settimeout(1.0)
    packets: list[RtpPacket] = []
    for _ in range(round(seconds * 50)):
        data, sender = sock.recvfrom(2000)
        packets.append(RtpPacket.parse(data))
        sock.sendto(bytes(dataclasses.replace(packets[-1], ssrc=1)), sender)
    return packets


def levels(packets: list[RtpPacket]) -> list[float]:
    decoder = CODECS[packets[0].payload_type].decoder()
    return [float(np.mean(decoder.decode(packet.payload))) for packet in packets]


@pytest.fixture
def far():
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind(("127.0.0.1", 0))
        yield sock


@pytest.mark.parametrize("payload_type", [PCMU, G722])
async def test_the_line_is_kept_and_taken_over(tmp_path: Path, far: socket.socket, payload_type: int):
    door, base = tmp_path / "run" / "media-0", free_block(32)
    arguments = [str(door), str(base), str(far.getsockname()[1]), str(payload_type)]
    first = subprocess.Popen([sys.executable, "-c", textwrap.dedent(FIRST_MAIN), *arguments], stdout=subprocess.PIPE)
    assert first.stdout is not None
    pid, slot, number = json.loads(await asyncio.to_thread(first.stdout.readline))
    before = await asyncio.to_thread(heard, far, 0.3)
    first.send_signal(signal.SIGKILL)
    first.wait()
    first.stdout.close()
    alone = await asyncio.to_thread(heard, far, 2.0)
    assert len({p.ssrc for p in before + alone}) == 1
    numbers = [p.sequence for p in before + alone]
    assert {(b - a) & 0xFFFF for a, b in zip(numbers, numbers[1:], strict=False)} == {1}
    loud = [abs(one) > 1000 for one in levels(alone)]
    assert all(loud[loud.index(True) :]), "without a gap"
    assert any(1500 < one < 2500 for one in levels(alone)), "the phrase that main had left"
    assert levels(alone)[-1] < -8000, "then the music"

    settings = MediaSettings(host="127.0.0.1", port_min=base, port_max=base + 31, capacity=4)
    client = MediaClient(settings, EventHub(), door)
    await client.start()
    try:
        assert client.pid == pid
        assert client.claim(slot, number + 2) is None
        port = client.claim(slot, number)
        assert port is not None and port.connected is not None
        assert port.rate == CODECS[payload_type].rate
        client.close_unclaimed()
        frames: list[int] = []
        port.on_frames = lambda some: frames.append(some.position)
        await port.flush()
        port.write(np.full(port.rate, 5000, np.int16))
        after = await asyncio.to_thread(heard, far, 1.2)
        assert sum(4000 < one < 6000 for one in levels(after)) > 40
        assert after[0].ssrc == before[0].ssrc
        assert frames, "and main hears the caller again"
        figures = await port.close()
        assert figures.packets_out > 100
    finally:
        await client.close()
    assert not os.path.exists(f"/proc/{pid}") or "Z" in Path(f"/proc/{pid}/stat").read_text().split(")")[1][:3]
    assert not door.exists()
