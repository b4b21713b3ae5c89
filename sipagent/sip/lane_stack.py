"""Starting PJSIP for signalling alone: configuration, transports, and the two things pjsua2 does not offer.

Everything here runs on the lane's PJSIP thread. Why each setting is as it is: PJMEDIA must stay inert (no socket, no
thread, no RTP or RTCP of its own), because the audio is another process's.
"""

import contextlib
import ctypes
import socket
import sys
from collections.abc import Callable, Iterable, Sequence
from typing import Any
from urllib.parse import quote

import pjsua2 as pj

from sipagent.sip import message
from sipagent.sip.lane_messages import MESSAGE_LEVEL, MessageTap
from sipagent.sip.names import forbid_waiting_lookups
from sipagent.sip.pjsip import Pjsip, tls_objection, tls_version
from sipagent.sip.protocol import AddAccount, LaneTls, Start

# More than any build's compile-time array; PJSIP lowers it to PJSUA_MAX_CALLS.
_ASK_FOR_CALLS = 1_000_000
# The conference bridge keeps a pointer for each: room for a PJSIP built for thousands of calls.
_BRIDGE_PORTS = 8192
_OUR_CODECS = ("PCMU", "PCMA", "G722")
HIDDEN = ";lr;hide"  # ends a route that PJSIP follows and does not show
NEXT_HOP = "X-Sipagent-Route"
LANE_PARAMETER = "sl"  # of our Contact behind the edge: the lane's port (edge_script.py)
_LOG_LEVEL = 2  # errors and warnings; from 3 on PJSIP writes about every call


class _Frame(ctypes.Structure):
    """pjmedia_frame of the ABI that the ports have had since 2.0."""

    _fields_ = [
        ("type", ctypes.c_int),
        ("buf", ctypes.c_void_p),
        ("size", ctypes.c_size_t),
        ("timestamp", ctypes.c_uint64),
        ("bit_info", ctypes.c_uint32),
    ]


def _library() -> ctypes.CDLL:
    module = sys.modules.get("pjsua2._pjsua2") or sys.modules["_pjsua2"]
    return ctypes.CDLL(str(module.__file__))


def clean(text: Any) -> str:
    """Bytes of the wire that are no UTF-8 arrive as lone surrogates, which msgpack refuses."""
    return str(text).encode("utf-8", "replace").decode("utf-8")


def error_text(error: BaseException) -> str:
    """One line for an engineer; pjsua2's errors carry file names and line ends, which are cut."""
    if isinstance(error, pj.Error):
        return str(error.reason)  # it names the status too
    return f"{type(error).__name__}: {error}"


def port_is_taken(error: BaseException) -> bool:
    return isinstance(error, pj.Error) and "in use" in str(error.reason).lower()


class TransportError(Exception):
    def __init__(self, what: str, error: BaseException) -> None:
        super().__init__(error_text(error))
        self.what = what
        self.taken = port_is_taken(error)


