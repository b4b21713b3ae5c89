"""A transfer that the peer asks for: REFER received, NOTIFY sent (RFC 3515). PJSIP would call the target by itself."""

from collections.abc import Callable, Iterator

from sipagent.sip import message
from sipagent.sip.offers import PENDING
from sipagent.sip.protocol import NotifyTransfer, Replaces, TransferRequested

SIPFRAG = "message/sipfrag;version=2.0"
_SCHEMES = ("sip:", "sips:", "tel:")


class Referral:
    """Of one call: one transfer at a time."""

    def __init__(self) -> None:
        self.allowed = False
        self.waiting: list[NotifyTransfer] = []  # to be sent, outside of PJSIP's callbacks
        self._received = 0
        self._event = ""  # the Event header of the transfer that is not over; "" for none

    def received(self, call: int, refer: message.Message) -> tuple[int, TransferRequested | None]:
        """The status to answer with, and with 202 what main is told."""
        target, replaces = message.refer_to(refer.get("refer-to"))
        if not target:
            return 400, None
        if not self.allowed or not target.lower().startswith(_SCHEMES):
            return 603, None
        if self._event:
            return PENDING, None
        self._received += 1
        # RFC 3515 section 2.4.6: the first may go without an id, the further ones may not.
        cseq = refer.get("cseq").partition(" ")[0]
        self._event = "refer" if self._received == 1 else f"refer;id={cseq}"
        return 202, TransferRequested(
            call=call,
            target=target,
            replaces=replaced_dialog(replaces),
            referred_by=message.parse_address(refer.get("referred-by")).uri,
        )

    def due(self, phrase: Callable[[int], str]) -> Iterator[tuple[dict[str, str], str]]:
        """Headers and body of each NOTIFY that waits; none after the final one."""
        while self.waiting:
            command = self.waiting.pop(0)
            if not self._event:
                continue
            state = "terminated;reason=noresource" if command.final else "active;expires=180"
            headers = {"Event": self._event, "Subscription-State": state}
            if command.final:
                self._event = ""
            yield headers, f"SIP/2.0 {command.status} {command.reason or phrase(command.status)}\r\n"


def replaced_dialog(value: str) -> Replaces | None:
    """The dialog named by a Replaces header's value, None when it names none."""
    found = message.replaced_dialog(value)
    return Replaces(*found) if found is not None else None
