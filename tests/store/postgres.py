"""A PostgreSQL server of the test's own, from Debian's package."""

import importlib.util
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sipagent.core.ipc import die_with_parent

INSTALL = "PostgreSQL is missing: apt-get install postgresql (and pip install 'sipagent[postgres]')"


class PostgresServer:
    """Runs in a folder of its own, reachable only through a socket in it, and goes with the tests."""

    def __init__(self) -> None:
        if importlib.util.find_spec("psycopg") is None:
            raise AssertionError(INSTALL)
        self._bin = _server_programs()
        # not pytest's tmp_path: a socket's path may have 107 characters, and the server's user must get there
        self.dir = Path(tempfile.mkdtemp(prefix="sipagent-pg-"))
        user: dict[str, object] = {}
        if os.geteuid() == 0:  # the server refuses to run as root
            shutil.chown(self.dir, "postgres", "postgres")
            user = {"user": "postgres", "group": "postgres", "extra_groups": []}
        data = self.dir / "data"
        made = subprocess.run(
            [self._bin / "initdb", "-D", data, "-U", "sipagent", "-A", "trust", "-E", "UTF8", "--no-sync"],
            cwd=self.dir,
            capture_output=True,
            text=True,
            **user,  # type: ignore[call-overload]
        )
        assert made.returncode == 0, made.stderr
        self._log = (self.dir / "log").open("w+")
        self._process = subprocess.Popen(
            [self._bin / "postgres", "-D", data, "-k", self.dir, "-c", "listen_addresses=", "-c", "fsync=off"],
            cwd=self.dir,
            stdout=self._log,
            stderr=self._log,
            preexec_fn=die_with_parent,
            **user,  # type: ignore[call-overload]
        )
        self._wait_until_ready()

    def url(self, database: str = "postgres") -> str:
        return f"postgresql://sipagent@/{database}?host={self.dir}"

    def create(self, database: str, template: str = "template1") -> str:
        """A new database like the template; returns its URL."""
        self.admin(f'CREATE DATABASE "{database}" TEMPLATE "{template}"')
        return self.url(database)

    def drop(self, database: str) -> None:
        self.admin(f'DROP DATABASE "{database}" WITH (FORCE)')

    def disconnect_all(self, database: str) -> None:
        """What a restart of the server looks like to its clients."""
        self.admin(f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{database}'")

    @contextmanager
    def standing_still(self, url: str) -> Iterator[None]:
        """The sessions of the database do not move, as on a disk that hangs; neither do new ones."""
        database = url.partition("@/")[2].partition("?")[0]
        found = self.admin(f"SELECT pid FROM pg_stat_activity WHERE datname = '{database}'")
        stopped = [self._process.pid, *(pid for (pid,) in found)]
        for pid in stopped:
            os.kill(pid, signal.SIGSTOP)
        try:
            yield
        finally:
            for pid in stopped:
                os.kill(pid, signal.SIGCONT)

    def close(self) -> None:
        self._process.send_signal(signal.SIGINT)  # "fast" shutdown
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._log.close()
        shutil.rmtree(self.dir)

    def admin(self, statement: str, database: str = "postgres") -> list[Any]:
        """Run it as the owner of everything; returns the rows, if there are any."""
        import psycopg

        with psycopg.connect(self.url(database), autocommit=True) as connection:
            cursor = connection.execute(statement.encode())
            return cursor.fetchall() if cursor.description else []

    def _wait_until_ready(self) -> None:
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline:
            if self._process.poll() is not None:
                break
            ready = subprocess.run([self._bin / "pg_isready", "-q", "-h", self.dir], cwd=self.dir)
            if ready.returncode == 0:
                return
            time.sleep(0.05)
        self._log.seek(0)
        raise AssertionError(f"PostgreSQL did not start: {self._log.read()}")


def _server_programs() -> Path:
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: int(path.parts[-3]))
    if found:
        return found[-1].parent
    on_path = shutil.which("initdb")
    if on_path is None:
        raise AssertionError(INSTALL)
    return Path(on_path).parent
