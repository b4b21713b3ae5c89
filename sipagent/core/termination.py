"""How a call or leg ended, as a value made once by whoever knows."""

from dataclasses import dataclass
from enum import StrEnum


class Disposition(StrEnum):
    """The outcome for reports."""

    ANSWERED = "answered"
    NO_ANSWER = "no_answer"
    BUSY = "busy"
    FAILED = "failed"
    REJECTED = "rejected"
    CANCELLED = "cancelled"


class EndedBy(StrEnum):
    CALLER = "caller"  # whoever placed the call
    CALLEE = "callee"  # whoever was called
    AGENT = "agent"  # the agent or the dialplan said goodbye
    OPERATOR = "operator"  # the API, the command line, a shutdown
    SYSTEM = "system"  # sipagent itself: a limit, a dead process, an error


class Cause(StrEnum):
    """Why; with the SIP status beside it where SIP knows."""

    NORMAL = "normal"
    TRANSFERRED = "transferred"
    REJECTED = "rejected"  # by the dialplan
    REFUSED = "refused"  # the other side refused (4xx to 6xx), or PJSIP refused the other side
    BUSY = "busy"
    NO_ANSWER = "no_answer"
    CANCELLED = "cancelled"
    OVER_LIMIT = "over_limit"
    NO_ROUTE = "no_route"
    NO_CODEC = "no_codec"
    MAX_DURATION = "max_duration"
    CALLER_SILENT = "caller_silent"
    MEDIA_TIMEOUT = "media_timeout"
    NO_ACK = "no_ack"  # our answer was never acknowledged
    SESSION_EXPIRED = "session_expired"  # the peer no longer refreshed the session (RFC 4028)
    UNREACHABLE = "unreachable"  # the peer no longer answers within the call
    LANE_DIED = "lane_died"
    MEDIA_DIED = "media_died"
    NODE_STOPPED = "node_stopped"
    NODE_CRASHED = "node_crashed"
    ERROR = "error"


@dataclass(frozen=True, slots=True, kw_only=True)
class Termination:
    """Disposition, cause, who, and the SIP status that was seen or sent (0 where there was none)."""

    disposition: Disposition
    cause: Cause
    by: EndedBy
    sip_status: int = 0
    detail: str = ""  # one sentence for an engineer; no numbers, names or words of a call
    q850: int = 0  # cause by the peer's Reason header (RFC 3326), 0 where it gave none


def from_sip_status(status: int, by: EndedBy, detail: str = "", q850: int = 0) -> Termination:
    """The termination of an unanswered outbound leg that got this final status (RFC 3261 section 21)."""
    disposition, cause = {
        408: (Disposition.NO_ANSWER, Cause.NO_ANSWER),
        480: (Disposition.NO_ANSWER, Cause.NO_ANSWER),
        486: (Disposition.BUSY, Cause.BUSY),
        487: (Disposition.CANCELLED, Cause.CANCELLED),
        488: (Disposition.FAILED, Cause.NO_CODEC),
        600: (Disposition.BUSY, Cause.BUSY),
        603: (Disposition.REJECTED, Cause.REFUSED),
    }.get(status, (Disposition.FAILED, Cause.REFUSED))
    return Termination(disposition=disposition, cause=cause, by=by, sip_status=status, detail=detail, q850=q850)
