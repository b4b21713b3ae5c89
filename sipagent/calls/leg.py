"""Our side of one SIP dialog and its RTP port: what the lane reports and what the call wants, joined.

A leg ends exactly once, with one Termination: `ended` is a future that whoever knows completes first. Its media port is
closed only after the dialog is over, so that the last words are not cut off by us.
"""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from sipagent.calls.keypad import Keypad
from sipagent.calls.port_events import PortEvents
from sipagent.calls.relay import Heard
from sipagent.calls.requests import LaneSender, Requests
from sipagent.calls.saved import SavedLeg
from sipagent.core import clock
from sipagent.core.events import (
    EventSink,
    LegAnswered,
    LegCreated,
    LegEnded,
    LegHeld,
    LegMuted,
    LegRinging,
    MediaFigures,
)
from sipagent.core.ids import CallId, LegId, new_leg_id
from sipagent.core.states import Direction, LegState, advance
from sipagent.core.termination import Cause, Disposition, EndedBy, Termination, from_sip_status
from sipagent.media.client import MediaPort
from sipagent.media.protocol import Crypto
from sipagent.media.telephone_event import GAP_MS, KEY_MS
from sipagent.sip import message, sdp
from sipagent.sip import protocol as sip
from sipagent.sip.addresses import with_port

