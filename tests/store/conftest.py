from collections.abc import Iterator
from pathlib import Path

import pytest

from sipagent.store.engine import upgrade

from .postgres import PostgresServer


class Servers:
    """The PostgreSQL server of this test run, started when the first test wants it."""

    def __init__(self) -> None:
        self._postgres: PostgresServer | None = None
        self._count = 0

    @property
    def postgres(self) -> PostgresServer:
        if self._postgres is None:
            self._postgres = PostgresServer()
        return self._postgres

    def new_database(self) -> tuple[str, str]:
        self._count += 1
        name = f"test_{self._count}"
        return name, self.postgres.create(name)

    def close(self) -> None:
        if self._postgres is not None:
            self._postgres.close()


@pytest.fixture(scope="session")
def servers() -> Iterator[Servers]:
    servers = Servers()
    yield servers
    servers.close()


@pytest.fixture
def sqlite_url(tmp_path: Path) -> str:
    url = f"sqlite:///{tmp_path / 'sipagent.db'}"
    upgrade(url)
    return url


@pytest.fixture
def postgres_url(servers: Servers) -> Iterator[str]:
    name, url = servers.new_database()
    upgrade(url)
    yield url
    servers.postgres.drop(name)


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.peer)])
def empty_url(request: pytest.FixtureRequest, tmp_path: Path, servers: Servers) -> Iterator[str]:
    """A database without any table."""
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path / 'sipagent.db'}"
    else:
        name, url = servers.new_database()
        yield url
        servers.postgres.drop(name)


@pytest.fixture
def url(empty_url: str) -> str:
    """A database with the present schema; every test that asks for it runs on both kinds."""
    upgrade(empty_url)
    return empty_url
