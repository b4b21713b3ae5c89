"""A real Kamailio: registrar with digest authentication, and a proxy for calls to and from who is registered."""

import asyncio
import contextlib
import glob
import shutil
import socket
import tempfile
from pathlib import Path

from tests.peers import PeerMissing
from tests.peers.ports import free_port

PASSWORD = "secret"  # of every user
BLOCKED = "blocked"  # this user is told 403 whatever it says

_CONFIG = """#!KAMAILIO
debug=2
log_stderror=yes
children=1
tcp_children=1
listen=udp:{host}:{port}
listen=tcp:{host}:{port}
mpath="{modules}/"
loadmodule "kex.so"
loadmodule "sl.so"
loadmodule "tm.so"
loadmodule "pv.so"
loadmodule "rr.so"
loadmodule "maxfwd.so"
loadmodule "textops.so"
loadmodule "siputils.so"
loadmodule "xlog.so"
loadmodule "usrloc.so"
loadmodule "registrar.so"
loadmodule "auth.so"
modparam("usrloc", "db_mode", 0)
modparam("registrar", "max_expires", {expires})
modparam("registrar", "min_expires", 5)
modparam("auth", "nonce_expire", 20)
modparam("auth", "algorithm", "{algorithm}")
request_route {{
  if (is_method("OPTIONS")) {{ sl_send_reply("200", "OK"); exit; }}
  if (is_method("REGISTER")) {{
    xlog("L_WARN", "SAW REGISTER $tU expires=$hdr(Expires)\\n");
    if ($tU == "{blocked}") {{ sl_send_reply("403", "Forbidden"); exit; }}
    if (!pv_www_authenticate("$td", "{password}", "0")) {{ www_challenge("$td", "1"); exit; }}
    xlog("L_WARN", "SAVED REGISTER $tU expires=$hdr(Expires)\\n");
    save("location");
    exit;
  }}
  if (has_totag()) {{
    if (!loose_route() && is_method("ACK")) {{ t_check_trans(); }}
    t_relay();
    exit;
  }}
  if (is_method("CANCEL")) {{ t_relay(); exit; }}
  if (is_method("INVITE")) {{
    record_route();
    # Callers who claim to be one of ours prove it; SIPp ("sipp") plays the outside world.
    if ($fU != "sipp") {{
      if (!pv_proxy_authenticate("$fd", "{password}", "0")) {{ proxy_challenge("$fd", "1"); exit; }}
      consume_credentials();
    }}
    if ($hdr(X-Next-Hop) != $null) {{ $du = $hdr(X-Next-Hop); t_relay(); exit; }}
    if (!lookup("location")) {{ sl_send_reply("404", "Not Found"); exit; }}
    t_relay();
    exit;
  }}
  sl_send_reply("405", "Method Not Allowed");
}}
"""


