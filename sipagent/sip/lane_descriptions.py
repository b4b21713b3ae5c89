"""The session descriptions of one call in a lane: ours, the peer's, and what main allows (RFC 3264)."""

from dataclasses import replace

import msgspec

from sipagent.sip import sdes, sdp
from sipagent.sip.protocol import SetMedia


class Descriptions:
    """PJSIP asks for ours synchronously, so that offers inside a call are answered from what main gave beforehand."""

    def __init__(self) -> None:
        self.next = ""  # main's, for the offer or answer that is made next
        self.media: SetMedia | None = None
        self.local = ""  # as made last
        self.remote = ""
        self.new_offer = ""  # the peer's inside the call, answered and not yet reported
        self.asked_for = False  # the peer asked for our offer, by a re-INVITE without SDP
        self.offering = False  # PJSIP asks for an offer that main wants to make
        self.hold = False  # what main wants; what the peer has agreed to:
        self.held = False
        self._main: sdp.Sdp | None = None  # what main has said itself
        self._version = 0

    @property
    def terms(self) -> sdp.Terms:
        return self.media.terms if self.media is not None else sdp.CLEAR

    def answered(self, text: str) -> str:
        """Main's answer to the INVITE's offer."""
        self._main = sdp.parse(text)
        self._version = self._main.version
        self.local = text
        return text

    def make(self, remote: str, generated: str, *, inside: bool) -> str:
        """Ours in place of PJSIP's; "" to leave PJSIP's where it is of no consequence. ``inside``: of an answered call.

        Raises NoCommonCodec when there is no answer to the peer's offer.
        """
        if self.next:
            text, self.next = self.next, ""
            self.remote = remote or self.remote
            return self.answered(text)
        if not inside and self._main is None:
            self.remote = remote
            return ""  # asked before main has answered: this draft is not sent
        host, port, session_id = self._address()
        self._version += 1
        if remote:
            offer = sdp.parse(remote)
            self._renew_keys(offer)
            self.local = sdp.build_answer(
                offer,
                host=host,
                port=port,
                session_id=session_id,
                version=self._version,
                terms=self.terms,
                hold=self.held,
            )
            self.new_offer = self.remote = remote
            return self.local
        self.asked_for = not self.offering
        self.local = sdp.build_offer(
            host=host,
            port=port,
            session_id=session_id,
            version=self._version,
            terms=self.terms,
            direction=self._offered_direction(generated),
        )
        return self.local

    def restated(self, host: str, port: int, payload_type: int, direction: sdp.Direction) -> str:
        """The peer's answer in an ACK to a re-INVITE reaches no callback: written down again from its outcome.

        Its SRTP key is none of PJMEDIA's outcomes: taken to be the one it had.
        """
        known = sdp.parse(self.remote).audio_line if self.remote else None
        if known is None:
            raise ValueError("the peer's SDP was never seen")
        return sdp.restate(known, host=host, port=port, payload_type=payload_type, direction=direction)

    def _offered_direction(self, generated: str) -> sdp.Direction:
        """RFC 3264 section 8.4: a stream that the peer holds too stops in both directions."""
        if self.hold if self.offering else self.held:
            line = sdp.parse(self.remote).audio_line if self.remote else None
            held_by_peer = line is not None and line.effective_direction in ("sendonly", "inactive")
            return "inactive" if held_by_peer else "sendonly"
        drafted = sdp.parse(generated).audio_line if not self.offering else None
        return drafted.direction if drafted else "sendrecv"

    def _renew_keys(self, offer: sdp.Sdp) -> None:
        """Ours last as long as the peer's. With a new key of its own it counts wraps of the sequence from 0 again, and
        often ours too; under an old key of ours that would use the same indices twice (RFC 3711 section 9.1).
        """
        crypto = sdp.negotiate(offer, self.terms).crypto
        if crypto is None or self.media is None:
            return
        known = sdp.parse(self.remote).media if self.remote else ()
        if not any(line.key == crypto.remote_key for media in known for line in media.crypto):
            terms = replace(self.media.terms, keys=sdes.new_keys())
            self.media = msgspec.structs.replace(self.media, terms=terms)

    def _address(self) -> tuple[str, int, int]:
        if self.media is not None:
            return self.media.host, self.media.port, self.media.session_id
        line = self._main.audio_line if self._main else None
        if self._main is None or line is None:
            raise ValueError("the peer made an offer and main has said nothing about media")
        return line.host, line.port, self._main.session_id
