"""What a lane needs of PJSIP and pjsua2 does not offer, called by ctypes. Belongs to the PJSIP thread."""

import ctypes
import re
from collections.abc import Callable
from typing import Any

# Behind the transaction layer (16), so that retransmissions are seen by nobody, before dialogs (32).
_BEFORE_DIALOGS = 24
_REPLACES = b"Replaces"
_REQUEST = re.compile(rb"[A-Z]{3,20} sips?:")
# Where a received packet's bytes may begin inside its pjsip_rx_data, and how much of it is looked through.
_PACKET_WITHIN = 1024
_STRUCTURE_WITHIN = 80_000
_POINTER = 8


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


class Pjsip:
    """Of one started library."""

    def __init__(self, library: ctypes.CDLL) -> None:
        pointer = ctypes.c_void_p
        self._library = library
        library.pjsip_rdata_get_dlg.restype = pointer
        library.pjsip_rdata_get_dlg.argtypes = [pointer]
        library.pjsip_dlg_respond.argtypes = [pointer, pointer, ctypes.c_int, pointer, pointer, pointer]
        library.pjsip_msg_find_hdr_by_name.restype = pointer
        library.pjsip_msg_find_hdr_by_name.argtypes = [pointer, pointer, pointer]
        library.pjsip_get_status_text.restype = ctypes.POINTER(_Str)
        library.pj_list_erase.argtypes = [pointer]
        library.pjsua_get_pjsip_endpt.restype = pointer
        library.pjsip_endpt_register_module.argtypes = [pointer, pointer]
        library.pjsip_tsx_set_timers.argtypes = [ctypes.c_uint] * 4

    def respond(self, received: Any, status: int) -> bool:
        """The final response to a request inside a dialog, from the callback that tells of the request.

        PJSIP answers 500 to what it does not know; what has an answer already it leaves alone.
        """
        rdata = int(received)
        dialog = self._library.pjsip_rdata_get_dlg(rdata)
        return bool(dialog) and self._library.pjsip_dlg_respond(dialog, rdata, status, None, None, None) == 0

    def reason(self, status: int) -> str:
        """The usual phrase for a status."""
        text = self._library.pjsip_get_status_text(status).contents
        return bytes(text.ptr[: text.slen]).decode()

    def set_t1(self, milliseconds: int) -> None:
        """Timer T1 of RFC 3261 section 17.1.1.1, for transactions that begin from now on."""
        self._library.pjsip_tsx_set_timers(milliseconds, 0, 0, 64 * milliseconds)

    def leave_replaces_to_us(self, problem: Callable[[str, BaseException], None]) -> None:
        """PJSIP answers an INVITE with Replaces at once, by the dialogs of this lane alone: take the header out of what
        it has parsed. The text of the message keeps it.
        """
        name = ctypes.create_string_buffer(_REPLACES)
        wanted = _Str(ctypes.cast(name, ctypes.c_char_p), len(_REPLACES))
        offset = 0  # of the parsed message's pointer in pjsip_rx_data; depends on how the library was built

        def on_request(rdata: int) -> int:
            nonlocal offset
            try:
                offset = offset or _offset_of_message(rdata)
                if offset:
                    parsed = ctypes.c_void_p.from_address(rdata + offset).value
                    while header := self._library.pjsip_msg_find_hdr_by_name(parsed, ctypes.byref(wanted), None):
                        self._library.pj_list_erase(header)
            except Exception as error:
                problem("a Replaces was not looked for", error)
            return 0  # goes on to the dialogs

        module = _Module(priority=_BEFORE_DIALOGS, id=-1, on_rx_request=_RxRequest(on_request))
        self._module_name = ctypes.create_string_buffer(b"mod-sipagent-replaces")
        module.name = _Str(ctypes.cast(self._module_name, ctypes.c_char_p), len(self._module_name.value))
        status = self._library.pjsip_endpt_register_module(self._library.pjsua_get_pjsip_endpt(), ctypes.byref(module))
        if status != 0:
            raise RuntimeError(f"PJSIP takes no module: status {status}")
        self._kept = module, wanted, name  # PJSIP has their addresses


def _offset_of_message(rdata: int) -> int:
    """Where pjsip_rx_data has its ``msg_info.msg``: two words behind the pointer to the packet's text. 0: not found.

    The packet's bytes lie inside the structure, at most a size of the build's choice, before that pointer.
    """
    head = ctypes.string_at(rdata, _PACKET_WITHIN)
    found = next((at for at in range(0, _PACKET_WITHIN - 32, _POINTER) if _REQUEST.match(head, at)), None)
    if found is None:  # not the first message of a TCP segment: the next request will tell
        return 0
    for at in range(found, found + _STRUCTURE_WITHIN, _POINTER):
        if ctypes.c_uint64.from_address(rdata + at).value == rdata + found:
            return at + 2 * _POINTER
    return 0
