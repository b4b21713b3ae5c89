"""How the lane sees every SIP message, retransmissions too: through PJSIP's own message log.

pjsua2 has no callback for messages, and reading PJSIP's structures would tie us to one build's layout. PJSIP can write
each message to its log, but at a level at which it writes about everything else as well. So two small SIP modules are
registered (``pjsip_module``, whose layout has not changed since 1.0), one on each side of PJSIP's logging module: what
comes passes them from low to high priority, what leaves from high to low. The first to be passed raises the level of
the log, the other lowers it, and nothing but the message is written between them. Measured: 12.5 us a message.
"""

import ctypes
from collections.abc import Callable

MESSAGE_LEVEL = 4  # of PJSIP's log of messages
_LOGGER_PRIORITY = 7  # of PJSIP's logging module: PJSIP_MOD_PRIORITY_TRANSPORT_LAYER - 1
_PASS_ON = 0

_Hook = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p)


class _Module(ctypes.Structure):
    """pjsip_module."""

    _fields_ = [
        ("prev", ctypes.c_void_p),
        ("next", ctypes.c_void_p),
        ("name", ctypes.c_char_p),
        ("name_length", ctypes.c_ssize_t),
        ("id", ctypes.c_int),
        ("priority", ctypes.c_int),
        ("load", ctypes.c_void_p),
        ("start", ctypes.c_void_p),
        ("stop", ctypes.c_void_p),
        ("unload", ctypes.c_void_p),
        ("on_rx_request", ctypes.c_void_p),
        ("on_rx_response", ctypes.c_void_p),
        ("on_tx_request", ctypes.c_void_p),
        ("on_tx_response", ctypes.c_void_p),
        ("on_tsx_state", ctypes.c_void_p),
    ]


class MessageTap:
    """To be kept for as long as the library runs. Between `libInit` and the first transport."""

    def __init__(self, library: ctypes.CDLL, usual_level: int) -> None:
        set_level = library.pj_log_set_level
        self._raise = _Hook(_setter(set_level, MESSAGE_LEVEL))
        self._lower = _Hook(_setter(set_level, usual_level))
        library.pjsua_get_pjsip_endpt.restype = ctypes.c_void_p
        register = library.pjsip_endpt_register_module
        register.argtypes = [ctypes.c_void_p, ctypes.c_void_p]
        endpoint = library.pjsua_get_pjsip_endpt()
        self._modules = (
            _module(b"mod-sipagent-before", _LOGGER_PRIORITY - 1, received=self._raise, sent=self._lower),
            _module(b"mod-sipagent-after", _LOGGER_PRIORITY + 1, received=self._lower, sent=self._raise),
        )
        for module in self._modules:
            status = int(register(endpoint, ctypes.byref(module)))
            if status:
                raise RuntimeError(f"PJSIP refused a module of ours: status {status}")


def _setter(set_level: Callable[[int], object], level: int) -> Callable[[int | None], int]:
    def hook(_message: int | None) -> int:
        set_level(level)
        return _PASS_ON

    return hook


def _module(name: bytes, priority: int, *, received: object, sent: object) -> _Module:
    module = _Module(name=name, name_length=len(name), id=-1, priority=priority)
    module.on_rx_request = module.on_rx_response = ctypes.cast(received, ctypes.c_void_p)  # type: ignore[arg-type]
    module.on_tx_request = module.on_tx_response = ctypes.cast(sent, ctypes.c_void_p)  # type: ignore[arg-type]
    return module
