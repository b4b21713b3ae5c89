"""How a call's SIP messages look in a terminal: a ladder, the other side on the left and right, this node between.

0.000  192.0.2.1:5060                sipagent
             │                          │
0.000        │─ INVITE ────────────────►│  PCMU PCMA 192.0.2.1:4000 sendrecv
0.001        │◄──────────── 100 Trying ─│
"""

import textwrap
from collections.abc import Iterable, Sequence

from rich.console import Group, RenderableType
from rich.text import Text

from sipagent.api.calls.types import SipMessageOut, SipMessagesPage
from sipagent.cli.show import plain
from sipagent.store.records import CallRecord

WIDTH = 100
_TIME = 9
_ONE, _TWO = 34, 23  # between two lifelines, with one other side and with two
_US = "sipagent"
_NOTE_LINES = 3  # of one note


def ladder(call: CallRecord, page: SipMessagesPage, *, full: bool = False) -> RenderableType:
    """`full`: every message's text below the picture."""
    if not page.data:
        return Text("no SIP messages on record: they are kept by [sip] record_messages = true, as of the next call")
    dialogs = list(dict.fromkeys(message.dialog for message in page.data))
    # More than two other sides do not fit side by side: then each has a picture of its own.
    groups = [dialogs] if len(dialogs) <= 2 else [[dialog] for dialog in dialogs]
    parts: list[RenderableType] = [_head(call)]
    for group in groups:
        messages = [message for message in page.data if message.dialog in group]
        parts += [Text(), *_Picture(call, group, messages).lines()]
    parts += [Text(), *_foot(page)]
    if full:
        parts += [part for number, message in enumerate(page.data, 1) for part in _whole(number, message)]
    return Group(*parts)