class Stack:
    """The started library. ``max_calls``: its own limit. ``codecs``: of ours, those it has. ``port``: UDP, as bound."""

    def __init__(self, start: Start, endpoint: Any, log_writer: Any) -> None:
        forbid_waiting_lookups()
        library = _library()
        library.pj_log_set_level(_LOG_LEVEL)  # libCreate writes to standard output before there is a writer
        self.endpoint = endpoint
        self.endpoint.libCreate()  # this thread: it creates and pumps, so it is registered with PJLIB
        config = pj.EpConfig()
        config.logConfig.level = _LOG_LEVEL
        config.logConfig.consoleLevel = MESSAGE_LEVEL if start.record_messages else _LOG_LEVEL
        config.logConfig.msgLogging = int(start.record_messages)
        config.logConfig.decor = 0
        config.logConfig.writer = log_writer
        log_writer.__disown__()  # PJSIP deletes it
        config.uaConfig.maxCalls = _ASK_FOR_CALLS
        config.uaConfig.threadCnt = 0
        config.uaConfig.mainThreadOnly = True
        config.uaConfig.userAgent = start.user_agent
        if start.edge:  # the first hop of every request; it sees to names, TLS and the rest
            config.uaConfig.outboundProxies.append(f"sip:{start.edge};lr")
        for server in start.name_servers:  # without any, PJSIP looks names up in the C library and waits for it
            config.uaConfig.nameserver.append(server)
        config.medConfig.hasIoqueue = False
        config.medConfig.threadCnt = 0
        config.medConfig.clockRate = 8000
        config.medConfig.maxMediaPorts = _BRIDGE_PORTS
        config.medConfig.ecTailLen = 0
        config.medConfig.noVad = True
        endpoint.libInit(config)
        self.tap = MessageTap(library, _LOG_LEVEL) if start.record_messages else None
        self.pjsip = Pjsip(library)
        self.pjsip.set_t1(start.t1_ms)
        self.codecs: list[str] = []
        for codec in endpoint.codecEnum2():
            # What PJMEDIA puts into SDP by itself is replaced by ours; without these it cannot agree to more either.
            name = str(codec.codecId).partition("/")[0]
            if name in _OUR_CODECS:
                self.codecs.append(name)
            else:
                endpoint.codecSetPriority(codec.codecId, 0)
        self.port = self._listen(start)
        if start.tls is not None:
            if objection := tls_objection(tls_version(library)):
                raise RuntimeError(objection)
            self._listen_tls(start, start.tls)
        endpoint.libStart()
        self.max_calls = int(library.pjsua_call_get_max_count())
        self.host = start.host
        self.clock_bridge = self._bridge_clock(library)

    def _listen(self, start: Start) -> int:
        transport = pj.TransportConfig()
        transport.boundAddress = "" if start.host == "0.0.0.0" else start.host
        transport.publicAddress = start.public_host
        transport.port = start.port
        try:
            self.udp_id = self.endpoint.transportCreate(pj.PJSIP_TRANSPORT_UDP, transport)
        except pj.Error as error:
            raise TransportError("UDP", error) from error
        info = self.endpoint.transportGetInfo(self.udp_id)
        port = int(str(info.localAddress).rpartition(":")[2])
        if start.tcp:
            transport.port = port
            # The connections of a lane that died linger for a minute; they must not keep its successor out.
            option = pj.SockOpt()
            option.level, option.optName = socket.SOL_SOCKET, socket.SO_REUSEADDR
            option.setOptValInt(1)
            options = pj.SockOptVector()
            options.append(option)
            transport.sockOptParams.sockOpts = options
            try:
                self.endpoint.transportCreate(pj.PJSIP_TRANSPORT_TCP, transport)
            except pj.Error as error:
                raise TransportError("TCP", error) from error
        return port

    def _listen_tls(self, start: Start, tls: LaneTls) -> None:
        """PJSIP verifies the chain and the name of whom it connects to, at each connection."""
        transport = pj.TransportConfig()
        transport.boundAddress = "" if start.host == "0.0.0.0" else start.host
        transport.publicAddress = start.public_host
        transport.port = tls.port
        config = transport.tlsConfig
        config.certFile, config.privKeyFile, config.CaListFile = tls.certificate, tls.key, tls.ca
        config.verifyServer = True
        config.verifyClient = config.requireClientCert = tls.clients_verified
        config.proto = pj.PJ_SSL_SOCK_PROTO_TLS1_2 | pj.PJ_SSL_SOCK_PROTO_TLS1_3
        try:
            self.endpoint.transportCreate(pj.PJSIP_TRANSPORT_TLS, transport)
        except pj.Error as error:
            raise TransportError("TLS", error) from error

    def _bridge_clock(self, library: ctypes.CDLL) -> Callable[[], None]:
        """PJMEDIA removes a call's port from its conference bridge only when the bridge's clock ticks, and without a
        sound device nothing ticks it: after `maxMediaPorts` calls every further one failed. So tick by hand.
        """
        library.pjsua_set_no_snd_dev.restype = ctypes.c_void_p
        library.pjmedia_port_get_frame.argtypes = [ctypes.c_void_p, ctypes.c_void_p]
        port = library.pjsua_set_no_snd_dev()
        buffer = ctypes.create_string_buffer(8192)
        frame = _Frame()

        def tick() -> None:
            frame.buf = ctypes.addressof(buffer)
            frame.size = 320  # 20 ms of 8 kHz, 16 bit
            library.pjmedia_port_get_frame(port, ctypes.byref(frame))

        return tick

    def identity(self) -> str:
        """The URI of calls placed without a trunk."""
        host = "127.0.0.1" if self.host in ("", "0.0.0.0") else self.host
        return f"sip:sipagent@{host}:{self.port}"

    def destroy(self) -> None:
        with contextlib.suppress(pj.Error):
            self.endpoint.libDestroy()


def edge_headers(start: Start, route: Sequence[str]) -> dict[str, str]:
    """The server that a request goes to is the edge's next hop, where there is an edge: it is told in a header that
    stops there (edge_script.py).
    """
    hidden = next((uri for uri in route if uri.endswith(HIDDEN)), "")
    return {NEXT_HOP: hidden.removesuffix(HIDDEN)} if start.edge and hidden else {}


