"""Certificates for the tests, made by openssl."""

import shutil
import subprocess
from pathlib import Path

from tests.peers import PeerMissing


class Papers:
    """An authority of our own and certificates by it for this machine, `edge` and `pbx`; and one of a `stranger`.

    Nor are good, though the authority's: `other` for another host, and `expired`.
    """

    def __init__(self, folder: Path) -> None:
        if shutil.which("openssl") is None:
            raise PeerMissing("openssl is not installed: apt-get install openssl")
        self.folder = folder
        self._make("authority", "-x509", "-days", "2")
        self._make("stranger", "-x509", "-days", "2")
        for name in ("edge", "pbx"):
            self._sign(name, "DNS:localhost,IP:127.0.0.1")
        self._sign("other", "DNS:carrier.example")
        self._sign("expired", "DNS:localhost", ended=True)

    def certificate(self, name: str) -> str:
        return str(self.folder / f"{name}.pem")

    def key(self, name: str) -> str:
        return str(self.folder / f"{name}.key")

    def _sign(self, name: str, names: str, *, ended: bool = False) -> None:
        """`openssl req` makes no certificate that has ended, `openssl x509` takes a negative number of days."""
        signed = ("-CA", self.certificate("authority"), "-CAkey", self.key("authority"))
        extension = f"subjectAltName={names}"
        if not ended:
            self._make(name, *signed, "-x509", "-days", "2", "-addext", extension)
            return
        self._make(name, "-addext", extension)
        command = ["openssl", "x509", "-req", "-in", self.certificate(name), *signed, "-days", "-1", "-copy_extensions"]
        done = subprocess.run([*command, "copy"], check=True, capture_output=True)
        Path(self.certificate(name)).write_bytes(done.stdout)

    def _make(self, name: str, *args: str) -> None:
        subprocess.run(
            ["openssl", "req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-subj"]
            + [f"/CN={name}", "-keyout", self.key(name), "-out", self.certificate(name), *args],
            check=True,
            capture_output=True,
        )
