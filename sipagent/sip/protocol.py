"""What main and a lane say to each other: commands in, facts out, as msgpack with a type tag.

`call` is the handle of one dialog: chosen by the lane for inbound calls (positive), by main for outbound ones
(negative), unique for the lane's life.
"""

from typing import Literal

import msgspec

from sipagent.sip import sdes
from sipagent.sip.sdp import CLEAR, Terms

LANE_DOOR = "lane-"  # and its pid: the name of a lane's door (core.doors)


class Replaces(msgspec.Struct, frozen=True):
    """Names a dialog, as the side that is asked to give it up knows it (RFC 3891): its own tag is `to_tag`."""

    call_id: str
    to_tag: str
    from_tag: str
    early_only: bool = False

    def __str__(self) -> str:
        return f"{self.call_id};to-tag={self.to_tag};from-tag={self.from_tag}" + ";early-only" * self.early_only


class Command(msgspec.Struct, tag_field="type", tag=True, kw_only=True):
    """Main to lane."""

    def __repr__(self) -> str:
        return sdes.redacted(super().__repr__())


class Fact(msgspec.Struct, tag_field="type", tag=True, kw_only=True):
    """Lane to main."""

    def __repr__(self) -> str:
        return sdes.redacted(super().__repr__())


# --- commands -------------------------------------------------------------------------------------------------


class LaneTls(msgspec.Struct, kw_only=True, frozen=True):
    """A lane's own TLS: files, and the port to listen at."""

    port: int
    certificate: str
    key: str
    ca: str
    clients_verified: bool = False


class Start(Command):
    """The first command a lane gets: bind these ports and go. Answered by LaneReady or StartFailed."""

    host: str  # to bind; "0.0.0.0" is every interface
    port: int  # UDP, and TCP when `tcp`; 0 takes a free one
    public_host: str = ""  # what Contact and Via say; "" lets the route decide
    tcp: bool = True
    user_agent: str = "sipagent"
    name_servers: list[str] = []  # IPv4 addresses that PJSIP asks
    keepalive_s: int = 15  # between packets to a registrar by UDP; 0 sends none
    record_messages: bool = True  # tell SipMessages
    t1_ms: int = 500
    session_expires_s: int = 1800
    tls: LaneTls | None = None  # None where the edge does it, or nobody
    edge: str = ""  # host:port of the edge that everything goes through; "" is none
    contact: str = ""  # host:port, and transport, that Contact says then
    trusted: list[str] = []  # host or host:port whose X-Sipagent-Source is believed
    first_call: int = 1  # inbound handles count from here, so that a new lane does not repeat its predecessor's
    run: str = ""  # the folder of its door, by which a new main reaches it; "" and it ends with the one it has


class Ping(Command):
    """Answered by Pong from the thread that runs PJSIP: the proof that it still turns."""


class Ring(Command):
    """180, without SDP."""

    call: int


class EarlyMedia(Command):
    """183 with this SDP as the answer: the caller hears us before the call is answered.

    An INVITE without an offer gets 183 without SDP. Sent reliably where the caller can (RFC 3262).
    """

    call: int
    sdp: str


class Answer(Command):
    """200 with this SDP as the answer (or as the offer when the INVITE carried none). After an answer in EarlyMedia
    that one holds.
    """

    call: int
    sdp: str


class Reject(Command):
    """A final response of 3xx to 6xx to an INVITE that is not answered yet."""

    call: int
    status: int
    reason: str = ""
    headers: dict[str, str] = {}
    challenges: list[str] = []  # values of WWW-Authenticate, each a header of its own


class Hangup(Command):
    """BYE, or CANCEL for an outbound call that is not answered."""

    call: int
    headers: dict[str, str] = {}


class MakeCall(Command):
    call: int
    account: str  # a trunk's name, or "" to call without one
    target: str  # SIP URI
    sdp: str
    from_uri: str = ""  # overrides the account's identity
    headers: dict[str, str] = {}
    route: list[str] = []  # URIs that it goes by, the next hop first; one with `;hide` is followed and not shown


class Refer(Command):
    """Asks the peer to call somebody else (RFC 3515), instead of `replaces` where that is given: the dialog we have
    with the target, as the target knows it (attended transfer, RFC 5589 section 7). Followed by TransferProgress.
    """

    call: int
    target: str
    replaces: Replaces | None = None
    headers: dict[str, str] = {}


class AllowRefer(Command):
    """From now on a REFER in this call is accepted (202) and told as TransferRequested; without this it gets 603."""

    call: int


class NotifyTransfer(Command):
    """NOTIFY to who asked for a transfer: how far it has come (a status line in message/sipfrag, RFC 3515)."""

    call: int
    status: int
    reason: str = ""
    final: bool = False


class Hold(Command):
    """An offer in which the peer only hears us, or nothing is sent where it holds us too.

    Followed by MediaChanged, or by OfferRefused: then all is as it was.
    """

    call: int


