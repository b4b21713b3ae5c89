"""PJSIP's callbacks, turned into facts. Nothing is decided here, and no pjsua2 object leaves.

Traps obeyed (measured): everything runs on the one PJSIP thread; what a callback is given dies when it returns, so
scalars are copied; `getInfo()` is kept while its members are read; a callback must not raise; a dead Call goes to
the lane's graveyard, because its destructor hangs up whatever call owns its slot by then.
"""

from typing import Any, Protocol
from urllib.parse import quote

import pjsua2 as pj

from sipagent.core.clock import mono_ns
from sipagent.sip import info, message, sdp
from sipagent.sip.edge_script import EDGE
from sipagent.sip.lane_descriptions import Descriptions
from sipagent.sip.lane_referral import SIPFRAG, Referral
from sipagent.sip.lane_stack import call_param, clean, request_param
from sipagent.sip.offers import PENDING, Offers
from sipagent.sip.pjsip import ALLOW, Pjsip
from sipagent.sip.protocol import (
    Answered,
    AnyFact,
    DigitByInfo,
    Ended,
    EndedWhy,
    InfoAnswered,
    MediaChanged,
    NotifyTransfer,
    OfferRefused,
    Progress,
    Redirected,
    Refer,
    SendInfo,
    Standing,
    TransferProgress,
    Trying,
)

# Answered by PJSIP, or by the callbacks below.
_METHODS = frozenset(
    {"INVITE", "ACK", "BYE", "CANCEL", "OPTIONS", "PRACK", "UPDATE", "INFO", "REFER", "NOTIFY", "SUBSCRIBE", "MESSAGE"}
)
_DIRECTIONS: dict[int, sdp.Direction] = {
    pj.PJMEDIA_DIR_ENCODING_DECODING: "sendrecv",
    pj.PJMEDIA_DIR_ENCODING: "recvonly",
    pj.PJMEDIA_DIR_DECODING: "sendonly",
}


class Owner(Protocol):
    """What a callback may ask of the lane."""

    @property
    def trusted(self) -> list[str]: ...
    def emit(self, fact: AnyFact) -> None: ...
    def problem(self, where: str, error: BaseException) -> None: ...
    def adopt(self, account: Any, call_id: int) -> "LaneCall": ...
    def bury(self, call: "LaneCall") -> None: ...
    def abandon(self, call: "LaneCall") -> None: ...
    def known_as(self, call: "LaneCall", sip_call_id: str) -> None: ...
    def attend(self, call: "LaneCall") -> None: ...

    pjsip: Pjsip


