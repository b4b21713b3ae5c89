"""Which route a call takes: called and calling number against the patterns, first match wins."""

from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

from sipagent.dialplan.model import Dialplan, Step


@dataclass(frozen=True, slots=True)
class Match:
    dialplan: Dialplan
    route: str  # its name, or the name of its steps
    steps: Sequence[Step]


def match(dialplans: Sequence[Dialplan], called: str, calling: str) -> Match | None:
    """The first route of the first dialplan that takes this call, None when no route does."""
    for dialplan in dialplans:
        for route in dialplan.routes:
            if _any(route.called, called) and _any(route.calling, calling):
                return Match(dialplan, route.name or route.steps, dialplan.steps[route.steps])
    return None


def by_name(dialplans: Sequence[Dialplan], name: str) -> Match | None:
    """The steps that an outbound call names: a route's name, a steps' name, or a dialplan's (its first route)."""
    for dialplan in dialplans:
        for route in dialplan.routes:
            if name in (route.name, route.steps, dialplan.name):
                return Match(dialplan, route.name or route.steps, dialplan.steps[route.steps])
        if name in dialplan.steps:
            return Match(dialplan, name, dialplan.steps[name])
    return None


def _any(patterns: Sequence[str], number: str) -> bool:
    return any(fnmatchcase(number, pattern) for pattern in patterns)
