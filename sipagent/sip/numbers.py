"""Numbers of a trunk: what it calls them and what we do, E.164 with a plus (ITU-T E.164, RFC 3966 section 5.1).

Whatever is not clearly a number of the public network (extensions, names, emergency and service numbers, `*21#`) stays
as it is, in both directions.
"""

import re

from sipagent.sip.settings import TrunkSettings

_LONGEST = 15  # digits, ITU-T E.164 section 6
_SHORTEST = 7  # with the country code; below it is a short code or an extension
_SEPARATORS = str.maketrans("", "", " -.()/")


def to_e164(number: str, trunk: TrunkSettings) -> str:
    """The number as the trunk writes it, made international.

    >>> to_e164("030 1234567", TrunkSettings(name="t", country_code="49"))
    '+49301234567'
    """
    if not trunk.country_code:
        return number
    bare = number.translate(_SEPARATORS)
    digits = bare.removeprefix("+")
    if not (digits.isascii() and digits.isdigit()):
        return number
    if bare != digits:
        found = digits
    elif trunk.international_prefix and digits.startswith(trunk.international_prefix):
        found = digits.removeprefix(trunk.international_prefix)
    elif trunk.number_format == "digits" and digits.startswith(trunk.country_code):
        found = digits
    elif trunk.national_prefix and digits.startswith(trunk.national_prefix):
        found = trunk.country_code + digits.removeprefix(trunk.national_prefix)
    elif trunk.number_format == "national" and not trunk.national_prefix:
        found = trunk.country_code + digits
    else:
        return number
    return f"+{found}" if _SHORTEST <= len(found) <= _LONGEST and not found.startswith("0") else number


def for_trunk(number: str, trunk: TrunkSettings) -> str:
    """Our number, as the trunk wants it: the reverse of `to_e164`, which it passes through first."""
    number = to_e164(number, trunk)
    if not re.fullmatch(r"\+[1-9][0-9]{6,14}", number) or trunk.number_format in ("as_given", "e164"):
        return number
    digits = number[1:]
    if trunk.number_format == "digits":
        return digits
    if trunk.number_format == "national" and digits.startswith(trunk.country_code):
        return trunk.national_prefix + digits.removeprefix(trunk.country_code)
    return trunk.international_prefix + digits
