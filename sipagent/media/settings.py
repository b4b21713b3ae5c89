"""What an operator may set about media. Every field: unit, default, one-line reason."""

from typing import Literal

import msgspec


class MediaSettings(msgspec.Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """The `[media]` table. Wrong values raise ValueError with the sentence for the operator."""

    host: str = "0.0.0.0"  # address RTP is bound to; all of the machine's unless it has one for trunks
    host6: str = ""  # and for calls over IPv6; "" is what [sip] host6 says, "::" all of this machine's
    public_host: str = ""  # what SDP says, where it is not what [sip] public_host says
    port_min: int = 20000  # first RTP port; clear of SIP's 5060 and of the usual services
    port_max: int = 29999  # last RTP port; below Linux's ephemeral range, which begins at 32768
    capacity: int = 64  # slots, calls at once; an unused slot costs address space only
    processes: int | Literal["auto"] = "auto"  # a core each; "auto": one for every 400 calls, on half of the cores
    max_load: float = 0.75  # share of a core that a process may use and still take calls; past the edge all suffer
    playout_min_ms: int = 20  # least age of audio when it is handed on; one packet of 20 ms
    playout_max_ms: int = 400  # most; a conversation suffers from more than the loss it would avoid
    media_timeout_s: float = 20.0  # seconds without RTP from the peer that end the call; 0 never ends it
    port_quarantine_s: float = 30.0  # a port rests this long, so that a late packet cannot reach the next call
    shared_ports: int = 0  # RTP ports that incoming calls share, told apart by address; saves CPU from 200 calls up
    accelerate: bool = True  # take the compiled hot path where it was built; off is for comparing
    realtime: bool = True  # ask for SCHED_FIFO; without it pacing depends on the machine's other load

    def __post_init__(self) -> None:
        if ":" in self.host or (self.host6 and ":" not in self.host6):
            raise ValueError("host takes an IPv4 address, host6 one of IPv6")
        if not 1024 <= self.port_min <= self.port_max <= 65535:
            raise ValueError(f"port_min {self.port_min} to port_max {self.port_max} is no range within 1024..65535")
        if not 1 <= self.capacity <= 5000:
            raise ValueError(f"capacity is {self.capacity}: it must be from 1 to 5000 calls")
        if self.capacity + self.shared_ports > (self.port_max - self.port_min + 2) // 2:
            raise ValueError(
                f"capacity is {self.capacity}, but {self.port_min}..{self.port_max} has fewer even ports: widen it"
            )
        if self.processes != "auto" and not 1 <= self.processes <= 64:
            raise ValueError(f"processes is {self.processes}: it must be from 1 to 64, or auto")
        if not 0.1 <= self.max_load <= 1.0:
            raise ValueError(f"max_load is {self.max_load:g}: it must be from 0.1 to 1")
        if not 20 <= self.playout_min_ms <= self.playout_max_ms <= 400:
            raise ValueError(
                f"playout_min_ms {self.playout_min_ms} to playout_max_ms {self.playout_max_ms} "
                "is no range within 20..400"
            )
        if not 0 <= self.shared_ports <= 64:
            raise ValueError(f"shared_ports is {self.shared_ports}: it must be from 0 to 64")
        if self.media_timeout_s < 0 or self.port_quarantine_s < 0:
            raise ValueError("media_timeout_s and port_quarantine_s must not be negative")
