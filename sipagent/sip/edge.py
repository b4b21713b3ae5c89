"""The edge: a Kamailio that owns the node's SIP address, started, watched and told about the lanes by main."""

import asyncio
import collections
import contextlib
import dataclasses
import errno
import glob
import itertools
import logging
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import msgspec

from sipagent.core.clock import mono_ns, now
from sipagent.core.errors import SetupError
from sipagent.core.events import EventSink, ProcessEnded, ProcessStarted
from sipagent.core.rate import RateLimit
from sipagent.sip import addresses, message
from sipagent.sip.edge_script import GROUP, RELEASE, Listen, Plan, Tls, configuration, destinations, tls_profiles
from sipagent.sip.scrub import scrubbed
from sipagent.sip.settings import SipSettings

log = logging.getLogger("sipagent.sip")

APT = "apt-get install kamailio kamailio-tls-modules"
SYSTEM_AUTHORITIES = "/etc/ssl/certs/ca-certificates.crt"
_LOOPBACK = "127.0.0.1"
_EVERY = ("", "0.0.0.0")
_START_S = 10.0
_STOP_S = 5.0
_REPLY_S = 1.0
_ASK_AGAIN_S = 0.05
_CHECK_S = 20.0
_FIRST_PAUSE_S, _LONGEST_PAUSE_S, _YOUNG_S = 0.1, 5.0, 5.0
_LONGEST_LOG = 65536  # bytes of an unfinished line
_LONGEST_PATH = 100  # of a Unix socket: sun_path has 108 bytes


class EdgeMissing(SetupError):
    """Kamailio is not installed."""


class Installation(msgspec.Struct, frozen=True):
    """Where Debian's packages put Kamailio."""

    program: str
    modules: str

    @classmethod
    def find(cls, *, tls: bool = False) -> "Installation":
        """Raises EdgeMissing with the line to type."""
        program = shutil.which("kamailio") or shutil.which("kamailio", path="/usr/sbin:/usr/local/sbin")
        folders = [*sorted(glob.glob("/usr/lib/*/kamailio/modules")), "/usr/lib64/kamailio/modules"]
        wanted = "tls.so" if tls else "dispatcher.so"
        modules = next((folder for folder in folders if os.path.exists(f"{folder}/{wanted}")), None)
        if program is None or modules is None:
            raise EdgeMissing(f"Kamailio is not installed ({APT})")
        return cls(program, modules)


def contact_towards(peer: str, settings: SipSettings, *, look_up: bool = True) -> str:
    """host:port, with the transport, that our Contact says to this peer (a SIP URI; "" is anyone).

    ``look_up``: which of our addresses the peer sees may be asked for; else it is the one most peers do.
    """
    far = message.parse_address(f"<{peer}>")
    if addresses.is_ipv6(far.host) and settings.host6:
        host = settings.host6 if settings.host6 != "::" else addresses.way_to(far.host)[1]
    else:
        own = settings.host if settings.host not in _EVERY else addresses.towards(far.host if look_up else "")
        host = settings.public_host or own
    transport = far.uri_params.get("transport", "").lower()
    if transport == "tls" or peer.lower().startswith("sips:"):
        return f"{addresses.with_port(host, settings.tls_port)};transport=tls"
    return addresses.with_port(host, settings.port) + (";transport=tcp" if transport == "tcp" else "")


def listens(settings: SipSettings) -> list[Listen]:
    """Every address of this machine that the settings name, for each transport."""
    hosts = addresses.ipv4() if settings.host in _EVERY else [settings.host]
    if settings.host6:
        hosts += addresses.ipv6() if settings.host6 == "::" else [settings.host6]
    found: list[Listen] = []
    for host in hosts:
        public = "" if host.startswith("127.") else settings.public_host
        advertised = f"{public}:{settings.port}" if public and ":" not in host else ""
        found.append(Listen("udp", host, settings.port, advertised))
        if settings.tcp:
            found.append(Listen("tcp", host, settings.port, advertised))
        if settings.tls_certificate:
            secure = f"{public}:{settings.tls_port}" if advertised else ""
            found.append(Listen("tls", host, settings.tls_port, secure))
    return found


def tls_of(settings: SipSettings) -> Tls | None:
    """None where the settings want no TLS. Raises SetupError about a file that cannot be read."""
    if not settings.tls_certificate:
        return None
    authorities = settings.tls_ca or SYSTEM_AUTHORITIES
    for name, file in (
        ("tls_certificate", settings.tls_certificate),
        ("tls_key", settings.tls_key),
        ("tls_ca", authorities),
    ):
        if not os.access(file, os.R_OK):
            raise SetupError(f"[sip] {name}: {file or 'no file'} cannot be read")
    return Tls(
        certificate=os.path.abspath(settings.tls_certificate),
        key=os.path.abspath(settings.tls_key),
        ca=os.path.abspath(authorities),
        clients_verified=settings.tls_clients == "verified",
    )