class _Picture:
    """One or two dialogs: we stand to the right of who called us and to the left of whom we called."""

    def __init__(self, call: CallRecord, dialogs: Sequence[int], messages: Sequence[SipMessageOut]) -> None:
        self._messages = messages
        self._gap = _ONE if len(dialogs) == 1 else _TWO
        # The lane's handles: those of calls that we placed are negative.
        self._left = dialogs[0] if dialogs[0] > 0 or len(dialogs) == 2 else None
        self._dialogs = dialogs
        names = [_peer(call, dialog, messages) for dialog in dialogs]
        self._names = [*names[:1], _US, *names[1:]] if self._left is not None else [_US, *names]
        self._notes_width = WIDTH - _TIME - 2 - (self._gap + 1) * len(dialogs) - 1 - 2
        self._expected: dict[int, int] = {}
        self._first: dict[tuple[int, int], SipMessageOut] = {}

    def lines(self) -> Iterable[Text]:
        yield self._heading()
        yield self._row("", self._between(None, ""), "")
        for message in self._messages:
            missing = message.seq - self._expected.get(message.dialog, 0)
            self._expected[message.dialog] = message.seq + 1
            if missing > 0:
                words = f"⋮ {missing} not kept".center(self._gap)
                yield self._row("", self._between(message.dialog, words, "yellow"), "")
            first, *more = self._notes(message) or [""]
            arrow = self._between(message.dialog, self._arrow(message), _style(message))
            yield self._row(f"{message.offset_ms / 1000:.3f}", arrow, first)
            for note in more:
                yield self._row("", self._between(None, ""), note)

    def _heading(self) -> Text:
        """Each name across its lifeline, as far as there is room."""
        line = " " * _TIME
        for index, name in enumerate(self._names):
            lifeline = _TIME + 2 + index * (self._gap + 1)
            line = line.ljust(max(lifeline - len(name) // 2, len(line) + 2)) + name
        return Text(line, "bold")

    def _row(self, time: str, picture: Text, note: str) -> Text:
        line = Text(f"{time:>{_TIME}}  ", "dim")
        line.append_text(picture)
        if note:
            words = plain(note)
            words.truncate(self._notes_width, overflow="ellipsis")
            line.append("  ").append_text(words)
        line.rstrip()
        return line

    def _between(self, dialog: int | None, words: str, style: str = "") -> Text:
        """The lifelines, with the words between those of the dialog."""
        line = Text("│")
        for other in self._dialogs:
            line.append(words if other == dialog else " " * self._gap, style if other == dialog else "")
            line.append("│")
        return line

    def _arrow(self, message: SipMessageOut) -> str:
        label = _cut(_label(message), self._gap - 6)
        dashes = "─" * (self._gap - len(label) - 4)
        rightward = message.sent != (message.dialog == self._left)
        return f"─ {label} {dashes}►" if rightward else f"◄{dashes} {label} ─"

    def _notes(self, message: SipMessageOut) -> list[str]:
        if message.repeats is None:
            self._first[(message.dialog, message.seq)] = message
            return _joined([note for note in (message.sdp, *message.notes) if note], self._notes_width)
        original = self._first.get((message.dialog, message.repeats))
        if original is None:
            return ["sent again"]
        return [f"sent again after {(message.offset_ms - original.offset_ms) / 1000:.1f} s"]


def _peer(call: CallRecord, dialog: int, messages: Sequence[SipMessageOut]) -> str:
    """The other side's address: of the packets, or, where those come from an edge of this machine, the one it names."""
    message = next(message for message in messages if message.dialog == dialog)
    leg = next((leg for leg in call.legs if leg.id == message.leg_id), None)
    true = leg.remote_address if leg is not None else ""
    if true and true != message.remote_address and message.remote_address.startswith("127."):
        return f"{true} (edge)"
    return message.remote_address


def _label(message: SipMessageOut) -> str:
    words = f"{message.status} {message.reason}" if message.status else message.method
    if message.status and message.method not in ("INVITE", "BYE", "CANCEL"):
        words += f" ({message.method})"
    again = "↻ " if message.repeats is not None else ""
    return plain(f"{again}{words or '?'}").plain


def _joined(notes: Sequence[str], width: int) -> list[str]:
    """As few lines as hold them, a long one on several."""
    lines: list[str] = []
    for note in notes:
        if lines and len(lines[-1]) + len(note) + 3 <= width:
            lines[-1] += f" · {note}"
        else:
            lines.append(note)
    return [part for line in lines for part in textwrap.wrap(line, width, break_on_hyphens=False)[:_NOTE_LINES]]


def _cut(words: str, width: int) -> str:
    return words if len(words) <= width else words[: width - 1] + "…"


def _style(message: SipMessageOut) -> str:
    if message.repeats is not None:
        return "yellow"
    if message.status >= 400:
        return "red"
    return "cyan" if message.sent else "green"


def _head(call: CallRecord) -> RenderableType:
    ended = f"{call.disposition}, {call.cause}, by {call.ended_by}" if call.disposition else str(call.state)
    head = Text.assemble((call.id, "bold"), f"  {call.direction}  ")
    head.append_text(plain(f"{call.from_number} → {call.to_number}"))
    head.append(f"  {ended}")
    return head


def _foot(page: SipMessagesPage) -> Iterable[Text]:
    again = sum(message.repeats is not None for message in page.data)
    transports = "/".join(sorted({message.transport for message in page.data}))
    words = f"{len(page.data)} messages by {transports}, {again} of them sent again (↻)"
    yield Text(words + (f", {page.not_kept} more not kept" if page.not_kept else ""), "dim")


def _whole(number: int, message: SipMessageOut) -> Iterable[Text]:
    way = f"{message.local_address} → {message.remote_address}"
    if not message.sent:
        way = f"{message.remote_address} → {message.local_address}"
    yield Text()
    head = f"{number}.  {message.offset_ms / 1000:.3f} s  {message.transport}  {way}  {message.size} bytes"
    yield Text(head + ("  sent again" if message.repeats is not None else ""), "bold")
    if message.repeats is None:
        for line in message.text.splitlines():
            yield plain(line)
