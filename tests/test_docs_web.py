"""The examples of docs/flows.md and docs/webhooks.md: what they show is taken, and their programs run."""

import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
import pytest
from aiohttp import web

from sipagent import config
from sipagent.calls.hooks import CALLBACKS, TYPES
from sipagent.dialplan import flow
from sipagent.dialplan.loader import load_file
from sipagent.web.retries import SCHEDULE_S
from sipagent.web.signing import key_of, signed

DOCS = Path(__file__).parents[1] / "docs"
FLOWS, WEBHOOKS = ((DOCS / name).read_text("utf-8") for name in ("flows.md", "webhooks.md"))


def blocks(text: str, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL)


@pytest.mark.parametrize("text", blocks(FLOWS, "toml"))
def test_the_settings_are_taken(tmp_path: Path, text: str) -> None:
    (tmp_path / "sipagent.toml").write_text(text)
    config.load(tmp_path / "sipagent.toml", {})


def test_the_dialplan_is_taken(tmp_path: Path) -> None:
    (text,) = blocks(FLOWS, "yaml")
    (tmp_path / "plan.yaml").write_text(text)
    assert set(load_file(tmp_path / "plan.yaml").steps) == {"main", "desk", "queue"}


def test_the_answers_are_taken() -> None:
    question, *answers = blocks(FLOWS, "json")
    assert set(msgspec.json.decode(question)) == {"call_id", "account_id", "from_number", "to_number", "direction"}
    taken = [flow.parse(answer.encode()) for answer in answers]
    for action in taken:
        flow.steps_of(action, "https://bot.example/calls", "")
    assert {type(action) for action in taken} == {flow.Play, flow.Dial, flow.Stream, flow.Hangup, flow.Continue}


async def asked(app: web.Application, path: str, body: bytes, headers: dict[str, str]) -> tuple[int, bytes]:
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        url = f"http://127.0.0.1:{runner.addresses[0][1]}{path}"
        async with aiohttp.ClientSession() as session, session.post(url, data=body, headers=headers) as response:
            return response.status, await response.read()
    finally:
        await runner.cleanup()


def program(text: str) -> dict[str, Any]:
    found: dict[str, Any] = {}
    exec(text, found)
    return found


async def test_the_flow_server_answers() -> None:
    (text,) = blocks(FLOWS, "python")
    call = blocks(FLOWS, "json")[0].encode()
    status, answer = await asked(program(text)["app"], "/calls", call, {"Content-Type": "application/json"})
    assert status == 200 and isinstance(flow.parse(answer), flow.Dial)


async def test_the_webhook_server_takes_what_we_sign_and_nothing_else() -> None:
    receiver, _ = blocks(WEBHOOKS, "python")
    (event,) = blocks(WEBHOOKS, "json")
    body = event.encode()
    headers = signed(key_of("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"), "evt_1", datetime.now(UTC), body)
    assert (await asked(program(receiver)["app"], "/events", body, headers))[0] == 204
    assert (await asked(program(receiver)["app"], "/events", body + b" ", headers))[0] == 500


def test_the_types_and_pauses_are_those_there_are() -> None:
    told = set(re.findall(r"`((?:call|leg|recording|stream)\.\w+)`", WEBHOOKS))
    assert told == set(TYPES.values()) and told >= CALLBACKS
    pauses = [f"{s:g} s" if s < 60 else f"{s / 60:g} min" if s < 3600 else f"{s / 3600:g} h" for s in SCHEDULE_S]
    assert f"{', '.join(pauses[:-1])} and {pauses[-1]}" in WEBHOOKS
