"""What the dialects have in common: facts that an application is told, and what it may say, as values."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from sipagent.conversation.interfaces import Pcm

Message = str | bytes
CALLER, AGENT = "inbound", "outbound"  # the tracks, in Twilio's words
MAX_MARK = 256  # characters of a mark's name, and of a chunk's


class Malformed(ValueError):
    """A message that the dialect does not have; the sentence quotes nothing of it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What an application is told of the call."""

    call_id: str
    stream_id: str
    account_id: str
    app_id: str
    rate: int
    tracks: tuple[str, ...]
    both_ways: bool
    parameters: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Audio:
    pcm: Pcm
    rate: int
    chunk: str = ""  # by which the application can take it back


@dataclass(frozen=True, slots=True)
class Mark:
    """To be echoed when what came before has been played, or dropped."""

    name: str


@dataclass(frozen=True, slots=True)
class Clear:
    """Nothing of what waits is to be played any more."""


@dataclass(frozen=True, slots=True)
class Interrupt:
    """One chunk is not to be played, or no further."""

    chunk: str


@dataclass(frozen=True, slots=True)
class Keys:
    """To be pressed for the caller."""

    digits: str


@dataclass(frozen=True, slots=True)
class Stop:
    """The application has had enough."""

    problem: str = ""


FromApp = Audio | Mark | Clear | Interrupt | Keys | Stop


class Dialect(Protocol):
    """Messages to the application, and what its messages mean. One connection's: a new one starts anew."""

    tracks_apart: bool  # each track is a message of its own; else they are added

    def opening(self) -> Iterator[Message]: ...

    def audio(self, pcm: Pcm, track: str, at_ms: int) -> Message:
        """``at_ms``: of its first sample, since the stream began."""

    def digit(self, digit: str) -> Message | None:
        """A key that the caller has pressed; None where the dialect has no word for it."""

    def mark(self, name: str) -> Message | None: ...

    def closing(self) -> Iterator[Message]: ...

    def read(self, message: Message) -> Iterator[FromApp]:
        """Raises Malformed, having said what came before."""
