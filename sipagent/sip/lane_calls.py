"""PJSIP's callbacks, turned into facts. Nothing is decided here, and no pjsua2 object leaves.

Traps obeyed (measured): everything runs on the one PJSIP thread; what a callback is given dies when it returns, so
scalars are copied; `getInfo()` is kept while its members are read; a callback must not raise; a dead Call goes to
the lane's graveyard, because its destructor hangs up whatever call owns its slot by then.
"""

import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any, Protocol
from urllib.parse import quote

import msgspec
import pjsua2 as pj

from sipagent.core.clock import mono_ns
from sipagent.sip import info, message, sdes, sdp
from sipagent.sip.edge_script import EDGE, SOURCE
from sipagent.sip.lane_messages import MESSAGE_LEVEL
from sipagent.sip.lane_results import options_result, registration_result
from sipagent.sip.lane_stack import call_param, clean, request_param
from sipagent.sip.offers import PENDING, Offers
from sipagent.sip.pjsip import ALLOW, Pjsip
from sipagent.sip.protocol import (
    Answered,
    AnyFact,
    DigitByInfo,
    Ended,
    EndedWhy,
    IncomingCall,
    InfoAnswered,
    InviteRefused,
    MediaChanged,
    NotifyTransfer,
    OfferRefused,
    OverLimit,
    Progress,
    Redirected,
    Refer,
    Replaces,
    SendInfo,
    SetMedia,
    TransferProgress,
    TransferRequested,
    Trying,
)

# Answered by PJSIP, or by the callbacks below.
_METHODS = frozenset(
    {"INVITE", "ACK", "BYE", "CANCEL", "OPTIONS", "PRACK", "UPDATE", "INFO", "REFER", "NOTIFY", "SUBSCRIBE", "MESSAGE"}
)
_SIPFRAG = "message/sipfrag;version=2.0"
_SOURCE = re.compile(r"(\[[0-9A-Fa-f:.]{2,45}\]|[0-9.]{7,15}):[0-9]{1,5}")


def replaced_dialog(value: str) -> Replaces | None:
    found = message.replaced_dialog(value)
    return Replaces(*found) if found is not None else None


class Owner(Protocol):
    """What a callback may ask of the lane."""

    @property
    def trusted(self) -> list[str]: ...
    def emit(self, fact: AnyFact) -> None: ...
    def problem(self, where: str, error: BaseException) -> None: ...
    def adopt(self, account: "LaneAccount", call_id: int) -> "LaneCall": ...
    def bury(self, call: "LaneCall") -> None: ...
    def abandon(self, call: "LaneCall") -> None: ...
    def known_as(self, call: "LaneCall", sip_call_id: str) -> None: ...
    def attend(self, call: "LaneCall") -> None: ...

    pjsip: Pjsip


