"""Log lines of the SIP software we run, without numbers, addresses of people, and keys."""

import re

from sipagent.sip import sdes

MAX_LINE = 200
_PRIVATE = re.compile(r"(sips?:|tel:)[^@\s>;]+@?|\+?[0-9]{5,}")


def scrubbed(text: str) -> str:
    """The first line, at most 200 characters, numbers and user parts of addresses taken out."""
    lines = text.strip().splitlines()
    return _PRIVATE.sub("…", sdes.redacted(lines[0].strip()))[:MAX_LINE] if lines else ""
