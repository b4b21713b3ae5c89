"""baresip, an independent user agent with a SIP stack and RTP of its own (libre, librem), led by its control socket."""

import asyncio
import contextlib
import json
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tests.peers import PeerMissing
from tests.peers.pbx import read_wav, sine, write_wav
from tests.peers.ports import free_block, free_port
from tests.wait import until

TONE_HZ = 800  # what it plays in every call, at -15 dBFS
_MODULES = Path("/usr/lib/baresip/modules")
_RTP_PORTS = 20

_CONFIG = """
poll_method epoll
sip_listen 127.0.0.1:{port}
net_interface 127.0.0.1
call_local_timeout 60
call_max_calls 4
audio_player aubridge,nil
audio_source aufile,{folder}/tone.wav
audio_alert aubridge,nil
rtp_ports {rtp}-{rtp_last}
jitter_buffer_delay 1-2
module_path {modules}
module g711.so
module aubridge.so
module aufile.so
module sndfile.so
module srtp.so
module uuid.so
module_app account.so
module_app menu.so
module_app ctrl_tcp.so
ctrl_tcp_listen 127.0.0.1:{control}
snd_path {folder}
"""


class Baresip:
    """``async with Baresip("phone", registrar=address, password=...) as phone:``; without a registrar it only listens.

    It answers by itself unless ``answers`` is False. ``events`` are its own, oldest first.
    """

    def __init__(
        self,
        user: str,
        *,
        registrar: str = "",
        password: str = "",
        answers: bool = True,
        parameters: Sequence[str] = (),
    ) -> None:
        self.user = user
        self.port = free_port()
        self.events: list[dict[str, Any]] = []
        self.folder = Path(tempfile.mkdtemp(prefix="baresip-"))
        self._control = free_port()
        self._rtp = free_block(_RTP_PORTS)
        self._registers = bool(registrar)
        more = [f"answermode={'auto' if answers else 'manual'}", f"regint={60 if registrar else 0}", *parameters]
        if registrar:
            more += [f"auth_user={user}", f"auth_pass={password}"]
        self._account = f"<sip:{user}@{registrar or f'127.0.0.1:{self.port}'}>;{';'.join(more)}\n"
        self._answers: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self._process: asyncio.subprocess.Process | None = None

    @property
    def uri(self) -> str:
        return f"sip:{self.user}@127.0.0.1:{self.port}"

    async def __aenter__(self) -> "Baresip":
        program = shutil.which("baresip")
        if program is None:
            raise PeerMissing("baresip is not installed: apt-get install baresip-core")
        write_wav(self.folder / "tone.wav", sine(TONE_HZ, 60, -15))
        (self.folder / "accounts").write_text(self._account)
        (self.folder / "contacts").touch()
        (self.folder / "config").write_text(
            _CONFIG.format(
                port=self.port,
                folder=self.folder,
                rtp=self._rtp,
                rtp_last=self._rtp + _RTP_PORTS - 1,
                modules=_MODULES,
                control=self._control,
            )
        )
        with (self.folder / "console.log").open("wb") as console:
            self._process = await asyncio.create_subprocess_exec(
                program, "-f", str(self.folder), "-v", stdin=asyncio.subprocess.DEVNULL, stdout=console, stderr=console
            )
        await self._connect()
        if self._registers:  # the event may have come before anybody listened
            await until(lambda: "binding]" in self.log(), "registration of baresip")
        return self

    async def __aexit__(self, failure: type[BaseException] | None, *_: object) -> None:
        assert self._process is not None
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
        self._writer.close()
        if self._process.returncode is None:
            self._process.terminate()  # it hangs up and takes its registration back
            try:
                async with asyncio.timeout(5):
                    await self._process.wait()
            except TimeoutError:
                self._process.kill()
                await self._process.wait()
        if failure is None:
            shutil.rmtree(self.folder, ignore_errors=True)

    async def command(self, name: str, parameters: str = "") -> str:
        """What it says to a command of its menu (`dial`, `hangup`, `hold`, `resume`, `transfer`, ...)."""
        text = json.dumps({"command": name, "params": parameters})
        self._writer.write(f"{len(text)}:{text},".encode())
        async with asyncio.timeout(20):
            answer = await self._answers.get()
        assert answer["ok"], answer
        return str(answer["data"])

    async def event(self, kind: str, *, since: int = 0, within_s: float = 30.0) -> dict[str, Any]:
        return await until(
            lambda: next((event for event in self.events[since:] if event["type"] == kind), None),
            f"{kind} of baresip",
            within_s,
        )

    def heard(self) -> NDArray[np.int16]:
        """All it has heard since it started, one call after the other."""
        parts = [read_wav(path) for path in sorted(self.folder.glob("dump-*-dec.wav"))]
        return np.concatenate(parts) if parts else np.zeros(0, np.int16)

    def log(self) -> str:
        return (self.folder / "console.log").read_text(errors="replace")

    async def _connect(self) -> None:
        for _ in range(100):
            with contextlib.suppress(OSError):
                self._reader, self._writer = await asyncio.open_connection("127.0.0.1", self._control)
                self._task = asyncio.create_task(self._read(), name="baresip")
                return
            await asyncio.sleep(0.05)
        raise AssertionError(f"baresip did not start:\n{self.log()[-2000:]}")

    async def _read(self) -> None:
        """Netstrings of JSON: events, and answers to commands."""
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                length = int((await self._reader.readuntil(b":"))[:-1])
                message = json.loads((await self._reader.readexactly(length + 1))[:-1])
                if "event" in message:
                    self.events.append(message)
                else:
                    await self._answers.put(message)
