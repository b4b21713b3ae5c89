"""What main and a lane say to each other: commands in, facts out, as msgpack with a type tag.

`call` is the handle of one dialog: chosen by the lane for inbound calls (positive), by main for outbound ones
(negative), unique for the lane's life.
"""

import msgspec

from sipagent.sip import sdes
from sipagent.sip.sdp import CLEAR, Terms


class Command(msgspec.Struct, tag_field="type", tag=True, kw_only=True):
    """Main to lane."""

    def __repr__(self) -> str:
        return sdes.redacted(super().__repr__())


class Fact(msgspec.Struct, tag_field="type", tag=True, kw_only=True):
    """Lane to main."""

    def __repr__(self) -> str:
        return sdes.redacted(super().__repr__())


# --- commands -------------------------------------------------------------------------------------------------


class Start(Command):
    """The first command a lane gets: bind these ports and go. Answered by LaneReady or StartFailed."""

    host: str  # to bind; "0.0.0.0" is every interface
    port: int  # UDP, and TCP when `tcp`; 0 takes a free one
    public_host: str = ""  # what Contact and Via say; "" lets the route decide
    tcp: bool = True
    user_agent: str = "sipagent"
    name_servers: list[str] = []  # IPv4 addresses that PJSIP asks
    record_messages: bool = True  # tell SipMessages
    first_call: int = 1  # inbound handles count from here, so that a new lane does not repeat its predecessor's


class Ping(Command):
    """Answered by Pong from the thread that runs PJSIP: the proof that it still turns."""


class Ring(Command):
    """180, without SDP."""

    call: int


class Answer(Command):
    """200 with this SDP as the answer (or as the offer when the INVITE carried none)."""

    call: int
    sdp: str


class Reject(Command):
    """A final response of 3xx to 6xx to an INVITE that is not answered yet."""

    call: int
    status: int
    reason: str = ""
    headers: dict[str, str] = {}


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
    route: str = ""  # URI of the server that the request goes to without showing it; "" leaves it to the target


class Refer(Command):
    """Blind transfer (RFC 3515)."""

    call: int
    target: str


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
    route: str = ""  # as in MakeCall, for REGISTER


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
    route: str = ""


class AddressChanged(Command):
    """This machine's address is another now: bind anew and say the new one from here on."""


class Stop(Command):
    """End every call, unregister, leave."""


# --- facts ----------------------------------------------------------------------------------------------------


class StartFailed(Fact):
    """The lane could not start, and leaves."""

    what: str  # "UDP", "TCP" or "PJSIP"
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


class IncomingCall(Fact):
    call: int
    from_uri: str
    from_user: str
    to_user: str  # user part of the request URI: the called number
    sip_call_id: str
    source: str  # host:port the INVITE came from
    headers: dict[str, str] = {}  # all but SIP's own, bounded; which of them count is main's to say
    sdp: str = ""  # the offer; "" when the INVITE carried none
    request_uri: str = ""
    authorization: list[str] = []  # the caller's digest credentials (RFC 3261 section 22), as sent


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


class MediaChanged(Fact):
    """The peer sent a new offer inside the call and the lane has answered; `sdp` is the peer's offer.

    `answer` may hold new SRTP keys of ours: a peer that changes its own begins both streams anew.
    """

    call: int
    sdp: str
    answer: str


class Ended(Fact):
    """The dialog is over. `by_remote`: who ended it; `status`: the INVITE's final one (200 after an answer)."""

    call: int
    status: int
    reason: str
    by_remote: bool
    was_answered: bool
    headers: dict[str, str] = {}
    sip_call_id: str = ""


class TransferProgress(Fact):
    """NOTIFY of a REFER we sent, or the REFER's own refusal."""

    call: int
    status: int
    reason: str
    final: bool


class DigitByInfo(Fact):
    call: int
    digit: str


class RegistrationResult(Fact):
    account: str
    status: int
    reason: str
    expires_s: int
    contact: str = ""
    answered: bool = True  # False: nobody answered, the library made the status up (408, 502, 503)
    retry_after_s: int = 0  # the registrar's Retry-After, 0 when it gave none
    trouble: str = ""  # why PJSIP gave up in a challenge: "password", "realm", "stale" or "algorithm"
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
    Start | Ping | Ring | Answer | Reject | Hangup | MakeCall | Refer | SetMedia | AddAccount | Register | Unregister
    | SendOptions | AddressChanged | Stop
)  # fmt: skip
AnyFact = (
    LaneReady | StartFailed | Pong | IncomingCall | Progress | Answered | MediaChanged | Ended | TransferProgress
    | DigitByInfo | RegistrationResult | OptionsResult | OverLimit | InviteRefused | LaneLog | CommandFailed
    | SipMessages
)  # fmt: skip

encoder = msgspec.msgpack.Encoder()
command_decoder: msgspec.msgpack.Decoder[AnyCommand] = msgspec.msgpack.Decoder(AnyCommand)
fact_decoder: msgspec.msgpack.Decoder[AnyFact] = msgspec.msgpack.Decoder(AnyFact)
