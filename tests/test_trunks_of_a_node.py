"""A node without its planes: trunks of the configuration and of the API together, and a start without a database."""

import asyncio
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import msgspec
import pytest

from sipagent import app
from sipagent.app import HAD_TRUNKS, Node
from sipagent.config import Config
from sipagent.core.errors import SetupError
from sipagent.sip.settings import TrunkSettings
from sipagent.sip.trunk_changes import TrunkChanges
from sipagent.sip.trunks import Trunks
from sipagent.store.records import RecordUnavailable

OURS, MADE, LATER = (TrunkSettings(name=name, peers=["192.0.2.7"]) for name in ("ours", "made", "later"))


class Followed:
    """In place of the planes that follow."""

    def __init__(self) -> None:
        self.registered: list[list[str]] = []
        self.fails = False

    async def look_up(self, _changes: TrunkChanges) -> None:
        if self.fails:
            raise RuntimeError("a look-up that ends as nobody thought of")

    def leave(self, _trunks: Sequence[TrunkSettings]) -> None: ...

    async def follow(self, trunks: Sequence[TrunkSettings]) -> None:
        self.registered.append([trunk.name for trunk in trunks])

    async def configure(self, _fixed: object) -> None: ...


@pytest.fixture
def followed() -> Followed:
    return Followed()


@pytest.fixture
def node(tmp_path: Path, followed: Followed) -> Node:
    node = Node(Config(), tmp_path)
    other = cast(Any, node)
    other.registry = SimpleNamespace(trunks=Trunks([]), dialplans=[])
    other.registrar = followed
    other.trunks = SimpleNamespace(follow=followed.look_up)
    other.resources = followed
    other._configured = lambda: None
    return node


async def test_a_look_up_that_fails_leaves_no_registration_behind(node: Node, followed: Followed) -> None:
    node.more_trunks = lambda: [MADE]
    followed.fails = True
    with pytest.raises(RuntimeError):
        await node.apply_trunks()
    assert followed.registered == [["made"]]


async def test_a_trunk_that_is_made_while_dialplans_are_prepared_stays(
    node: Node, followed: Followed, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = [MADE]
    node.more_trunks = lambda: made

    async def prepare(_dialplans: object) -> None:
        made.append(LATER)
        await node.apply_trunks()

    monkeypatch.setattr(node, "_prepare_dialplans", prepare)
    await node.reload(msgspec.structs.replace(Config(), trunks=[OURS]))
    assert followed.registered == [["made", "later"], ["ours", "made", "later"]]
    assert [trunk.name for trunk in node.registry.trunks.settings] == ["ours", "made", "later"]


async def test_that_there_were_trunks_outlives_the_last_one_and_main(node: Node, tmp_path: Path) -> None:
    node.more_trunks = lambda: [MADE]
    await node.apply_trunks()
    node.more_trunks = tuple
    await node.apply_trunks()
    assert not node.registry.trunks.settings and (tmp_path / HAD_TRUNKS).exists()


async def test_calls_that_wait_do_so_for_no_database(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(app, "STORE_WAIT_S", 0.01)

    async def fails(error: Exception) -> None:
        raise error

    with pytest.raises(SetupError):
        await node._of_the_database(fails(SetupError("away")))
    node._calls_wait = True
    await node._of_the_database(fails(SetupError("away")))
    await node._of_the_database(fails(RecordUnavailable("away")))
    await node._of_the_database(asyncio.sleep(3600))
