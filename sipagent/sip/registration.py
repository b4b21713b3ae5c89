"""When to register again, and what to tell the engineer: decisions only, given the time, no I/O.

PJSIP refreshes a granted registration 5 s before it expires (RFC 3261 section 10.2.4), and a long lease is refreshed
earlier from here, because a refresh that gets no answer takes 32 s to fail. What follows a failure is decided
here: soon and ever more slowly when nobody answered or the registrar is in trouble, and slowly from the start when it
said no, because a wrong password repeated is what gets an address banned.
"""

from collections.abc import Callable
from dataclasses import dataclass

from sipagent.core.states import RegistrationState

UNREACHABLE_FIRST_S = 2.0
UNREACHABLE_LONGEST_S = 300.0
REFUSED_FIRST_S = 60.0
REFUSED_LONGEST_S = 1800.0
RETRY_AFTER_LONGEST_S = 3600.0  # beyond it we would rather ask again
EARLY_REFRESH = 0.75  # of the lease
EARLY_REFRESH_FROM_S = 60
JITTER = 0.2  # of a pause, added: a registrar that comes back must not meet all its clients at once
RESULT_S = 40.0  # PJSIP gives a request up after 32 s (timer F); silence beyond that is an error of ours

# Answers that say "not now" rather than "not you".
_PASSING = frozenset({408, 429, 480, 491})

# What PJSIP found wrong with a challenge (RegistrationResult.trouble).
_TROUBLE = {
    "password": "the password was not accepted: check `username` and `password` of the trunk",
    "realm": 'the challenge names a realm that is none of ours: set `realm` to the provider\'s, or to "*"',
    "stale": "the registrar calls every nonce stale, also those it made just now: its clock or its own servers "
    "disagree; tell the provider",
    "algorithm": "the registrar wants a digest that PJSIP does not have: ask the provider for MD5 or SHA-256",
    "challenge": "the registrar asks for a password without a challenge to answer; tell the provider",
}

