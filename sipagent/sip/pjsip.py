"""What a lane needs of PJSIP and pjsua2 does not offer, called by ctypes. Belongs to the PJSIP thread."""

import contextlib
import ctypes
import secrets
from collections.abc import Callable, Iterator
from typing import Any

# Behind the transaction layer (16), so that retransmissions are seen by nobody, before dialogs (32).
_BEFORE_DIALOGS = 24
_BEHIND_ALL = 120  # applications have 64
_REPLACES = b"Replaces"
# Where a received packet's bytes may begin inside its pjsip_rx_data, and how much of it is looked through.
_PACKET_WITHIN = 1024
_STRUCTURE_WITHIN = 80_000
_POINTER = 8
_PROBE_TURNS = 50
# Of pjsip_msg: its kind, then the request line, which begins with the method's number.
_METHOD_AT = 8
_ACK = 2
_SUPPORTED_OPENSSL = 3  # 1.1.1 has got no fixes since September 2023
ALLOW = "PRACK, INVITE, ACK, BYE, CANCEL, UPDATE, INFO, NOTIFY, REFER, OPTIONS"


class _Str(ctypes.Structure):
    """pj_str_t."""

    _fields_ = [("ptr", ctypes.c_char_p), ("slen", ctypes.c_ssize_t)]


_RxRequest = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p)


class _Module(ctypes.Structure):
    """pjsip_module, as it has been since 2.0."""

    _fields_ = [
        ("prev", ctypes.c_void_p),
        ("next", ctypes.c_void_p),
        ("name", _Str),
        ("id", ctypes.c_int),
        ("priority", ctypes.c_int),
        ("load", ctypes.c_void_p),
        ("start", ctypes.c_void_p),
        ("stop", ctypes.c_void_p),
        ("unload", ctypes.c_void_p),
        ("on_rx_request", _RxRequest),
        ("on_rx_response", ctypes.c_void_p),
        ("on_tx_request", ctypes.c_void_p),
        ("on_tx_response", ctypes.c_void_p),
        ("on_tsx_state", ctypes.c_void_p),
    ]


def tls_objection(version: str) -> str:
    """Why a PJSIP with this OpenSSL (as it names itself, "" where there is none) does no TLS for us; "" when it may.

    >>> tls_objection("OpenSSL 3.0.15 3 Sep 2024")
    ''
    """
    name, _, rest = version.partition(" ")
    major = rest.partition(".")[0]
    if name == "OpenSSL" and major.isdigit() and int(major) >= _SUPPORTED_OPENSSL:
        return ""
    what = (
        f"was built with {' '.join(version.split()[:2])}, which gets no fixes" if version else "was built without TLS"
    )
    return f'this PJSIP {what}: leave TLS to the edge (edge = "auto" in [sip]), or build PJSIP with OpenSSL 3 or later'


def tls_version(library: ctypes.CDLL) -> str:
    """What the TLS library inside names itself, "" without one."""
    if not hasattr(library, "pjsip_tls_transport_start2"):
        return ""
    for function in ("OpenSSL_version", "SSLeay_version"):  # the latter before 1.1
        if hasattr(library, function):
            ask = getattr(library, function)
            ask.restype, ask.argtypes = ctypes.c_char_p, [ctypes.c_int]
            return bytes(ask(0)).decode("ascii", "replace")
    return ""


