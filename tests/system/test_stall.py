"""Main stalls while a call is up, and nobody on the line can tell: every packet leaves at its time, from audio that
was queued before. What the caller says meanwhile waits for main.

As a program this module is that main: it owns a media process with one call, takes one stall a line, and says at the
end of its input what it was handed.
"""

import asyncio
import contextlib
import gc
import json
import os
import signal
import sys
import time
from collections.abc import AsyncIterator, Mapping

import numpy as np
import pytest

from sipagent.media.client import Frames, MediaClient
from sipagent.media.settings import MediaSettings
from tests.media.peer import Events, Peer, codes
from tests.peers.ports import free_block
from tests.system.wire import Capture, Packet

PTIME_S = 0.02
QUEUED_S = 18  # of audio; longer than a test takes
BEFORE_S, AFTER_S = 2.5, 1.5
STOPPED_S = 2.0
LONGEST_GAP_S = 0.030
ATTEMPTS = 3  # what a stall does to the pacing it does each time, unlike the machine's other load
OBJECTS = 3_000_000


# --- main, in a process of its own --------------------------------------------------------------------------------


async def main(port_min: int, host: str, peer_port: int) -> None:
    client = MediaClient(
        MediaSettings(host="127.0.0.1", port_min=port_min, port_max=port_min + 9, capacity=2), Events()
    )
    await client.start()
    port = await client.open()
    heard = {"frames": 0, "missed": 0}

    def take(frames: Frames) -> None:
        heard["missed"] += frames.position - heard["frames"] - heard["missed"]
        heard["frames"] += len(frames.pcm)

    port.on_frames = take
    port.connect(host, peer_port, 0)
    noise = np.random.default_rng(3).normal(0, 4000, QUEUED_S * 8000)
    port.write(noise.astype(np.int16))
    _tell({"port": port.port})
    lines = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(lines), sys.stdin)
    while stall := (await lines.readline()).decode().strip():
        took_s = _busy(0.5) if stall == "busy" else _collect()
        _tell({"stalled_s": took_s})
    _tell(heard | {"queued": port.queued})
    await client.close()


def _busy(seconds: float) -> float:
    """Holds the interpreter, and with it the event loop."""
    began = time.perf_counter()
    while time.perf_counter() - began < seconds:
        pass
    return time.perf_counter() - began


def _collect() -> float:
    """The collector's own pause over so many objects that refer to each other; making them holds the loop as well."""
    gc.disable()
    objects = [[None] for _ in range(OBJECTS)]
    for one, other in zip(objects, reversed(objects), strict=True):
        one[0] = other  # type: ignore[call-overload]
    began = time.perf_counter()
    gc.collect()
    gc.enable()
    return time.perf_counter() - began


def _tell(message: Mapping[str, float]) -> None:
    print(json.dumps(message), flush=True)


# --- the tests ----------------------------------------------------------------------------------------------------


class Main:
    """The process, its call, and a peer that talks on."""

    def __init__(self, process: asyncio.subprocess.Process, peer: Peer) -> None:
        self.process, self.peer = process, peer
        self.said = 0

    async def told(self) -> dict[str, float]:
        assert self.process.stdout is not None
        async with asyncio.timeout(30):
            answer: dict[str, float] = json.loads(await self.process.stdout.readline())
        return answer

    async def stall(self, kind: str) -> float:
        """Seconds that main did nothing."""
        if kind == "stop":
            os.kill(self.process.pid, signal.SIGSTOP)
            await asyncio.sleep(STOPPED_S)
            os.kill(self.process.pid, signal.SIGCONT)
            return STOPPED_S
        assert self.process.stdin is not None
        self.process.stdin.write(f"{kind}\n".encode())
        return (await self.told())["stalled_s"]

    async def finish(self) -> dict[str, float]:
        """What main was handed, all told."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        told = await self.told()
        assert await self.process.wait() == 0
        return told

    async def talk(self) -> None:
        payloads = codes(50)
        began = time.monotonic()
        while True:
            self.peer.packet(payloads[self.said % len(payloads)])
            self.said += 1
            await asyncio.sleep(max(0.0, began + self.said * PTIME_S - time.monotonic()))


@contextlib.asynccontextmanager
async def one_call(port_min: int) -> AsyncIterator[Main]:
    peer = Peer()
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.system.test_stall", str(port_min), peer.host, str(peer.port)),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    subject = Main(process, peer)
    talking = None
    try:
        peer.target = ("127.0.0.1", int((await subject.told())["port"]))
        talking = asyncio.create_task(subject.talk())
        yield subject
    finally:
        if talking is not None:
            talking.cancel()
        if process.returncode is None:
            process.send_signal(signal.SIGCONT)
            process.kill()
        await process.wait()
        peer.close()


def continuous(packets: list[Packet], length_s: float) -> None:
    """Every packet of the time is there and in order."""
    assert len(packets) >= length_s / PTIME_S - 4
    pairs = list(zip(packets, packets[1:], strict=False))
    assert {packet.ssrc for packet in packets} == {packets[0].ssrc}
    assert {(b.sequence - a.sequence) & 0xFFFF for a, b in pairs} == {1}
    assert {(b.timestamp - a.timestamp) & 0xFFFFFFFF for a, b in pairs} == {160}
    assert all(packet.loud for packet in packets), "queued audio, not silence"


def longest_gap_s(packets: list[Packet]) -> float:
    return max(b.at - a.at for a, b in zip(packets, packets[1:], strict=False))


async def stalled(stall: str) -> tuple[float, float]:
    """The longest gaps before the stall and from then on; everything else about it is checked."""
    port_min = free_block(10)
    async with one_call(port_min) as subject:
        with Capture(port_min, port_min + 9) as wire:
            began = time.monotonic()
            await asyncio.sleep(BEFORE_S)
            stall_at = time.time()
            stalled_s = await subject.stall(stall)
            await asyncio.sleep(AFTER_S)
            length_s = time.monotonic() - began
        said = subject.said
        told = await subject.finish()
    assert stalled_s >= 0.1, "nothing was tried"
    packets = [packet for packet in wire.packets if packet.source == subject.peer.target[1]]
    continuous(packets, length_s)
    assert told["queued"] > 0
    # What the caller said meanwhile is not gone.
    assert told["missed"] == 0
    assert told["frames"] >= said - 10
    before = [packet for packet in packets if packet.at < stall_at]
    return longest_gap_s(before), longest_gap_s(packets[len(before) - 1 :])


@pytest.mark.parametrize("stall", ["busy", "collect", "stop"])
async def test_a_stall_of_main_is_not_on_the_wire(stall):
    gaps = []
    for _ in range(ATTEMPTS):
        before, after = await stalled(stall)
        gaps.append((before, after))
        # A machine that is itself in gaps (a guest whose host has taken the core away) shows them without a stall too.
        if after < max(LONGEST_GAP_S, 1.5 * before):
            return
    raise AssertionError(f"a stall of main delays packets: longest gaps before and after {gaps}")


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]), sys.argv[2], int(sys.argv[3])))