def write(plan: Plan, capacities: Mapping[str, int]) -> None:
    """The configuration and what belongs to it, readable by its owner alone."""
    plan.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    files = plan.files
    texts = {"config": configuration(plan), "list": destinations(capacities, plan.inside)}
    if plan.tls is not None:
        texts["tls"] = tls_profiles(plan.tls)
    for key, text in texts.items():
        files[key].write_text(text)


def check(installed: Installation, plan: Plan) -> None:
    """Has Kamailio read the configuration (`kamailio -c`). Raises SetupError with its first complaint."""
    command = [installed.program, "-c", "-f", str(plan.files["config"]), "-Y", str(plan.folder)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=_CHECK_S)  # noqa: S603
    if done.returncode != 0:
        complaints = [line for line in done.stderr.splitlines() if "ERROR" in line or "CRITICAL" in line]
        raise SetupError(f"Kamailio refuses its configuration: {(complaints or ['it does not say why'])[0].strip()}")


class Edge:
    """One Kamailio, kept alive."""

    def __init__(
        self, settings: SipSettings, events: EventSink, folder: Path | None = None, *, inside: str = ""
    ) -> None:
        """``inside``: host:port where lanes that are up already look for it. Raises EdgeMissing, and SetupError where
        the certificates cannot be read."""
        tls = tls_of(settings)
        self._installed = Installation.find(tls=tls is not None)
        self._settings = settings
        self._events = events
        self._temporary = folder is None or len(str(folder)) > _LONGEST_PATH - 10
        self._folder = Path(tempfile.mkdtemp(prefix="sipagent-edge-")) if self._temporary or not folder else folder
        self.inside = inside or f"{_LOOPBACK}:{_free_port()}"  # where the lanes find it
        self._plan = Plan(
            listens=listens(settings),
            inside=self.inside,
            fronts=settings.fronts,
            tls=tls,
            modules=self._installed.modules,
            folder=self._folder,
        )
        self._process: asyncio.subprocess.Process | None = None
        self.on_tls_trouble: Callable[[], None] = lambda: (
            None
        )  # a connection failed; who it was to, the log does not say
        self._trusted: frozenset[str] = frozenset()
        self._listed: dict[int, int] = {}  # lanes in the file, port to calls
        self._up: set[int] = set()
        self._draining = False
        self._closing = False
        self._keeper: asyncio.Task[None] | None = None
        self._lines = RateLimit(per_second=2)
        self._last_id = 0
        self._asking = asyncio.Lock()

    @property
    def pid(self) -> int:
        """0 while it is not up."""
        return self._process.pid if self._process is not None and self._process.returncode is None else 0

    async def start(self, lanes: Mapping[int, int], patience_s: float = 0.0) -> None:
        """``lanes``: calls that each takes, by port. ``patience_s``: for ports that an edge before us is about to
        leave. Returns when it answers. Raises SetupError."""
        self._listed, self._up = dict(lanes), set(lanes)
        self._write()
        await asyncio.to_thread(check, self._installed, self._plan)
        await wait_for_ports(self._plan.listens, patience_s)
        await self._spawn()
        self._keeper = asyncio.create_task(self._keep(), name="edge")

    async def set_lanes(self, lanes: Mapping[int, int]) -> None:
        """These lanes are up; calls go to no other."""
        new = {port: calls for port, calls in lanes.items() if self._listed.get(port) != calls}
        self._up = set(lanes)
        if new:
            # The list cannot be read again while calls are counted by it (dispatcher's own limit), so begin anew.
            self._listed = dict(lanes)
            self._write()
            self._terminate()
        elif self.pid:
            await self._tell_states()

    async def address_changed(self) -> None:
        """This machine's address is another now: what was bound by name of every interface is bound anew."""
        plan = dataclasses.replace(self._plan, listens=listens(self._settings))
        if list(plan.listens) != list(self._plan.listens):
            self._plan = plan
            self._write()
            self._terminate()

    def readdress(self, public_host: str) -> None:
        """From now on messages say this host in place of our own addresses. A running edge begins anew."""
        self._settings = msgspec.structs.replace(self._settings, public_host=public_host)
        self._plan = dataclasses.replace(self._plan, listens=listens(self._settings))
        if self.pid:
            self._write()
            self._terminate()

    async def trust(self, uris: frozenset[str]) -> None:
        """Requests of trunks go over TLS to these servers alone (`Server.uri`)."""
        before, self._trusted = self._trusted, uris
        if self.pid:
            await self._tell_trusted(uris - before, before - uris)

    async def release(self, call_ids: Iterable[str]) -> None:
        """These calls (SIP Call-IDs) ended with their lane: they no longer count."""
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
            sender.setblocking(False)
            sender.bind((_LOOPBACK, 0))
            host, port = self.inside.split(":")
            sender.connect((host, int(port)))
            for call_id in call_ids:
                if call_id and call_id.isprintable() and len(call_id) < 512:
                    with contextlib.suppress(OSError):
                        sender.send(_release(call_id, self.inside, sender.getsockname()[1]))

    async def drain(self) -> None:
        """New calls get 503 from now on, OPTIONS too."""
        self._draining = True
        await self._ask("htable.seti", ["node", "draining", 1])

    async def close(self) -> None:
        """May be called again."""
        self._closing = True
        if self._keeper is not None:
            self._keeper.cancel()
            await asyncio.gather(self._keeper, return_exceptions=True)
        process = self._process
        if process is not None and process.returncode is None:
            self._terminate()
            try:
                async with asyncio.timeout(_STOP_S):
                    await process.wait()
            except TimeoutError:
                _end_group(process.pid)
                await process.wait()
            _end_group(process.pid)
        if self._temporary:
            shutil.rmtree(self._folder, ignore_errors=True)

    # --- the process ----------------------------------------------------------------------------------------

    def _write(self) -> None:
        write(self._plan, {f"{_LOOPBACK}:{port}": calls for port, calls in sorted(self._listed.items())})

    async def _spawn(self) -> None:
        command = [self._installed.program, "-f", str(self._plan.files["config"]), "-DD", "-E", "-m", "64", "-M", "8"]
        command += ["-Y", str(self._folder), "-P", str(self._folder / "kamailio.pid"), "--atexit=no"]
        if (guard := shutil.which("setpriv")) is not None:  # it goes when main goes, however that goes
            command = [guard, "--pdeathsig", "TERM", "--", *command]
        self._plan.files["control"].unlink(missing_ok=True)
        # A pipe of ours: asyncio would wait for its end before it told of a death, and children hold it open.
        reading, writing = os.pipe()
        said: collections.deque[str] = collections.deque(maxlen=5)
        await asyncio.get_running_loop().connect_read_pipe(lambda: _Log(self._note, said), os.fdopen(reading, "rb"))
        try:
            process = await asyncio.create_subprocess_exec(
                *command,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.DEVNULL,
                stderr=writing,
                start_new_session=True,  # a group of its own; and Ctrl-C is main's: calls are yet to be ended
            )
        finally:
            os.close(writing)
        self._process = process
        try:
            async with asyncio.timeout(_START_S):
                for pause in itertools.repeat(_ASK_AGAIN_S):
                    if process.returncode is not None or await self._ask("core.uptime", []) is not None:
                        break
                    await asyncio.sleep(pause)
        except BaseException as error:
            _end_group(process.pid)
            if not isinstance(error, TimeoutError):
                raise
        if process.returncode is not None or not self.pid:
            await process.wait()
            raise SetupError(f"the edge (Kamailio) did not start: {said[-1] if said else 'it says nothing'}")
        await self._tell_states()
        await self._tell_trusted(self._trusted, frozenset())
        if self._draining:
            await self.drain()
        log.info("edge is up", extra={"pid": process.pid, "lanes": len(self._listed)})
        self._events.emit(ProcessStarted(at=now(), process="edge", pid=process.pid))

    def _note(self, line: str) -> None:
        if " ERROR: tls " in line:
            self.on_tls_trouble()
        if not self._closing and self._lines.admit(mono_ns()):
            log.warning("edge", extra={"line": line, "others": self._lines.take_suppressed()})

    async def _keep(self) -> None:
        pause = _FIRST_PAUSE_S
        while True:
            process = self._process
            assert process is not None
            born = mono_ns()
            status = await process.wait()
            _end_group(process.pid)
            self._events.emit(
                ProcessEnded(
                    at=now(), process="edge", pid=process.pid, reason=f"exit status {status}", calls_affected=0
                )
            )
            log.error("edge ended", extra={"pid": process.pid, "status": status})
            pause = _FIRST_PAUSE_S if (mono_ns() - born) / 1e9 > _YOUNG_S else min(pause * 2, _LONGEST_PAUSE_S)
            while True:
                await asyncio.sleep(pause)
                try:
                    await self._spawn()
                    break
                except (SetupError, OSError) as error:
                    log.error("no new edge yet", extra={"reason": str(error), "again_in_s": pause})
                    pause = min(pause * 2, _LONGEST_PAUSE_S)

    def _terminate(self) -> None:
        if self._process is not None and self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                self._process.terminate()

    # --- what it is told ------------------------------------------------------------------------------------

    async def _tell_states(self) -> None:
        for port in self._listed:
            state = "ap" if port in self._up else "ip"
            await self._ask("dispatcher.set_state", [state, GROUP, f"sip:{_LOOPBACK}:{port}"])

    async def _tell_trusted(self, new: frozenset[str], gone: frozenset[str]) -> None:
        for uri in new:
            await self._ask("htable.sets", ["trusted", uri, "1"])
        for uri in gone:
            await self._ask("htable.delete", ["trusted", uri])

    async def _ask(self, method: str, parameters: list[str | int]) -> Any:
        """Kamailio's answer to a JSON-RPC request; None when there was none in time, or an error."""
        async with self._asking:
            self._last_id += 1
            request = {"jsonrpc": "2.0", "method": method, "params": parameters, "id": self._last_id}
            ours = self._folder / f"main-{self._last_id % 4}"
            ours.unlink(missing_ok=True)
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as control:
                control.setblocking(False)
                try:
                    control.bind(str(ours))
                    control.connect(str(self._plan.files["control"]))
                    control.send(msgspec.json.encode(request))
                    async with asyncio.timeout(_REPLY_S):
                        reply = msgspec.json.decode(await asyncio.get_running_loop().sock_recv(control, 65536))
                except (OSError, TimeoutError, msgspec.DecodeError):
                    return None
                finally:
                    ours.unlink(missing_ok=True)
        if not isinstance(reply, dict) or "error" in reply:
            log.warning("edge refused a command", extra={"command": method})
            return None
        return reply.get("result", True)


