"""What Prometheus reads: the node as it is, and what its events add up to."""

import aiohttp
from prometheus_client.parser import text_string_to_metric_families

from sipagent.api.auth import HEADER
from sipagent.api.server import ApiServer
from sipagent.core import clock
from sipagent.core.events import CallRefused, TurnEnded, TurnLatency
from sipagent.core.ids import CallId, TurnId

from .conftest import KEY, Http
from .node import Node


async def read(server: ApiServer) -> dict[str, float]:
    """The samples by name and labels, as in `name{a=b}`."""
    async with aiohttp.ClientSession() as session, session.get(f"{server.url}/metrics", headers={HEADER: KEY}) as page:
        assert page.status == 200
        assert page.content_type == "text/plain"
        text = await page.text()
    samples = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            labels = ",".join(f"{name}={value}" for name, value in sorted(sample.labels.items()))
            samples[f"{sample.name}{{{labels}}}" if labels else sample.name] = sample.value
    return samples


async def test_calls_turns_and_providers_are_counted(server: ApiServer, http: Http, node: Node) -> None:
    before = await read(server)
    assert before["sipagent_calls_active"] == 0
    assert before["sipagent_state{state=ok}"] == 1
    started = await http.post("/api/v1/voice/calls/initiate", {"to_number": "+491"})
    call_id = CallId(started.body["id"])
    node.hub.emit(turn(call_id))
    node.hub.emit(CallRefused(at=clock.now(), reason="a flood", sip_status=503, others=4))
    assert (await http.post(f"/api/v1/voice/calls/{call_id}/hangup", {})).status < 300
    after = await read(server)
    assert after["sipagent_calls_total{direction=outbound}"] == 1
    assert sum(value for name, value in after.items() if name.startswith("sipagent_calls_ended_total{")) == 1
    assert after["sipagent_call_seconds_count"] == 1
    assert after["sipagent_calls_refused_total{sip_status=503}"] == 5
    assert after["sipagent_response_seconds_bucket{le=0.5}"] == 1
    assert after["sipagent_response_part_seconds_sum{part=endpointing}"] == 0.3
    assert after["sipagent_provider_requests_total{outcome=answered,provider=one,role=tts}"] == 1
    assert after["sipagent_provider_requests_total{outcome=failed,provider=two,role=llm}"] == 1
    assert after["sipagent_provider_first_seconds_count{provider=one,role=tts}"] == 1


async def test_a_key_is_needed_and_no_number_is_shown(server: ApiServer, http: Http, node: Node) -> None:
    assert (await http.get("/metrics", key=None)).status == 401
    await http.post("/api/v1/voice/calls/initiate", {"to_number": "+4917212345"})
    async with aiohttp.ClientSession() as session, session.get(f"{server.url}/metrics", headers={HEADER: KEY}) as page:
        assert "4917212345" not in await page.text()


def turn(call_id: CallId) -> TurnEnded:
    now = clock.now()
    return TurnEnded(
        at=now,
        call_id=call_id,
        turn_id=TurnId("turn_1"),
        index=0,
        caller_text="hello",
        agent_text="Hello.",
        heard_text="Hello.",
        intent="",
        confidence=1.0,
        interrupted=False,
        started_at=now,
        agent_started_at=now,
        latency=TurnLatency(endpointing_ms=300.0, tts_ms=100.0, total_ms=400.0),
        details={
            "providers": [
                {"role": "tts", "provider": "one", "first_ms": 80.0},
                {"role": "llm", "provider": "two", "failed": "no answer", "after_ms": 900.0},
            ]
        },
    )
