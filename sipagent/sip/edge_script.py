"""The configuration of Kamailio 5.6 as the front of a node's lanes, or of several nodes: settings in, text out.

What the edge does, and why so:
- A lane or node is chosen by the calls it has (dispatcher, algorithm 10, up to its capacity). That count may be too low
  (after a restart, and because calls that a lane places are not in it): who has no slot left answers 486 or 503, and
  the call goes on to the next within the same attempt. A refusal that main decided carries X-Sipagent-Final: "call"
  stands, "node" (this node cannot) is tried again by the front of several nodes.
- Every lane says the edge's address in Contact, with its own port as `sl`: requests inside a dialog find their lane by
  that, whatever the peer makes of Record-Route. Only ports of the list are served: the edge relays for nobody else.
- One process reads each UDP socket: with more, a 200 would overtake the 180 sent right before it.
- X-Sipagent-Source tells where an INVITE came from. It is taken out of what strangers send. X-Sipagent-Edge, in
  responses to lanes, tells that no peer has spoken.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

GROUP = 1
MAX_MESSAGE = 3900  # PJSIP takes datagrams up to 4,000 bytes
SOURCE = "X-Sipagent-Source"
SEEN, SERVER = "X-Sipagent-Seen", "X-Sipagent-Server"  # in answers to REGISTER: our Via as it came back, from where
FINAL = "X-Sipagent-Final"
EDGE = "X-Sipagent-Edge"  # of a final response: nobody else has made it
RELEASE = "RELEASE"  # main's request: this Call-ID is no call any more
PROBE_S = 5  # seconds between OPTIONS to each lane
FRONT_PROBE_S = 2  # and to each node
SILENT_MS = 2000  # without any answer to an INVITE for so long, the next lane or node is tried
FAR_SILENT_MS = 5_000  # and a trunk's server has not answered at all
_CALL_EXPIRES_S = 14_400  # a call that is never hung up counts for so long


@dataclass(frozen=True, slots=True)
class Listen:
    """An address of the edge. ``advertised``: host:port that messages say instead."""

    transport: str  # "udp", "tcp" or "tls"
    host: str
    port: int
    advertised: str = ""

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        advertised = f" advertise {self.advertised}" if self.advertised else ""
        return f"listen={self.transport}:{host}:{self.port}{advertised}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Tls:
    certificate: str
    key: str
    ca: str  # file of authorities; who we connect to must be vouched for by one
    clients_verified: bool = False  # who connects to us too


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """Everything that the configuration depends on."""

    listens: Sequence[Listen]
    inside: str = ""  # host:port for the lanes; "" makes the front of several nodes
    fronts: Sequence[str] = ()  # addresses whose X-Sipagent-Source is believed
    tls: Tls | None = None
    modules: str  # folder
    folder: Path  # for the files beside the configuration

    @property
    def files(self) -> dict[str, Path]:
        names = {"config": "kamailio.cfg", "list": "lanes.list", "tls": "tls.cfg", "control": "control"}
        return {key: self.folder / name for key, name in names.items()}


def destinations(capacities: Mapping[str, int], socket: str = "") -> str:
    """The dispatcher's list: one line for each lane or node (host:port) with the calls it takes, 0 for no limit."""
    lines = []
    for address, calls in capacities.items():
        attributes = f"duid={address};maxload={calls}" + (f";socket=udp:{socket}" if socket else "")
        lines.append(f"{GROUP} sip:{address} 0 0 {attributes}\n")
    return "".join(lines)


def tls_profiles(tls: Tls) -> str:
    """tls.cfg: who connects to us, and who we connect to."""
    verified = "yes" if tls.clients_verified else "no"
    common = f"method = TLSv1.2+\nprivate_key = {tls.key}\ncertificate = {tls.certificate}\nca_list = {tls.ca}\n"
    return (
        f"[server:default]\n{common}verify_certificate = {verified}\nrequire_certificate = {verified}\n\n"
        f"[client:default]\n{common}verify_certificate = yes\nrequire_certificate = yes\n"
    )


def configuration(plan: Plan) -> str:
    """kamailio.cfg."""
    parts = [_globals(plan), _modules(plan), _ENTRY, _REPLIES, _dispatch(plan)]
    parts.append(_node(plan) if plan.inside else _FRONT)
    return "\n".join(parts)


