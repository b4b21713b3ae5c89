"""Keys pressed as the trunk wants them."""

import asyncio
from collections.abc import Callable

import pytest

from sipagent.calls.keypad import DigitsRefused, Keypad
from sipagent.core.termination import Cause, Disposition, EndedBy, Termination
from sipagent.media.telephone_event import QUEUED
from sipagent.sip.protocol import AnyCommand, SendInfo
from sipagent.sip.sdp import DtmfMode


class Port:
    """The part of a media port that a keypad uses."""

    def __init__(self) -> None:
        self.pressed: list[str] = []
        self.on_digits_sent: Callable[[], None] | None = None

    def press(self, digits: str, duration_ms: int, gap_ms: int) -> None:
        self.pressed.append(digits)
        assert self.on_digits_sent is not None
        asyncio.get_running_loop().call_soon(self.on_digits_sent)


class Line:
    def __init__(self, mode: DtmfMode, statuses: list[int] | None = None) -> None:
        self.port = Port()
        self.bodies: list[str] = []
        self.statuses = statuses
        self.ended: asyncio.Future[Termination] = asyncio.get_running_loop().create_future()
        self.keypad = Keypad(1, self.send, self.port, self.ended, mode)  # type: ignore[arg-type]

    def send(self, command: AnyCommand) -> None:
        assert isinstance(command, SendInfo) and command.content_type == "application/dtmf-relay"
        self.bodies.append(command.body)
        if self.statuses:
            asyncio.get_running_loop().call_soon(self.keypad.info_answered, self.statuses.pop(0))


@pytest.mark.parametrize("mode", ["auto", "inband", "rfc4733"])
async def test_the_media_process_presses(mode: DtmfMode) -> None:
    line = Line(mode)
    line.keypad.telephone_event = mode == "rfc4733"
    await line.keypad.press("12#a")
    assert line.port.pressed == ["12#A"] and not line.bodies


async def test_telephone_events_that_were_not_agreed() -> None:
    with pytest.raises(DigitsRefused, match="has not agreed"):
        await Line("rfc4733").keypad.press("1")


async def test_by_info_one_after_the_other() -> None:
    line = Line("info", [200, 200])
    both = asyncio.gather(line.keypad.press("1", 50, 40), line.keypad.press("*", 50, 40))
    await both
    assert line.bodies == ["Signal=1\r\nDuration=50\r\n", "Signal=*\r\nDuration=50\r\n"]
    assert not line.port.pressed


async def test_an_info_that_is_refused_ends_the_pressing() -> None:
    line = Line("info", [200, 415])
    with pytest.raises(DigitsRefused, match="415"):
        await line.keypad.press("123", 50, 40)
    assert len(line.bodies) == 2


async def test_the_rest_is_not_pressed_when_the_leg_has_ended() -> None:
    line = Line("info")
    pressing = asyncio.ensure_future(line.keypad.press("123", 50, 40))
    await asyncio.sleep(0.01)
    line.ended.set_result(None)  # type: ignore[arg-type]
    await asyncio.wait_for(pressing, 20)
    assert len(line.bodies) == 1


async def test_what_is_no_key_is_said_before_anything_is_pressed() -> None:
    line = Line("info", [200])
    with pytest.raises(ValueError, match="digits are"):
        await line.keypad.press("1x")
    assert not line.bodies


async def test_keys_of_another_leg_are_pressed_in_order_as_the_trunk_wants_them() -> None:
    for mode in ("auto", "info"):
        line = Line(mode, [200] * 3)
        for digit in "12#":
            line.keypad.pass_on(digit, 0)
        async with asyncio.timeout(20):
            while len(line.port.pressed) + len(line.bodies) < 3:
                await asyncio.sleep(0.01)
        assert line.port.pressed == ([] if mode == "info" else ["1", "2", "#"])
        assert [body[7] for body in line.bodies] == (["1", "2", "#"] if mode == "info" else [])


async def test_so_many_keys_of_another_leg_wait_and_none_after_its_end() -> None:
    line = Line("info")
    for _ in range(QUEUED + 20):
        line.keypad.pass_on("1", 100)
    assert len(line.keypad._passed) == QUEUED
    await asyncio.sleep(0)
    line.ended.set_result(
        Termination(disposition=Disposition.ANSWERED, cause=Cause.NORMAL, by=EndedBy.CALLER, sip_status=200)
    )
    assert line.keypad._passing is not None
    async with asyncio.timeout(20):
        await line.keypad._passing
    assert len(line.bodies) == 1
