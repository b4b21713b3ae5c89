"""PJSIP's callbacks, turned into facts. Nothing is decided here, and no pjsua2 object leaves.

Traps obeyed (measured): everything runs on the one PJSIP thread; what a callback is given dies when it returns, so
scalars are copied; `getInfo()` is kept while its members are read; a callback must not raise; a dead Call goes to
the lane's graveyard, because its destructor hangs up whatever call owns its slot by then.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Any, Protocol

import msgspec
import pjsua2 as pj

from sipagent.sip import message, sdes, sdp
from sipagent.sip.lane_messages import MESSAGE_LEVEL
from sipagent.sip.lane_stack import call_param
from sipagent.sip.protocol import (
    Answered,
    AnyFact,
    DigitByInfo,
    Ended,
    IncomingCall,
    InviteRefused,
    MediaChanged,
    OverLimit,
    Progress,
    RegistrationResult,
    SetMedia,
    TransferProgress,
)


def clean(text: Any) -> str:
    """Bytes of the wire that are no UTF-8 arrive as lone surrogates, which msgpack refuses."""
    return str(text).encode("utf-8", "replace").decode("utf-8")


class Owner(Protocol):
    """What a callback may ask of the lane."""

    def emit(self, fact: AnyFact) -> None: ...
    def problem(self, where: str, error: BaseException) -> None: ...
    def adopt(self, account: "LaneAccount", call_id: int) -> "LaneCall": ...
    def bury(self, call: "LaneCall") -> None: ...
    def abandon(self, call: "LaneCall") -> None: ...
    def known_as(self, call: "LaneCall", sip_call_id: str) -> None: ...


class LaneCall(pj.Call):  # type: ignore[misc]  # pjsua2 has no types
    def __init__(self, lane: Owner, account: "LaneAccount", handle: int, call_id: int = pj.PJSUA_INVALID_ID) -> None:
        super().__init__(account, call_id)
        self.lane = lane
        self.handle = handle
        self.inbound = call_id != pj.PJSUA_INVALID_ID
        self.answered = False
        self.ended = False
        self.accepted = False  # main said 200
        self.closing = False  # we asked for the end
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

    # --- SDP ------------------------------------------------------------------------------------------------

    def accept(self, text: str) -> None:
        """200 with main's SDP. PJSIP drafted its answer to an offer when the INVITE came: that one is replaced here.
        An INVITE without offer has no draft yet (setting one would crash), and onCallSdpCreated puts ours in.
        """
        param = call_param(200)
        info = self.getInfo()
        if info.remOfferer:
            self._local = sdp.parse(text)
            self._version = self._local.version
            self._local_text = text
            param.sdp.wholeSdp = text
        else:
            self.next_sdp = text
        self.accepted = True
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
                offer, host=host, port=port, session_id=session_id, version=self._version, terms=self._terms
            )
            self._new_offer = self._remote_text = remote
            return text
        drafted = sdp.parse(generated).audio_line
        self._we_offered = True
        return sdp.build_offer(
            host=host,
            port=port,
            session_id=session_id,
            version=self._version,
            terms=self._terms,
            direction=drafted.direction if drafted else "sendrecv",
        )

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
            if state == pj.PJSIP_INV_STATE_CONNECTING or state == pj.PJSIP_INV_STATE_CONFIRMED:
                # In a 2xx (outbound), or in the ACK to our offer (inbound).
                if body and (not self.inbound or received.start_line.startswith("ACK ")):
                    self._remote_text = body
            if state == pj.PJSIP_INV_STATE_CONFIRMED and not self.answered:
                self.answered = True
                self._new_offer, self._we_offered = "", False
                self.lane.emit(Answered(call=self.handle, sdp=self._remote_text, sip_call_id=call_id))
            elif state == pj.PJSIP_INV_STATE_DISCONNECTED and not self.ended:
                self.ended = True
                by_remote = self.cancelled or received.start_line.startswith("BYE ")
                if not by_remote and not self.closing:
                    by_remote = received.status >= 300  # a final refusal; timers and dead transports are nobody's
                self.lane.emit(
                    Ended(
                        call=self.handle,
                        status=status,
                        reason=reason,
                        by_remote=by_remote,
                        was_answered=self.answered,
                        headers={**self._final_headers, **message.final_headers(received)},
                        sip_call_id=call_id,
                    )
                )
        except Exception as error:
            self.lane.problem("a change of call state was not understood", error)
        finally:
            if self.ended:
                self.lane.bury(self)

    def onCallTsxState(self, prm: Any) -> None:
        try:
            change = prm.e.body.tsxState
            if change.type != pj.PJSIP_EVENT_RX_MSG:
                return
            method, role, status = str(change.tsx.method), int(change.tsx.role), int(change.tsx.statusCode)
            if role == pj.PJSIP_ROLE_UAC and method == "INVITE" and 100 < status < 200 and not self.answered:
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
            elif role == pj.PJSIP_ROLE_UAS and method in ("CANCEL", "BYE"):
                received = message.parse(clean(change.src.rdata.wholeMsg))
                self._final_headers = message.final_headers(received)
                self.cancelled = True
        except Exception as error:
            self.lane.problem("a transaction was not understood", error)

    def onDtmfDigit(self, prm: Any) -> None:
        try:
            self.lane.emit(DigitByInfo(call=self.handle, digit=clean(prm.digit)[:1]))
        except Exception as error:
            self.lane.problem("a digit was lost", error)

    # --- transfer -------------------------------------------------------------------------------------------

    def onCallTransferStatus(self, prm: Any) -> None:
        try:
            status, reason, final = int(prm.statusCode), clean(prm.reason), bool(prm.finalNotify)
            self.lane.emit(TransferProgress(call=self.handle, status=status, reason=reason, final=final))
        except Exception as error:
            self.lane.problem("the progress of a transfer was lost", error)

    def onCallTransferRequest(self, prm: Any) -> None:
        prm.statusCode = pj.PJSIP_SC_DECLINE  # a REFER received: not ours to follow yet

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
                    source=clean(prm.rdata.srcAddress),
                    headers=message.invite_headers(invite),
                    sdp=message.sdp_of(invite),
                )
            )
        except Exception as error:
            self.lane.problem("an INVITE was not understood", error)
            if call is not None:
                self.lane.abandon(call)

    def onRegState(self, prm: Any) -> None:
        try:
            response = message.parse(clean(prm.rdata.wholeMsg))
            status, expires_s = int(prm.code), int(prm.expiration)
            self.registered = status // 100 == 2 and expires_s > 0
            self.results += 1
            self.lane.emit(
                RegistrationResult(
                    account=self.name,
                    status=status,
                    reason=clean(prm.reason),
                    expires_s=expires_s if self.registered else 0,
                    contact=response.get("contact"),
                    answered=response.status > 0,
                    retry_after_s=message.seconds(response.get("retry-after")),
                )
            )
        except Exception as error:
            self.lane.problem("the result of a registration was lost", error)


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