def _globals(plan: Plan) -> str:
    lines = [
        "#!KAMAILIO",
        "# Made by sipagent from its settings; changes are lost at the next start.",
        "debug=0",  # errors and warnings
        "log_stderror=yes",
        "children=1",
        "tcp_children=2",
        "auto_aliases=no",
        "mhomed=1",  # the socket by the route, as a node may have several addresses
        "server_signature=no",
        'user_agent_header="User-Agent: sipagent"',
        "dns_retr_time=1",  # a name server that is silent holds everything up: one process reads a socket
        "dns_retr_no=1",
        "dns_servers_no=2",
        "dns_try_naptr=yes",
        "dns_cache_negative_ttl=10",
        f"dns_try_ipv6={'yes' if any(':' in listen.host for listen in plan.listens) else 'no'}",
        "use_dns_failover=yes",
        "tcp_connection_lifetime=3605",  # beyond the longest registration's refresh
        "tcp_connect_timeout=3",
        "tcp_send_timeout=3",
        "tcp_max_connections=4096",
        "tcp_rd_buf_size=65535",
    ]
    if plan.tls:
        lines += ["enable_tls=yes", "tls_max_connections=4096"]
    lines += [str(listen) for listen in plan.listens]
    if plan.inside:
        lines.append(f"listen=udp:{plan.inside}")
    return "\n".join(lines) + "\n"


def _modules(plan: Plan) -> str:
    names = ["tls"] if plan.tls else []
    names += "jsonrpcs kex corex tm tmx sl rr pv maxfwd textops siputils sanity xlog dispatcher htable".split()
    files = plan.files
    settings: dict[str, list[tuple[str, str | int]]] = {
        "tls": [("config", str(files["tls"])), ("xavp_cfg", "tls")],
        "jsonrpcs": [("transport", 4), ("dgram_socket", str(files["control"])), ("dgram_workers", 1)],
        "rr": [("enable_full_lr", 1)],
        "tm": [
            ("reparse_on_dns_failover", 0),
            ("fr_timer", SILENT_MS),
            ("fr_inv_timer", 180_000),  # carriers let it ring for so long
            ("restart_fr_on_each_reply", 1),
            ("auto_inv_100_reason", "Trying"),
            ("remap_503_500", 0),  # a trunk's 503 is for our own routing to see
            ("failure_reply_mode", 3),
        ],
        "dispatcher": [
            ("list_file", str(files["list"])),
            ("flags", 2),
            ("ds_hash_size", 9),
            ("ds_hash_expire", _CALL_EXPIRES_S),
            ("ds_hash_initexpire", 190),
            ("ds_hash_check_interval", 10),
            ("ds_ping_method", "OPTIONS"),
            ("ds_ping_interval", PROBE_S if plan.inside else FRONT_PROBE_S),
            ("ds_probing_mode", 1),
            # A lane is watched by main; one lost probe, of the lane that was there before, must not cost the new one.
            ("ds_probing_threshold", 2 if plan.inside else 1),
            ("ds_inactive_threshold", 1),
            ("ds_ping_reply_codes", "class=2"),
        ],
        "htable": [
            ("htable", f"in=>size=12;autoexpire={_CALL_EXPIRES_S};"),
            ("htable", "node=>size=2;"),
            ("htable", "trusted=>size=6;"),
        ],
    }
    if plan.inside:
        settings["dispatcher"].append(("ds_ping_from", f"sip:edge@{plan.inside}"))
    text = f'mpath="{plan.modules}/"\n' + "".join(f'loadmodule "{name}.so"\n' for name in names)
    for module in names:
        for name, value in settings.get(module, []):
            shown = value if isinstance(value, int) else f'"{value}"'
            text += f'modparam("{module}", "{name}", {shown})\n'
    return text