def account_config(account: AddAccount, start: Start, port: int) -> Any:
    """``port``: the lane's own."""
    config = pj.AccountConfig()
    config.idUri = account.id_uri
    if account.username:
        config.sipConfig.authCreds.append(
            pj.AuthCredInfo("digest", account.realm, account.username, 0, account.password)
        )
    registration = config.regConfig
    registration.registrarUri = account.registrar
    registration.registerOnAdd = False
    registration.timeoutSec = account.expires_s
    # Refreshing is PJSIP's. Not more than 5 s: with a value beyond the lease granted it would not refresh at all.
    registration.delayBeforeRefreshSec = 5
    # Trying again after a failure is main's decision (registration.py).
    registration.retryIntervalSec = 0
    registration.firstRetryIntervalSec = 0
    for uri in account.route:
        # With a TLS of its own PJSIP finds the server by itself: the name that it compares is the one it has looked up.
        if not (uri.endswith(HIDDEN) and (start.edge or start.tls is not None and ";transport=tls" in uri)):
            config.sipConfig.proxies.append(uri)
    if start.edge:
        registration.headers = header_vector(edge_headers(start, account.route).items())
        user = message.parse_address(account.id_uri).user
        contact = account.contact or start.contact
        config.sipConfig.contactForced = f"<sip:{quote(user)}@{contact};{LANE_PARAMETER}={port}>"
    elif account.contact:
        config.sipConfig.contactForced = f"<sip:{quote(message.parse_address(account.id_uri).user)}@{account.contact}>"
    config.natConfig.udpKaIntervalSec = start.keepalive_s
    if start.public_host or start.edge:
        config.natConfig.contactRewriteUse = 0  # the operator knows the address better than the registrar
    # After a change of address: PJSIP registers anew and lets calls be; what happens to those is main's to say.
    config.ipChangeConfig.shutdownTp = True
    config.ipChangeConfig.hangupCalls = False
    config.ipChangeConfig.reinviteFlags = 0
    # No PJMEDIA socket, and so no RTP or RTCP that is not ours.
    config.mediaConfig.useLoopMedTp = True
    config.mediaConfig.enableLoopback = False
    # PJMEDIA seals and opens nothing, but without this it refuses RTP/SAVP, and our own, with 488. Whether a call may
    # or must have SRTP is decided where its SDP is made; sealing the signalling is the operator's matter.
    config.mediaConfig.srtpUse = pj.PJMEDIA_SRTP_OPTIONAL
    config.mediaConfig.srtpSecureSignaling = 0
    config.mediaConfig.lockCodecEnabled = False  # else PJSIP sends a re-INVITE by itself
    config.callConfig.prackUse = pj.PJSUA_100REL_OPTIONAL
    config.callConfig.timerUse = pj.PJSUA_SIP_TIMER_OPTIONAL
    config.callConfig.timerSessExpiresSec = start.session_expires_s
    return config


def call_param(
    status: int = 0,
    reason: str = "",
    headers: dict[str, str] | None = None,
    challenges: Sequence[str] = (),
    *,
    media: bool = True,
) -> Any:
    """``media=False``: without call settings; PJSIP would take them as a reason to make its offer already."""
    param = pj.CallOpParam(media)
    if media:
        param.opt.audioCount = 1  # 0 gives 488, whatever the SDP says
        param.opt.videoCount = 0
    if status:
        param.statusCode = status
    if reason:
        param.reason = reason
    pairs = [*(headers or {}).items(), *(("WWW-Authenticate", challenge) for challenge in challenges)]
    if pairs:
        param.txOption.headers = header_vector(pairs)
    return param


def request_param(method: str, content_type: str, body: str, headers: dict[str, str] | None = None) -> Any:
    """Of a request inside a dialog."""
    param = pj.CallSendRequestParam()
    param.method = method
    param.txOption.contentType = content_type
    param.txOption.msgBody = body
    if headers:
        param.txOption.headers = header_vector(headers.items())
    return param


def header_vector(pairs: Iterable[tuple[str, str]]) -> Any:
    vector = pj.SipHeaderVector()
    for name, value in pairs:
        header = pj.SipHeader()
        # A line end inside a value would begin a header of its own.
        header.hName = name.replace("\r", "").replace("\n", "")
        header.hValue = value.replace("\r", " ").replace("\n", " ")
        vector.append(header)
    return vector