_ADVICE = {
    401: 'check `username` and `password` of the trunk, and that `realm` is "*" or the provider\'s',
    403: "the provider does not let this account register: check `username`, and whether it admits your address",
    404: "the provider does not know this user: check `username`, `from_user` and the registrar's host",
    405: "this address takes no REGISTER: check `registrar`, or set `register = false`",
    407: "check `username` and `password` of the trunk",
    423: "the provider wants another lease and takes none that it is offered: set `expires_s` to what it asks for",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class RegistrationView:
    """A trunk's registration as it stands, for the API and the dashboard."""

    trunk: str
    state: RegistrationState
    sip_status: int  # of the last answer, 0 before any
    reason: str
    expires_s: int  # lease granted, 0 unless registered
    next_try_s: float  # until our next try; 0 when none is planned by us
    sentence: str  # for the engineer: what is, and what to do


class RegistrationPolicy:
    """One trunk's registration. Times are seconds of any monotonic clock.

    >>> policy = RegistrationPolicy("carrier", random=lambda: 0.0)
    >>> policy.begin(now=0.0)
    >>> policy.result(status=403, reason="Forbidden", expires_s=0, answered=True, retry_after_s=0, now=0.1)
    >>> policy.view(now=0.1).next_try_s
    60.0
    """

    def __init__(self, trunk: str, *, random: Callable[[], float]) -> None:
        self.trunk = trunk
        self._random = random  # 0 <= random() < 1
        self.state = RegistrationState.UNREGISTERED
        self._status = 0
        self._reason = ""
        self._expires_s = 0
        self._next_try: float | None = 0.0
        self._begun: float | None = None
        self._failures = 0  # of one kind, in a row
        self._failed_as: float | None = None  # the kind, named by the first pause that it brings
        self._sentence = "not registered yet"
        self._elsewhere = 0  # other servers tried since the last pause

    def due(self, now: float) -> bool:
        """Whether a REGISTER should leave now."""
        return self._next_try is not None and now >= self._next_try

    def begin(self, now: float) -> None:
        """A REGISTER leaves."""
        self._next_try = None
        self._begun = now
        if self.state is not RegistrationState.REGISTERED:
            self.state = RegistrationState.REGISTERING
            self._sentence = "waiting for the registrar's answer"

    def overdue(self, now: float) -> bool:
        """Whether the answer to our REGISTER should have come, or been given up, long ago."""
        return self._begun is not None and now - self._begun > RESULT_S

    def result(
        self,
        *,
        status: int,
        reason: str,
        expires_s: int,
        answered: bool,
        retry_after_s: int,
        now: float,
        trouble: str = "",
        min_expires_s: int = 0,
        others: int = 0,
    ) -> None:
        """The registrar's answer (or PJSIP's own, ``answered=False``), also to a refresh that PJSIP sent by itself.

        ``others``: servers of the registrar besides this one; the next is asked at once where this one is not there or
        takes nothing now (RFC 3263 section 4.3).
        """
        self._begun = None
        self._status, self._reason = status, reason
        if status // 100 == 2 and expires_s > 0:
            self.state = RegistrationState.REGISTERED
            self._expires_s = expires_s
            # PJSIP's own refresh comes 5 s before the end; where the lease is long, ours leaves time for more tries.
            self._next_try = now + EARLY_REFRESH * expires_s if expires_s >= EARLY_REFRESH_FROM_S else None
            self._failures, self._failed_as = 0, None
            self._elsewhere = 0
            self._sentence = f"registered for {expires_s} s, refreshed before that ends"
            return
        self._expires_s = 0
        if not answered:
            self.state = RegistrationState.UNREACHABLE
            pause = self._fail(UNREACHABLE_FIRST_S, UNREACHABLE_LONGEST_S)
            what = f"the registrar does not answer ({status} {reason})" if status else reason
            advice = "check the host and port of `registrar`, DNS, and that a firewall lets SIP out and back in"
        elif status >= 500 or status in _PASSING:
            self.state = RegistrationState.REFUSED
            pause = self._fail(UNREACHABLE_FIRST_S, UNREACHABLE_LONGEST_S)
            what = f"the registrar cannot serve us now ({status} {reason})"
            advice = "nothing to do unless it lasts"
        else:
            self.state = RegistrationState.REFUSED
            pause = self._fail(REFUSED_FIRST_S, REFUSED_LONGEST_S)
            what = f"the registrar refused us ({status} {reason})"
            advice = _TROUBLE.get(trouble) or _ADVICE.get(status, "ask the provider why it answers so")
            if status == 423 and min_expires_s:
                advice += f" ({min_expires_s})"
        if answered and retry_after_s > 0:
            pause = max(pause, min(float(retry_after_s), RETRY_AFTER_LONGEST_S))
        if (not answered or status == 503) and self._elsewhere < others:
            self._elsewhere += 1
            pause = 0.0
            advice = "asking its next server"
        else:
            self._elsewhere = 0
        self._next_try = now + pause
        self._sentence = f"{what}: {advice}"

    def bar(self, why: str) -> bool:
        """Nothing may be sent to the registrar, nor does what comes back of what was count; whether that is news.

        The try stays due, for the moment when it may.
        """
        news = (self.state, self._sentence) != (RegistrationState.UNREACHABLE, why)
        self.state = RegistrationState.UNREACHABLE
        self._status, self._reason, self._sentence = 0, why, why
        self._expires_s = 0
        self._begun, self._next_try = None, 0.0
        return news

    def lost(self, now: float, why: str) -> None:
        """The process that held the registration is gone: try again as soon as there is another."""
        # A pause after a refusal is kept: a lane that dies every minute must not become a password hammer.
        if self._next_try is None or self.state is RegistrationState.REGISTERED:
            self._next_try = now
        self.state = RegistrationState.UNREGISTERED
        self._expires_s = 0
        self._begun = None
        self._sentence = why

    def moved(self, now: float) -> None:
        """Our own address is another now: what the registrar knows leads nowhere."""
        # A refusal has nothing to do with the address, and keeps its pause; 403 may have ("whether it admits yours").
        if self.state is not RegistrationState.REFUSED or self._status == 403:
            self._next_try = now
            self._failures, self._failed_as = 0, None
            self._sentence = "our address has changed; registering again"

    def postpone(self, until: float) -> None:
        """The first try not before then: not all trunks of a node at the same moment."""
        if self._next_try is not None:
            self._next_try = max(self._next_try, until)

    def end(self) -> None:
        """We take the registration back, and try no more."""
        self.state = RegistrationState.UNREGISTERED
        self._next_try = None
        self._begun = None
        self._expires_s = 0
        self._sentence = "taken back by us"

    def view(self, now: float) -> RegistrationView:
        return RegistrationView(
            trunk=self.trunk,
            state=self.state,
            sip_status=self._status,
            reason=self._reason,
            expires_s=self._expires_s,
            next_try_s=max(0.0, self._next_try - now) if self._next_try is not None else 0.0,
            sentence=self._sentence,
        )

    def _fail(self, first_s: float, longest_s: float) -> float:
        """Counts the failure; the pause that follows it. Silence after a refusal (or the reverse) counts anew."""
        self._failures = self._failures + 1 if self._failed_as == first_s else 1
        self._failed_as = first_s
        pause: float = min(first_s * 2.0 ** min(self._failures - 1, 16), longest_s)
        return pause * (1 + JITTER * self._random())