_ENTRY = f"""\
request_route {{
  if (!mf_process_maxfwd_header("20")) {{ sl_send_reply("483", "Too Many Hops"); exit; }}
  if (!sanity_check("1511", "7")) exit;
  if (msg:len > {MAX_MESSAGE}) {{
    if (!is_method("ACK")) sl_send_reply("513", "Message Too Large");
    exit;
  }}
  route(ARRIVED);
}}

# Retransmissions, and CANCEL of what we know.
route[TRANSACTION] {{
  if (is_method("CANCEL")) {{
    if (t_check_trans()) t_relay();
    else sl_send_reply("481", "Call/Transaction Does Not Exist");
    exit;
  }}
  if (is_method("ACK")) return;
  if (t_precheck_trans()) {{ t_check_trans(); exit; }}
  t_check_trans();
}}

route[OPTIONS] {{
  if ($sht(node=>draining) == 1) {{
    append_to_reply("Retry-After: 5\\r\\n");
    sl_send_reply("503", "Draining");
  }} else {{
    append_to_reply("Accept: application/sdp\\r\\n");
    append_to_reply("Allow: INVITE, ACK, CANCEL, BYE, OPTIONS, PRACK, UPDATE, INFO, REFER, NOTIFY\\r\\n");
    append_to_reply("Supported: replaces, 100rel, timer, norefersub\\r\\n");
    sl_send_reply("200", "OK");
  }}
  exit;
}}

# What we cannot even send is 503, as a user agent would take it (RFC 3261 section 8.1.3.1).
route[UNREACHABLE] {{
  if (is_method("ACK")) exit;
  append_to_reply("{EDGE}: unreachable\\r\\n");
  send_reply("503", "Unreachable");
  exit;
}}

# The end of a call that was dispatched.
route[ENDED] {{
  if (is_method("BYE") && $sht(in=>$ci) != $null) {{
    ds_load_unset();
    $sht(in=>$ci) = $null;
  }}
}}

route[RELAY] {{
  if (!t_relay()) route(UNREACHABLE);
  exit;
}}
"""

_REPLIES = """\
onreply_route[DISPATCHED] {
  if (status =~ "2[0-9][0-9]" && is_method("INVITE")) {
    ds_load_update();
    $sht(in=>$ci) = 1;
  }
}
"""


# Where to go when a call comes. A lane or node that is silent, full, broken or draining is no answer to the caller.
def _dispatch(plan: Plan) -> str:
    stands = "== $null" if plan.inside else '!= "call"'
    return f"""\
route[DISPATCH] {{
  if ($sht(node=>draining) == 1) {{
    append_to_reply("Retry-After: 5\\r\\n");
    sl_send_reply("503", "Draining");
    exit;
  }}
  record_route();
  if (!ds_select_dst("{GROUP}", "10")) {{
    append_to_reply("Retry-After: 5\\r\\n");
    sl_send_reply("503", "No Capacity");
    exit;
  }}
  t_on_reply("DISPATCHED");
  t_on_failure("NEXT");
  if (!t_relay()) {{ ds_load_unset(); sl_reply_error(); }}
  exit;
}}

failure_route[NEXT] {{
  if (t_is_canceled()) {{ ds_load_unset(); exit; }}
  $var(next) = 0;
  if (t_branch_timeout() && !t_branch_replied()) $var(next) = 1;
  if (t_check_status("486|500|503") && $T_rpl($hdr({FINAL})) {stands}) $var(next) = 1;
  if ($var(next) == 1) {{
    if (ds_next_dst()) {{
      t_on_reply("DISPATCHED");
      t_on_failure("NEXT");
      t_relay();
      exit;
    }}
    ds_load_unset();
    append_to_reply("Retry-After: 5\\r\\n");
    t_reply("503", "No Capacity");
    exit;
  }}
  ds_load_unset();
}}
"""


