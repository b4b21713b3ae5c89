"""Host names without waiting: the lane has one thread, and a lookup in the C library would stop every call on it.

PJSIP asks the name servers by itself, asynchronously, once it is told which they are. What it cannot do is here:
reading /etc/resolv.conf and /etc/hosts. And what it and PJMEDIA still hand to the C library (a name in a callee's
SDP) is made to fail at once instead of waiting for name servers.
"""

import contextlib
import ctypes
import ipaddress
import os
import re
from pathlib import Path

RESOLV_CONF = Path("/etc/resolv.conf")
HOSTS = Path("/etc/hosts")
_MAX_SERVERS = 3  # as many as the C library asks
_NOBODY = "127.0.0.1"  # in place of name servers where there are none: a lookup fails, and does not block
_SIP_URI = re.compile(r"(sips?:(?:[^@<>]*@)?)([A-Za-z0-9._-]+)([:;?].*)?", re.IGNORECASE | re.DOTALL)


def name_servers(path: Path | None = None) -> list[str]:
    """The IPv4 name servers of this machine (PJSIP's wheel has no IPv6); never empty."""
    found: list[str] = []
    for line in _lines(path or RESOLV_CONF):
        words = line.split()
        if len(words) >= 2 and words[0] == "nameserver" and _is_ipv4(words[1]):
            found.append(words[1])
    return found[:_MAX_SERVERS] or [_NOBODY]


class HostsFile:
    """The names in /etc/hosts, read again when the file has changed."""

    def __init__(self, path: Path | None = None) -> None:
        self._path = path or HOSTS
        self._seen: tuple[int, int] | None = None
        self._addresses: dict[str, str] = {}

    def address(self, name: str) -> str:
        """The name's IPv4 address, "" when the file has none."""
        self._refresh()
        wanted = name.lower().rstrip(".")
        return self._addresses.get(wanted) or ("127.0.0.1" if wanted == "localhost" else "")

    def substitute(self, uri: str) -> str:
        """The SIP URI with its host replaced by the address that the file gives; else as it was."""
        found = _SIP_URI.fullmatch(uri)
        address = self.address(found[2]) if found else ""
        return f"{found[1]}{address}{found[3] or ''}" if found and address else uri

    def _refresh(self) -> None:
        try:
            status = os.stat(self._path)
            seen = (status.st_mtime_ns, status.st_size)
        except OSError:
            seen = (0, 0)
        if seen == self._seen:
            return
        self._seen, self._addresses = seen, {}
        for line in _lines(self._path):
            address, *names = line.partition("#")[0].split() or [""]
            if _is_ipv4(address):
                for name in names:
                    self._addresses.setdefault(name.lower(), address)  # the first line counts, as in the C library


def forbid_waiting_lookups() -> None:
    """From now on this thread's lookups in the C library see /etc/hosts and no name server (glibc; else no effect).

    The library's resolver state (resolv.h) is each thread's own and public: with no servers left a query fails at once.
    """
    with contextlib.suppress(AttributeError, OSError):
        libc = ctypes.CDLL(None)
        libc.__res_state.restype = ctypes.c_void_p
        if libc.__res_init() == 0:
            _ResolverState.from_address(libc.__res_state()).nscount = 0


class _ResolverState(ctypes.Structure):
    """The head of glibc's struct __res_state, the same on every architecture since 1999."""

    _fields_ = [
        ("retrans", ctypes.c_int),
        ("retry", ctypes.c_int),
        ("options", ctypes.c_ulong),
        ("nscount", ctypes.c_int),
    ]


def _is_ipv4(text: str) -> bool:
    try:
        return bool(ipaddress.IPv4Address(text))
    except ValueError:
        return False


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(errors="replace").splitlines()
    except OSError:
        return []
