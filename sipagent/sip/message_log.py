"""The SIP messages of a lane's calls, until main has them: sorted by dialog, repetitions found, everything bounded.

Of a dialog the first messages go to main soon after they were seen; from the `HEAD`th on the lane holds the last
`TAIL` back until the call ends, and what falls out between is lost. Messages are numbered before that, so that a gap in
the numbers tells how many. Decisions only: the time is an argument, and no PJSIP is needed.
"""

import re
from collections import OrderedDict, deque
from collections.abc import Callable, Iterator

from sipagent.sip.masking import masked
from sipagent.sip.protocol import SeenMessage, SipMessages

HEAD = 100  # messages of a dialog
TAIL = 100
BATCH = 50  # messages that make a batch by themselves
PATIENCE_NS = 2_000_000_000  # that a message waits, so that one batch holds a whole setup
AFTER_END_NS = 500_000_000  # an ACK or the 200 to a BYE follows the end closely
LINGER_NS = 33_000_000_000  # 64 * T1 (RFC 3261 section 17): nothing of a transaction comes later
DIALOGS = 16384
TEXT_BYTES = 16 << 20  # of all messages that wait
REMEMBERED = 64  # messages of a dialog that a repetition is looked for in
_CLEARANCE_NS = 2_000_000_000

# PJSIP's line before the message: "RX 742 bytes Request msg INVITE/cseq=1 (rdata0x55d0) from UDP 192.0.2.1:5060:"
_HEAD_LINE = re.compile(r"(RX|TX) ([0-9]+) bytes .* (?:from|to) (\S+) (\S+):([0-9]+):")
_TRAILER = "\n--end msg--"
_CALL_ID = re.compile(r"^(?:call-id|i)[ \t]*:[ \t]*([^\r\n]+?)[ \t]*\r?$", re.IGNORECASE | re.MULTILINE)


class _Dialog:
    def __init__(self, call_id: str, now: int) -> None:
        self.call_id = call_id
        self.handles: list[int] = []
        self.count = 0
        self.waiting: list[SeenMessage] = []  # to leave soon
        self.tail: deque[SeenMessage] = deque()  # to leave at the end
        self.seen: OrderedDict[int, int] = OrderedDict()  # a message's hash to its number
        self.since = 0  # of the first that waits
        self.last = now
        self.ended = 0
        self.after_end = 0  # messages

    @property
    def spare(self) -> bool:
        """It is no call, or one that is over."""
        return not self.handles or self.ended > 0


