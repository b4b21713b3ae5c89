"""The record of a call as a terminal shows it."""

from pathlib import Path

from sipagent.cli.show import _notable
from sipagent.core.states import ToolStatus, TransferState
from tests.store.story import Story
from tests.test_ladder import record, show


async def test_legs_and_every_step_of_a_transfer(tmp_path: Path) -> None:
    story = Story()
    told = [
        *story.arrives(),
        *story.transfer(20, 0, TransferState.REQUESTED),
        *story.transfer(20.5, 1, TransferState.REFERRED),
        *story.transfer(21, 2, TransferState.FAILED, 486),
    ]
    await record(tmp_path, told)
    lines = show(tmp_path).stdout.splitlines()
    steps = [line.split()[1:5] for line in lines if "blind" in line]
    assert [step[:3] for step in steps] == [
        ["blind", "sip:desk@example.com", state] for state in ("requested", "referred", "failed")
    ]
    assert steps[-1][3] == "486"
    assert any(line.startswith(f"leg {story.leg_id}  in  ") for line in lines)


async def test_a_turn_shows_how_it_came_about(tmp_path: Path) -> None:
    story = Story()
    await record(tmp_path, [*story.arrives(), *story.turn(2, said="when do you open")])
    lines = show(tmp_path).stdout.splitlines()
    assert any("wait 300" in line and "voice 120" in line for line in lines)
    assert not any("strategy" in line for line in lines), "what is as ever is in the JSON"
    answered, failed = {"role": "stt", "provider": "a"}, {"role": "stt", "provider": "b", "failed": "it hung"}
    noted = _notable({"end": {"strategy": "words"}, "keys": True, "providers": [answered, failed]})
    assert noted == {"keys": True, "providers": [failed]}
    assert _notable({"providers": [answered]}) == {}


async def test_every_call_of_a_tool(tmp_path: Path) -> None:
    story = Story()
    await record(tmp_path, [*story.arrives(), *story.tool(5), *story.tool(9, ToolStatus.FAILED)])
    lines = [line for line in show(tmp_path).stdout.splitlines() if "order_status" in line]
    assert [line.split()[1:] for line in lines] == [
        ["order_status", "http", '{"order":', '"1234"}', "ok", "400"],
        ["order_status", "http", '{"order":', '"1234"}', "failed", "400", "the", "server", "answered", "500"],
    ]
