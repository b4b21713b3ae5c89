"""SRTP and SRTCP of one call (RFC 3711): AES-128 in counter mode with HMAC-SHA1, by libsrtp through pylibsrtp.

Keys come from SDP (RFC 4568). A session built anew in mid-call, by an engine that replaces a dead one, must go on at
the packet indices of the old one: the peer expects its own count of sequence wraps (the rollover counter), and an
index used twice with one key would give the audio away. `Progress` is what has to survive for that.
"""

import struct
from typing import Literal, NamedTuple

from pylibsrtp import Error, Policy, Session

from sipagent.media.protocol import SRTP_SUITES, Crypto

MAX_STREAMS = 64  # SSRCs of the peer's in one session; libsrtp keeps about 500 bytes for each
RTP_OVERHEAD = 10  # bytes a packet grows by, at most (the 80-bit tag)
_REPORTS_UNSEEN = 8  # may have gone out after the progress was written down; a gap in their numbers costs nothing
_STEP = 30_000  # less than half the sequence's circle, so that libsrtp sees no step back
_PROFILES = dict(
    zip(SRTP_SUITES, (Policy.SRTP_PROFILE_AES128_CM_SHA1_80, Policy.SRTP_PROFILE_AES128_CM_SHA1_32), strict=True)
)
_RTP = struct.Struct(">BBHII")
_RTCP = struct.Struct(">BBHI")
_EMPTY_REPORT = 201  # RTCP packet type RR; without report blocks

Reason = Literal["auth", "replay", "malformed"]


class Refused(Exception):
    """A packet that is not the peer's, was here before, or is none. For the caller to count."""

    def __init__(self, reason: Reason) -> None:
        super().__init__(reason)
        self.reason: Reason = reason


class Progress(NamedTuple):
    """How far a session has come. An index is 2**16 times the number of wraps plus the sequence; -1: no packet yet.

    One that is up to 30,000 packets and 8 reports old still does: the sequence to go on with is not taken from here.
    """

    sent_ssrc: int = 0
    sent_index: int = -1
    reports: int = 0  # RTCP packets protected
    received_ssrc: int = 0
    received_index: int = -1


class SrtpSession:
    """Both directions of one call. New keys mean a new session; a new SSRC, the peer's or ours, does not."""

    def __init__(self, crypto: Crypto, progress: Progress | None = None) -> None:
        profile = _PROFILES[crypto.suite]
        self._out = Session(Policy(crypto.local_key, Policy.SSRC_ANY_OUTBOUND, srtp_profile=profile))
        self._in = Session(Policy(crypto.remote_key, Policy.SSRC_ANY_INBOUND, srtp_profile=profile))
        self._received: dict[int, int] = {}  # SSRC to highest index; a report alone puts -1
        self._newest = 0  # SSRC of the last authentic packet
        self._sent_ssrc, self._sent_index = 0, -1
        self._reports = 0
        self._reports_owed = 0  # of the session that this one goes on with
        if progress is not None:
            self._resume(progress, Session(Policy(crypto.remote_key, Policy.SSRC_ANY_OUTBOUND, srtp_profile=profile)))

    @property
    def progress(self) -> Progress:
        return Progress(
            self._sent_ssrc,
            self._sent_index,
            self._reports + self._reports_owed,
            self._newest,
            self._received.get(self._newest, -1),
        )

    def protect(self, packet: bytes) -> bytes:
        """An RTP packet of ours, up to 1,356 bytes. Each index may be sent once. Raises Refused."""
        try:
            protected = self._out.protect(packet)
        except (Error, ValueError) as error:
            raise _refused(error) from None
        ssrc = int.from_bytes(packet[8:12], "big")
        if ssrc != self._sent_ssrc:
            self._sent_ssrc, self._sent_index = ssrc, -1
        self._sent_index = _extended(self._sent_index, int.from_bytes(packet[2:4], "big"))
        return protected

    def unprotect(self, packet: bytes) -> bytes:
        """The RTP packet inside; raises Refused, and then nothing has changed."""
        ssrc = int.from_bytes(packet[8:12], "big")
        highest = self._admit(ssrc)
        try:
            plain = self._in.unprotect(packet)
        except (Error, ValueError) as error:
            raise _refused(error) from None
        self._newest = ssrc
        self._received[ssrc] = _extended(highest, int.from_bytes(packet[2:4], "big"))
        return plain

    def protect_rtcp(self, packet: bytes) -> bytes:
        """A compound RTCP packet of ours. Raises Refused.

        The first one after a restart takes another 3 µs for each report sent before it.
        """
        if self._reports_owed:
            dummy = _RTCP.pack(0x80, _EMPTY_REPORT, 1, int.from_bytes(packet[4:8], "big"))
            for _ in range(self._reports_owed):
                self._out.protect_rtcp(dummy)
            self._reports, self._reports_owed = self._reports + self._reports_owed, 0
        try:
            protected = self._out.protect_rtcp(packet)
        except (Error, ValueError) as error:
            raise _refused(error) from None
        self._reports += 1
        return protected

    def unprotect_rtcp(self, packet: bytes) -> bytes:
        """The compound RTCP packet inside; raises Refused, and then nothing has changed."""
        ssrc = int.from_bytes(packet[4:8], "big")
        highest = self._admit(ssrc)
        try:
            plain = self._in.unprotect_rtcp(packet)
        except (Error, ValueError) as error:
            raise _refused(error) from None
        self._received[ssrc] = highest
        return plain

    def _admit(self, ssrc: int) -> int:
        """The stream's highest index. A peer that goes through SSRCs must not go through our memory."""
        highest = self._received.get(ssrc)
        if highest is None:
            if len(self._received) >= MAX_STREAMS:
                raise Refused("malformed")
            return -1
        return highest

    def _resume(self, progress: Progress, peer: Session) -> None:
        """Leads libsrtp, which offers no other way, to both indices by packets that never leave: ours, and the peer's
        made with the peer's key. Two or three per wrap: 1 ms for a call of a day.
        """
        for dummy in _way_to(progress.sent_ssrc, progress.sent_index):
            self._out.protect(dummy)
        self._sent_ssrc, self._sent_index = progress.sent_ssrc, progress.sent_index
        self._reports_owed = progress.reports + _REPORTS_UNSEEN
        for dummy in _way_to(progress.received_ssrc, progress.received_index):
            self._in.unprotect(peer.protect(dummy))
        if progress.received_index >= 0:
            self._newest = progress.received_ssrc
            self._received[progress.received_ssrc] = progress.received_index


def _way_to(ssrc: int, index: int) -> list[bytes]:
    """Empty RTP packets by which a stream arrives at this index."""
    if index < 0:
        return []
    return [_RTP.pack(0x80, 0, at & 0xFFFF, 0, ssrc) for at in range(index % _STEP, index + 1, _STEP)]


def _extended(highest: int, sequence: int) -> int:
    """The index that is highest after this sequence number."""
    if highest < 0:
        return sequence
    ahead = (sequence - highest) & 0xFFFF
    return highest + ahead if ahead < 0x8000 else highest


def _refused(error: Exception) -> Refused:
    text = str(error)
    if text.startswith("authentication"):
        return Refused("auth")
    return Refused("replay" if text.startswith("replay") else "malformed")
