"""A real NAT: three network namespaces of this machine, the middle one masquerading as routers do (nftables).

    inside 10.99.1.2 ── 10.99.1.1 [nat] 198.51.100.1 ── 198.51.100.2 outside

`with NatNetwork() as net:` makes them, `with net.inside():` moves the calling thread into one: sockets and processes
made there are of it. Nothing of it reaches another network.
"""

import contextlib
import ctypes
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

from tests.peers import PeerMissing

NEXT_INSIDE = "10.99.1.3"
INSIDE, OUTSIDE = "10.99.1.2", "198.51.100.2"
PUBLIC, NEXT_PUBLIC = "198.51.100.1", "198.51.100.9"
GATEWAY = "10.99.1.1"
_CLONE_NEWNET = 0x40000000
_RULES = 'table ip nat { chain out { type nat hook postrouting priority 100; oif "wan" masquerade; }; }'


class NatNetwork:
    def __init__(self) -> None:
        self._names = {part: f"sipagent-{part}-{os.getpid()}" for part in ("in", "nat", "out")}
        self._home = -1

    def __enter__(self) -> "NatNetwork":
        for program in ("ip", "nft"):
            if shutil.which(program, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin") is None:
                raise PeerMissing(f"{program} is not installed: apt-get install iproute2 nftables")
        if os.geteuid() != 0:
            raise PeerMissing("a NAT is made of network namespaces, which needs root: sudo make test")
        self._home = os.open("/proc/self/ns/net", os.O_RDONLY)
        try:
            self._build()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        _set_namespace(self._home)
        for name in self._names.values():
            subprocess.run(["ip", "netns", "del", name], capture_output=True)
        os.close(self._home)

    def inside(self) -> contextlib.AbstractContextManager[None]:
        return self._within("in")

    def outside(self) -> contextlib.AbstractContextManager[None]:
        return self._within("out")

    def gateway(self) -> contextlib.AbstractContextManager[None]:
        """On the router: its lan side is GATEWAY, and sees the inside as it is."""
        return self._within("nat")

    def move_inside(self) -> None:
        """The inside gets another address of its own."""
        self._ip("in", "addr", "add", f"{NEXT_INSIDE}/24", "dev", "eth0")
        self._ip("in", "addr", "del", f"{INSIDE}/24", "dev", "eth0")
        with contextlib.suppress(subprocess.CalledProcessError, PeerMissing):  # gone with the other, as a secondary one
            self._ip("in", "addr", "add", f"{NEXT_INSIDE}/24", "dev", "eth0")
        with contextlib.suppress(PeerMissing):
            self._ip("in", "route", "add", "default", "via", GATEWAY)

    def move(self) -> None:
        """The router gets another public address, and forgets what it had mapped."""
        self._ip("nat", "addr", "add", f"{NEXT_PUBLIC}/24", "dev", "wan")
        self._ip("nat", "addr", "del", f"{PUBLIC}/24", "dev", "wan")
        with contextlib.suppress(subprocess.CalledProcessError):  # gone with the address already, as a secondary one
            self._ip("nat", "addr", "add", f"{NEXT_PUBLIC}/24", "dev", "wan")

    @contextlib.contextmanager
    def _within(self, part: str) -> Iterator[None]:
        before = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
        target = os.open(f"/var/run/netns/{self._names[part]}", os.O_RDONLY)
        try:
            _set_namespace(target)
            yield
        finally:
            _set_namespace(before)
            os.close(target)
            os.close(before)

    def _build(self) -> None:
        for name in self._names.values():
            _run("ip", "netns", "add", name)
        names = self._names
        _run(*f"ip link add eth0 netns {names['in']} type veth peer name lan netns {names['nat']}".split())
        _run(*f"ip link add wan netns {names['nat']} type veth peer name eth0 netns {names['out']}".split())
        for part, device, address in (
            ("in", "eth0", INSIDE),
            ("nat", "lan", GATEWAY),
            ("nat", "wan", PUBLIC),
            ("out", "eth0", OUTSIDE),
        ):
            self._ip(part, "addr", "add", f"{address}/24", "dev", device)
            self._ip(part, "link", "set", device, "up")
            self._ip(part, "link", "set", "lo", "up")
        self._ip("in", "route", "add", "default", "via", GATEWAY)
        with self._within("nat"):
            Path("/proc/sys/net/ipv4/ip_forward").write_text("1")
            _run("nft", _RULES)

    def _ip(self, part: str, *arguments: str) -> None:
        _run("ip", "-n", self._names[part], *arguments)


def _set_namespace(descriptor: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.setns(descriptor, _CLONE_NEWNET):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def _run(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        denied = "Operation not permitted" in done.stderr
        hint = ": this container needs CAP_NET_ADMIN and CAP_SYS_ADMIN" if denied else ""
        raise PeerMissing(f"a NAT cannot be made here ({' '.join(command)}: {done.stderr.strip()}){hint}")
