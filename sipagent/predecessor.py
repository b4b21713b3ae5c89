"""The main process before this one: how it ended, and the processes it has left."""

import asyncio
import logging
import socket
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from sipagent.core import doors
from sipagent.core.ipc import frame
from sipagent.core.program import fingerprint
from sipagent.media import protocol as media_protocol
from sipagent.sip import protocol as lane_protocol
from sipagent.sip import zygote
from sipagent.sip.protocol import LANE_DOOR
from sipagent.speech import protocol as speech_protocol
from sipagent.speech.protocol import SPEECH_DOOR

log = logging.getLogger(__name__)

PROGRAM = "program"  # the file that tells whose processes are behind the doors of the folder `run`
PARTING_S, LOOK_S = 5.0, 0.05


def dismiss(state: Path) -> None:
    """Tells the processes that a dead main has left that no other comes: they end their calls in order, and leave."""
    run = state / "run"
    stream, packets = socket.SOCK_STREAM, socket.SOCK_SEQPACKET
    for prefix, kind, goodbye in (
        (LANE_DOOR, stream, frame(lane_protocol.encoder.encode(lane_protocol.Stop()))),
        ("media-", stream, frame(media_protocol.encoder.encode(media_protocol.Stop()))),
        (SPEECH_DOOR, stream, frame(speech_protocol.encoder.encode(speech_protocol.Cancel(id=speech_protocol.LEAVE)))),
        (zygote.DOOR, packets, zygote.LEAVE),
    ):
        for name in doors.names(run, prefix):
            met = doors.knock(run, name, kind)
            if met is not None:
                with met[0], suppress(OSError):
                    met[0].send(goodbye)


async def part_with_another(state: Path) -> bool:
    """Whether processes are left of a main of another program than this one: what they say, or have in memory, may mean
    something else by now. They are told to end their calls in order, and are gone when this returns."""
    run, mark = state / "run", state / PROGRAM
    known = mark.read_text("utf-8") if mark.exists() else ""
    others = doors.names(run, "")
    another = bool(others) and known != fingerprint()
    if another:
        log.warning("what another version of this program has left is ended", extra={"processes": len(others)})
        await asyncio.to_thread(dismiss, state)
        looks = int(PARTING_S / LOOK_S)
        for _ in range(looks):
            if not any((run / name).exists() for name in others):
                break
            await asyncio.sleep(LOOK_S)
        for name in others:
            doors.take_away(run, name)
    mark.write_text(fingerprint(), "utf-8")
    return another


@dataclass(frozen=True, slots=True)
class Death:
    """How an earlier main of this node ended."""

    pid: int
    reason: str
    at: int  # ns, monotonic
    often: bool = False  # it was not the first in a short while: one of the calls may be the reason