_CAUSES: dict[str, Cause] = {
    "no_ack": Cause.NO_ACK,
    "no_refresh": Cause.SESSION_EXPIRED,
    "unreachable": Cause.UNREACHABLE,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class LegIdentity:
    call_id: CallId
    direction: Direction
    from_number: str
    to_number: str
    remote_address: str
    role: str = ""  # as in core.events.LegCreated, like the next two
    trunk: str = ""
    parent: LegId | None = None


class Leg:
    def __init__(
        self,
        handle: int,
        lane: LaneSender,
        port: MediaPort,
        events: EventSink,
        identity: LegIdentity,
        media_host: str,
        terms: sdp.Terms = sdp.CLEAR,
        leg_id: LegId | None = None,
    ) -> None:
        self.id: LegId = leg_id or new_leg_id()
        self.handle = handle
        self.port = port
        self.state = LegState.SETUP
        self.identity = identity
        self.answered = asyncio.Event()
        self.heard = asyncio.Event()  # of an outbound leg: its server has said something, if only 100
        self.ended: asyncio.Future[Termination] = asyncio.get_running_loop().create_future()
        self._lane = lane
        self._events = events
        self.media_host = media_host
        self._terms = replace(terms, ip_version=6 if port.ipv6 else 4)
        self._session_id = clock.mono_ns() // 1000 & 0x7FFFFFFF
        self._offer: sdp.Sdp | None = None
        self._offer_text = ""
        self._dialog_over = asyncio.Event()
        self._codec = ""
        self._sip_call_id = ""
        self._confirmation: sip.Answered | None = None
        self._confirmed_at: clock.Stamp | None = None
        self._accepted = False  # we have said 200
        self._sends = True  # the peer hears us
        self.held = False  # by the peer
        self.muted = False  # by an order: nobody hears the peer
        self._receives = True  # as the SDP says
        self.on_held: Callable[[bool], None] | None = None
        self.is_early = False  # the caller hears us before the answer
        self.redirected_to: tuple[str, ...] = ()  # URIs, best first, of a 3xx
        self.ended_at: clock.Stamp | None = None
        self.on_transfer_request: Callable[[sip.TransferRequested], None] | None = None  # without it: 603
        self.requests = Requests(handle, lane, self.ended)
        self._record = PortEvents(port, events, identity.call_id, self.id)
        self._keypad = Keypad(handle, lane.send, port, self.ended, terms.dtmf)
        self._key_source: Heard | None = None  # whose peer's keys are pressed here
        self.key_sinks: list[Heard] = []  # where those of our peer are
        self._record.on_digit = self._pressed
        self.on_digit: list[Callable[[str], None]] = []  # told of each key that the peer presses

    @property
    def is_answered(self) -> bool:
        return self.answered.is_set()

    @property
    def up_ms(self) -> float:
        """Since it was answered, 0 before that."""
        return clock.now().ms_since(self._confirmed_at) if self._confirmed_at is not None else 0.0

    @property
    def dialog(self) -> sip.Replaces:
        """As the peer knows it, of a leg that was answered."""
        assert self._confirmation is not None
        return self._confirmation.dialog

    @property
    def remote_uri(self) -> str:
        """Where the peer of a leg that was answered can be reached."""
        assert self._confirmation is not None
        return self._confirmation.remote_target or self._confirmation.remote_uri

    def is_named_by(self, replaces: sip.Replaces) -> bool:
        """Whether a peer means this leg's dialog (RFC 3891 section 3)."""
        return self._confirmation is not None and self._confirmation.is_named_by(replaces)

    def saved(self) -> SavedLeg:
        """For another main."""
        who = self.identity
        return SavedLeg(
            id=self.id,
            handle=self.handle,
            slot=self.port.slot,
            port=self.port.port,
            direction=who.direction,
            from_number=who.from_number,
            to_number=who.to_number,
            remote_address=who.remote_address,
            role=who.role,
            trunk=who.trunk,
            parent=who.parent or "",
            media_host=self.media_host,
            session_id=self._session_id,
            terms=self._terms,
            offer=self._offer_text,
            codec=self._codec,
            sip_call_id=self._sip_call_id,
            state=self.state,
            accepted=self._accepted,
            held=self.held,
            muted=self.muted,
            sends=self._sends,
            digits=self._record.digits,
            confirmation=self._confirmation,
            remote_media=self._record.remote_media,
        )

    @classmethod
    def restored(cls, saved: SavedLeg, call_id: CallId, lane: LaneSender, port: MediaPort, events: EventSink) -> "Leg":
        """One that an earlier main has left; nothing is said to anybody."""
        who = LegIdentity(
            call_id=call_id,
            direction=saved.direction,
            from_number=saved.from_number,
            to_number=saved.to_number,
            remote_address=saved.remote_address,
            role=saved.role,
            trunk=saved.trunk,
            parent=LegId(saved.parent) if saved.parent else None,
        )
        leg = cls(saved.handle, lane, port, events, who, saved.media_host, saved.terms, LegId(saved.id))
        leg.state = saved.state
        leg._session_id, leg._codec, leg._sip_call_id = saved.session_id, saved.codec, saved.sip_call_id
        leg._accepted, leg.held, leg._sends = saved.accepted, saved.held, saved.sends
        leg.muted = saved.muted
        if saved.offer:
            leg._offer, leg._offer_text = sdp.parse(saved.offer), saved.offer
        leg._record.digits, leg._record.remote_media = saved.digits, saved.remote_media
        leg._keypad.telephone_event = port.connected is not None and port.connected.telephone_event >= 0
        if saved.confirmation is not None:
            leg._confirmation = saved.confirmation
            leg.answered.set()
            leg.heard.set()
        return leg

    @property
    def may_go_on(self) -> bool:
        """Another main can take it up: it is answered, or we have said so and the ACK is on its way."""
        return not self.ended.done() and (self.is_answered or self._accepted)

    @property
    def may_be_answered(self) -> bool:
        """It rings here, and we have not said 200."""
        return self.identity.direction is Direction.INBOUND and not (self._accepted or self.ended.done())

    def created(self, sip_call_id: str) -> None:
        self._sip_call_id = sip_call_id
        self._events.emit(
            LegCreated(
                at=clock.now(),
                call_id=self.identity.call_id,
                leg_id=self.id,
                direction=self.identity.direction,
                from_number=self.identity.from_number,
                to_number=self.identity.to_number,
                sip_call_id=sip_call_id,
                remote_address=self.identity.remote_address,
                role=self.identity.role,
                trunk=self.identity.trunk,
                parent_leg_id=self.identity.parent,
            )
        )

    # --- what the call wants ---

    def take_offer(self, text: str) -> None:
        """The inbound INVITE's offer, "" when it had none. Raises ValueError (NoCommonCodec) when it cannot be met."""
        if text:
            self._offer, self._offer_text = sdp.parse(text), text
            sdp.negotiate(self._offer, self._terms)

    def ring(self) -> None:
        """180 to a caller who is not answered yet."""
        if not self.is_early and not self._accepted:
            self._lane.send(sip.Ring(call=self.handle))
            self._ringing(180)

    def early(self) -> bool:
        """183 with our SDP: the caller hears us before the answer. False where their INVITE made no offer."""
        if self._offer is None or self._accepted:
            return False
        if not self.is_early:
            self.is_early = True
            text = self._our_answer(self._offer)
            self._tell_media()
            self._lane.send(sip.EarlyMedia(call=self.handle, sdp=text))
            self._ringing(183)
        return True

    def answer(self) -> None:
        """200 with our SDP; media starts at once (or with the ACK, when the INVITE had no offer)."""
        if self._accepted:
            return
        self._accepted = True
        text = self._our_offer() if self._offer is None else self._our_answer(self._offer)
        self._tell_media()
        self._lane.send(sip.Answer(call=self.handle, sdp=text))

    def call(
        self, account: str, target: str, from_uri: str, headers: dict[str, str], route: Sequence[str] = ()
    ) -> None:
        """INVITE with our offer."""
        self._tell_media()
        self._lane.send(
            sip.MakeCall(
                call=self.handle,
                account=account,
                target=target,
                sdp=self._our_offer(),
                from_uri=from_uri,
                headers=headers,
                route=list(route),
            )
        )

    def reject(self, status: int, reason: str, termination: Termination) -> None:
        self._end(termination)
        self._lane.send(sip.Reject(call=self.handle, status=status, reason=reason))

    def hangup(self, termination: Termination) -> None:
        """BYE, CANCEL or a refusal, as the state asks for; decides the leg's end unless that is decided already."""
        first = not self.ended.done()
        self._end(termination)
        if first and not self._dialog_over.is_set():
            if self.identity.direction is Direction.INBOUND and not self.is_answered:
                self._lane.send(sip.Reject(call=self.handle, status=termination.sip_status or 480))
            else:
                self._lane.send(sip.Hangup(call=self.handle, headers=_reason(termination)))

    def hear(self, *others: Heard, said: Sequence[Heard] = (), keys: bool = True) -> None:
        """From now on what the peers of these legs say is heard here, and what is `said` to these; with none, no more.

        Where one leg is heard, the keys that its peer presses are pressed here too, in the way that this leg's trunk
        wants them, unless not `keys`. Raises ValueError as `MediaPort.hear`.
        """
        keys = keys and len(others) == 1
        self.port.hear(
            *(other.port for other in others),
            said=[other.port for other in said],
            keys=keys and not self._keypad.by_info,
        )
        if self._key_source is not None:
            self._key_source.key_sinks.remove(self)
        self._key_source = others[0] if keys else None
        if self._key_source is not None:
            self._key_source.key_sinks.append(self)

    def mute(self, on: bool) -> None:
        """From now on nobody hears what the peer says or presses, the agent included, or again. The peer hears on."""
        if self.muted is on:
            return
        self.muted = on
        self.port.listen(self._receives and not on)
        self._events.emit(LegMuted(at=clock.now(), call_id=self.identity.call_id, leg_id=self.id, muted=on))
        if self.on_held is not None:
            self.on_held(self.held or on)

    def _pressed(self, digit: str, duration_ms: int, by_info: bool) -> None:
        for told in tuple(self.on_digit):
            told(digit)
        for sink in self.key_sinks:
            sink.pass_on(digit, duration_ms, by_info)

    def pass_on(self, digit: str, duration_ms: int, by_info: bool) -> None:
        """A key of who is heard here, which came `by_info`; those in the audio the media process presses itself."""
        if by_info or self._keypad.by_info:
            self._keypad.pass_on(digit, duration_ms)

    async def press(self, digits: str, duration_ms: int = KEY_MS, gap_ms: int = GAP_MS) -> None:
        """Keys for the peer, as `Keypad.press` has it."""
        await self._keypad.press(digits, duration_ms, gap_ms)

    def tell_transfer(self, status: int) -> None:
        """NOTIFY to a peer that asked us by REFER to go elsewhere: what became of it. Nothing once it has hung up."""
        if not self._dialog_over.is_set():
            self._lane.send(sip.NotifyTransfer(call=self.handle, status=status, final=True))

    async def close(self, timeout_s: float) -> None:
        """Waits for the dialog's end (bounded), then closes the media port and writes the leg down."""
        try:
            await asyncio.wait_for(self._dialog_over.wait(), timeout_s)
        except TimeoutError:
            self._dialog_over.set()
        finally:  # also when the node has lost its patience
            figures = self.port.figures()
            try:
                figures = await self.port.close()
            finally:
                self._write_down(figures)

    def _write_down(self, figures: MediaFigures) -> None:
        self.state = advance(self.state, LegState.ENDED)
        assert self.ended_at is not None
        self._events.emit(
            LegEnded(
                at=self.ended_at,
                call_id=self.identity.call_id,
                leg_id=self.id,
                termination=self.ended.result(),
                figures=replace(figures, digits_in=self._record.digits),
                sip_call_id=self._sip_call_id,
            )
        )

    # --- what the lane reports ---

    def on_fact(self, fact: sip.AnyFact) -> None:
        self.requests.on_fact(fact)
        if isinstance(fact, sip.Progress | sip.Answered | sip.Ended) and fact.sip_call_id:
            self._sip_call_id = fact.sip_call_id
        match fact:
            case sip.Trying():
                self.heard.set()
            case sip.Progress():
                self.heard.set()
                self._ringing(fact.status)
                if fact.sdp:
                    self._negotiated(fact.sdp)
            case sip.Answered():
                self._confirmed(fact)
            case sip.MediaChanged():
                self._terms = sdp.with_keys_of(self._terms, sdp.parse(fact.answer))
                if self._negotiated(fact.sdp, offered=fact.offered):
                    self._hold_changed()
            case sip.Redirected():
                self.redirected_to = fact.targets
            case sip.Ended():
                self._dialog_over.set()
                self._end(self._remote_end(fact))
            case sip.DigitByInfo():
                self._record.digit(fact.digit, fact.duration_ms, by_info=True)
            case sip.TransferRequested():
                if self.on_transfer_request is not None:
                    self.on_transfer_request(fact)
            case sip.InfoAnswered():
                self._keypad.info_answered(fact.status)
            case sip.CommandFailed():
                self._command_failed(fact)
            case _:
                pass

    def lane_lost(self) -> None:
        self._dialog_over.set()
        self._end(
            Termination(
                disposition=Disposition.ANSWERED if self.is_answered else Disposition.FAILED,
                cause=Cause.LANE_DIED,
                by=EndedBy.SYSTEM,
                detail="the signalling process died; its dialogs are lost",
            )
        )

    # --- inside ---

    def _ringing(self, status: int) -> None:
        if self.state in (LegState.SETUP, LegState.RINGING) and status > 100:
            self.state = advance(self.state, LegState.RINGING)
            self._events.emit(
                LegRinging(at=clock.now(), call_id=self.identity.call_id, leg_id=self.id, sip_status=status)
            )

    def _confirmed(self, fact: sip.Answered) -> None:
        if self.is_answered or self.ended.done():  # a 200 that crossed our CANCEL answers nothing any more
            return
        if fact.sdp and not self._negotiated(
            fact.sdp, offered=self._offer is None, only_if_new=self._offer is not None
        ):
            return
        self.state = advance(self.state, LegState.ANSWERED)
        self._confirmation, self._confirmed_at = fact, clock.now()
        self.answered.set()
        if self.on_transfer_request is not None:
            self._lane.send(sip.AllowRefer(call=self.handle))
        self._events.emit(
            LegAnswered(
                at=clock.now(),
                call_id=self.identity.call_id,
                leg_id=self.id,
                sip_call_id=fact.sip_call_id,
                codec=self._codec,
                local_media=with_port(self.media_host, self.port.port),
                remote_media=self._record.remote_media,
            )
        )

    def _our_answer(self, offer: sdp.Sdp) -> str:
        """Connects the media, too."""
        if not self._codec:
            self._connect(sdp.negotiate(offer, self._terms))
        return sdp.build_answer(
            offer, host=self.media_host, port=self.port.port, session_id=self._session_id, terms=self._terms
        )

    def _our_offer(self) -> str:
        return sdp.build_offer(
            host=self.media_host, port=self.port.port, session_id=self._session_id, terms=self._terms
        )

    def _negotiated(self, text: str, *, offered: bool = True, only_if_new: bool = False) -> bool:
        """Connects the media to what the peer's SDP says; hangs up when nothing in it can be spoken.

        ``offered``: it is the answer to our offer.
        """
        if only_if_new and self._codec:
            return True
        try:
            self._connect(sdp.negotiate(sdp.parse(text), self._terms, offered=offered))
        except ValueError as error:
            self.hangup(
                Termination(
                    disposition=Disposition.FAILED,
                    cause=Cause.NO_CODEC,
                    by=EndedBy.SYSTEM,
                    sip_status=488,
                    detail=str(error),
                )
            )
            return False
        return True

    def _connect(self, agreed: sdp.Negotiated) -> None:
        keys = agreed.crypto
        self._codec = agreed.codec
        self._sends, self._receives = agreed.send, agreed.receive
        self._keypad.telephone_event = agreed.telephone_event >= 0
        self._record.remote_media = with_port(agreed.host, agreed.port)
        self.port.connect(
            agreed.host,
            agreed.port,
            agreed.payload_type,
            agreed.telephone_event,
            send=agreed.send,
            receive=agreed.receive and not self.muted,
            telephone_event_in=agreed.telephone_event_in,
            comfort_noise=agreed.comfort_noise,
            rtcp_host=agreed.rtcp_host,
            rtcp_port=agreed.rtcp_port,
            rtcp_mux=agreed.rtcp_mux,
            crypto=Crypto(suite=keys.suite, local_key=keys.local_key, remote_key=keys.remote_key) if keys else None,
        )

    def _hold_changed(self) -> None:
        if self.held is self._sends:
            self.held = not self._sends
            self._events.emit(LegHeld(at=clock.now(), call_id=self.identity.call_id, leg_id=self.id, held=self.held))
            if self.on_held is not None:
                self.on_held(self.held or self.muted)

    def _tell_media(self) -> None:
        self._lane.send(
            sip.SetMedia(
                call=self.handle,
                host=self.media_host,
                port=self.port.port,
                session_id=self._session_id,
                terms=self._terms,
            )
        )

    def _remote_end(self, fact: sip.Ended) -> Termination:
        inbound = self.identity.direction is Direction.INBOUND
        remote = EndedBy.CALLER if inbound else EndedBy.CALLEE
        by = remote if fact.by_remote else EndedBy.SYSTEM
        # The peer's phrases stay out of it: some carriers write the number there.
        detail = message.explanation(fact.headers)
        q850 = message.q850(fact.headers) if fact.by_remote else 0
        if fact.why:
            return Termination(
                disposition=Disposition.ANSWERED if fact.was_answered else Disposition.FAILED,
                cause=_CAUSES[fact.why],
                by=EndedBy.SYSTEM,
                sip_status=200 if fact.was_answered else fact.status,
            )
        if fact.was_answered or self.is_answered:
            cause = Cause.TRANSFERRED if self.requests.refer_outcome.succeeded else Cause.NORMAL
            return Termination(
                disposition=Disposition.ANSWERED, cause=cause, by=by, sip_status=200, detail=detail, q850=q850
            )
        if not inbound:
            return from_sip_status(fact.status, by, detail, q850)
        by_caller = Disposition.CANCELLED, Cause.CANCELLED
        disposition, cause = by_caller if fact.by_remote else (Disposition.REJECTED, Cause.REFUSED)
        return Termination(
            disposition=disposition, cause=cause, by=by, sip_status=fact.status or 487, detail=detail, q850=q850
        )

    def _command_failed(self, fact: sip.CommandFailed) -> None:
        if fact.command == "SendInfo":
            self._keypad.info_answered(500)
        if fact.command in ("MakeCall", "Answer"):
            self._dialog_over.set()
        if fact.command in ("MakeCall", "Answer", "Hangup"):
            self._end(
                Termination(
                    disposition=Disposition.ANSWERED if self.is_answered else Disposition.FAILED,
                    cause=Cause.ERROR,
                    by=EndedBy.SYSTEM,
                    detail=f"{fact.command} could not be carried out: {fact.reason}",
                )
            )

    def _end(self, termination: Termination) -> None:
        if not self.ended.done():
            self.ended_at = clock.now()
            self.ended.set_result(termination)


def _reason(termination: Termination) -> dict[str, str]:
    """RFC 3326: why, for the peer's record."""
    return {"Reason": f'SIP;cause={termination.sip_status or 200};text="{termination.cause}"'}
