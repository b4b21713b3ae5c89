"""PJSIP's callbacks that belong to no call yet: accounts, calls that come in, its log."""

import re
from collections.abc import Callable
from typing import Any

import pjsua2 as pj

from sipagent.sip import message
from sipagent.sip.edge_script import SOURCE
from sipagent.sip.lane_calls import LaneCall, Owner
from sipagent.sip.lane_messages import MESSAGE_LEVEL
from sipagent.sip.lane_referral import replaced_dialog
from sipagent.sip.lane_results import options_result, registration_result
from sipagent.sip.lane_stack import clean
from sipagent.sip.protocol import IncomingCall, InviteRefused, OverLimit

_SOURCE = re.compile(r"(\[[0-9A-Fa-f:.]{2,45}\]|[0-9.]{7,15}):[0-9]{1,5}")


class LaneAccount(pj.Account):  # type: ignore[misc]  # pjsua2 has no types
    def __init__(self, lane: Owner, name: str) -> None:
        super().__init__()
        self.lane = lane
        self.name = name
        self.registered = False
        self.results = 0  # told so far

    def onIncomingCall(self, prm: Any) -> None:
        call: LaneCall | None = None
        try:
            call = self.lane.adopt(self, int(prm.callId))
            invite = message.parse(clean(prm.rdata.wholeMsg))
            self.lane.known_as(call, invite.get("call-id"))
            caller = message.parse_address(invite.get("from"))
            self.lane.emit(
                IncomingCall(
                    call=call.handle,
                    from_uri=caller.uri,
                    from_user=caller.user,
                    to_user=message.parse_address(f"<{invite.request_uri}>").user,
                    sip_call_id=invite.get("call-id"),
                    source=self._source(clean(prm.rdata.srcAddress), invite),
                    headers={k: v for k, v in message.invite_headers(invite).items() if k.lower() != SOURCE.lower()},
                    sdp=message.sdp_of(invite),
                    replaces=replaced_dialog(invite.get("replaces")),
                    request_uri=invite.request_uri,
                    authorization=message.credentials(invite),
                    from_name=caller.display,
                )
            )
        except Exception as error:
            self.lane.problem("an INVITE was not understood", error)
            if call is not None:
                self.lane.abandon(call)

    def _source(self, seen: str, invite: message.Message) -> str:
        """host:port that the INVITE really came from: an edge we trust tells, for anybody else it is what we see."""
        told = invite.get(SOURCE)
        known = seen in self.lane.trusted or seen.rpartition(":")[0] in self.lane.trusted
        return told if known and _SOURCE.fullmatch(told) else seen

    def onIncomingSubscribe(self, prm: Any) -> None:
        """PJSIP's default takes anyone's subscription, and answers a challenge to its NOTIFY with our password."""
        prm.code, prm.reason = pj.PJSIP_SC_BAD_EVENT, "Bad Event"

    def onRegState(self, prm: Any) -> None:
        try:
            result = registration_result(self.name, prm)
            self.registered = result.expires_s > 0
            self.results += 1
            self.lane.emit(result)
        except Exception as error:
            self.lane.problem("the result of a registration was lost", error)

    def onSendRequest(self, prm: Any) -> None:
        try:
            result = options_result(prm)
            if result is not None:
                self.lane.emit(result)
        except Exception as error:
            self.lane.problem("the answer to an OPTIONS was lost", error)


class LaneEndpoint(pj.Endpoint):  # type: ignore[misc]  # pjsua2 has no types
    def __init__(self, lane: Owner) -> None:
        super().__init__()
        self.lane = lane

    def onRejectedIncomingCall(self, prm: Any) -> None:
        """An INVITE that PJSIP refused by itself; without a call id there was no slot for it."""
        try:
            status = int(prm.statusCode)
            if int(prm.callId) == pj.PJSUA_INVALID_ID and status == pj.PJSIP_SC_BUSY_HERE:
                self.lane.emit(OverLimit(status=status))
            else:
                self.lane.emit(InviteRefused(status=status, reason=clean(prm.reason)))
        except Exception as error:
            self.lane.problem("a refused call was not counted", error)


class LaneLogWriter(pj.LogWriter):  # type: ignore[misc]  # pjsua2 has no types
    """Hands PJSIP's log lines on, and the SIP messages among them.

    Called inside PJSIP, with its locks held: it must only remember.
    """

    def __init__(self, remember: Callable[[int, str], None], message: Callable[[str], None]) -> None:
        super().__init__()
        self._remember = remember
        self._message = message

    def write(self, entry: Any) -> None:
        try:
            level, text = int(entry.level), clean(entry.msg)
            if level == MESSAGE_LEVEL:
                self._message(text)
            else:
                self._remember(level, text)
        except Exception:
            return  # there is nobody to tell
