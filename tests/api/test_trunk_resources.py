"""Trunks, lists of addresses and secrets of the API: what is refused, what is kept sealed, what is changed with it."""

from pathlib import Path
from typing import Any

import pytest

from sipagent.core.errors import ConfigError
from sipagent.store.sealing import KEY_FILE, NotSealedByUs, Seal, seal_of

from .conftest import Http
from .node import Node

TRUNKS, ACLS, SECRETS, NUMBERS = (
    "/api/v1/sip/trunks",
    "/api/v1/sip/ip-acls",
    "/api/v1/secrets",
    "/api/v1/virtual-numbers",
)
TRUNK = {"name": "pbx", "domain_name": "pbx.example.com"}
PASSWORD = {"authentication_type": "credential", "auth_credential": {"username": "200", "password": "very-hidden"}}
ADDRESS = {"authentication_type": "IP", "auth_addresses": [{"address": "203.0.113.7"}]}


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({**TRUNK, "authentication_type": "credential"}, "auth_credential"),
        ({**TRUNK, "authentication_type": "IP"}, "auth_addresses"),
        ({**TRUNK, **ADDRESS, "ip_acl_id": "acl_none"}, "auth_addresses"),
        ({**TRUNK, "authentication_type": "IP", "ip_acl_id": "acl_none"}, "ip_acl_id"),
        ({**TRUNK, "authentication_type": "IP", "auth_addresses": [{"address": "203.0.113.0/24"}]}, "auth_addresses"),
        ({**TRUNK, **ADDRESS, "name": "my trunk"}, "name"),
        ({**TRUNK, **ADDRESS, "domain_name": "a b"}, "domain_name"),
        ({**TRUNK, **ADDRESS, "settings": {"password": "x"}}, "settings.password"),
        ({**TRUNK, **ADDRESS, "secret_id": "secret_none"}, "secret_id"),
        ({**TRUNK, **ADDRESS, "webhook_url": "http://10.0.0.1/"}, "webhook_url"),
        ({**TRUNK, **ADDRESS, "colour": 1}, "colour"),
    ],
)
async def test_a_trunk_that_cannot_work_is_refused(http: Http, body: dict[str, Any], field: str) -> None:
    answer = await http.post(TRUNKS, body)
    assert answer.status == 422, answer.body
    assert answer.body["errors"][0]["field"] == field


async def test_settings_of_the_configuration_are_checked_as_there(http: Http) -> None:
    wrong = await http.post(TRUNKS, {**TRUNK, **ADDRESS, "settings": {"codecs": ["MP3"]}})
    assert wrong.status == 422 and "MP3" in wrong.body["message"]
    made = await http.post(TRUNKS, {**TRUNK, **ADDRESS, "settings": {"codecs": ["PCMA"], "priority": 3}})
    assert made.status == 201 and made.body["settings"] == {"codecs": ["PCMA"], "priority": 3}


async def test_trunks_are_in_use_as_they_are_changed(http: Http, node: Node) -> None:
    used: list[list[Any]] = []

    resources = node.resources
    assert resources is not None

    async def follow() -> None:
        used.append(resources.made_trunks)

    resources.follow_trunks = follow
    acl = (await http.post(ACLS, {"name": "peers", "addresses": [{"address": "203.0.113.7"}]})).body
    made = (await http.post(TRUNKS, {**TRUNK, "authentication_type": "IP", "ip_acl_id": acl["id"]})).body
    assert [(trunk.name, trunk.peers, trunk.accept) for trunk in used[-1]] == [("pbx", ["203.0.113.7"], "address")]
    path = f"{TRUNKS}/{made['id']}"
    await http.ask("PATCH", f"{ACLS}/{acl['id']}", json={"addresses": [{"address": "198.51.100.0/24"}]})
    assert used[-1][0].peers == ["198.51.100.0/24"]
    await http.ask("PATCH", path, json={**PASSWORD, "channel_limit": 2})
    [trunk] = used[-1]
    assert (trunk.username, trunk.password, trunk.accept, trunk.max_calls) == ("200", "very-hidden", "digest", 2)
    await http.ask("PATCH", path, json={"is_active": False})
    assert used[-1] == []
    number = (await http.post(NUMBERS, {"number": "+49302", "sip_trunk_id": made["id"]})).body
    assert number["sip_trunk"]["name"] == "pbx"
    assert (await http.ask("DELETE", path)).status == 200
    assert (await http.get(f"{NUMBERS}/{number['id']}")).body["sip_trunk"] is None


async def test_passwords_and_secrets_lie_sealed_in_the_database(http: Http, node: Node, tmp_path: Path) -> None:
    await http.post(TRUNKS, {**TRUNK, **PASSWORD})
    secret = (await http.post(SECRETS, {"name": "signs"})).body
    assert node.resources is not None
    inventory = await node.resources.inventory()
    kept = inventory.secrets[secret["id"]].value
    assert "very-hidden" not in str(inventory) and secret["secret_value"] not in str(inventory)
    assert seal_of(tmp_path, "").open(kept) == secret["secret_value"]
    assert (tmp_path / KEY_FILE).stat().st_mode & 0o777 == 0o600
    for path in (f"{SECRETS}/{secret['id']}", SECRETS):
        assert secret["secret_value"] not in str((await http.get(path)).body)


def test_a_key_file_that_was_left_empty_is_made_again(tmp_path: Path) -> None:
    (tmp_path / KEY_FILE).touch()
    assert seal_of(tmp_path, "").open(seal_of(tmp_path, "").close("hidden")) == "hidden"


def test_a_seal_opens_what_it_closed_and_nothing_else(tmp_path: Path) -> None:
    seal = seal_of(tmp_path, "")
    assert seal_of(tmp_path, "").open(seal.close("hidden")) == "hidden"
    (tmp_path / "other").mkdir()
    with pytest.raises(NotSealedByUs, match="seal_key"):
        seal_of(tmp_path / "other", "").open(seal.close("hidden"))
    with pytest.raises(ConfigError, match="32 bytes"):
        Seal("short")


@pytest.mark.parametrize(
    ("addresses", "field"),
    [
        ([], "addresses"),
        ([{"address": "not one"}], "addresses[0].address"),
        ([{"address": "0.0.0.0/0"}], "addresses[0].address"),
        ([{"address": "192.0.2.1"}, {"address": "192.0.2.1/32"}], "addresses[1].address"),
    ],
)
async def test_a_list_of_addresses_that_makes_no_sense_is_refused(http: Http, addresses: Any, field: str) -> None:
    answer = await http.post(ACLS, {"name": "x", "addresses": addresses})
    assert answer.status == 422 and answer.body["errors"][0]["field"] == field
