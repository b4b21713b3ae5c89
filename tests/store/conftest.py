import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from sipagent.store.engine import upgrade

from .postgres import PostgresServer

BOTH = ["sqlite", pytest.param("postgresql", marks=pytest.mark.peer)]


class Servers:
    """The PostgreSQL server of this test run, started when the first test wants it."""

    def __init__(self) -> None:
        self._postgres: PostgresServer | None = None
        self._count = 0

    @property
    def postgres(self) -> PostgresServer:
        if self._postgres is None:
            self._postgres = PostgresServer()
            upgrade(self._postgres.create("migrated"))
        return self._postgres

    @contextmanager
    def database(self, template: str = "template1") -> Iterator[str]:
        self._count += 1
        name = f"test_{self._count}"
        yield self.postgres.create(name, template)
        self.postgres.drop(name)

    def close(self) -> None:
        if self._postgres is not None:
            self._postgres.close()


@pytest.fixture(scope="session")
def servers() -> Iterator[Servers]:
    servers = Servers()
    yield servers
    servers.close()


@pytest.fixture(scope="session")
def migrated_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("migrated") / "sipagent.db"
    upgrade(f"sqlite:///{file}")
    return file


@pytest.fixture
def sqlite_url(tmp_path: Path, migrated_file: Path) -> str:
    return f"sqlite:///{shutil.copy(migrated_file, tmp_path)}"


@pytest.fixture
def postgres_url(servers: Servers) -> Iterator[str]:
    with servers.database("migrated") as url:
        yield url


@pytest.fixture(params=BOTH)
def empty_url(request: pytest.FixtureRequest, tmp_path: Path, servers: Servers) -> Iterator[str]:
    """A database without any table."""
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path / 'sipagent.db'}"
    else:
        with servers.database() as url:
            yield url


@pytest.fixture(params=BOTH)
def url(request: pytest.FixtureRequest) -> str:
    """A database with the present schema; every test that asks for it runs on both kinds."""
    found: str = request.getfixturevalue("sqlite_url" if request.param == "sqlite" else "postgres_url")
    return found