class Kamailio:
    """``async with Kamailio() as registrar:`` listens on UDP and TCP; leases are cut to ``expires_s``."""

    def __init__(self, *, port: int = 0, expires_s: int = 12, host: str = "127.0.0.1", algorithm: str = "MD5") -> None:
        self.algorithm = algorithm  # of the digest: "MD5" or "SHA-256"
        self.host = host
        self.port = port or free_port()
        self.expires_s = expires_s
        self.folder = Path(tempfile.mkdtemp(prefix="kam-"))
        self._process: asyncio.subprocess.Process | None = None

    @property
    def address(self) -> str:
        return f"{self.host}:{self.port}"

    def log(self) -> str:
        path = self.folder / "kamailio.log"
        return path.read_text(errors="replace") if path.exists() else ""

    def registers(self, user: str, *, saved: bool = False) -> int:
        """How many REGISTERs of this user came (or were granted), since the first start."""
        return self.log().count(f"{'SAVED' if saved else 'SAW'} REGISTER {user} ")

    async def start(self) -> "Kamailio":
        program = shutil.which("kamailio") or shutil.which("kamailio", path="/usr/sbin")
        modules = sorted(glob.glob("/usr/lib/*/kamailio/modules"))
        if program is None or not modules:
            raise PeerMissing("Kamailio is not installed: apt-get install kamailio")
        config = self.folder / "kamailio.cfg"
        config.write_text(self._script(modules[0]))
        with (self.folder / "kamailio.log").open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                program,
                *("-f", str(config), "-DD", "-E", "-m", "32", "-M", "8"),
                *("-Y", str(self.folder), "-P", str(self.folder / "kamailio.pid")),
                cwd=self.folder,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        await self._answering()
        return self

    async def stop(self) -> None:
        """Ends it; `start` brings it back with an empty location table."""
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

    async def __aenter__(self) -> "Kamailio":
        return await self.start()

    async def __aexit__(self, *_: object) -> None:
        await self.stop()
        shutil.rmtree(self.folder, ignore_errors=True)

    def _script(self, modules: str) -> str:
        return _CONFIG.format(
            host=self.host,
            algorithm=self.algorithm,
            port=self.port,
            modules=modules,
            expires=self.expires_s,
            password=PASSWORD,
            blocked=BLOCKED,
        )

    async def _answering(self) -> None:
        probe = (
            f"OPTIONS sip:{self.address} SIP/2.0\r\n"
            f"Via: SIP/2.0/UDP {self.host}:{{port}};branch=z9hG4bKprobe;rport\r\n"
            "From: <sip:probe@127.0.0.1>;tag=1\r\nTo: <sip:probe@127.0.0.1>\r\n"
            "Call-ID: probe\r\nCSeq: 1 OPTIONS\r\nMax-Forwards: 5\r\nContent-Length: 0\r\n\r\n"
        )
        loop = asyncio.get_running_loop()
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            sock.setblocking(False)
            sock.bind((self.host, 0))
            message = probe.replace("{port}", str(sock.getsockname()[1])).encode()
            for _ in range(60):
                if self._process is None or self._process.returncode is not None:
                    break
                with contextlib.suppress(OSError, TimeoutError):
                    sock.sendto(message, (self.host, self.port))
                    async with asyncio.timeout(0.2):
                        await loop.sock_recv(sock, 4096)
                    return
                await asyncio.sleep(0.05)
        await self.stop()
        raise AssertionError(f"Kamailio did not start:\n{self.log()[-2000:]}")


_BALANCER = """#!KAMAILIO
debug=2
log_stderror=yes
children=1
tcp_children=1
listen=udp:127.0.0.1:{port}
mpath="{modules}/"
loadmodule "kex.so"
loadmodule "sl.so"
loadmodule "tm.so"
loadmodule "pv.so"
loadmodule "rr.so"
loadmodule "maxfwd.so"
loadmodule "textops.so"
loadmodule "siputils.so"
loadmodule "xlog.so"
loadmodule "dispatcher.so"
modparam("tm", "fr_timer", 1000)
modparam("dispatcher", "list_file", "{folder}/nodes.list")
modparam("dispatcher", "flags", 2)
modparam("dispatcher", "ds_ping_interval", 1)
modparam("dispatcher", "ds_probing_mode", 1)
modparam("dispatcher", "ds_probing_threshold", 1)
request_route {{
  if (is_method("OPTIONS")) {{ sl_send_reply("200", "OK"); exit; }}
  if (has_totag()) {{
    if (!loose_route() && is_method("ACK")) {{ t_check_trans(); }}
    t_relay();
    exit;
  }}
  if (is_method("CANCEL")) {{ t_relay(); exit; }}
  record_route();
  if (!ds_select_dst("1", "4")) {{ sl_send_reply("503", "Service Unavailable"); exit; }}
  t_on_failure("NEXT");
  t_relay();
}}
failure_route[NEXT] {{
  if (t_is_canceled()) exit;
  if (t_check_status("408|5[0-9][0-9]") && ds_next_dst()) {{ t_on_failure("NEXT"); t_relay(); }}
}}
"""


class Balancer(Kamailio):
    """Spreads calls over nodes in turn (dispatcher), and stays in the path of their dialogs."""

    def __init__(self, *nodes: str) -> None:
        super().__init__()
        (self.folder / "nodes.list").write_text("".join(f"1 sip:{node}\n" for node in nodes))

    def _script(self, modules: str) -> str:
        return _BALANCER.format(port=self.port, modules=modules, folder=self.folder)
