"""What an operator may set about calls."""

import ipaddress
import re
from typing import Annotated

import msgspec

from sipagent.media.ringback import RINGBACK


class LimitSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    max_calls: int = 0  # calls at a time; 0 is as many as the signalling library carries
    max_duration_s: float = 3600.0  # of any call, whatever its dialplan says; forgotten calls cost money
    ring_timeout_s: float = 45.0  # an outbound call nobody answers is cancelled; carriers give up near 180
    transfer_timeout_s: float = 30.0  # a REFER whose outcome never comes has failed
    end_timeout_s: float = 5.0  # a BYE that is never answered no longer holds the call
    drain_s: float = 12.0  # at shutdown, for goodbyes to be answered


class StreamSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Calls' audio to applications, by websocket or AudioSocket (docs/streams.md)."""

    # Twilio's dialect: what it signs the handshake with (X-Twilio-Signature), "" not at all. Make it one of the API's
    # keys, and applications hang up with it as they do at Twilio.
    auth_token: str = ""
    account_sid: str = "AC00000000000000000000000000000000"  # Twilio's dialect: which account applications are told
    # of an application's audio that waits to be played; what comes on top is dropped
    buffer_s: Annotated[float, msgspec.Meta(ge=1, le=600)] = 120.0
    connect_s: Annotated[float, msgspec.Meta(gt=0, le=60)] = 5.0  # for one connection to be made
    # an application that is lost is tried again for so long, then the stream has failed
    reconnect_s: Annotated[float, msgspec.Meta(ge=0, le=300)] = 10.0


class WaitingSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a caller hears who is on hold, or waits until somebody answers."""

    hold_music: str = ""  # WAV file (16 bit, any rate, up to 10 minutes), played over and over; "" is the shipped one
    ringback: str = "ITU"  # country whose ringing tone is played: DE, GB, US, ...; "ITU" is what ITU-T E.180 recommends

    def __post_init__(self) -> None:
        if self.ringback not in RINGBACK:
            raise ValueError(f"no ringing tone is known of {self.ringback!r}: take one of {', '.join(RINGBACK)}")


NAME = re.compile(r"[A-Za-z0-9_.-]{1,64}")


class AppSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A voice app: what is done with the calls of its numbers, by a dialplan or by whoever answers its flow URL."""

    name: str  # how numbers, the record and the API call it
    dialplan: str = ""  # a dialplan's name (its first route), a route's or steps'
    flow_url: str = ""  # is asked what to do with a call, where no dialplan is named
    fallback_url: str = ""  # is asked when the flow URL fails
    webhook_url: str = ""  # gets the events of its calls
    webhook_secret: str = ""  # signs them: whsec_ and base64; never logged
    channel_limit: int = 0  # calls at a time; 0 is no limit. Beyond: 486 to callers

    def __post_init__(self) -> None:
        if not NAME.fullmatch(self.name):
            raise ValueError("name takes 1 to 64 letters, digits, dots, dashes and underscores")
        if bool(self.dialplan) == bool(self.flow_url):
            raise ValueError(f"app {self.name}: give either `dialplan` or `flow_url`")
        if self.channel_limit < 0:
            raise ValueError(f"app {self.name}: channel_limit must not be negative")

    def __repr__(self) -> str:
        return f"AppSettings(name={self.name!r}, dialplan={self.dialplan!r})"


class NumberSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A number that rings here."""

    number: str  # as it is called once the trunk's numbers are brought into E.164
    app: str = ""  # the app that takes its calls; "" leaves them to the dialplans' routes
    trunk: str = ""  # only calls of this trunk; "" takes those of any
    name: str = ""  # for people

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[!#-;=?-\[\]-~]{1,256}", self.number):
            raise ValueError("number takes 1 to 256 printable ASCII characters without spaces, quotes and <>")


class AclSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Addresses that trunks of the API may name as theirs."""

    name: str  # for people
    addresses: tuple[str, ...]  # or networks (192.0.2.0/24)

    def __post_init__(self) -> None:
        if not NAME.fullmatch(self.name):
            raise ValueError("name takes 1 to 64 letters, digits, dots, dashes and underscores")
        for address in self.addresses:
            try:
                ipaddress.ip_network(address, strict=False)
            except ValueError:
                raise ValueError(f'`addresses` takes IP addresses and networks, not "{address}"') from None


class RecordingSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Recordings of calls: 16-bit stereo WAV files, the caller left, what the caller hears right."""

    folder: str = ""  # where they are; "" is `recordings` in the state folder
    max_minutes: int = 240  # of one recording; a minute has 1.9 MB at 8 kHz and twice as much at 16 kHz
    min_free_mb: int = 500  # of the disk: with less no recording is begun, and those under way end
    backlog_mb: int = 32  # waiting for a disk that is too slow; beyond, the recording has silence instead

    def __post_init__(self) -> None:
        if not 1 <= self.max_minutes <= 1000:  # 4 GB, where a WAV file's own figures end
            raise ValueError("max_minutes is 1 to 1000")
        if self.min_free_mb < 0 or self.backlog_mb < 1:
            raise ValueError("min_free_mb is 0 or more, backlog_mb 1 or more")
