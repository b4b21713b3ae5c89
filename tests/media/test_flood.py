"""50,000 junk packets a second at one call's port: the other calls do not notice. The real process, real sockets.

Pacing is measured by the kernel's stamps at the peers, against the even schedule of each stream. A machine on which
the calls are not on time without any flood says nothing: the same is then measured again, until a flooded stretch is
no worse than the quiet one before it.
"""

import asyncio
import socket
import statistics
import struct
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from bench.fuzz_flood import RATE
from sipagent.core.events import ProcessEnded
from sipagent.media.batch import SO_TIMESTAMPNS
from sipagent.media.client import MediaClient, MediaPort
from sipagent.media.rtp import RtpPacket
from sipagent.media.settings import MediaSettings

from .peer import Events

CALLS = 4
VICTIM = 0
SECONDS = 3.0
TRIES = 5  # on a machine that has other work one comparison says little, and the flood itself is less
ENOUGH = 0.9  # of the rate wanted, and in the last try
LEAST = 0.6
ALLOWED_MS = 5.0
GROWTH = 16 << 20  # bytes of memory that the engine may take for a flood
SETTINGS: dict[str, Any] = {
    "host": "127.0.0.1",
    "port_min": 43000,
    "port_max": 43099,
    "capacity": 8,
    "playout_min_ms": 200,  # the senders here are no real-time processes
    "playout_max_ms": 400,
    "media_timeout_s": 2.0,
}


@dataclass
class Far:
    """A call's far end: sends 20 ms every 20 ms, and notes when what comes was received by the kernel."""

    port: MediaPort
    sock: socket.socket
    ssrc: int
    sequence: int = 65_500
    timestamp: int = 0xFFFFF000
    received: list[tuple[int, int]] = field(default_factory=list)  # RTP timestamp, ns of the wall clock
    silent: int = 0

    def send(self) -> None:
        packet = RtpPacket(
            payload_type=0, sequence=self.sequence, timestamp=self.timestamp, ssrc=self.ssrc, payload=b"\x11" * 160
        )
        self.sequence, self.timestamp = self.sequence + 1 & 0xFFFF, self.timestamp + 160 & 0xFFFFFFFF
        self.sock.sendto(bytes(packet), (self.port.host, self.port.port))

    def read(self) -> None:
        while True:
            try:
                data, ancillary, _, _ = self.sock.recvmsg(2048, 64)
            except BlockingIOError:
                return
            if len(data) == 172:
                seconds, ns = struct.unpack("qq", ancillary[0][2])
                self.received.append((RtpPacket.parse(data).timestamp, seconds * 1_000_000_000 + ns))

    def off_schedule_ms(self) -> list[float]:
        """How far each packet was from the schedule through the median of all."""
        begin, first = self.received[0]
        shifts = [(at - first) / 1e6 - ((stamp - begin) & 0xFFFFFFFF) / 8 for stamp, at in self.received]
        middle = statistics.median(shifts)
        return [abs(shift - middle) for shift in shifts]


