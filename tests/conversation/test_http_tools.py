"""Tools that are requests, against a real web server; and where they may not go."""

import gzip
import json
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from aiohttp import web

from sipagent.conversation.tools.http import HttpTool, guarded_session, select
from sipagent.conversation.tools.tool import MAX_RESULT, Circumstances, ToolFailed
from sipagent.core.errors import ConfigError
from sipagent.dialplan.tools import HttpSpec
from sipagent.web.guard import Guard, GuardedResolver
from tests.conversation.control import Control

SECRETS = {"SHOP_KEY": "s3cret"}


class Shop:
    """A web server that keeps what it was asked, and answers by path."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, str, dict[str, str], str]] = []
        self.elsewhere = ""
        self.url = ""

    async def handle(self, request: web.Request) -> web.StreamResponse:
        self.asked.append((request.method, request.raw_path, dict(request.headers), await request.text()))
        match request.path:
            case "/large":
                return web.Response(text="x" * 100_000)
            case "/bomb":
                body = gzip.compress(b"0" * 20_000_000)
                return web.Response(body=body, headers={"Content-Encoding": "gzip"})
            case "/text":
                return web.Response(text="open until six")
            case "/missing":
                return web.json_response({"error": "no such order"}, status=404)
            case "/cookie":
                return web.Response(text="ok", headers={"Set-Cookie": "session=1; Path=/"})
            case path if path.startswith("/redirect"):
                return web.Response(status=int(path.rpartition("/")[2]), headers={"Location": self.elsewhere})
            case _:
                return web.json_response({"order": {"id": 7, "state": "sent"}, "items": [{"name": "tea"}], "card": 1})

    def headers(self, number: int = -1) -> dict[str, str]:
        return self.asked[number][2]


@asynccontextmanager
async def shop_server() -> AsyncIterator[Shop]:
    shop = Shop()
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", shop.handle)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    shop.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    try:
        yield shop
    finally:
        await runner.cleanup()


@pytest.fixture
async def shop() -> AsyncIterator[Shop]:
    async with shop_server() as server:
        yield server


async def ask(
    spec: HttpSpec,
    arguments: dict[str, Any] | None = None,
    *,
    allow: tuple[str, ...] = ("127.0.0.1",),
    digits: dict[str, str] | None = None,
) -> str:
    guard = Guard(allow)
    async with guarded_session(guard) as session:
        tool = HttpTool(spec, session, guard, SECRETS)
        return await tool.work(arguments or {}, Circumstances(Control(), digits or {}))


async def refused(spec: HttpSpec, **more: Any) -> str:
    with pytest.raises(ToolFailed) as caught:
        await ask(spec, **more)
    return str(caught.value)


async def test_parameters_secrets_and_digits_go_where_the_dialplan_says(shop):
    spec = HttpSpec(
        method="POST",
        url=shop.url + "/orders/{order}?by={call.from}",
        headers={"Authorization": "Bearer {env:SHOP_KEY}"},
        body={"pin": "{digits.pin}", "amount": "{amount}", "note": "from {call.to}, {{sic}}", "fast": True},
    )
    await ask(spec, {"order": "a/7?x=&é", "amount": 12}, digits={"pin": "4711"})
    ((method, path, headers, body),) = shop.asked
    assert (method, path) == ("POST", "/orders/a%2F7%3Fx%3D%26%C3%A9?by=%2B4930123")
    assert headers["Authorization"] == "Bearer s3cret" and headers["Content-Type"] == "application/json"
    assert json.loads(body) == {"pin": "4711", "amount": 12, "note": "from 200, {sic}", "fast": True}


async def test_the_model_sees_the_fields_that_are_named(shop):
    spec = HttpSpec(url=shop.url + "/order", fields=("order.state", "items.*.name", "nothing.here"))
    assert json.loads(await ask(spec)) == {"order.state": "sent", "items.*.name": ["tea"], "nothing.here": None}
    assert json.loads(await ask(HttpSpec(url=shop.url + "/order")))["card"] == 1
    assert await ask(HttpSpec(url=shop.url + "/text")) == "open until six"
    assert await refused(HttpSpec(url=shop.url + "/text", fields=("a",))) == "the server's answer is no JSON"


async def test_answers_have_bounds(shop):
    assert await refused(HttpSpec(url=shop.url + "/large")) == "the server's answer is too large"
    assert await refused(HttpSpec(url=shop.url + "/bomb", max_bytes=1 << 20)) == "the server's answer is too large"
    assert len(await ask(HttpSpec(url=shop.url + "/large", max_bytes=1 << 20))) < MAX_RESULT + 100


async def test_failures_are_told_without_what_the_server_wrote(shop, unused_tcp_port):
    assert await refused(HttpSpec(url=shop.url + "/missing")) == "the server answered 404"
    nobody = HttpSpec(url=f"http://127.0.0.1:{unused_tcp_port}/")
    assert await refused(nobody) == "the request failed (ClientConnectorError)"


async def test_digits_that_were_not_collected(shop):
    spec = HttpSpec(method="POST", url=shop.url + "/", body="{digits.pin}")
    assert await refused(spec) == "`pin` has to be collected from the caller first"
    assert not shop.asked


async def test_a_header_cannot_be_broken_out_of(shop):
    spec = HttpSpec(url=shop.url + "/", headers={"X-Name": "{name}"})
    assert "line break" in await refused(spec, arguments={"name": "a\r\nX-Admin: 1"})
    assert not shop.asked


@pytest.mark.parametrize("order", ["..", ".", "", "a/../../admin", "..\\admin", None])
async def test_a_value_cannot_lead_out_of_its_place_in_the_path(shop, order):
    spec = HttpSpec(method="DELETE", url=shop.url + "/orders/{order}/notes?q={order}")
    assert "leads out of its place" in await refused(spec, arguments={} if order is None else {"order": order})
    assert "leads out" in await refused(HttpSpec(url=shop.url + "/{a}{b}/notes"), arguments={"a": ".", "b": "."})
    assert not shop.asked
    await ask(HttpSpec(url=shop.url + "/orders/v{order}?q={more}"), {"order": "..a", "more": ".."})
    assert shop.asked[0][1] == "/orders/v..a?q=.."


@pytest.mark.parametrize(
    ("kind", "template", "body"),
    [
        ("application/x-www-form-urlencoded", "order={order}&sure=1", "order=7%26a%3D%3Cb%3E+c&sure=1"),
        ("Text/XML; charset=utf-8", "<order>{order}</order>", "<order>7&amp;a=&lt;b&gt; c</order>"),
        (None, "{{order}} {order}", "{order} 7&a=<b> c"),
    ],
)
async def test_a_value_stays_one_value_in_a_text(shop, kind, template, body):
    headers = {"content-type": kind} if kind else {}
    await ask(HttpSpec(method="POST", url=shop.url, headers=headers, body=template), {"order": "7&a=<b> c"})
    assert shop.asked[0][3] == body
    assert shop.headers()["Content-Type"] == (kind or "text/plain; charset=utf-8")


async def test_a_text_of_a_kind_that_is_not_known_is_not_filled_in(shop):
    headers = {"Content-Type": "application/json"}
    spec = HttpSpec(method="POST", url=shop.url + "/", headers=headers, body='{{"order": "{order}"}}')
    assert "not known how" in await refused(spec, arguments={"order": '7","admin":"1'})
    assert not shop.asked
    await ask(HttpSpec(method="POST", url=shop.url + "/", headers=headers, body="{{}}"))
    assert shop.asked[0][3] == "{}"


async def test_no_cookie_goes_from_one_call_to_the_next(shop):
    guard = Guard(("127.0.0.1",))
    async with guarded_session(guard) as session:
        tool = HttpTool(HttpSpec(url=shop.url + "/cookie"), session, guard, {})
        for _ in range(2):
            await tool.work({}, Circumstances(Control(), {}))
    assert "Cookie" not in shop.headers()


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_redirects_within_the_server_are_followed(shop, status):
    shop.elsewhere = "/order"
    spec = HttpSpec(method="POST", url=f"{shop.url}/redirect/{status}", headers={"X-Key": "k"}, body={"a": 1})
    assert '"state":"sent"' in await ask(spec)
    method, path, headers, body = shop.asked[-1]
    assert path == "/order" and headers["X-Key"] == "k"
    assert (method, body) == (("POST", '{"a": 1}') if status in (307, 308) else ("GET", ""))


async def test_secrets_do_not_follow_to_another_host(shop):
    async with shop_server() as other:
        shop.elsewhere = other.url + "/order"
        await ask(HttpSpec(url=shop.url + "/redirect/302", headers={"X-Key": "k", "Authorization": "a"}))
        assert "X-Key" not in other.headers() and "Authorization" not in other.headers()
        post = HttpSpec(method="POST", url=shop.url + "/redirect/307", body={"pin": 1})
        assert await refused(post) == "the server sent the request elsewhere, to another host"
        assert len(other.asked) == 1


@pytest.mark.parametrize(
    "place", ["http://169.254.169.254/latest", "http://[::1]/", "http://10.0.0.1/", "file:///etc/passwd", "ftp://x/"]
)
async def test_redirects_lead_nowhere_inside(shop, place):
    shop.elsewhere = place
    message = await refused(HttpSpec(url=shop.url + "/redirect/302"))
    assert "not public" in message or "not safe" in message


async def test_redirects_have_an_end(shop):
    shop.elsewhere = "/redirect/302"
    assert "too many times" in await refused(HttpSpec(url=shop.url + "/redirect/302"))
    assert len(shop.asked) == 4


# --- where tools may connect to -------------------------------------------------------------------------------


async def test_without_leave_nothing_private_is_reached(shop):
    assert "not public" in await refused(HttpSpec(url=shop.url + "/order"), allow=())
    named = shop.url.replace("127.0.0.1", "localhost")  # a name that leads inside
    assert (await refused(HttpSpec(url=named + "/order"), allow=())).startswith("the request failed")
    for disguised in ("2130706433", "0x7f.1", "127.1"):  # what resolvers take for 127.0.0.1
        url = shop.url.replace("127.0.0.1", disguised)
        assert (await refused(HttpSpec(url=url + "/order"), allow=())).endswith("four decimal numbers")
    assert not shop.asked
    assert await ask(HttpSpec(url=named + "/order"), allow=("localhost",))
    assert await ask(HttpSpec(url=shop.url + "/order"), allow=("127.0.0.0/8",))


@pytest.mark.parametrize(
    ("address", "public"),
    [
        ("93.184.216.34", True),
        ("2606:2800:220:1:248:1893:25c8:1946", True),
        ("10.1.2.3", False),
        ("172.16.0.1", False),
        ("192.168.1.1", False),
        ("100.64.0.1", False),
        ("127.0.0.53", False),
        ("169.254.169.254", False),
        ("0.0.0.0", False),
        ("255.255.255.255", False),
        ("224.0.0.1", False),
        ("240.0.0.1", False),
        ("::1", False),
        ("::", False),
        ("fe80::1%eth0", False),
        ("fd00::1", False),
        ("ff02::1", False),
        ("::ffff:127.0.0.1", False),
        ("::ffff:93.184.216.34", True),
        ("64:ff9b::a00:1", False),
        ("2002:7f00:1::", False),
        ("fec0::1", False),
        ("nonsense", False),
    ],
)
def test_public_addresses(address, public):
    assert Guard().admits("host.example", address) is public


def test_what_the_operator_allows():
    guard = Guard(("10.0.0.0/8", "crm.lan", "fd00::/8"))
    assert guard.admits("any", "10.9.9.9") and guard.admits("any", "fd12::1") and guard.admits("any", "::ffff:10.0.0.1")
    assert guard.admits("CRM.lan.", "192.168.0.9") and not guard.admits("crm.lan.evil", "192.168.0.9")
    with pytest.raises(ConfigError):
        Guard(("10.0.0.0/99",))


async def test_a_name_with_one_good_address_connects_to_that_one_only(monkeypatch):
    def answers(*_: object, **__: object) -> list[Any]:
        return [(2, 1, 6, "", ("10.0.0.1", 80)), (2, 1, 6, "", ("93.184.216.34", 80))]

    monkeypatch.setattr(socket, "getaddrinfo", answers)
    assert [found["host"] for found in await GuardedResolver(Guard()).resolve("both.example", 80)] == ["93.184.216.34"]


def test_paths_into_an_answer():
    value = {"a": [{"b": 1}, {"b": 2}], "c": {"d": None}}
    assert select(value, ["a", "*", "b"]) == [1, 2]
    assert select(value, ["a", "1", "b"]) == 2
    assert select(value, ["a", "9"]) is None and select(value, ["c", "d", "e"]) is None
