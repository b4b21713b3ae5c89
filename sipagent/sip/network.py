"""Which address of this machine a trunk sees, and when that has changed. The decision is pure; the watch is Linux's."""

import asyncio
import contextlib
import socket
from collections.abc import Callable

_LINK, _ADDRESS, _ROUTE = 1, 0x10, 0x40  # multicast groups of rtnetlink(7)


class AddressWatch:
    """Remembers our address towards each trunk.

    >>> watch = AddressWatch()
    >>> watch.changed("pbx", "192.0.2.7"), watch.changed("pbx", ""), watch.changed("pbx", "192.0.2.7")
    (False, False, True)
    """

    def __init__(self) -> None:
        self._known: dict[str, str] = {}
        self._cut_off: set[str] = set()

    def changed(self, trunk: str, address: str) -> bool:
        """Whether our address towards this trunk is new; ``""``: there is no way to it at the moment.

        A way that is back after none was there counts too: what the far side remembers of us may be gone.
        """
        if not address:
            if trunk in self._known:
                self._cut_off.add(trunk)
            return False
        before = self._known.get(trunk)
        was_cut_off = trunk in self._cut_off
        self._known[trunk] = address
        self._cut_off.discard(trunk)
        return was_cut_off or (before is not None and before != address)

    def forget(self, trunk: str) -> None:
        self._known.pop(trunk, None)
        self._cut_off.discard(trunk)


def source_address(host: str) -> str:
    """Our address as packets to this address would bear it; "" when there is no route. Sends nothing."""
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect((host, 9))
            return str(probe.getsockname()[0])
        except OSError:
            return ""


def on_network_change(tell: Callable[[], None]) -> Callable[[], None]:
    """Calls ``tell`` when links, addresses or routes change; returns the function that ends it.

    Without netlink (not Linux, or not allowed) nothing is told: the addresses are looked at every few seconds anyway.
    """
    try:
        netlink = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE)
        netlink.setblocking(False)
        netlink.bind((0, _LINK | _ADDRESS | _ROUTE))
    except (AttributeError, OSError):
        return lambda: None
    loop = asyncio.get_running_loop()

    def read() -> None:
        with contextlib.suppress(OSError):  # also when messages were lost: that there were some is all we need
            while netlink.recv(65536):
                pass
        tell()

    loop.add_reader(netlink.fileno(), read)

    def end() -> None:
        loop.remove_reader(netlink.fileno())
        netlink.close()

    return end
