"""Certificates for the tests, made by openssl."""

import shutil
import subprocess
from pathlib import Path

from tests.peers import PeerMissing


class Papers:
    """An authority of our own and certificates by it for this machine, `edge` and `pbx`; and one of a `stranger`."""

    def __init__(self, folder: Path) -> None:
        if shutil.which("openssl") is None:
            raise PeerMissing("openssl is not installed: apt-get install openssl")
        self.folder = folder
        self._make("authority", "-x509", "-days", "2")
        self._make("stranger", "-x509", "-days", "2")
        for name in ("edge", "pbx"):
            self._make(
                name,
                *("-CA", self.certificate("authority"), "-CAkey", self.key("authority"), "-x509", "-days", "2"),
                *("-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"),
            )

    def certificate(self, name: str) -> str:
        return str(self.folder / f"{name}.pem")

    def key(self, name: str) -> str:
        return str(self.folder / f"{name}.key")

    def _make(self, name: str, *args: str) -> None:
        subprocess.run(
            ["openssl", "req", "-newkey", "rsa:2048", "-nodes", "-subj", f"/CN={name}", "-keyout", self.key(name)]
            + ["-out", self.certificate(name), *args],
            check=True,
            capture_output=True,
        )
