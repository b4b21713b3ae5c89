"""A number that was called, its voice app, and what becomes of the call: in one node, changed while it runs."""

from typing import Any

import pytest

from tests.peers import sipp
from tests.peers.sipp import Sipp
from tests.system.node import Node

pytestmark = [pytest.mark.peer, pytest.mark.models, pytest.mark.timeout(180)]

CONFIGURED = """
[[apps]]
name = "greeter"
dialplan = "hello"
[[numbers]]
number = "+49301"
app = "greeter"
"""


async def asked(node: Node, method: str, path: str, body: Any = None) -> dict[str, Any]:
    async with node.http.request(method, f"/api/v1{path}", json=body) as response:
        answer: dict[str, Any] = await response.json()
        assert response.status in (200, 201), answer
        return answer


async def test_a_number_goes_to_its_app_as_soon_as_the_api_says_so() -> None:
    async with Node(extra=CONFIGURED) as node:
        # of the configuration
        (await sipp.run("uac-inbound-agent-hangs-up.xml", target=node.target, service="+49301")).check()
        (first,) = await node.ended(1)
        [greeter] = (await asked(node, "GET", "/voice/apps"))["data"]
        assert (first.call.route, first.call.cause) == ("hello", "normal")
        assert (await asked(node, "GET", f"/voice/calls/{first.call.id}"))["voice_app_id"] == greeter["id"]

        # nobody takes this number; then an app does
        (await sipp.run("uac-inbound-rejected-expect-404.xml", target=node.target, service="+49302")).check()
        number = await asked(node, "POST", "/virtual-numbers", {"number": "+49302"})
        app = await asked(node, "POST", "/voice/apps", {"name": "made", "dialplan": "hello", "vn_ids": [number["id"]]})
        (await sipp.run("uac-inbound-agent-hangs-up.xml", target=node.target, service="+49302")).check()

        # an app of no channel but one; and one that takes no calls
        await asked(node, "PATCH", f"/voice/apps/{app['id']}", {"channel_limit": 1, "dialplan": "talk"})
        async with Sipp("uac-inbound-answered.xml", target=node.target, service="+49302", duration_ms=4000) as one:

            async def up() -> bool:
                return len((await asked(node, "GET", "/live-calls"))["data"]) == 1

            await node.until(up, 30)
            (await sipp.run("uac-inbound-over-limit-expect-486.xml", target=node.target, service="+49302")).check()
            (await one.wait()).check()

        # a trunk that knows its callers by their address: who comes from there, comes by it
        await asked(node, "PATCH", f"/voice/apps/{app['id']}", {"channel_limit": None, "dialplan": "hello"})
        acl = await asked(node, "POST", "/sip/ip-acls", {"name": "here", "addresses": [{"address": "127.0.0.1"}]})
        by_address = {"name": "made", "domain_name": "127.0.0.1", "authentication_type": "IP", "ip_acl_id": acl["id"]}
        trunk = await asked(node, "POST", "/sip/trunks", by_address)
        assert [it["name"] for it in (await asked(node, "GET", "/trunks"))["data"]] == ["made"]
        (await sipp.run("uac-inbound-agent-hangs-up.xml", target=node.target, service="+49302")).check()
        assert (await node.ended(6))[0].call.trunk == "made"
        await asked(node, "PATCH", f"/voice/apps/{app['id']}", {"status": "inactive"})
        refused = await sipp.run("uac-inbound-answered.xml", target=node.target, service="+49302")
        assert refused.received("SIP/2.0 480")
        await asked(node, "DELETE", f"/sip/trunks/{trunk['id']}")
        assert (await asked(node, "GET", "/trunks"))["data"] == []