def _node(plan: Plan) -> str:
    host, _, port = plan.inside.rpartition(":")
    fronts = " || ".join(f'$si == "{front}"' for front in plan.fronts)
    believe = f"if (({fronts}) && $hdr({SOURCE}) != $null) $var(source) = $hdr({SOURCE});\n  " if fronts else ""
    # Names the server wanted (SNI). The chain is verified; Kamailio 5.6 compares no names, which main does beforehand
    # (tls_check.py): a trunk's request goes to no server that main has not found good.
    name = '  if (!($var(host) =~ "^[0-9.]+$|:")) $xavp(tls=>server_name) = $var(host);\n' if plan.tls else ""
    return f"""\
route[ARRIVED] {{
  if ($Ri == "{host}" && $Rp == {port}) route(LANE);
  else route(OUTSIDE);
}}

# --- from the world ---

route[OUTSIDE] {{
  $var(source) = $siz + ":" + $sp;
  {believe}remove_hf("{SOURCE}");
  route(TRANSACTION);
  if (has_totag()) route(TO_LANE);
  if (is_method("ACK")) exit;
  if (is_method("OPTIONS")) route(OPTIONS);
  if (!is_method("INVITE")) {{
    append_to_reply("Allow: INVITE, ACK, CANCEL, BYE, OPTIONS\\r\\n");
    sl_send_reply("405", "Method Not Allowed");
    exit;
  }}
  route(CALL);
}}

# A new call, to be spread.
route[CALL] {{
  append_hf("{SOURCE}: $var(source)\\r\\n");
  route(DISPATCH);
}}

# Inside a dialog: its lane stands in the request URI, because it is our Contact.
route[TO_LANE] {{
  $var(port) = $(ru{{uri.param,sl}}{{s.int}});
  if ($var(port) == 0 || !ds_is_from_list("{GROUP}", "2", "sip:{host}:$var(port)")) {{
    if (!is_method("ACK")) sl_send_reply("481", "Call/Transaction Does Not Exist");
    exit;
  }}
  route(ENDED);
  remove_hf("Route");
  $du = "sip:{host}:" + $var(port);
  $fs = "udp:{plan.inside}";
  route(RELAY);
}}

# --- from a lane ---

route[LANE] {{
  if (is_method("{RELEASE}")) {{
    if ($sht(in=>$ci) != $null) {{ ds_load_unset(); $sht(in=>$ci) = $null; }}
    exit;
  }}
  if (!ds_is_from_list("{GROUP}")) exit;
  route(TRANSACTION);
  if (has_totag() && uri == myself && $(ru{{uri.param,sl}}) != "") route(TO_LANE);
  if (!loose_route() && has_totag()) {{
    if (is_method("ACK")) {{ if (t_check_trans()) t_relay(); exit; }}
    sl_send_reply("481", "Call/Transaction Does Not Exist");
    exit;
  }}
  $var(host) = $rd;
  if (has_totag()) {{
    route(ENDED);
  }} else {{
    if (is_method("ACK")) exit;
    if (is_method("INVITE") && uri == myself) {{
      $var(source) = $siz + ":" + $sp;
      remove_hf("{SOURCE}");
      route(CALL);
    }}
    if (is_method("REGISTER")) {{
      subst_hf("Contact", "/;sl=[0-9]+//", "a");  # a binding outlives its lane
      t_on_reply("REGISTERED");
    }} else record_route();
    t_set_fr(0, {FAR_SILENT_MS});
    t_on_failure("FAR");
    if ($du != $null) $var(host) = $(du{{uri.host}});
    if ($hdr(X-Sipagent-Route) != $null) {{
      $du = $hdr(X-Sipagent-Route);
      if ($du =~ ";transport=tls" && $sht(trusted=>$du) == $null) route(UNREACHABLE);
    }}
  }}
  remove_hf("X-Sipagent-Route");
  add_local_rport();  # a NAT's port, not ours, is where answers must go (RFC 3581)
{name}  route(RELAY);
}}

# How the registrar sees us stands in our Via, which lanes never see.
onreply_route[REGISTERED] {{
  remove_hf("{SEEN}");
  remove_hf("{SERVER}");
  append_hf("{SEEN}: $hdr(Via)\\r\\n");
  append_hf("{SERVER}: $si:$sp\\r\\n");
}}

# The far side said nothing at all: the lane must know that 408 from the peer's own.
failure_route[FAR] {{
  if (t_is_canceled()) exit;
  if (t_branch_timeout() && !t_branch_replied()) {{
    append_to_reply("{EDGE}: silent\\r\\n");
    t_reply("408", "Request Timeout");
  }}
}}
"""


# Before several nodes, which are edges themselves or lanes: dialogs go by Record-Route, and only to or from a node.
_FRONT = f"""\
route[ARRIVED] {{
  route(TRANSACTION);
  if (has_totag()) {{
    if (!loose_route()) {{
      if (is_method("ACK")) {{ if (t_check_trans()) t_relay(); exit; }}
      sl_send_reply("481", "Call/Transaction Does Not Exist");
      exit;
    }}
    $var(to) = $du;
    if ($var(to) == $null) $var(to) = $ru;
    if (!ds_is_from_list("{GROUP}", "3") && !ds_is_from_list("{GROUP}", "3", "$var(to)")) {{
      if (!is_method("ACK")) sl_send_reply("403", "Not A Relay");
      exit;
    }}
    route(ENDED);
    route(RELAY);
  }}
  if (is_method("ACK")) exit;
  if (is_method("OPTIONS")) route(OPTIONS);
  if (!is_method("INVITE")) {{
    append_to_reply("Allow: INVITE, ACK, CANCEL, BYE, OPTIONS\\r\\n");
    sl_send_reply("405", "Method Not Allowed");
    exit;
  }}
  remove_hf("{SOURCE}");
  append_hf("{SOURCE}: $siz:$sp\\r\\n");
  route(DISPATCH);
}}
"""
