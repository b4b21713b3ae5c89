"""States of a leg, and the table of what may follow what."""

from enum import StrEnum

from sipagent.core.errors import SipagentError


class Direction(StrEnum):
    INBOUND = "inbound"
    OUTBOUND = "outbound"


class LegState(StrEnum):
    """A leg is our side of one SIP dialog (RFC 3261 section 12) with one remote party."""

    SETUP = "setup"  # INVITE seen or sent, nothing alerted yet
    RINGING = "ringing"  # 180 or 183
    ANSWERED = "answered"  # 2xx
    ENDED = "ended"


LEG_TRANSITIONS: dict[LegState, frozenset[LegState]] = {
    LegState.SETUP: frozenset({LegState.RINGING, LegState.ANSWERED, LegState.ENDED}),
    LegState.RINGING: frozenset({LegState.RINGING, LegState.ANSWERED, LegState.ENDED}),
    LegState.ANSWERED: frozenset({LegState.ENDED}),
    LegState.ENDED: frozenset(),
}


class IllegalTransition(SipagentError):
    """Our own code asked for a move the table forbids (a peer's illegal move is counted and ignored instead)."""


def advance(state: LegState, to: LegState) -> LegState:
    """The new state; raises IllegalTransition when the table does not allow the move."""
    if to not in LEG_TRANSITIONS[state]:
        raise IllegalTransition(f"a leg cannot go from {state} to {to}")
    return to


class RegistrationState(StrEnum):
    UNREGISTERED = "unregistered"
    REGISTERING = "registering"
    REGISTERED = "registered"
    REFUSED = "refused"  # the registrar answered, and said no
    UNREACHABLE = "unreachable"  # nobody answered


class TransferKind(StrEnum):
    BLIND = "blind"  # REFER straight to the target (RFC 3515)
    ATTENDED = "attended"  # we talk to the target first, then REFER with Replaces (RFC 5589)
    BRIDGE = "bridge"  # we stay in the middle and join the two legs
    RECEIVED = "received"  # the peer sends us elsewhere, or somebody takes its place (REFER, Replaces)


class ToolStatus(StrEnum):
    """What became of a tool that an agent called."""

    RUNNING = "running"
    OK = "ok"
    FAILED = "failed"
    REFUSED = "refused"  # not carried out: the arguments were wrong, or it had just been done
    TIMEOUT = "timeout"  # given up; what it was to do may have been done
    CANCELLED = "cancelled"  # the caller went on speaking, or the call ended


class TrunkState(StrEnum):
    UP = "up"
    DEGRADED = "degraded"  # calls go out, but a server is gone or the registration is
    DOWN = "down"  # no server answers


class TransferState(StrEnum):
    """The steps a transfer may take; the last four are ends."""

    REQUESTED = "requested"
    DIALLING = "dialling"  # we ring the target
    CONSULTING = "consulting"  # the target has answered us
    WHISPERED = "whispered"  # and has been told who comes
    REFERRED = "referred"  # REFER sent
    ACCEPTED = "accepted"  # 202; the peer is trying
    REFUSED = "refused"  # the peer does not take the REFER: we go on by bridging
    COMPLETED = "completed"  # the NOTIFY says 2xx, or the legs are joined
    FAILED = "failed"
    ABANDONED = "abandoned"  # whoever was to be transferred hung up meanwhile
    UNKNOWN = "unknown"  # the call ended before the outcome was told
