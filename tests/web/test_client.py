import asyncio
import io
import threading
import wave
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from aiohttp import web

from sipagent.calls.sounds import fetch_wav
from sipagent.core.errors import ConfigError, NotAllowed
from sipagent.web.client import WebClient, WebError, parse_url
from sipagent.web.guard import Guard, GuardedResolver

from .receiver import Receiver, Responder, receiving


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    async with receiving() as server:
        yield server


@pytest.fixture
async def client() -> AsyncIterator[WebClient]:
    client = WebClient(Guard(("127.0.0.0/8",), "[web] allow"))
    yield client
    await client.close()


def see_other(status: int, where: str) -> Responder:
    return lambda _asked: web.Response(status=status, headers={"Location": where})


async def test_a_post_is_sent_on_whole_where_the_redirect_keeps_it(client, receiver):
    receiver.answers["/old"] = see_other(307, "/new")
    receiver.answers["/new"] = {"yes": True}
    answer = await client.post(receiver.url + "/old", b"{}", {"x-mine": "1"}, timeout_s=5, max_bytes=100)
    assert (answer.status, answer.body) == (200, b'{"yes": true}')
    assert [(one.method, one.path, one.body, one.headers["x-mine"]) for one in receiver.asked] == [
        ("POST", "/old", b"{}", "1"),
        ("POST", "/new", b"{}", "1"),
    ]


@pytest.mark.parametrize(
    "where, why",
    [
        ("/round", "more than 3 times"),
        ("http://10.0.0.1/x", "[web] allow"),
        ("http://169.254.169.254/latest", "[web] allow"),
        ("ftp://127.0.0.1/x", "not safe"),
        ("http://2130706433/", "four decimal numbers"),
    ],
)
async def test_redirects_that_are_not_followed(client, receiver, where, why):
    receiver.answers["/round"] = see_other(308, where)
    with pytest.raises(WebError) as caught:
        await client.post(receiver.url + "/round", b"", {}, timeout_s=5, max_bytes=100)
    assert why in str(caught.value)


async def test_a_redirect_that_nobody_looks_at_leads_nowhere_inside(receiver):
    receiver.answers["/old"] = see_other(302, receiver.url + "/inside")
    client = WebClient(Guard(("localhost",)))
    with pytest.raises(NotAllowed):
        await client.session.get(receiver.url.replace("127.0.0.1", "localhost") + "/old")
    await client.close()
    assert [one.path for one in receiver.asked] == ["/old"]


async def test_names_are_looked_up_while_the_loops_own_threads_are_busy():
    over = threading.Event()
    asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(1))
    busy = asyncio.get_running_loop().run_in_executor(None, over.wait, 20)
    guard = Guard(("localhost",))
    try:
        async with asyncio.timeout(10):
            assert await guard.addresses("localhost") and await GuardedResolver(guard).resolve("localhost", 80)
    finally:
        over.set()
        await busy


async def test_a_post_does_not_become_a_get(client, receiver):
    receiver.answers["/see"] = see_other(303, "/other")
    with pytest.raises(WebError, match="307 or 308"):
        await client.post(receiver.url + "/see", b"", {}, timeout_s=5, max_bytes=100)
    assert (await client.get(receiver.url + "/see", timeout_s=5, max_bytes=100)).status == 200


async def test_answers_are_bounded_in_size_and_time(client, receiver):
    receiver.answers["/much"] = b"x" * 101
    with pytest.raises(WebError, match="longer than 100 bytes"):
        await client.get(receiver.url + "/much", timeout_s=5, max_bytes=100)
    receiver.slow["/never"] = 30.0
    with pytest.raises(WebError, match=r"no answer within 0\.2 s"):
        await client.get(receiver.url + "/never", timeout_s=0.2, max_bytes=100)


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "localhost", "[::1]", "0.0.0.0", "127.1", "10.1.2.3", "[::ffff:127.0.0.1]"]
)
async def test_nothing_inside_is_reached_unless_allowed(receiver, host):
    client = WebClient(Guard())
    with pytest.raises(WebError):
        await client.get(receiver.url.replace("127.0.0.1", host), timeout_s=5, max_bytes=100)
    await client.close()
    assert not receiver.asked


@pytest.mark.parametrize(
    "url", ["", "nothing", "ftp://a.example/", "http://", "https://[::", "http://a:99999/", "x" * 3000]
)
def test_texts_that_are_no_url(url):
    with pytest.raises(ValueError):
        parse_url(url)


def test_urls_of_other_schemes_are_taken_where_asked_for():
    assert parse_url("wss://bot.example/x", ("ws", "wss")).host == "bot.example"


def sound(rate: int = 16_000, seconds: float = 0.5) -> bytes:
    raw = io.BytesIO()
    with wave.open(raw, "wb") as file:
        file.setparams((1, 2, rate, 0, "NONE", ""))
        file.writeframes(bytes(2 * int(rate * seconds)))
    return raw.getvalue()


async def test_a_wav_file_is_fetched(client, receiver):
    receiver.answers["/a.wav"] = sound()
    assert len(await fetch_wav(client, receiver.url + "/a.wav", 8000)) == 4000


@pytest.mark.parametrize("answer", [404, b"no sound", sound(1), sound(400_000), sound()[:30]])
async def test_what_is_no_wav_file_is_refused(client, receiver, answer):
    receiver.answers["/a.wav"] = answer
    with pytest.raises(ConfigError, match="the audio file"):
        await fetch_wav(client, receiver.url + "/a.wav", 8000)
