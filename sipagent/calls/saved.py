"""What a call needs to be taken up by another main, as values, and as one small file a call.

The file holds what was said, numbers, and keys of the line: it is its owner's alone to read, and goes with the call.
"""

import logging
import os
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import msgspec

from sipagent.calls.recording import SavedRecording
from sipagent.core.clock import Stamp
from sipagent.core.events import Event
from sipagent.core.states import Direction, LegState, ToolStatus
from sipagent.core.text import all_storable
from sipagent.dialplan import model
from sipagent.sip.protocol import Answered
from sipagent.sip.sdp import Terms
from sipagent.store.encoding import packed, unpacked

log = logging.getLogger(__name__)

LAYOUT = 2  # of the files: another's are not read
MAX_FILE = 1 << 20  # bytes
_ENDING = ".call"
_STEPS: dict[str, type[model.Step]] = {
    cls.__name__: cls for cls in vars(model).values() if isinstance(cls, type) and issubclass(cls, model.Step)
}


class SavedLeg(msgspec.Struct, kw_only=True):
    id: str
    handle: int  # the lane's
    slot: int  # the media process's, with the RTP port
    port: int
    direction: Direction
    from_number: str
    to_number: str
    remote_address: str
    role: str
    trunk: str
    parent: str  # the leg's, "" for none
    media_host: str
    session_id: int
    terms: Terms
    offer: str
    codec: str
    sip_call_id: str
    state: LegState
    accepted: bool
    held: bool
    muted: bool = False
    sends: bool
    digits: int
    confirmation: Answered | None
    remote_media: str


class SavedTurn(msgspec.Struct, kw_only=True):
    """A turn that was under way."""

    id: str = ""
    caller_text: str = ""
    agent_text: str = ""


class SavedTool(msgspec.Struct, kw_only=True):
    """What the agent has had done since its last turn ended."""

    name: str
    status: ToolStatus | None = None  # None while it is at work


class SavedTalk(msgspec.Struct, kw_only=True):
    """A conversation, as it was when its last turn ended or a tool answered."""

    memory: Any  # the agent's checkpoint, plain data
    history: list[tuple[str, str]]  # speaker and text
    under_way: SavedTurn | None = None
    tools: list[SavedTool] = []


class SavedStep(msgspec.Struct, kw_only=True):
    kind: str
    values: dict[str, Any]

    @classmethod
    def of(cls, step: model.Step) -> "SavedStep":
        return cls(kind=type(step).__name__, values=msgspec.to_builtins(step))

    def step(self) -> model.Step:
        """Raises ValueError when this version knows no such step."""
        kind = _STEPS.get(self.kind)
        if kind is None:
            raise ValueError(f"there is no step {self.kind}")
        return msgspec.convert(self.values, kind)


class SavedEvent(msgspec.Struct, kw_only=True):
    kind: str
    data: bytes

    @classmethod
    def of(cls, event: Event) -> "SavedEvent":
        return cls(kind=type(event).__name__, data=packed(event))

    def event(self) -> Event:
        return unpacked(self.kind, self.data)


class SavedCall(msgspec.Struct, kw_only=True):
    layout: int = LAYOUT
    boot: str  # the monotonic clock's: after another start of the machine no process is left
    id: str
    trunk: str
    dialplan: str
    route: str
    steps: list[SavedStep]  # of the route
    todo: list[SavedStep]  # the step under way first
    started: Stamp
    answered_at: Stamp | None
    turns: int
    variables: dict[str, str] = {}
    flows_asked: int = 0
    talk: SavedTalk | None
    legs: list[SavedLeg]
    speaks_on: str  # the leg
    recording: SavedRecording | None = None  # under way
    joined: str  # the leg that the caller talks with, "" for none
    met: str  # the call whose caller they talk with, "" for none
    guests: dict[str, str]  # legs of those who were brought in, and the part of each
    held: str | None  # by an operator, with this music
    listening: list[SavedStep] = []  # streams beside the steps
    asking: list[str] = []  # questions of an operator that have no answer yet
    under_way: list[SavedEvent] = []  # beginnings of streams and playbacks that have no end yet
    ended: bool
    events: list[SavedEvent]  # the last ones, which may not have reached the record
    voice_app: str = ""


def encoded(value: SavedCall) -> bytes:
    """As msgpack, which has no lone surrogates: text from outside may have them."""
    try:
        return msgspec.msgpack.encode(value)
    except UnicodeEncodeError:
        return msgspec.msgpack.encode(all_storable(msgspec.to_builtins(value, builtin_types=(bytes, datetime))))


def write(folder: Path, call_id: str, data: bytes) -> None:
    """Replaces the file of the call. Raises OSError."""
    new = folder / f"{call_id}.new"
    descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)
    os.replace(new, folder / f"{call_id}{_ENDING}")


def forget(folder: Path, call_id: str) -> None:
    (folder / f"{call_id}{_ENDING}").unlink(missing_ok=True)


def read_all(folder: Path) -> list[SavedCall]:
    """The calls that an earlier main has left, the oldest first; what cannot be read is thrown away."""
    found: list[SavedCall] = []
    for file in sorted(folder.glob("*")) if folder.is_dir() else ():
        saved = _read(file)
        if saved is None:
            file.unlink(missing_ok=True)
        else:
            found.append(saved)
    return found


def _read(file: Path) -> SavedCall | None:
    try:
        if file.suffix != _ENDING or file.stat().st_size > MAX_FILE:
            return None
        saved = msgspec.msgpack.decode(file.read_bytes(), type=SavedCall)
    except (OSError, msgspec.DecodeError) as error:
        log.error("a saved call cannot be read", extra={"reason": type(error).__name__})
        return None
    return saved if (saved.layout, saved.boot) == (LAYOUT, boot()) else None


def boot() -> str:
    """Which start of the machine this is."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""


def readable(events: Sequence[SavedEvent]) -> list[Event]:
    """Without those that this version cannot read: one of them must not keep a node from starting."""
    found: list[Event] = []
    for each in events:
        try:
            found.append(each.event())
        except (KeyError, msgspec.DecodeError) as error:
            log.error("a saved event cannot be read", extra={"kind": each.kind, "reason": type(error).__name__})
    return found


def steps_of(saved: Sequence[SavedStep]) -> list[model.Step]:
    """Raises ValueError."""
    return [step.step() for step in saved]