class _Log(asyncio.Protocol):
    """Kamailio's log, line by line."""

    def __init__(self, note: Callable[[str], None], said: "collections.deque[str]") -> None:
        self._note = note
        self._said = said  # its last complaints
        self._rest = b""

    def data_received(self, data: bytes) -> None:
        *lines, self._rest = (self._rest + data)[-_LONGEST_LOG:].split(b"\n")
        for line in lines:
            text = scrubbed(line.decode("utf-8", "replace"))
            if " ERROR: " in text or "CRITICAL" in text:
                self._said.append(text)
            if text:
                self._note(text)


def _end_group(pid: int) -> None:
    """Its children outlive a killed Kamailio, and would go on reading its port."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(pid, signal.SIGKILL)


def _release(call_id: str, inside: str, port: int) -> bytes:
    return (
        f"{RELEASE} sip:{inside} SIP/2.0\r\n"
        f"Via: SIP/2.0/UDP {_LOOPBACK}:{port};branch=z9hG4bK{mono_ns():x}\r\n"
        f"From: <sip:main@{_LOOPBACK}>;tag={mono_ns():x}\r\nTo: <sip:edge@{_LOOPBACK}>\r\n"
        f"Call-ID: {call_id}\r\nCSeq: 1 {RELEASE}\r\nMax-Forwards: 5\r\nContent-Length: 0\r\n\r\n"
    ).encode()


async def wait_for_ports(listens: Iterable[Listen], patience_s: float) -> None:
    """Raises SetupError about a port that is still taken then, or an address that is not ours."""
    deadline = time.monotonic() + patience_s
    for listen in listens:
        while True:
            try:
                _may_bind(listen)
                break
            except SetupError:
                if time.monotonic() >= deadline:
                    raise
            await asyncio.sleep(_ASK_AGAIN_S)


def _may_bind(listen: Listen) -> None:
    """Raises SetupError about a port that is taken, or an address that is not ours."""
    family = socket.AF_INET6 if ":" in listen.host else socket.AF_INET
    stream = listen.transport != "udp"
    with socket.socket(family, socket.SOCK_STREAM if stream else socket.SOCK_DGRAM) as probe:
        if stream:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((listen.host, listen.port))
        except OSError as error:
            where = f"{listen.transport.upper()} port {listen.port} on {listen.host}"
            raise SetupError(
                f"{where} is taken by another program: stop it (find it with `ss -lntup 'sport = :{listen.port}'`) "
                "or set another port in [sip]"
                if error.errno == errno.EADDRINUSE
                else f"{where} cannot be bound: {error.strerror}; check `host` and `host6` in [sip]"
            ) from error


def _free_port() -> int:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.bind((_LOOPBACK, 0))
        return int(probe.getsockname()[1])