class Resume(Command):
    """The end of Hold. Followed by MediaChanged, or by OfferRefused."""

    call: int


class Reoffer(Command):
    """Our offer again, from the SetMedia that was given last: another address, other codecs. Hold stays what it is."""

    call: int
    update: bool = False  # by UPDATE (RFC 3311) where the peer knows it, instead of re-INVITE


class SendInfo(Command):
    """INFO inside the call (RFC 6086). Followed by InfoAnswered."""

    call: int
    content_type: str
    body: str


class SetMedia(Command):
    """What the lane answers by itself when the peer sends an offer inside the call."""

    call: int
    host: str
    port: int
    session_id: int
    terms: Terms = CLEAR


class AddAccount(Command):
    """A trunk's identity and credentials; made before it is registered or used to place calls."""

    account: str
    id_uri: str
    registrar: str = ""  # SIP URI; "" when this trunk takes no registration
    username: str = ""
    password: str = ""
    realm: str = "*"
    expires_s: int = 300
    route: list[str] = []  # as in MakeCall, for REGISTER
    contact: str = ""  # as in Start, as this registrar is to see it; "" takes that one. All that counts for account ""


class RemoveAccount(Command):
    """The trunk is gone, and with it its registration here; calls that were placed by it go on."""

    account: str


class Register(Command):
    """Send REGISTER now. Refreshing before expiry is PJSIP's; trying again after a failure is main's."""

    account: str


class Unregister(Command):
    account: str


class SendOptions(Command):
    """Ask a server whether it is there. Answered by OptionsResult, at the latest after 32 s."""

    account: str
    token: int  # chosen by main, comes back with the result
    target: str
    route: list[str] = []


class AddressChanged(Command):
    """This machine's address is another now: bind anew and say the new one from here on."""


class Stop(Command):
    """End every call, unregister, leave."""


# --- facts ----------------------------------------------------------------------------------------------------


class StartFailed(Fact):
    """The lane could not start, and leaves."""

    what: str  # "UDP", "TCP", "TLS" or "PJSIP"
    reason: str
    port_taken: bool = False


class Pong(Fact):
    pass


class LaneReady(Fact):
    pid: int
    max_calls: int  # the library's own limit
    host: str
    port: int
    codecs: tuple[str, ...] = (
        "PCMU",
        "PCMA",
    )  # of ours, those the library was built with; agreeing to another would kill the lane
    start: Start | None = None  # what it was told, to a main that takes over; and the calls that are up:
    standing: list["Standing"] = []
    registered: list["Registered"] = []


class IncomingCall(Fact):
    call: int
    from_uri: str
    from_user: str
    to_user: str  # user part of the request URI: the called number
    sip_call_id: str
    source: str  # host:port the INVITE came from
    headers: dict[str, str] = {}  # all but SIP's own, bounded; which of them count is main's to say
    sdp: str = ""  # the offer; "" when the INVITE carried none
    from_name: str = ""  # the display name beside it
    request_uri: str = ""
    authorization: list[str] = []  # the caller's digest credentials (RFC 3261 section 22), as sent
    replaces: Replaces | None = None  # the dialog it wants to take the place of: main decides, and ends that one


class Trying(Fact):
    """Whoever an outbound call was sent to has it (100)."""

    call: int


class Progress(Fact):
    """An outbound call got a provisional response; `sdp` when it carried one (early media)."""

    call: int
    status: int
    reason: str
    sdp: str = ""
    sip_call_id: str = ""


class Answered(Fact):
    """The dialog is confirmed; `sdp` is the peer's, whichever message carried it."""

    call: int
    sdp: str
    sip_call_id: str
    local_tag: str = ""
    remote_tag: str = ""
    remote_uri: str = ""  # the peer's address of record; without its port where it is we who call
    remote_target: str = ""  # its Contact

    @property
    def dialog(self) -> Replaces:
        """This dialog as the peer knows it: for a Refer of somebody else to the peer."""
        return Replaces(self.sip_call_id, self.remote_tag, self.local_tag)

    def is_named_by(self, replaces: Replaces) -> bool:
        """Whether a peer means this dialog: the tags are then ours and the peer's (RFC 3891 section 3)."""
        named = (replaces.call_id, replaces.to_tag, replaces.from_tag)
        return named == (self.sip_call_id, self.local_tag, self.remote_tag)


class MediaChanged(Fact):
    """A new offer inside the call was answered. `sdp` is the peer's: its offer, or its answer when we `offered`.

    `answer` is ours, and may hold new SRTP keys: a peer that changes its own begins both streams anew.
    """

    call: int
    sdp: str
    answer: str
    offered: bool = False


class OfferRefused(Fact):
    """Our offer inside the call (Hold, Resume, Reoffer) was refused: the session is as it was."""

    call: int
    status: int  # 491: both sides made offers at once, again and again
    reason: str


class Redirected(Fact):
    """An outbound call was answered with 3xx; its Ended follows."""

    call: int
    status: int
    targets: tuple[str, ...]  # URIs, best first (RFC 3261 section 20.10: q)