class MessageLog:
    """Fed with PJSIP's log of messages. ``local_address`` tells our side's host:port of a packet to or from a host."""

    def __init__(self, local_address: Callable[[str], str]) -> None:
        self._local_address = local_address
        self._dialogs: OrderedDict[str, _Dialog] = OrderedDict()  # by Call-ID, in order of their first message
        self._by_handle: dict[int, str] = {}
        self._waiting: dict[str, _Dialog] = {}  # those with messages for main
        self._bytes = 0
        self._next_sweep = 0
        self._next_clearance = 0

    def take(self, line: str, now: int) -> None:
        """One entry of PJSIP's log; what is no message of a call is passed over."""
        first, _, text = line.partition("\n")
        head = _HEAD_LINE.fullmatch(first)
        call_id = _call_id(text) if head is not None else ""
        if head is None or not call_id:
            return
        dialog = self._dialogs.get(call_id)
        if dialog is None:
            if not text.startswith("INVITE "):
                return
            dialog = self._dialogs[call_id] = _Dialog(call_id, now)
            self._make_room()
        direction, size, transport, host, port = head.groups()
        text = text.removesuffix(_TRAILER)
        number = dialog.count
        dialog.count += 1
        dialog.last = now
        repeats = self._repeated(dialog, hash((direction, text)), number)
        if repeats is not None:
            text = ""
        if self._bytes + len(text) > TEXT_BYTES:
            return
        message = SeenMessage(
            seq=number,
            at=now,
            sent=direction == "TX",
            transport=transport,
            local=self._local_address(host),
            remote=f"{host}:{port}",
            size=int(size),
            repeats=repeats,
            text=text,
        )
        self._keep(dialog, message, now)

    def bind(self, sip_call_id: str, handle: int) -> None:
        """The dialog is this call's; a Call-ID that two calls share (a call to ourselves) tells both of both."""
        dialog = self._dialogs.get(sip_call_id)
        if dialog is not None and handle not in dialog.handles:
            dialog.handles.append(handle)
            self._by_handle[handle] = sip_call_id

    def end(self, handle: int, now: int) -> None:
        """The call is over; what its dialog still says is kept for a while."""
        dialog = self._dialogs.get(self._by_handle.get(handle, ""))
        if dialog is not None and not dialog.ended:
            dialog.ended = now
            if dialog.tail:
                dialog.waiting += dialog.tail
                dialog.tail.clear()
                self._wait(dialog, now)

    def due(self, now: int, *, everything: bool = False) -> Iterator[SipMessages]:
        """Batches that should leave now."""
        if everything:
            for handle in list(self._by_handle):
                self.end(handle, now)
        elif now < self._next_sweep:
            return
        self._next_sweep = now + AFTER_END_NS // 2
        for call_id, dialog in list(self._waiting.items()):
            patience = AFTER_END_NS if dialog.ended else PATIENCE_NS
            full = len(dialog.waiting) >= BATCH
            if dialog.handles and (everything or full or now - dialog.since >= patience):
                del self._waiting[call_id]
                yield from self._batch(dialog)
        if now >= self._next_clearance:
            self._next_clearance = now + _CLEARANCE_NS
            for call_id, dialog in list(self._dialogs.items()):
                if dialog.spare and now - (dialog.ended or dialog.last) > LINGER_NS:
                    self._forget(call_id)

    def _batch(self, dialog: _Dialog) -> Iterator[SipMessages]:
        messages = dialog.waiting
        dialog.waiting = []
        dialog.since = 0
        for message in messages:
            self._bytes -= len(message.text)
            message.text = masked(message.text)
        for handle in dialog.handles:
            yield SipMessages(call=handle, messages=messages)

    def _keep(self, dialog: _Dialog, message: SeenMessage, now: int) -> None:
        self._bytes += len(message.text)
        if message.seq < HEAD or dialog.ended:
            if dialog.ended:
                dialog.after_end += 1
                if dialog.after_end > TAIL:
                    self._bytes -= len(message.text)
                    return
            dialog.waiting.append(message)
            self._wait(dialog, now)
            return
        dialog.tail.append(message)
        if len(dialog.tail) > TAIL:
            self._bytes -= len(dialog.tail.popleft().text)

    def _wait(self, dialog: _Dialog, now: int) -> None:
        dialog.since = dialog.since or now
        self._waiting[dialog.call_id] = dialog

    def _repeated(self, dialog: _Dialog, key: int, number: int) -> int | None:
        first = dialog.seen.setdefault(key, number)
        if first != number:
            return first
        if len(dialog.seen) > REMEMBERED:
            dialog.seen.popitem(last=False)
        return None

    def _make_room(self) -> None:
        """Of too many dialogs the oldest goes, those that are no call, or no more, before all others."""
        if len(self._dialogs) <= DIALOGS:
            return
        spare = next((call_id for call_id, dialog in self._dialogs.items() if dialog.spare), None)
        self._forget(spare if spare is not None else next(iter(self._dialogs)))

    def _forget(self, call_id: str) -> None:
        dialog = self._dialogs.pop(call_id)
        self._waiting.pop(call_id, None)
        self._bytes -= sum(len(message.text) for message in (*dialog.waiting, *dialog.tail))
        for handle in dialog.handles:
            self._by_handle.pop(handle, None)


def _call_id(text: str) -> str:
    """What its dialog is found by, "" when there is none."""
    head = text.partition("\r\n\r\n")[0]  # a body may hold headers too
    _, usual, rest = head.partition("\nCall-ID: ")  # as nearly all write it: a fifth of the time
    if usual:
        return rest.partition("\r")[0].strip()
    found = _CALL_ID.search(head)
    return found[1] if found is not None else ""
