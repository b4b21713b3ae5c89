"""kill -9 of main as the media engine sees it: it plays on, and the next main has the line again."""

import asyncio
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
from sipagent.media.g711 import decode
from sipagent.media.rtp import RtpPacket
from sipagent.media.settings import MediaSettings
from tests.peers.ports import free_block

FIRST_MAIN = """
import asyncio, json, sys
import numpy as np
from pathlib import Path
from sipagent.core.events import EventHub
from sipagent.media.client import MediaClient
from sipagent.media.settings import MediaSettings

async def main(door, base, far):
    settings = MediaSettings(host="127.0.0.1", port_min=base, port_max=base + 31, capacity=4)
    client = MediaClient(settings, EventHub(), Path(door))
    await client.start()
    client.leave_sound("wait", np.full(8000, 2000, np.int16), np.full(16000, 2000, np.int16))
    client.leave_sound("music", np.full(800, -9000, np.int16), np.full(1600, -9000, np.int16))
    port = await client.open()
    port.connect("127.0.0.1", far, 0)
    port.leave("wait")
    print(json.dumps([client.pid, port.slot, port.port]), flush=True)
    await asyncio.sleep(60)

asyncio.run(main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3])))
"""


def heard(sock: socket.socket, seconds: float) -> list[RtpPacket]:
    """What comes in so long, at 50 packets a second."""
    sock.settimeout(1.0)
    return [RtpPacket.parse(sock.recv(2000)) for _ in range(round(seconds * 50))]


def level(packet: RtpPacket) -> float:
    return float(np.mean(decode(0, np.frombuffer(packet.payload, np.uint8))))


@pytest.fixture
def far():
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind(("127.0.0.1", 0))
        yield sock


async def test_the_line_is_kept_and_taken_over(tmp_path: Path, far: socket.socket):
    door, base = tmp_path / "run" / "media-0", free_block(32)
    first = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(FIRST_MAIN), str(door), str(base), str(far.getsockname()[1])],
        stdout=subprocess.PIPE,
    )
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
    levels = [level(p) for p in alone]
    assert any(1500 < one < 2500 for one in levels), "the phrase that main had left"
    assert levels[-1] < -8000, "then the music"

    settings = MediaSettings(host="127.0.0.1", port_min=base, port_max=base + 31, capacity=4)
    client = MediaClient(settings, EventHub(), door)
    await client.start()
    try:
        assert client.pid == pid
        assert client.claim(slot, number + 2) is None
        port = client.claim(slot, number)
        assert port is not None and port.connected is not None
        client.close_unclaimed()
        frames: list[int] = []
        port.on_frames = lambda some: frames.append(some.position)
        await port.flush()
        port.write(np.full(8000, 5000, np.int16))
        after = await asyncio.to_thread(heard, far, 1.2)
        assert sum(4000 < level(p) < 6000 for p in after) > 40
        assert after[0].ssrc == before[0].ssrc
        assert frames, "and main hears the caller again"
        figures = await port.close()
        assert figures.packets_out > 100
    finally:
        await client.close()
    assert not os.path.exists(f"/proc/{pid}") or "Z" in Path(f"/proc/{pid}/stat").read_text().split(")")[1][:3]
    assert not door.exists()
