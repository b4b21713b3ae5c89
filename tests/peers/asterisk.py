"""A real Asterisk, with digest endpoints, a few extensions, its console and its own call records.

Where the machine's release has no Asterisk package (Debian 12), the packages of a Debian release that has it are
fetched with the machine's own apt from the machine's own mirror and unpacked into a cache folder: nothing is
installed, no root is needed, and the programs run by the unpacked dynamic loader. 82 MB, about 15 s, once.
The folder is `.cache/asterisk` of the repository, or under $SIPAGENT_TEST_CACHE.
"""

import asyncio
import contextlib
import csv
import fcntl
import os
import re
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

from tests.peers import PeerMissing
from tests.peers.ports import free_block, free_port

USER, PASSWORD = "sipagent", "s3cret"
RELEASE = "sid"  # the Debian release that has Asterisk
_ARCHIVE_KEYS = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
_FETCH_S = 240
_RTP_PORTS = 40

_MODULES = """
pbx_config app_dial app_echo app_playback app_verbose app_stack app_senddtmf app_read app_originate
bridge_simple bridge_native_rtp bridge_softmix bridge_builtin_features
cdr_csv chan_pjsip codec_alaw codec_ulaw codec_gsm codec_resample format_gsm format_pcm format_wav
func_callerid func_channel func_cdr func_logic res_clioriginate res_rtp_asterisk res_sorcery_astdb res_sorcery_config
res_sorcery_memory res_sorcery_memory_cache res_pjproject res_pjsip res_pjsip_authenticator_digest
res_pjsip_caller_id res_pjsip_dtmf_info res_pjsip_endpoint_identifier_ip res_pjsip_endpoint_identifier_user
res_pjsip_logger res_pjsip_nat res_pjsip_outbound_authenticator_digest res_pjsip_outbound_registration
res_pjsip_path res_pjsip_pubsub res_pjsip_refer res_pjsip_registrar res_pjsip_rfc3326 res_pjsip_sdp_rtp
res_pjsip_session res_pjsip_diversion res_pjsip_header_funcs res_timing_timerfd
""".split()


@dataclass(frozen=True, slots=True)
class Installation:
    """Where Asterisk is and how its program is started."""

    command: tuple[str, ...]
    modules: Path
    share: Path


def installation() -> Installation:
    """The machine's own Asterisk, or the unpacked one, which is fetched first if need be."""
    own = shutil.which("asterisk") or shutil.which("asterisk", path="/usr/sbin")
    if own is not None:
        found = sorted(Path("/usr/lib").glob("*/asterisk/modules")) or [Path("/usr/lib/asterisk/modules")]
        return Installation((own,), found[0], Path("/usr/share/asterisk"))
    base = os.environ.get("SIPAGENT_TEST_CACHE")
    cache = Path(base) if base else Path(__file__).resolve().parents[2] / ".cache"
    cache.mkdir(parents=True, exist_ok=True)
    root = cache / "asterisk"
    # Two test runs may want it at once: the second waits for the first's.
    with (cache / "asterisk.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (root / "usr/sbin/asterisk").exists():
            _fetch(root)
    (loader,) = sorted(root.glob("usr/lib*/ld-linux-*.so.*")) or sorted(root.glob("usr/lib/*/ld-linux-*.so.*"))[:1]
    (modules,) = sorted(root.glob("usr/lib/*/asterisk/modules"))
    libraries = modules.parent.parent
    return Installation(
        (str(loader), "--library-path", str(libraries), str(root / "usr/sbin/asterisk")),
        modules,
        root / "usr/share/asterisk",
    )


def _fetch(root: Path) -> None:
    for program in ("apt-get", "dpkg-deb"):
        if shutil.which(program) is None:
            raise PeerMissing(f"Asterisk is not installed and {program} is not there to fetch it: install asterisk")
    keys = f"[signed-by={_ARCHIVE_KEYS}] " if _ARCHIVE_KEYS.exists() else ""
    work = Path(tempfile.mkdtemp(prefix="asterisk-fetch-", dir=root.parent))
    try:
        for name in ("lists/partial", "archives/partial", "root"):
            (work / name).mkdir(parents=True)
        (work / "status").touch()  # as if nothing were installed: every dependency is fetched
        (work / "sources.list").write_text(f"deb {keys}{_debian_mirror()} {RELEASE} main\n")
        options = {
            "Dir::State::lists": work / "lists",
            "Dir::State::status": work / "status",
            "Dir::Cache": work,
            "Dir::Cache::archives": work / "archives",
            "Dir::Etc::sourcelist": work / "sources.list",
            "Dir::Etc::sourceparts": "/dev/null",
            "Dir::Etc::preferences": "/dev/null",
            "Dir::Etc::preferencesparts": "/dev/null",
            "APT::Install-Recommends": "false",
            "APT::Sandbox::User": "",  # the folder is ours, not _apt's
            "Acquire::Languages": "none",
            "Debug::NoLocking": "true",
        }
        apt = ["apt-get", "-q", *(word for key, value in options.items() for word in ("-o", f"{key}={value}"))]
        _run([*apt, "update"])
        _run([*apt, "-y", "--download-only", "install", "asterisk"])
        for package in sorted((work / "archives").glob("*.deb")):
            _run(["dpkg-deb", "-x", str(package), str(work / "root")])
        if not (work / "root/usr/sbin/asterisk").exists():
            raise PeerMissing(f"the asterisk package of Debian {RELEASE} brought no program: install asterisk")
        shutil.rmtree(root, ignore_errors=True)
        (work / "root").rename(root)
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _run(command: list[str]) -> None:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_FETCH_S)
    except subprocess.TimeoutExpired as error:
        raise PeerMissing(f"fetching Asterisk took longer than {_FETCH_S} s: install asterisk") from error
    if done.returncode:
        last = (done.stderr or done.stdout).strip().splitlines()[-1:]
        raise PeerMissing(f"Asterisk could not be fetched ({command[0]}: {' '.join(last)}): install asterisk")