class LaneCall(pj.Call):  # type: ignore[misc]  # pjsua2 has no types
    def __init__(self, lane: Owner, account: "LaneAccount", handle: int, call_id: int = pj.PJSUA_INVALID_ID) -> None:
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
        self.next_sdp = ""  # main's SDP for the offer or answer that is made next
        self.media: SetMedia | None = None
        self._local: sdp.Sdp | None = None
        self._local_text = ""
        self._version = 0
        self._remote_text = ""
        self._new_offer = ""  # the peer's offer inside the call, answered and not yet reported
        self._we_offered = False  # inside the call: a re-INVITE without SDP
        self._final_headers: dict[str, str] = {}
        self._dialog = message.Message("", (), "")  # a message that has both tags
        self.hold = False  # what main wants; what the peer has agreed to:
        self._held = False
        self._offers = Offers(chose_call_id=not self.inbound)
        self._by_update = False
        self._offering = False  # PJSIP asks for the SDP of an offer of ours
        self._unanswered = False  # the last of our INVITEs and UPDATEs in the call
        self._infos = 0  # sent, not answered
        self.may_be_referred = False
        self._refers = 0
        self._notifies: list[NotifyTransfer] = []
        self._refer_id = ""  # of the transfer that we are asked for and that is not over: "" for none

    # --- SDP ------------------------------------------------------------------------------------------------

    def accept(self, text: str) -> None:
        """200 with main's SDP. PJSIP drafted its answer to an offer when the INVITE came: that one is replaced here.
        An INVITE without offer has no draft yet (setting one would crash), and onCallSdpCreated puts ours in.
        """
        param = call_param(200)
        if self.early:
            pass
        elif self.getInfo().remOfferer:
            self._local = sdp.parse(text)
            self._version = self._local.version
            self._local_text = text
            param.sdp.wholeSdp = text
        else:
            self.next_sdp = text
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
        self._local = sdp.parse(text)
        self._version = self._local.version
        self._local_text = text
        param.sdp.wholeSdp = text
        self.early = True
        self.answer(param)

    def onCallSdpCreated(self, prm: Any) -> None:
        try:
            remote, generated = clean(prm.remSdp.wholeSdp), clean(prm.sdp.wholeSdp)
            local = self._describe(remote, generated)
            if local:
                prm.sdp.wholeSdp = local
                self._local_text = local
        except sdp.NoCommonCodec:
            pass  # PJMEDIA knows no more codecs than we do: it refuses by itself
        except Exception as error:
            self.lane.problem("an SDP could not be made", error)
            self.lane.abandon(self)

    def onCallRxOffer(self, prm: Any) -> None:
        """An offer inside the call. Without this PJSIP answers 500 where nothing can be agreed."""
        try:
            sdp.negotiate(sdp.parse(clean(prm.offer.wholeSdp)), self._terms)
        except ValueError:
            prm.statusCode = pj.PJSIP_SC_NOT_ACCEPTABLE_HERE
        except Exception as error:
            self.lane.problem("an offer was not understood", error)

    def _describe(self, remote: str, generated: str) -> str:
        """Our SDP in place of PJSIP's; "" to leave PJSIP's where it is of no consequence."""
        if self.next_sdp:
            text, self.next_sdp = self.next_sdp, ""
            self._local = sdp.parse(text)
            self._version = self._local.version
            self._remote_text = remote or self._remote_text
            return text
        if not self.answered and self._local is None:
            self._remote_text = remote
            return ""  # asked before main has answered: this draft is not sent
        host, port, session_id = self._media_address()
        self._version += 1
        if remote:
            offer = sdp.parse(remote)
            self._renew_keys(offer)
            text = sdp.build_answer(
                offer,
                host=host,
                port=port,
                session_id=session_id,
                version=self._version,
                terms=self._terms,
                hold=self._held,
            )
            self._new_offer = self._remote_text = remote
            return text
        self._we_offered = not self._offering
        return sdp.build_offer(
            host=host,
            port=port,
            session_id=session_id,
            version=self._version,
            terms=self._terms,
            direction=self._offered_direction(generated),
        )

    def _offered_direction(self, generated: str) -> sdp.Direction:
        """RFC 3264 section 8.4: a stream that the peer holds too stops in both directions."""
        if self.hold if self._offering else self._held:
            line = sdp.parse(self._remote_text).audio_line if self._remote_text else None
            held_by_peer = line is not None and line.effective_direction in ("sendonly", "inactive")
            return "inactive" if held_by_peer else "sendonly"
        drafted = sdp.parse(generated).audio_line if not self._offering else None
        return drafted.direction if drafted else "sendrecv"

    @property
    def _terms(self) -> sdp.Terms:
        return self.media.terms if self.media is not None else sdp.CLEAR

    def _renew_keys(self, offer: sdp.Sdp) -> None:
        """Ours last as long as the peer's. With a new key of its own it counts wraps of the sequence from 0 again, and
        often ours too; under an old key of ours that would use the same indices twice (RFC 3711 section 9.1).
        """
        crypto = sdp.negotiate(offer, self._terms).crypto
        if crypto is None or self.media is None:
            return
        known = sdp.parse(self._remote_text).media if self._remote_text else ()
        if not any(line.key == crypto.remote_key for media in known for line in media.crypto):
            terms = replace(self.media.terms, keys=sdes.new_keys())
            self.media = msgspec.structs.replace(self.media, terms=terms)

    def _media_address(self) -> tuple[str, int, int]:
        if self.media is not None:
            return self.media.host, self.media.port, self.media.session_id
        line = self._local.audio_line if self._local else None
        if self._local is None or line is None:
            raise ValueError("the peer made an offer and main has said nothing about media")
        return line.host, line.port, self._local.session_id

    # --- our offers inside the call -------------------------------------------------------------------------

    def make_offer(self, *, update: bool = False) -> None:
        self._by_update = update
        self._offers.want()
        self.lane.attend(self)

    def attended(self, now: int) -> bool:
        """Sends what is due; False when nothing waits any more."""
        if self.ended or not self.isActive():
            return False
        while self._notifies:
            self._notify(self._notifies.pop(0))
        if self._offers.expired(now):
            self._offer_answered(408, "no answer")
        if self.answered and self._offers.due(now):
            self._send_offer(now)
        return self._offers.wanted or self._offers.on_its_way

    def _send_offer(self, now: int) -> None:
        self._offers.sent(now)
        before = self._local_text
        self._offering = True
        try:
            if self._by_update:
                self.update(call_param())
            else:
                self.reinvite(call_param())
        except pj.Error:  # another INVITE is under way, one of the peer's maybe
            self._local_text = before
            self._offer_answered(PENDING, "")
        finally:
            self._offering = False

    def _offer_answered(self, status: int, reason: str) -> None:
        if not self._offers.on_its_way:
            return
        outcome = self._offers.answered(status, mono_ns())
        if outcome == "accepted":
            self._held = self.hold
        elif outcome == "refused":
            self.hold = self._held
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
        if body and (ours or body != self._remote_text):
            self._remote_text = body
            self.lane.emit(MediaChanged(call=self.handle, sdp=body, answer=self._local_text, offered=True))

    def onCallMediaState(self, prm: Any) -> None:
        try:
            if self._new_offer:
                offer, self._new_offer = self._new_offer, ""
                self.lane.emit(MediaChanged(call=self.handle, sdp=offer, answer=self._local_text))
            elif self._we_offered and self.answered:
                self._we_offered = False
                self.lane.emit(MediaChanged(call=self.handle, sdp=self._as_negotiated(), answer=self._local_text))
        except Exception as error:
            self.lane.problem("a media change was not reported", error)

    def _as_negotiated(self) -> str:
        """The peer's answer in an ACK to a re-INVITE reaches no callback: written down again from its outcome.

        Its SRTP key is none of PJMEDIA's outcomes: taken to be the one it had.
        """
        host, port, payload_type, direction = "0.0.0.0", 9, 0, pj.PJMEDIA_DIR_NONE
        try:
            stream = self.getStreamInfo(0)
            host, _, port_text = str(stream.remoteRtpAddress).rpartition(":")
            port, payload_type, direction = int(port_text), int(stream.txPt), int(stream.dir)
        except pj.Error:
            pass  # no stream: on hold
        names: dict[int, sdp.Direction] = {
            pj.PJMEDIA_DIR_ENCODING_DECODING: "sendrecv",
            pj.PJMEDIA_DIR_ENCODING: "recvonly",
            pj.PJMEDIA_DIR_DECODING: "sendonly",
        }
        known = sdp.parse(self._remote_text).audio_line if self._remote_text else None
        if known is None:
            raise ValueError("the peer's SDP was never seen")
        return sdp.restate(
            known, host=host, port=port, payload_type=payload_type, direction=names.get(direction, "inactive")
        )

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
                    self._remote_text = body
            if state == pj.PJSIP_INV_STATE_CONFIRMED and not self.answered:
                self.answered = True
                self._new_offer, self._we_offered = "", False
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
            sdp=self._remote_text,
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
                self._remote_text = body or self._remote_text
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
            self._refer(message.parse(clean(rdata.wholeMsg)), rdata.pjRxData)
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

    def _refer(self, received: message.Message, rdata: Any) -> None:
        """A REFER, from which PJSIP would make a call by itself (RFC 3515)."""
        target, replaces = message.refer_to(received.get("refer-to"))
        if not target:
            status = 400
        elif not self.may_be_referred or not target.lower().startswith(("sip:", "sips:", "tel:")):
            status = 603
        else:
            status = PENDING if self._refer_id else 202
        if not self.lane.pjsip.respond(rdata, status) or status != 202:
            return
        self._refers += 1
        # RFC 3515 section 2.4.6: the first may go without an id, the further ones may not.
        cseq = received.get("cseq").partition(" ")[0]
        self._refer_id = "refer" if self._refers == 1 else f"refer;id={cseq}"
        self.notify(NotifyTransfer(call=self.handle, status=100))
        self.lane.emit(
            TransferRequested(
                call=self.handle,
                target=target,
                replaces=replaced_dialog(replaces),
                referred_by=message.parse_address(received.get("referred-by")).uri,
            )
        )

    def notify(self, command: NotifyTransfer) -> None:
        self._notifies.append(command)
        self.lane.attend(self)

    def _notify(self, command: NotifyTransfer) -> None:
        if not self._refer_id:
            return  # it has been told the end
        reason = command.reason or self.lane.pjsip.reason(command.status)
        state = "terminated;reason=noresource" if command.final else "active;expires=180"
        headers = {"Event": self._refer_id, "Subscription-State": state}
        if command.final:
            self._refer_id = ""
        self.sendRequest(request_param("NOTIFY", _SIPFRAG, f"SIP/2.0 {command.status} {reason}\r\n", headers))

    def onCallTransferRequest(self, prm: Any) -> None:
        prm.statusCode = pj.PJSIP_SC_DECLINE  # answered before this; PJSIP's default is to call anyone

    def onCallReplaceRequest(self, prm: Any) -> None:
        prm.statusCode = pj.PJSIP_SC_DECLINE  # PJSIP's default is to let anyone replace a call


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


def _received(event: Any) -> str:
    """The message that brought the event, "" when it was none of the peer's."""
    if event.type == pj.PJSIP_EVENT_TSX_STATE and event.body.tsxState.type == pj.PJSIP_EVENT_RX_MSG:
        return str(event.body.tsxState.src.rdata.wholeMsg)
    if event.type == pj.PJSIP_EVENT_RX_MSG:
        return str(event.body.rxMsg.rdata.wholeMsg)
    return ""
