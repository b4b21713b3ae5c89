"""Where a call goes on to after 3xx answers (RFC 3261 section 8.1.3.4): a few places, and none of them twice."""

from collections.abc import Iterable

from sipagent.sip import message
from sipagent.sip.settings import TrunkSettings, transport_of

PLACES = 5  # of one call, however often it is sent on


class Redirections:
    """Of one call over one trunk that follows them; ``first`` is where it went at first."""

    def __init__(self, trunk: TrunkSettings, first: str) -> None:
        self._trunk = trunk
        self._seen = {first}
        self.refused = 0  # places without TLS, by a trunk that is spoken to over TLS

    def follow(self, targets: Iterable[str]) -> list[str]:
        """The URIs to call now, in order. What began over TLS does not go on in clear: the far side of our call would
        not know, nor whoever placed it."""
        places: list[str] = []
        for target in targets:
            uri = target.partition("?")[0]  # PJSIP would make headers of our INVITE of what follows
            if target.lower().startswith("tel:"):
                uri = self._trunk.target_uri(message.parse_address(target).user)
            if uri in self._seen or not message.parse_address(uri).host or len(self._seen) > PLACES:
                continue
            if self._trunk.secure and transport_of(uri) != "tls":
                self.refused += 1
                continue
            self._seen.add(uri)
            places.append(uri)
        return places