class Pjsip:
    """Of one started library."""

    def __init__(self, library: ctypes.CDLL) -> None:
        pointer = ctypes.c_void_p
        self._library = library
        self._offset = 0  # of the parsed message's pointer in pjsip_rx_data; depends on how the library was built
        self._probe = b""  # while the offset is looked for: how our own request begins
        library.pjsip_rdata_get_dlg.restype = pointer
        library.pjsip_rdata_get_dlg.argtypes = [pointer]
        library.pjsip_dlg_respond.argtypes = [pointer, pointer, ctypes.c_int, pointer, pointer, pointer]
        library.pjsip_ua_find_dialog.restype = pointer
        library.pjsip_ua_find_dialog.argtypes = [pointer, pointer, pointer, ctypes.c_int]
        library.pjsip_dlg_get_inv_session.restype = pointer
        library.pjsip_dlg_get_inv_session.argtypes = [pointer]
        library.pjsip_inv_terminate.argtypes = [pointer, ctypes.c_int, ctypes.c_int]
        library.pjsip_msg_find_hdr_by_name.restype = pointer
        library.pjsip_msg_find_hdr_by_name.argtypes = [pointer, pointer, pointer]
        library.pjsip_get_status_text.restype = ctypes.POINTER(_Str)
        library.pj_list_erase.argtypes = [pointer]
        library.pj_list_insert_before.argtypes = [pointer, pointer]
        library.pjsua_pool_create.restype = pointer
        library.pjsua_pool_create.argtypes = [ctypes.c_char_p, ctypes.c_size_t, ctypes.c_size_t]
        library.pj_pool_release.argtypes = [pointer]
        library.pjsip_generic_string_hdr_create.restype = pointer
        library.pjsip_generic_string_hdr_create.argtypes = [pointer, pointer, pointer]
        library.pjsip_endpt_respond_stateless.argtypes = [pointer, pointer, ctypes.c_int, pointer, pointer, pointer]
        library.pjsua_get_pjsip_endpt.restype = pointer
        library.pjsip_endpt_register_module.argtypes = [pointer, pointer]
        library.pjsip_tsx_set_timers.argtypes = [ctypes.c_uint] * 4

    def respond(self, received: Any, status: int, header: tuple[str, str] | None = None) -> bool:
        """The final response to a request inside a dialog, from the callback that tells of the request.

        PJSIP answers 500 to what it does not know; what has an answer already it leaves alone.
        """
        rdata = int(received)
        dialog = self._library.pjsip_rdata_get_dlg(rdata)
        if not dialog:
            return False
        with self._list_of(header) as headers:
            return bool(self._library.pjsip_dlg_respond(dialog, rdata, status, None, headers, None) == 0)

    @contextlib.contextmanager
    def _list_of(self, header: tuple[str, str] | None) -> Iterator[Any]:
        """A list of headers that PJSIP copies from; None for none."""
        if header is None:
            yield None
            return
        pool = self._library.pjsua_pool_create(b"sipagent", 512, 512)
        try:
            name, value = (text.encode() for text in header)
            strings = _Str(name, len(name)), _Str(value, len(value))
            one = self._library.pjsip_generic_string_hdr_create(pool, *map(ctypes.byref, strings))
            head = (ctypes.c_void_p * 2)()  # PJSIP's lists are rings, entered at a head without a header
            head[0] = head[1] = ctypes.addressof(head)
            self._library.pj_list_insert_before(ctypes.byref(head), one)
            yield ctypes.byref(head)
        finally:
            self._library.pj_pool_release(pool)

    def give_up(self, call_id: str, local_tag: str, remote_tag: str) -> bool:
        """Ends the call of this dialog here and now, if it is alive; what is on its way to the peer goes on."""
        names = [text.encode() for text in (call_id, local_tag, remote_tag)]
        strings = [_Str(name, len(name)) for name in names]
        dialog = self._library.pjsip_ua_find_dialog(*map(ctypes.byref, strings), 0)
        session = self._library.pjsip_dlg_get_inv_session(dialog) if dialog else None
        return bool(session) and self._library.pjsip_inv_terminate(session, 408, 1) == 0

    def reason(self, status: int) -> str:
        """The usual phrase for a status."""
        text = self._library.pjsip_get_status_text(status).contents
        return bytes(text.ptr[: text.slen]).decode()

    def set_t1(self, milliseconds: int) -> None:
        """Timer T1 of RFC 3261 section 17.1.1.1, for transactions that begin from now on."""
        self._library.pjsip_tsx_set_timers(milliseconds, 0, 0, 64 * milliseconds)

    def watch_requests(self, problem: Callable[[str, BaseException], None]) -> None:
        """Two things that PJSIP does otherwise with requests.

        An INVITE with Replaces it answers at once, by the dialogs of this lane alone: the header is taken out of what
        it has parsed (the text of the message keeps it), and main decides. A request outside of any dialog that nobody
        takes it drops: it gets 405 (RFC 3261 section 8.2.1).
        """
        name = ctypes.create_string_buffer(_REPLACES)
        wanted = _Str(ctypes.cast(name, ctypes.c_char_p), len(_REPLACES))
        endpoint = self._library.pjsua_get_pjsip_endpt()

        def parsed(rdata: int) -> int:
            return (ctypes.c_void_p.from_address(rdata + self._offset).value or 0) if self._offset else 0

        def first(rdata: int) -> int:
            try:
                if self._probe and self._learn(rdata):
                    return 1
                if message := parsed(rdata):
                    while header := self._library.pjsip_msg_find_hdr_by_name(message, ctypes.byref(wanted), None):
                        self._library.pj_list_erase(header)
            except Exception as error:
                problem("a Replaces was not looked for", error)
            return 0  # goes on to the dialogs

        def last(rdata: int) -> int:
            try:
                message = parsed(rdata)
                if not message or ctypes.c_int.from_address(message + _METHOD_AT).value == _ACK:
                    return 0
                with self._list_of(("Allow", ALLOW)) as headers:
                    self._library.pjsip_endpt_respond_stateless(endpoint, rdata, 405, None, headers, None)
            except Exception as error:
                problem("a request that nobody takes was not answered", error)
                return 0
            return 1

        self._kept: list[object] = [wanted, name]  # PJSIP has their addresses
        for priority, on_request in ((_BEFORE_DIALOGS, first), (_BEHIND_ALL, last)):
            label = f"mod-sipagent-{priority}".encode()
            module = _Module(priority=priority, id=-1, on_rx_request=_RxRequest(on_request))
            module.name = _Str(label, len(label))
            status = self._library.pjsip_endpt_register_module(endpoint, ctypes.byref(module))
            if status != 0:
                raise RuntimeError(f"PJSIP takes no module: status {status}")
            self._kept += [module, label]

    def probe(self, send: Callable[[bytes], object], turn: Callable[[], object]) -> None:
        """Sends the lane a request of our own (by UDP, for its bytes are then the packet's first), from which is learnt
        where PJSIP keeps a message; ``turn`` lets it work. Raises RuntimeError when that is not to be found.
        """
        name = secrets.token_hex(8)
        self._probe = f"OPTIONS sip:{name}@".encode()
        send(
            f"OPTIONS sip:{name}@127.0.0.1 SIP/2.0\r\nVia: SIP/2.0/UDP 127.0.0.1:9;branch=z9hG4bK{name}\r\n"
            f"From: <sip:probe@127.0.0.1>;tag={name}\r\nTo: <sip:{name}@127.0.0.1>\r\nCall-ID: {name}\r\n"
            "CSeq: 1 OPTIONS\r\nMax-Forwards: 1\r\nContent-Length: 0\r\n\r\n".encode()
        )
        for _ in range(_PROBE_TURNS):
            if self._offset:
                break
            turn()
        self._probe = b""
        if not self._offset:
            raise RuntimeError("PJSIP keeps its messages elsewhere: Replaces and unknown methods are left to it")

    def _learn(self, rdata: int) -> bool:
        """Whether this is the probe. ``msg_info.msg`` is two words behind the pointer to the packet's bytes, which lie
        inside the same structure, at most a size of the build's choice, before that pointer.
        """
        found = ctypes.string_at(rdata, _PACKET_WITHIN).find(self._probe)
        if found < 0:
            return False
        for at in range(found + -found % _POINTER, found + _STRUCTURE_WITHIN, _POINTER):
            if ctypes.c_uint64.from_address(rdata + at).value == rdata + found:
                self._offset = at + 2 * _POINTER
                break
        return True
