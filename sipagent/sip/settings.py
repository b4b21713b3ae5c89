"""What an operator may set about signalling. `config.py` composes these; unknown keys are errors."""

from collections.abc import Collection
from typing import Literal

import msgspec

from sipagent import __version__
from sipagent.sip import sdes
from sipagent.sip.sdp import CodecName, SrtpPolicy, Terms


class SipSettings(msgspec.Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """The node's own SIP address and habits."""

    host: str = "0.0.0.0"  # address to bind; every interface, because a trunk's route is seldom known beforehand
    port: int = 5060  # UDP and TCP; the number RFC 3261 gives to SIP
    public_host: str = ""  # what Contact, Via and SDP say; "" chooses by route, set it behind a 1:1 NAT
    tcp: bool = True  # listen on TCP too: messages beyond 1300 bytes arrive that way (RFC 3261 section 18.1.1)
    user_agent: str = f"sipagent/{__version__}"  # the User-Agent and Server headers; "" sends none
    # In the order we offer them; an answer follows the caller's order. "G722" is the wideband one, of 16 kHz.
    codecs: tuple[CodecName, ...] = ("PCMU", "PCMA")
    # SRTP with keys in the SDP (RFC 4568): "off", "optional" (who can, gets it) or "required" (others get 488). Whoever
    # reads the signalling reads the keys: without a VPN or the like to the peer they protect little.
    srtp: SrtpPolicy = "off"

    def __post_init__(self) -> None:
        if not self.codecs:
            raise ValueError("codecs needs at least one of PCMU, PCMA, G722")


class TrunkSettings(msgspec.Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """One provider link."""

    name: str  # how the dialplan, the record and the log call it
    registrar: str = ""  # SIP URI or host[:port]; "" for a trunk that takes no registration
    username: str = ""  # of digest authentication; also the user of our address unless from_user is set
    password: str = ""  # of digest authentication; better `{ env = "NAME" }` than here in clear; never logged
    realm: str = "*"  # digest realm; "*" answers whatever realm the trunk names
    from_user: str = ""  # user part of From and of the address of record; "" takes the username
    domain: str = ""  # host[:port] that outbound calls are sent to; "" takes the registrar's
    expires_s: int = 300  # lease asked for; long enough to be cheap, short enough that a lost registrar is noticed
    register: bool = True  # False for a trunk known by its address alone
    peers: list[str] = []  # addresses whose INVITEs belong to this trunk; the registrar's is included by itself
    codecs: tuple[CodecName, ...] = ()  # as in [sip], which also serves where this is empty
    srtp: Literal["", "off", "optional", "required"] = ""  # as in [sip], which also serves where this is empty

    def __repr__(self) -> str:
        return f"TrunkSettings(name={self.name!r}, registrar={self.registrar!r}, username={self.username!r})"

    @property
    def registrar_uri(self) -> str:
        """ "" when there is none."""
        return _as_uri(self.registrar)

    @property
    def registers(self) -> bool:
        return self.register and self.registrar != ""

    @property
    def outbound_host(self) -> str:
        """host[:port] of the request URI of calls placed over this trunk."""
        return self.domain or _bare_host(self.registrar)

    @property
    def identity(self) -> str:
        """Our address of record at this trunk, as a SIP URI."""
        host = _without_port(_bare_host(self.registrar) or self.domain)
        return f"sip:{self.from_user or self.username or 'sipagent'}@{host}"

    def target_uri(self, number: str) -> str:
        """Where a call to ``number`` over this trunk goes. A SIP URI is taken as it is."""
        if number.lower().startswith(("sip:", "sips:")):
            return number
        return f"sip:{number}@{self.outbound_host}"


def media_terms(sip: SipSettings, trunk: TrunkSettings | None, library: Collection[str]) -> Terms:
    """What may be agreed to in one call over this trunk, with keys for it; ``library``: what PJSIP was built with.

    Raises ValueError when no codec is left.
    """
    wanted = (trunk.codecs if trunk is not None else ()) or sip.codecs
    codecs = tuple(codec for codec in wanted if codec in library)
    if not codecs:
        raise ValueError(f"PJSIP was built without {', '.join(wanted)}")
    policy = (trunk.srtp if trunk is not None else "") or sip.srtp
    return Terms(codecs, policy, sdes.new_keys() if policy != "off" else ())


def _as_uri(address: str) -> str:
    if not address or address.lower().startswith(("sip:", "sips:")):
        return address
    return f"sip:{address}"


def _bare_host(address: str) -> str:
    rest = _as_uri(address).partition(":")[2]
    return rest.rpartition("@")[2].partition(";")[0].partition("?")[0]


def _without_port(host: str) -> str:
    if host.startswith("["):
        return host.partition("]")[0] + "]"
    return host.partition(":")[0]