class Rig:
    """`CALLS` calls that are up; while it is entered their peers send."""

    def __init__(self, **changes: int) -> None:
        self.events = Events()
        self.client = MediaClient(MediaSettings(**(SETTINGS | changes)), self.events)
        self.fars: list[Far] = []
        self.sender: asyncio.Task[None] | None = None

    async def __aenter__(self) -> "Rig":
        await self.client.start()
        self.sender = asyncio.create_task(self.send())
        for number in range(CALLS):
            sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            sock.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 19)
            sock.setblocking(False)
            sock.bind(("127.0.0.1", 0))
            host, own = sock.getsockname()
            port = await self.client.open((host, own))
            learned = asyncio.Event()
            port.on_source = lambda *_, learned=learned: learned.set()
            far = Far(port, sock, 0x5EED + number)
            port.on_silent = lambda _, far=far: setattr(far, "silent", far.silent + 1)
            port.connect(host, own, 0, 101, rtcp_port=own + 1, rtcp_host=host)
            self.fars.append(far)
            async with asyncio.timeout(20):
                await learned.wait()
        await asyncio.sleep(1)
        return self

    async def send(self) -> None:
        loop = asyncio.get_running_loop()
        due = loop.time()
        while True:
            while due <= loop.time():
                due += 0.02
                for far in self.fars:
                    far.send()
                    far.read()
            await asyncio.sleep(0.005)

    async def __aexit__(self, *_: object) -> None:
        assert self.sender is not None
        self.sender.cancel()
        await self.client.close()
        for far in self.fars:
            far.sock.close()

    async def stretch(self, flood: list[str] | None, fd: int = -1) -> dict[str, Any]:
        """What the other calls were like for so long, with or without a flood."""
        others = [far for far in self.fars if far is not self.fars[VICTIM]]
        before = [far.port.figures() for far in others]
        process = await flooding(flood, fd) if flood is not None else None
        for far in self.fars:
            far.read()
            far.received.clear()
        await asyncio.sleep(SECONDS)
        for far in others:
            far.read()
        off = [ms for far in others for ms in far.off_schedule_ms()]
        after = [far.port.figures() for far in others]
        sent, took = 0, 1.0
        if process is not None:
            words = (await process.communicate())[0].split()
            sent, took = int(words[0]), float(words[1])
        return {
            "worst_ms": max(off),
            "off": sum(ms > ALLOWED_MS for ms in off),
            "packets": len(off),
            "concealed_ms": sum(b.concealed_ms - a.concealed_ms for a, b in zip(before, after, strict=True)),
            "rate": sent / took,
        }

    def memory(self) -> int:
        """Resident bytes of the engine."""
        return int(Path(f"/proc/{self.client.pid}/statm").read_text().split()[1]) * 4096


async def flooding(arguments: list[str], fd: int) -> asyncio.subprocess.Process:
    """The sender of junk, which has begun."""
    extra = ["--fd", str(fd)] if fd >= 0 else []
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "bench.fuzz_flood", *arguments, *extra, "--seconds", str(SECONDS + 0.5)),
        pass_fds=[fd] if fd >= 0 else [],
        stdout=asyncio.subprocess.PIPE,
        cwd=Path(__file__).parents[2],
    )
    assert process.stdout is not None
    assert await process.stdout.readline() == b"begin\n"
    return process


@pytest.mark.parametrize("whence", ["stranger", "peer", "rtcp", "shared stranger", "shared peer", "shared rtcp"])
async def test_a_flood_at_one_call_leaves_the_others_alone(whence):
    async with Rig(shared_ports=1 if "shared" in whence else 0) as rig:
        victim = rig.fars[VICTIM]
        port = victim.port.port + ("rtcp" in whence)
        arguments = [victim.port.host, str(port), "--ssrc", hex(victim.ssrc)] + ["--control"] * ("rtcp" in whence)
        fd = victim.sock.fileno() if "peer" in whence else -1
        memory = rig.memory()
        for attempt in range(TRIES):
            quiet = await rig.stretch(None)
            flooded = await rig.stretch(arguments, fd)
            print(whence, attempt, quiet, flooded)
            enough = flooded["rate"] > (ENOUGH if attempt < TRIES - 1 else LEAST) * RATE
            if enough and all(flooded[name] <= quiet[name] for name in ("off", "concealed_ms")):
                break
        assert enough, flooded
        assert flooded["packets"] >= (CALLS - 1) * (50 * SECONDS - 2)
        assert flooded["off"] <= quiet["off"], (quiet, flooded)
        assert flooded["concealed_ms"] <= quiet["concealed_ms"], (quiet, flooded)
        assert rig.memory() - memory < GROWTH
        assert all(not far.silent for far in rig.fars if far is not victim)
        assert not [event for event in rig.events if isinstance(event, ProcessEnded)]
        await asyncio.sleep(0.2)
        counted = [far.port.figures().packets_out for far in rig.fars]
        await asyncio.sleep(0.2)
        assert all(far.port.figures().packets_out > count for far, count in zip(rig.fars, counted, strict=True))