class LaneCall(pj.Call):  # type: ignore[misc]  # pjsua2 has no types
    def __init__(self, lane: Owner, account: pj.Account, handle: int, call_id: int = pj.PJSUA_INVALID_ID) -> None:
        super().__init__(account, call_id)
        self.lane = lane
        self.handle = handle
        self.inbound = call_id != pj.PJSUA_INVALID_ID
        self.answered = False
        self.ended = False
        self.early = False  # our answer went out with a 183
        self.accepted = False  # main said 200
        self.closing = False  # we asked for the end
        self.named: tuple[str, str, str] | None = None  # once answered: Call-ID, our tag and the peer's
        self.cancelled = False  # the peer did, before an answer
        self.sdp = Descriptions()
        self._final_headers: dict[str, str] = {}
        self._dialog = message.Message("", (), "")  # a message that has both tags
        self._offers = Offers(chose_call_id=not self.inbound)
        self._by_update = False
        self._unanswered = False  # the last of our INVITEs and UPDATEs in the call
        self._infos = 0  # sent, not answered
        self.referral = Referral()
        self.standing = Standing(call=handle)  # what main knows of it

    # --- SDP ------------------------------------------------------------------------------------------------

    def accept(self, text: str) -> None:
        """200 with main's SDP. PJSIP drafted its answer to an offer when the INVITE came: that one is replaced here.
        An INVITE without offer has no draft yet (setting one would crash), and onCallSdpCreated puts ours in.
        """
        param = call_param(200)
        if self.early:
            pass
        elif self.getInfo().remOfferer:
            param.sdp.wholeSdp = self.sdp.answered(text)
        else:
            self.sdp.next = text
        self.accepted = True
        self.answer(param)

    def begin_early_media(self, text: str) -> None:
        """183; the answer in it holds for the 200 too. Without an offer to answer there is nothing to say yet."""
        if self.early or self.accepted:
            return
        if not self.getInfo().remOfferer:
            self.answer(call_param(183, media=False))
            return
        param = call_param(183)
        param.sdp.wholeSdp = self.sdp.answered(text)
        self.early = True
        self.answer(param)

    def onCallSdpCreated(self, prm: Any) -> None:
        try:
            remote, generated = clean(prm.remSdp.wholeSdp), clean(prm.sdp.wholeSdp)
            ours = self.sdp.make(remote, generated, inside=self.answered)
            if ours:
                prm.sdp.wholeSdp = ours
        except sdp.NoCommonCodec:
            pass  # PJMEDIA knows no more codecs than we do: it refuses by itself
        except Exception as error:
            self.lane.problem("an SDP could not be made", error)
            self.lane.abandon(self)

    def onCallRxOffer(self, prm: Any) -> None:
        """An offer inside the call. Without this PJSIP answers 500 where nothing can be agreed."""
        try:
            sdp.negotiate(sdp.parse(clean(prm.offer.wholeSdp)), self.sdp.terms)
        except ValueError:
            prm.statusCode = pj.PJSIP_SC_NOT_ACCEPTABLE_HERE
        except Exception as error:
            self.lane.problem("an offer was not understood", error)

    # --- our offers inside the call -------------------------------------------------------------------------

    def make_offer(self, *, update: bool = False) -> None:
        self._by_update = update
        self._offers.want()
        self.lane.attend(self)

    def attended(self, now: int) -> bool:
        """Sends what is due; False when nothing waits any more."""
        if self.ended or not self.isActive():
            return False
        for headers, body in self.referral.due(self.lane.pjsip.reason):
            self.sendRequest(request_param("NOTIFY", SIPFRAG, body, headers))
        if self._offers.expired(now):
            self._offer_answered(408, "no answer")
        if self.answered and self._offers.due(now):
            self._send_offer(now)
        return self._offers.wanted or self._offers.on_its_way

    def _send_offer(self, now: int) -> None:
        self._offers.sent(now)
        before, self.sdp.offering = self.sdp.local, True
        try:
            if self._by_update and self.remoteHasCap(pj.PJSIP_H_ALLOW, "", "UPDATE") == pj.PJSIP_DIALOG_CAP_SUPPORTED:
                self.update(call_param())
            else:
                self.reinvite(call_param())
        except pj.Error:  # another INVITE is under way, one of the peer's maybe
            self.sdp.local = before
            self._offer_answered(PENDING, "")
        finally:
            self.sdp.offering = False

    def _offer_answered(self, status: int, reason: str) -> None:
        if not self._offers.on_its_way:
            return
        outcome = self._offers.answered(status, mono_ns())
        if outcome == "accepted":
            self.sdp.held = self.sdp.hold
        elif outcome == "refused":
            self.sdp.hold = self.sdp.held
            self.lane.emit(OfferRefused(call=self.handle, status=status, reason=reason))

    def _answer_inside(self, method: str, change: Any) -> None:
        """The peer's final response to an INVITE or UPDATE of ours inside the call, PJSIP's own refreshes too."""
        status, received = int(change.tsx.statusCode), message.Message("", (), "")
        if change.type == pj.PJSIP_EVENT_RX_MSG:
            received = message.parse(clean(change.src.rdata.wholeMsg))
            if status in (401, 407) and self._offers.on_its_way:
                return  # PJSIP tries again with credentials; without any, the offer expires
        self._unanswered = not received.status and status >= 300
        body = message.sdp_of(received) if 200 <= status < 300 else ""
        ours = self._offers.on_its_way
        self._offer_answered(status, clean(change.tsx.statusText))
        if body and (ours or body != self.sdp.remote):
            self.sdp.remote = body
            self.lane.emit(MediaChanged(call=self.handle, sdp=body, answer=self.sdp.local, offered=True))

    def onCallMediaState(self, prm: Any) -> None:
        try:
            if self.sdp.new_offer:
                offer, self.sdp.new_offer = self.sdp.new_offer, ""
                self.lane.emit(MediaChanged(call=self.handle, sdp=offer, answer=self.sdp.local))
            elif self.sdp.asked_for and self.answered:
                self.sdp.asked_for = False
                self.lane.emit(MediaChanged(call=self.handle, sdp=self._as_negotiated(), answer=self.sdp.local))
        except Exception as error:
            self.lane.problem("a media change was not reported", error)

    def _as_negotiated(self) -> str:
        host, port, payload_type, direction = "0.0.0.0", 9, 0, pj.PJMEDIA_DIR_NONE
        try:
            stream = self.getStreamInfo(0)
            host, _, port_text = str(stream.remoteRtpAddress).rpartition(":")
            port, payload_type, direction = int(port_text), int(stream.txPt), int(stream.dir)
        except pj.Error:
            pass  # no stream: on hold
        return self.sdp.restated(host, port, payload_type, _DIRECTIONS.get(direction, "inactive"))

    # --- the dialog -----------------------------------------------------------------------------------------

    def onCallState(self, prm: Any) -> None:
        try:
            info = self.getInfo()
            state, status, reason = int(info.state), int(info.lastStatusCode), clean(info.lastReason)
            call_id = clean(info.callIdString)
            self.lane.known_as(self, call_id)
            received = message.parse(clean(_received(prm.e)))
            body = message.sdp_of(received)
            if not self.inbound and received.status >= 300:
                # Of a redirection that nobody follows PJSIP makes 487.
                status, reason = received.status, clean(received.start_line.split(" ", 2)[-1])
            if not self.answered and received.start_line:
                self._dialog = received
            if state == pj.PJSIP_INV_STATE_CONNECTING or state == pj.PJSIP_INV_STATE_CONFIRMED:
                # In a 2xx (outbound), or in the ACK to our offer (inbound).
                if body and (not self.inbound or received.start_line.startswith("ACK ")):
                    self.sdp.remote = body
            if state == pj.PJSIP_INV_STATE_CONFIRMED and not self.answered:
                self.answered = True
                self.sdp.new_offer, self.sdp.asked_for = "", False
                self.lane.emit(self._as_answered(call_id, clean(info.remoteContact)))
            elif state == pj.PJSIP_INV_STATE_DISCONNECTED and not self.ended:
                self.ended = True
                by_remote = self.cancelled or received.start_line.startswith("BYE ")
                if not by_remote and not self.closing:
                    # A final refusal; timers, dead transports and what the edge made up are nobody's.
                    by_remote = received.status >= 300 and not received.get(EDGE)
                if received.status // 100 == 3:
                    targets = message.redirections(received)
                    self.lane.emit(Redirected(call=self.handle, status=status, targets=targets))
                self.lane.emit(
                    Ended(
                        call=self.handle,
                        status=status,
                        reason=reason,
                        by_remote=by_remote,
                        was_answered=self.answered,
                        headers={**self._final_headers, **message.final_headers(received)},
                        sip_call_id=call_id,
                        why="" if by_remote or self.closing else self._why_ended(status),
                    )
                )
        except Exception as error:
            self.lane.problem("a change of call state was not understood", error)
        finally:
            if self.ended:
                self.lane.bury(self)

    def _as_answered(self, call_id: str, remote_target: str) -> Answered:
        sides = message.parse_address(self._dialog.get("to")), message.parse_address(self._dialog.get("from"))
        local, remote = sides if self.inbound else reversed(sides)
        self.named = call_id, local.params.get("tag", ""), remote.params.get("tag", "")
        return Answered(
            call=self.handle,
            sdp=self.sdp.remote,
            sip_call_id=call_id,
            local_tag=self.named[1],
            remote_tag=self.named[2],
            remote_uri=remote.uri,
            remote_target=message.parse_address(remote_target).uri,
        )

    def _why_ended(self, status: int) -> EndedWhy:
        if not self.answered:
            return "no_ack" if self.accepted else ""
        if status == 408 and not self._unanswered:
            return "no_refresh"
        return "unreachable" if status in (408, 481, 503) else ""

    def onCallTsxState(self, prm: Any) -> None:
        try:
            change = prm.e.body.tsxState
            method, role, status = str(change.tsx.method), int(change.tsx.role), int(change.tsx.statusCode)
            if role == pj.PJSIP_ROLE_UAC and status >= 200 and method == "INFO":
                self._info_answered(status)
            elif role == pj.PJSIP_ROLE_UAC and status >= 200 and method in ("INVITE", "UPDATE") and self.answered:
                self._answer_inside(method, change)
            elif change.type != pj.PJSIP_EVENT_RX_MSG:
                return
            elif role == pj.PJSIP_ROLE_UAC and method == "INVITE" and status == 100:
                self.lane.emit(Trying(call=self.handle))
            elif role == pj.PJSIP_ROLE_UAC and method == "INVITE" and 100 < status < 200 and not self.answered:
                received = message.parse(clean(change.src.rdata.wholeMsg))
                body = message.sdp_of(received)
                self.sdp.remote = body or self.sdp.remote
                self.lane.emit(
                    Progress(
                        call=self.handle,
                        status=status,
                        reason=clean(change.tsx.statusText),
                        sdp=body,
                        sip_call_id=received.get("call-id"),
                    )
                )
            elif role == pj.PJSIP_ROLE_UAS and change.tsx.state == pj.PJSIP_TSX_STATE_TRYING:
                self._requested(method, change.src.rdata)
        except Exception as error:
            self.lane.problem("a transaction was not understood", error)

    def _requested(self, method: str, rdata: Any) -> None:
        """A request inside the dialog that has no response yet. What is not answered here PJSIP answers."""
        if method in ("CANCEL", "BYE"):
            self._final_headers = message.final_headers(message.parse(clean(rdata.wholeMsg)))
            self.cancelled = True
        elif method == "INFO":
            self._info(message.parse(clean(rdata.wholeMsg)), rdata.pjRxData)
        elif method == "REFER":
            self._referred(message.parse(clean(rdata.wholeMsg)), rdata.pjRxData)
        elif method not in _METHODS:
            self.lane.pjsip.respond(rdata.pjRxData, 405, ("Allow", ALLOW))

    # --- INFO -----------------------------------------------------------------------------------------------

    def send_info(self, command: SendInfo) -> None:
        self.sendRequest(request_param("INFO", command.content_type, command.body))
        self._infos += 1

    def _info_answered(self, status: int) -> None:
        if self._infos:  # its transaction's end is told once more
            self._infos -= 1
            self.lane.emit(InfoAnswered(call=self.handle, status=status))

    def _info(self, received: message.Message, rdata: Any) -> None:
        """RFC 6086 section 4.2.2: an empty one is a sign of life, an unknown package or body is refused."""
        kind = received.get("content-type")
        pressed = info.digit_of(kind, received.body)
        if pressed is not None:
            self.lane.pjsip.respond(rdata, 200)
            self.lane.emit(DigitByInfo(call=self.handle, digit=pressed[0], duration_ms=pressed[1]))
        elif received.get("info-package"):
            self.lane.pjsip.respond(rdata, 469, ("Recv-Info", ""))  # Bad Info Package: none is good
        elif not received.body.strip():
            self.lane.pjsip.respond(rdata, 200)
        else:
            accept = ("Accept", f"{info.RELAY}, {info.PLAIN}")
            self.lane.pjsip.respond(rdata, *((400,) if info.is_digits(kind) else (415, accept)))

    # --- transfer -------------------------------------------------------------------------------------------

    def onCallTransferStatus(self, prm: Any) -> None:
        try:
            status, reason, final = int(prm.statusCode), clean(prm.reason), bool(prm.finalNotify)
            self.lane.emit(TransferProgress(call=self.handle, status=status, reason=reason, final=final))
        except Exception as error:
            self.lane.problem("the progress of a transfer was lost", error)

    def refer(self, command: Refer) -> None:
        target = command.target
        if command.replaces is not None:
            target = f"<{target}?Replaces={quote(str(command.replaces), safe='')}>"
        self.xfer(target, call_param(headers=command.headers))

    def _referred(self, received: message.Message, rdata: Any) -> None:
        status, requested = self.referral.received(self.handle, received)
        if self.lane.pjsip.respond(rdata, status) and requested is not None:
            self.notify(NotifyTransfer(call=self.handle, status=100))
            self.lane.emit(requested)

    def notify(self, command: NotifyTransfer) -> None:
        self.referral.waiting.append(command)
        self.lane.attend(self)

    def onCallTransferRequest(self, prm: Any) -> None:
        prm.statusCode = pj.PJSIP_SC_DECLINE  # answered before this; PJSIP's default is to call anyone

    def onCallReplaceRequest(self, prm: Any) -> None:
        prm.statusCode = pj.PJSIP_SC_DECLINE  # PJSIP's default is to let anyone replace a call


def _received(event: Any) -> str:
    """The message that brought the event, "" when it was none of the peer's."""
    if event.type == pj.PJSIP_EVENT_TSX_STATE and event.body.tsxState.type == pj.PJSIP_EVENT_RX_MSG:
        return str(event.body.tsxState.src.rdata.wholeMsg)
    if event.type == pj.PJSIP_EVENT_RX_MSG:
        return str(event.body.rxMsg.rdata.wholeMsg)
    return ""
