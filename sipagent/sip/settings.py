"""What an operator may set about signalling. `config.py` composes these; unknown keys are errors."""

import ipaddress
import re
from collections.abc import Collection
from typing import Literal
from urllib.parse import quote

import msgspec

from sipagent import __version__
from sipagent.sip import message, sdes
from sipagent.sip.sdp import CodecName, DtmfMode, SrtpPolicy, Terms

TransferPolicy = Literal["auto", "refer", "bridge"]


_SERVER = r"[A-Za-z0-9.-]{1,253}(:[0-9]{1,5})?"


class SipSettings(msgspec.Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """The node's own SIP address and habits."""

    host: str = "0.0.0.0"  # address to bind; every interface, because a trunk's route is seldom known beforehand
    port: int = 5060  # UDP and TCP; the number RFC 3261 gives to SIP
    public_host: str = ""  # what Contact, Via and SDP say; "" chooses by route, registrar and STUN (docs/nat.md)
    stun_servers: tuple[str, ...] = ()  # host[:port] that tell our public address, where no public_host is set
    stun_every_s: float = 60.0  # between two questions to them: how soon a new address is noticed
    keepalive_s: int = 15  # between packets that keep a NAT open towards a registrar; 0 sends none
    tcp: bool = True  # listen on TCP too: messages beyond 1300 bytes arrive that way (RFC 3261 section 18.1.1)
    # Name servers, address or address:port; empty takes those of /etc/resolv.conf.
    name_servers: tuple[str, ...] = ()
    user_agent: str = f"sipagent/{__version__}"  # the User-Agent and Server headers; "" sends none
    # In the order we offer them; an answer follows the caller's order. "G722" is the wideband one, of 16 kHz.
    codecs: tuple[CodecName, ...] = ("PCMU", "PCMA")
    # SRTP with keys in the SDP (RFC 4568): "off", "optional" (who can, gets it) or "required" (others get 488). Whoever
    # reads the signalling reads the keys: without a VPN or the like to the peer they protect little.
    srtp: SrtpPolicy = "off"
    # How a caller is handed on: "refer" asks their side to do it (RFC 3515), "bridge" rings the target ourselves and
    # stays in the middle, "auto" tries the first and does the second where it is refused.
    transfer: TransferPolicy = "auto"
    # Timer T1 (RFC 3261 section 17.1.1.1), ms: a request or a 200 that nobody acknowledges is repeated after it, and
    # given up after 64 of it. Less than 500 only where every peer is near.
    t1_ms: int = 500
    # Session timer (RFC 4028), s, that calls which we place ask for: half of it after a refresh comes the next one, and
    # a call whose peer has not answered any for all of it is ended.
    session_expires_s: int = 1800
    record_messages: bool = True  # keep the SIP messages of every call for `sipagent calls ID --sip`; some 5 kB a call
    # "auto" puts Kamailio in front where several lanes, TLS or IPv6 ask for it (docs/scaling.md); "off" is one lane,
    # and TLS then PJSIP's own, where that was built with OpenSSL 3 or later.
    edge: Literal["auto", "off"] = "auto"
    host6: str = ""  # IPv6 address that the edge binds besides, "::" for all of this machine; "" is none
    tls_certificate: str = ""  # PEM file of the edge, with its chain; "" is no TLS
    tls_key: str = ""  # its private key, readable by this user alone
    tls_ca: str = ""  # PEM file of the authorities we trust; "" is the system's
    tls_clients: Literal["any", "verified"] = "any"  # "verified": who connects must have a certificate we trust
    tls_port: int = 5061  # the number RFC 3261 gives to SIP over TLS
    fronts: tuple[str, ...] = ()  # addresses of the edges before this node: whom they name as a call's source, is it

    def __post_init__(self) -> None:
        for server in self.name_servers:
            if not re.fullmatch(r"[0-9]{1,3}(\.[0-9]{1,3}){3}(:[0-9]{1,5})?", server):
                raise ValueError(f'`name_servers` takes IPv4 addresses with or without a port, not "{server}"')
        if not self.codecs:
            raise ValueError("codecs needs at least one of PCMU, PCMA, G722")
        if len(self.stun_servers) > 8 or not all(re.fullmatch(_SERVER, server) for server in self.stun_servers):
            raise ValueError("stun_servers takes up to 8 of host or host:port")
        if self.stun_every_s < 5 or not 0 <= self.keepalive_s <= 600:
            raise ValueError("stun_every_s must be 5 or more, keepalive_s from 0 to 600")
        if not 90 <= self.session_expires_s <= 86400:
            raise ValueError("session_expires_s must be from 90 (the least of RFC 4028) to 86400")
        if not 20 <= self.t1_ms <= 5000:
            raise ValueError("t1_ms must be from 20 to 5000")
        if bool(self.tls_certificate) != bool(self.tls_key):
            raise ValueError("TLS needs both `tls_certificate` and `tls_key`")
        for front in self.fronts:
            try:
                ipaddress.ip_address(front)
            except ValueError:
                raise ValueError(f'`fronts` takes IP addresses, not "{front}"') from None
        if self.host6 and self.edge == "off":
            raise ValueError('IPv6 is the edge\'s work: it cannot be had with edge = "off"')

    @property
    def needs_edge(self) -> bool:
        """Whether there is work for it however few the lanes are."""
        return bool(self.host6 or self.tls_certificate)


TransportName = Literal["", "udp", "tcp", "tls"]
IdentityHeader = Literal["P-Asserted-Identity", "P-Preferred-Identity", "Remote-Party-ID"]
FAILOVER_ON = ("408", "5xx")
_FAILOVER = re.compile(r"[3-6](xx|[0-9]{2})|no_answer")


class TrunkSettings(msgspec.Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """One provider link. docs/trunks.md shows whole examples."""

    name: str  # how the dialplan, the record and the log call it
    registrar: str = ""  # SIP URI or host[:port]; "" for a trunk that takes no registration
    username: str = ""  # of digest authentication; also the user of our address unless from_user is set
    password: str = ""  # of digest authentication; better `{ env = "NAME" }` than here in clear; never logged
    realm: str = "*"  # digest realm; "*" answers whatever realm the trunk names
    from_user: str = ""  # user part of From and of the address of record; "" takes the username
    domain: str = ""  # host[:port] that outbound calls are sent to; "" takes the registrar's
    expires_s: int = 300  # lease asked for; long enough to be cheap, short enough that a lost registrar is noticed
    register: bool = True  # False for a trunk known by its address alone
    # Addresses, networks (192.0.2.0/24) and host names whose INVITEs belong to this trunk; the registrar's and the
    # domain's are included by themselves.
    peers: list[str] = []
    codecs: tuple[CodecName, ...] = ()  # as in [sip], which also serves where this is empty
    srtp: Literal["", "off", "optional", "required"] = ""  # as in [sip], which also serves where this is empty
    transfer: Literal["", "auto", "refer", "bridge"] = ""  # as in [sip], which also serves where this is empty
    # Numbers (patterns with * and ?) that callers of this trunk may send us to by REFER; we then call them over the
    # same trunk, at our cost. Empty: nobody sends us anywhere (603).
    follow_refer: tuple[str, ...] = ()

    # How our digits go out: "rfc4733" (telephone-events), "info" (SIP INFO with application/dtmf-relay), "inband"
    # (tones in the audio; telephone-events are not agreed to), or "auto": telephone-events where they are agreed, else
    # tones. The peer's digits are taken in every form.
    dtmf: DtmfMode = "auto"
    # What becomes of our call when it is answered with 3xx: "refuse" ends it, "follow" calls where it points, over this
    # trunk, five places at most. Who answers then decides where your calls go.
    redirects: Literal["refuse", "follow"] = "refuse"

    # "udp", "tcp" or "tls"; "" is what DNS says (NAPTR and SRV, RFC 3263), else UDP. TLS goes through the edge.
    transport: TransportName = ""
    # With TLS: the name that a server's certificate must bear; "" is the trunk's host (its outbound proxy's, where it
    # has one), "*" takes any name that a trusted authority vouches for, and so whoever can get a certificate.
    tls_name: str = ""
    outbound_proxy: str = ""  # SIP URI or host[:port] that every request goes to first; "" goes straight to the trunk
    # Seconds between the OPTIONS that tell whether each server of the trunk answers; 0 sends none: the trunk then
    # counts as up until a call or the registration fails.
    options_s: float = 30.0

    # Who may call in: "address" (the peers), "digest" (anyone with the password), "both", or "either".
    accept: Literal["address", "digest", "both", "either"] = "address"
    inbound_username: str = ""  # what a caller's digest must name; "" takes `username`
    inbound_password: str = ""  # and be made with; "" takes `password`; never logged
    inbound_realm: str = "sipagent"  # the realm that our challenges name
    # Offered in this order (RFC 8760); leave SHA-256 out where an old peer gives up at what it does not know.
    inbound_algorithms: tuple[Literal["SHA-256", "MD5"], ...] = ("SHA-256", "MD5")

    # Where the calling number stands in our calls: "caller" puts it into From, "account" leaves our account there and
    # the number only in the identity headers below.
    from_shows: Literal["caller", "account"] = "caller"
    caller_name: str = ""  # display name beside the number
    identity_headers: tuple[IdentityHeader, ...] = ()  # which of these say who calls; ask the provider
    withhold: bool = False  # withhold the calling number on every call (RFC 3323: anonymous From, Privacy: id)
    trust_identity: bool = True  # believe P-Asserted-Identity and Remote-Party-ID of calls that come in

    country_code: str = ""  # "49": numbers become E.164 (+4930...) on the way in; "" leaves all numbers as they are
    national_prefix: str = "0"  # before an area code; "" in countries without one
    international_prefix: str = "00"  # "011" in North America
    # How the trunk wants numbers and sends them: "e164" (+4930...), "digits" (4930...), "international" (004930...),
    # "national" (030..., abroad 0044...) or "as_given".
    number_format: Literal["as_given", "e164", "digits", "international", "national"] = "as_given"

    # Headers of an INVITE that are kept on record; a * at the end stands for any rest.
    headers_in: tuple[str, ...] = ("X-*",)
    headers_out: tuple[str, ...] = ("X-*",)  # headers that a call placed by the API or a dialplan may carry
    extra_headers: dict[str, str] = {}  # sent with every call over this trunk

    max_calls: int = 0  # at a time, both ways together; 0 is no limit. Beyond: 486 to callers
    max_calls_in: int = 0  # of them those that come in
    max_calls_out: int = 0  # and those that go out
    calls_per_second_in: float = 0.0  # 0 is no limit. Beyond: 503 with Retry-After
    calls_per_second_out: float = 0.0  # beyond: the next trunk is tried

    priority: int = 0  # the lowest is tried first
    # Cost of a minute by prefix of the E.164 number, such as {"+49" = 0.01, "+" = 0.2}: among trunks of one priority
    # the cheapest is tried first, and one whose rates do not name the number is not tried. Empty takes every number.
    rates: dict[str, float] = {}
    # What makes a call go on to the next server or trunk: statuses ("408"), classes ("5xx"), "no_answer". Never after
    # an answer. Add "480" where the provider says so of itself and not of the callee.
    failover_on: tuple[str, ...] = FAILOVER_ON
    ring_timeout_s: float = 0.0  # as in [limits], which also serves where this is 0
    silent_s: float = 5.0  # a server that has not answered an INVITE at all by then counts as 408

    def __post_init__(self) -> None:
        _check(self)

    def __repr__(self) -> str:
        return f"TrunkSettings(name={self.name!r}, registrar={self.registrar!r}, username={self.username!r})"

    @property
    def registrar_uri(self) -> str:
        """ "" when there is none."""
        return with_transport(_as_uri(self.registrar), self.transport)

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

    @property
    def first_hop(self) -> str:
        """The URI whose servers every call goes to: the outbound proxy, or where calls are sent; "" for neither."""
        return with_transport(_as_uri(self.outbound_proxy or self.outbound_host), self._own_transport)

    @property
    def _own_transport(self) -> str:
        """Of calls; "" leaves it to DNS. A registrar that is given as `sips:` or with its transport says it for them"""
        return self.transport or ("" if self.outbound_proxy or self.domain else transport_of(_as_uri(self.registrar)))

    @property
    def secure(self) -> bool:
        """Whether it is spoken to over TLS."""
        return transport_of(self.first_hop) == "tls"

    @property
    def inbound_user(self) -> str:
        return self.inbound_username or self.username

    @property
    def inbound_secret(self) -> str:
        return self.inbound_password or self.password

    @property
    def challenges(self) -> bool:
        """Whether a caller may, or must, prove itself by digest."""
        return self.accept != "address"

    def target_uri(self, number: str) -> str:
        """Where a call to ``number`` over this trunk goes. Of a SIP URI only the user part is taken: the trunk's
        password and the call's keys go to its own host, by its own transport.
        """
        if number.lower().startswith(("sip:", "sips:")):
            number = message.parse_address(f"<{number}>").user
        return with_transport(f"sip:{quote(number, safe=USER_SAFE)}@{self.outbound_host}", self._own_transport)


def transport_of(uri: str) -> str:
    """What the SIP URI names, in small letters: "" leaves it to DNS."""
    if uri.lower().startswith("sips:"):
        return "tls"
    found = re.search(r";transport=(\w+)", uri.partition("?")[0].lower())
    return found.group(1) if found else ""


USER_SAFE = "+*-_.!~'()&=$,"  # RFC 3261 section 25.1, user; "#" is not among them


def with_transport(uri: str, transport: str) -> str:
    """The SIP URI with this transport, unless it names one already (or there is nothing to add)."""
    if not uri or not transport or ";transport=" in uri.lower():
        return uri
    address, question, headers = uri.partition("?")
    return f"{address};transport={transport}{question}{headers}"


def _check(trunk: TrunkSettings) -> None:
    """Raises ValueError with one sentence about what cannot be."""
    where = f"trunk `{trunk.name}`: "
    if not trunk.name or len(trunk.name) > 64 or not trunk.name.isprintable() or "/" in trunk.name:
        raise ValueError("a trunk's `name` needs 1 to 64 printable characters without `/`")
    addresses = {"registrar": trunk.registrar, "domain": trunk.domain, "outbound_proxy": trunk.outbound_proxy}
    hosts = {field: [message.parse_address(f"<{_as_uri(address)}>").host] for field, address in addresses.items()}
    for field, names in (hosts | {"peers": trunk.peers}).items():
        if not all(_may_be_host(name) for name in names):
            raise ValueError(f"{where}`{field}` has a host name with an empty label, or one beyond 63 characters")
    if not 10 <= trunk.expires_s <= 86400:
        raise ValueError(f"{where}`expires_s` must be from 10 to 86400")
    if trunk.country_code and not (trunk.country_code.isdigit() and len(trunk.country_code) <= 3):
        raise ValueError(f'{where}`country_code` is one to three digits, such as "49"')
    for text in (trunk.national_prefix, trunk.international_prefix):
        if text and not (text.isascii() and text.isdigit() and len(text) <= 5):
            raise ValueError(f"{where}a dialling prefix is at most five digits")
    if trunk.number_format not in ("as_given", "e164") and not trunk.country_code:
        raise ValueError(f"{where}`number_format` needs `country_code`")
    for word in trunk.failover_on:
        if not _FAILOVER.fullmatch(word):
            raise ValueError(f'{where}`failover_on` takes "408", "5xx" and the like, and "no_answer", not "{word}"')
    if any(not re.fullmatch(r"\+[0-9]{0,15}", prefix) for prefix in trunk.rates):
        raise ValueError(f'{where}`rates` are by prefixes such as "+49", and "+" for all')
    if trunk.challenges and not (trunk.inbound_user and trunk.inbound_secret):
        raise ValueError(f'{where}accept = "{trunk.accept}" needs `inbound_username` and `inbound_password`')
    for name, value in trunk.extra_headers.items():
        if not re.fullmatch(r"[A-Za-z0-9!%*_+`'~.-]{1,64}", name) or not value.isprintable() or len(value) > 1024:
            raise ValueError(f"{where}`extra_headers` has a name or value that is no SIP header")
    figures = (trunk.max_calls, trunk.max_calls_in, trunk.max_calls_out, trunk.calls_per_second_in)
    if min(*figures, trunk.calls_per_second_out, trunk.options_s, trunk.ring_timeout_s, *trunk.rates.values(), 0) < 0:
        raise ValueError(f"{where}limits, times and rates cannot be negative")


def media_terms(sip: SipSettings, trunk: TrunkSettings | None, library: Collection[str]) -> Terms:
    """What may be agreed to in one call over this trunk, with keys for it; ``library``: what PJSIP was built with.

    Raises ValueError when no codec is left.
    """
    wanted = (trunk.codecs if trunk is not None else ()) or sip.codecs
    codecs = tuple(codec for codec in wanted if codec in library)
    if not codecs:
        raise ValueError(f"PJSIP was built without {', '.join(wanted)}")
    policy = (trunk.srtp if trunk is not None else "") or sip.srtp
    dtmf = trunk.dtmf if trunk is not None else "auto"
    return Terms(codecs, policy, sdes.new_keys() if policy != "off" else (), dtmf)


def _as_uri(address: str) -> str:
    if not address or address.lower().startswith(("sip:", "sips:")):
        return address
    return f"sip:{address}"


def _may_be_host(name: str) -> bool:
    """Whether it can be asked for: no label of it is empty or too long (RFC 1035 section 2.3.4)."""
    try:
        name.encode("idna")
    except UnicodeError:
        return False
    return "\0" not in name


def _bare_host(address: str) -> str:
    rest = _as_uri(address).partition(":")[2]
    return rest.rpartition("@")[2].partition(";")[0].partition("?")[0]


def _without_port(host: str) -> str:
    if host.startswith("["):
        return host.partition("]")[0] + "]"
    return host.partition(":")[0]