def _debian_mirror() -> str:
    """The address of the machine's own Debian archive, from apt's sources in either format (sources.list(5))."""
    folder = Path("/etc/apt")
    for path in sorted(folder.glob("sources.list.d/*.sources")):
        for stanza in re.split(r"\n\s*\n", path.read_text()):
            fields = dict(re.findall(r"^([A-Za-z-]+):[ \t]*(.*)$", stanza, re.MULTILINE))
            for address in fields.get("URIs", "").split():
                if _is_debian(address, fields.get("Components", "")):
                    return str(address)
    for path in [folder / "sources.list", *sorted(folder.glob("sources.list.d/*.list"))]:
        for line in path.read_text().splitlines() if path.exists() else []:
            found = re.match(r"deb\s+(?:\[[^]]*\]\s+)?(\S+)\s+(\S+)\s+(.*)", line)
            if found and _is_debian(found[1], found[3]):
                return found[1]
    raise PeerMissing("Asterisk is not installed and apt knows no Debian archive to fetch it from: install asterisk")


def _is_debian(address: str, components: str) -> bool:
    return "main" in components.split() and address.rstrip("/").endswith("/debian")


class Asterisk:
    """``async with Asterisk() as pbx:`` SIP over UDP and TCP on ``pbx.port``; everything on 127.0.0.1.

    Endpoint `sipagent` registers (digest) and calls with USER/PASSWORD. Extensions for its calls: ``echo``,
    ``prompt`` (answers, plays a prompt of 1 to 2 s, hangs up), ``hangup`` (answers, waits 1 s, hangs up),
    ``busy``, ``ring`` (rings and never answers), ``agent`` (calls the registered contact).
    """

    def __init__(self, *, port: int = 0) -> None:
        self.port = port or free_port()
        self.rtp_port = free_block(_RTP_PORTS)
        self.folder = Path(tempfile.mkdtemp(prefix="ast-"))
        self._installation: Installation | None = None
        self._process: asyncio.subprocess.Process | None = None

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    async def start(self) -> "Asterisk":
        self._installation = await asyncio.to_thread(installation)
        self._configure(self._installation)
        with (self.folder / "console.log").open("wb") as console:
            self._process = await asyncio.create_subprocess_exec(
                *self._installation.command,
                *("-f", "-C", str(self.folder / "asterisk.conf")),
                cwd=self.folder,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=console,
                stderr=console,
            )
        for _ in range(200):
            if self._process.returncode is not None:
                break
            with contextlib.suppress(RuntimeError):
                await self.cli("core waitfullybooted")
                return self
            await asyncio.sleep(0.1)
        await self.stop()
        raise AssertionError(f"Asterisk did not start:\n{self.log()[-3000:]}")

    async def cli(self, command: str) -> str:
        """One command of Asterisk's console; raises RuntimeError when it is unknown or Asterisk not reachable."""
        assert self._installation is not None
        process = await asyncio.create_subprocess_exec(
            *self._installation.command,
            *("-C", str(self.folder / "asterisk.conf"), "-rx", command),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        output, _ = await process.communicate()
        if process.returncode or output.startswith(b"No such command"):
            raise RuntimeError(output.decode(errors="replace"))
        return output.decode(errors="replace")

    async def call_agent(self, application: str = "Echo") -> None:
        """Asterisk calls the contact that sipagent has registered, and runs the application once it is answered."""
        await self.cli(f"channel originate PJSIP/{USER} application {application}")

    def cdrs(self) -> list[dict[str, str]]:
        """Asterisk's own call records, oldest first."""
        path = self.folder / "log/cdr-csv/Master.csv"
        names = (
            "accountcode src dst dcontext clid channel dstchannel lastapp lastdata start answer end duration billsec "
            "disposition amaflags uniqueid"
        ).split()
        if not path.exists():
            return []
        with path.open(newline="") as file:
            return [dict(zip(names, row, strict=False)) for row in csv.reader(file)]

    def log(self) -> str:
        paths = [self.folder / "console.log", self.folder / "log/full.log"]
        return "".join(path.read_text(errors="replace") for path in paths if path.exists())

    async def stop(self) -> None:
        process = self._process
        if process is None or process.returncode is not None:
            return
        process.terminate()
        try:
            async with asyncio.timeout(5):
                await process.wait()
        except TimeoutError:
            process.kill()
            await process.wait()

    async def __aenter__(self) -> "Asterisk":
        return await self.start()

    async def __aexit__(self, *_: object) -> None:
        await self.stop()
        shutil.rmtree(self.folder, ignore_errors=True)

    def _configure(self, found: Installation) -> None:
        etc, data = self.folder / "etc", self.folder / "data"
        for path in (etc, data / "sounds", self.folder / "log/cdr-csv", self.folder / "spool", self.folder / "run"):
            path.mkdir(parents=True, exist_ok=True)
        (data / "documentation").symlink_to(found.share / "documentation")
        # The language's folder is a link that the package's installation makes; here the folder behind it is named.
        voices = [*sorted(found.share.glob("sounds/en_US*")), Path("/usr/share/asterisk/sounds/en")]
        (data / "sounds/en").symlink_to(voices[0])
        available = {path.stem for path in found.modules.glob("*.so")}
        files = {
            "modules.conf": "[modules]\nautoload=no\n"
            + "".join(f"load={name}.so\n" for name in _MODULES if name in available),
            "logger.conf": "[general]\n[logfiles]\nfull.log => notice,warning,error,verbose\n",
            "cdr.conf": "[general]\nenable=yes\nunanswered=yes\n[csv]\nusegmtime=yes\nloguniqueid=yes\n",
            "rtp.conf": f"[general]\nrtpstart={self.rtp_port}\nrtpend={self.rtp_port + _RTP_PORTS - 1}\n",
            "pjproject.conf": "",
            "pjsip.conf": _PJSIP.format(port=self.port, user=USER, password=PASSWORD),
            "extensions.conf": _EXTENSIONS.format(user=USER),
        }
        for name, text in files.items():
            (etc / name).write_text(text)
        (self.folder / "asterisk.conf").write_text(
            "[directories]\n"
            f"astetcdir => {etc}\nastmoddir => {found.modules}\nastvarlibdir => {self.folder}\n"
            f"astdbdir => {self.folder}\nastkeydir => {self.folder}\nastdatadir => {data}\n"
            f"astagidir => {self.folder}\nastspooldir => {self.folder / 'spool'}\nastrundir => {self.folder / 'run'}\n"
            f"astlogdir => {self.folder / 'log'}\nastsbindir => {self.folder}\n"
            "[options]\nverbose = 3\nhideconnect = yes\n"
        )


_PJSIP = """
[global]
type=global
user_agent=Asterisk

[udp]
type=transport
protocol=udp
bind=127.0.0.1:{port}

[tcp]
type=transport
protocol=tcp
bind=127.0.0.1:{port}

[{user}]
type=endpoint
context=from-sipagent
disallow=all
allow=ulaw,alaw
auth={user}
aors={user}
direct_media=no
dtmf_mode=rfc4733

[{user}]
type=auth
auth_type=userpass
username={user}
password={password}

[{user}]
type=aor
max_contacts=1
remove_existing=yes
minimum_expiration=10
default_expiration=60
maximum_expiration=60
"""

_EXTENSIONS = """
[from-sipagent]
exten => echo,1,Answer()
 same => n,Echo()
exten => prompt,1,Answer()
 same => n,Playback(hello-world)
 same => n,Hangup()
exten => hangup,1,Answer()
 same => n,Wait(1)
 same => n,Hangup()
exten => busy,1,Hangup(17)
exten => ring,1,Ringing()
 same => n,Wait(60)
exten => agent,1,Dial(PJSIP/{user},30)
"""
