"""What texts of a dialplan may have filled in: the call's facts, and what `set` or a webhook's answer has kept."""

import re
from collections.abc import Mapping

from sipagent.core import templates

FACTS = ("call.id", "call.from", "call.to", "call.direction", "call.trunk")
NAME = re.compile(r"[A-Za-z_]\w{0,63}", re.ASCII)
MOST = 64  # names kept in one call
LONGEST = 1000  # characters of a value


def filled(text: str, known: Mapping[str, str]) -> str:
    """With nothing for a name that is not known; a text with a brace that stands alone is taken as it is.

    >>> filled("{tier} of {call.from}", {"call.from": "12"})
    ' of 12'
    """
    try:
        missing = dict.fromkeys(templates.names(text), "")
    except ValueError:
        return text
    return templates.fill(text, missing | dict(known))


def kept(before: Mapping[str, str], more: Mapping[str, str]) -> dict[str, str]:
    """Raises ValueError for what is no name, too long or too many."""
    for name, value in more.items():
        if not NAME.fullmatch(name):
            raise ValueError("a variable's name has letters, digits and _, no digit first, and at most 64 of them")
        if len(value) > LONGEST:
            raise ValueError(f"the variable `{name}` is longer than {LONGEST} characters")
    together = {**before, **more}
    if len(together) > MOST:
        raise ValueError(f"a call keeps at most {MOST} variables")
    return together
