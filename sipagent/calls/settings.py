"""What an operator may set about calls."""

import msgspec

from sipagent.media.ringback import RINGBACK


class LimitSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    max_calls: int = 0  # calls at a time; 0 is as many as the signalling library carries
    max_duration_s: float = 3600.0  # of any call, whatever its dialplan says; forgotten calls cost money
    ring_timeout_s: float = 45.0  # an outbound call nobody answers is cancelled; carriers give up near 180
    transfer_timeout_s: float = 30.0  # a REFER whose outcome never comes has failed
    end_timeout_s: float = 5.0  # a BYE that is never answered no longer holds the call
    drain_s: float = 12.0  # at shutdown, for goodbyes to be answered


class WaitingSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a caller hears who is on hold, or waits until somebody answers."""

    hold_music: str = ""  # WAV file (16 bit, any rate, up to 10 minutes), played over and over; "" is the shipped one
    ringback: str = "ITU"  # country whose ringing tone is played: DE, GB, US, ...; "ITU" is what ITU-T E.180 recommends

    def __post_init__(self) -> None:
        if self.ringback not in RINGBACK:
            raise ValueError(f"no ringing tone is known of {self.ringback!r}: take one of {', '.join(RINGBACK)}")