EndedWhy = Literal["", "no_ack", "no_refresh", "unreachable"]


class Ended(Fact):
    """The dialog is over. `by_remote`: who ended it; `status`: the INVITE's final one (200 after an answer).

    `why`, where it was nobody's wish: our answer was never acknowledged, the peer let the session timer run out
    (RFC 4028), or it no longer answers.
    """

    call: int
    status: int
    reason: str
    by_remote: bool
    was_answered: bool
    headers: dict[str, str] = {}
    sip_call_id: str = ""
    why: EndedWhy = ""


class TransferProgress(Fact):
    """NOTIFY of a REFER we sent, or the REFER's own refusal."""

    call: int
    status: int
    reason: str
    final: bool


class TransferRequested(Fact):
    """The peer asks us by REFER to call `target`, instead of `replaces` where that is given. It has got 202 and
    NOTIFY 100; main tells it the rest by NotifyTransfer, a refusal too. One at a time: another gets 491 meanwhile.
    """

    call: int
    target: str
    replaces: Replaces | None = None
    referred_by: str = ""


class Registered(msgspec.Struct, kw_only=True):
    """A registration as a main that takes over finds it: the last result, and when it came, in ns."""

    at: int
    result: "RegistrationResult"


class Standing(msgspec.Struct, kw_only=True):
    """A call as a main that takes over finds it: what its predecessor was told of it last."""

    call: int
    sip_call_id: str = ""
    answered: Answered | None = None
    changed: MediaChanged | None = None


class InfoAnswered(Fact):
    """The final status of an INFO we sent; 408 when none came."""

    call: int
    status: int


class DigitByInfo(Fact):
    call: int
    digit: str
    duration_ms: int = 0  # 0 when not told


class RegistrationResult(Fact):
    account: str
    status: int
    reason: str
    expires_s: int
    contact: str = ""
    answered: bool = True  # False: nobody answered, the library made the status up (408, 502, 503)
    server: str = ""  # host:port that the answer came from
    seen: str = ""  # host:port of ours that the request came from, as the registrar says; "" when it does not
    retry_after_s: int = 0  # the registrar's Retry-After, 0 when it gave none
    trouble: str = ""  # why PJSIP gave up in a challenge: "password", "realm", "stale", ...
    min_expires_s: int = 0  # the registrar's Min-Expires, 0 when it gave none


class OptionsResult(Fact):
    token: int
    status: int  # 0 when the request could not be sent
    answered: bool  # False: nobody answered, the library made the status up


class SeenMessage(msgspec.Struct, kw_only=True, array_like=True):
    """One SIP message of a call, secrets masked. Made when it is seen, masked when it leaves."""

    seq: int  # within its dialog; a gap is of messages that were not kept
    at: int  # ns, monotonic
    sent: bool
    transport: str
    local: str  # host:port
    remote: str
    size: int  # bytes on the wire
    repeats: int | None  # seq of the message that this one repeats to the byte
    text: str


class SipMessages(Fact):
    """What went over the wire in one dialog since the last of these; goes on for half a minute after Ended."""

    call: int
    messages: list[SeenMessage]

    def __repr__(self) -> str:
        return f"SipMessages(call={self.call}, {len(self.messages)} messages)"


class OverLimit(Fact):
    """An INVITE was refused by the library because all its slots are taken."""

    status: int


class InviteRefused(Fact):
    """An INVITE was refused by the library for another reason: no common codec (488), broken SDP (400), ..."""

    status: int
    reason: str


class LaneLog(Fact):
    level: int  # PJSIP's: 1 error, 2 warning, 3 info
    text: str


class CommandFailed(Fact):
    """A command could not be carried out; when `call` is set, that call is over unless an Ended follows."""

    command: str
    call: int = 0
    account: str = ""
    reason: str = ""


AnyCommand = (
    Start | Ping | Ring | EarlyMedia | Answer | Reject | Hangup | MakeCall | Refer | AllowRefer | NotifyTransfer | Hold
    | Resume | Reoffer | SendInfo | SetMedia | AddAccount | RemoveAccount | Register | Unregister | SendOptions
    | AddressChanged | Stop
)  # fmt: skip
AnyFact = (
    LaneReady | StartFailed | Pong | IncomingCall | Trying | Progress | Answered | MediaChanged | OfferRefused
    | Redirected | Ended | TransferProgress | TransferRequested | InfoAnswered | DigitByInfo
    | RegistrationResult | OptionsResult | OverLimit | InviteRefused | LaneLog | CommandFailed | SipMessages
)  # fmt: skip

encoder = msgspec.msgpack.Encoder()
command_decoder: msgspec.msgpack.Decoder[AnyCommand] = msgspec.msgpack.Decoder(AnyCommand)
fact_decoder: msgspec.msgpack.Decoder[AnyFact] = msgspec.msgpack.Decoder(AnyFact)
