"""What is on disk of a call: as it was, its owner's alone, thrown away where it cannot be read."""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import msgspec
import pytest

from sipagent.calls import resuming, saved
from sipagent.calls.registry import CallRegistry
from sipagent.calls.saved import SavedCall, SavedEvent, SavedLeg, SavedStep, SavedTalk, SavedTurn
from sipagent.calls.saver import Saver
from sipagent.core import clock
from sipagent.core.events import (
    AgentSpeaking,
    CallEnded,
    Event,
    Gathered,
    PlaybackEnded,
    PlaybackStarted,
    StreamEnded,
    StreamStarted,
)
from sipagent.core.ids import CallId, new_call_id, new_leg_id
from sipagent.core.states import Direction, LegState
from sipagent.dialplan.model import AgentStep, DialStep, SayStep
from sipagent.sip.protocol import Answered, Hangup, Standing
from sipagent.sip.sdp import Terms
from sipagent.store.encoding import event_id
from tests.store.story import Story


def leg() -> SavedLeg:
    return SavedLeg(
        id=new_leg_id(),
        handle=7,
        slot=3,
        port=20004,
        direction=Direction.INBOUND,
        from_number="+1",
        to_number="100",
        remote_address="192.0.2.1:5060",
        role="caller",
        trunk="pbx",
        parent="",
        media_host="192.0.2.9",
        session_id=17,
        terms=Terms(srtp="required", keys=(bytes(30), bytes(range(30)))),
        offer="v=0",
        codec="PCMU",
        sip_call_id="abc",
        state=LegState.ANSWERED,
        accepted=True,
        held=False,
        sends=True,
        digits=2,
        confirmation=Answered(call=7, sdp="v=0", sip_call_id="abc", local_tag="l", remote_tag="r"),
        remote_media="192.0.2.1:4000",
    )


def call(**changed: object) -> SavedCall:
    one = SavedCall(
        boot=saved.boot(),
        id=new_call_id(),
        trunk="pbx",
        dialplan="test",
        route="desk",
        steps=[SavedStep.of(SayStep(text="Hello.")), SavedStep.of(AgentStep(agent="desk"))],
        todo=[SavedStep.of(AgentStep(agent="desk")), SavedStep.of(DialStep(to=("sip:a@b", "sip:c@d"), at_once=True))],
        started=clock.now(),
        answered_at=clock.now(),
        turns=4,
        talk=SavedTalk(
            memory={"intent": "book", "asking": "day", "known": [["name", "Ann"]], "not_understood": 1},
            history=[("agent", "Hello."), ("caller", "Hi.")],
            under_way=SavedTurn(id="turn_1", caller_text="Tomorrow."),
        ),
        legs=[leg()],
        speaks_on="x",
        joined="",
        met="",
        guests={},
        held=None,
        ended=False,
        events=[SavedEvent.of(event) for event in Story().whole()],
    )
    return msgspec.structs.replace(one, **changed)


def test_it_comes_back_as_it_was(tmp_path: Path):
    before = call()
    saved.write(tmp_path, before.id, msgspec.msgpack.encode(before))
    assert [file.stat().st_mode & 0o777 for file in tmp_path.iterdir()] == [0o600]
    (after,) = saved.read_all(tmp_path)
    assert msgspec.msgpack.encode(after) == msgspec.msgpack.encode(before)
    assert saved.steps_of(after.todo) == [AgentStep(agent="desk"), DialStep(to=("sip:a@b", "sip:c@d"), at_once=True)]
    saved.forget(tmp_path, before.id)
    saved.forget(tmp_path, before.id)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x93garbage",
        msgspec.msgpack.encode(call(boot="another")),
        msgspec.msgpack.encode(call(layout=saved.LAYOUT + 1)),
        bytes(saved.MAX_FILE + 1),
    ],
    ids=["empty", "garbage", "another boot", "another layout", "too long"],
)
def test_what_cannot_be_read_is_thrown_away(tmp_path: Path, data: bytes):
    saved.write(tmp_path, "call_1", data)
    (tmp_path / "call_2.new").write_bytes(b"half")
    assert saved.read_all(tmp_path) == []
    assert not list(tmp_path.iterdir())
    assert saved.read_all(tmp_path / "missing") == []


def test_the_record_knows_an_event_that_was_on_disk():
    for event in Story().whole():
        again = SavedEvent.of(event).event()
        assert event_id(again) == event_id(event), type(event).__name__


def test_a_lone_surrogate_in_a_text_costs_only_that_character(tmp_path: Path):
    said = AgentSpeaking(at=clock.now(), call_id=new_call_id(), text="a\ud83d", latency=None)
    talk = SavedTalk(memory=[{"result": "b\ud83d"}], history=[("agent", "c\ud83d")])
    before = call(talk=talk, events=[SavedEvent.of(said)])
    saved.write(tmp_path, before.id, saved.encoded(before))
    (after,) = saved.read_all(tmp_path)
    assert after.talk == SavedTalk(memory=[{"result": "b\ufffd"}], history=[("agent", "c\ufffd")])
    assert after.events[0].event() == replace(said, text="a\ufffd")
    assert after.legs == before.legs
    assert after.started == before.started


async def test_a_call_that_has_just_ended_leaves_no_file(tmp_path: Path):
    saver, one = Saver(tmp_path), call()
    saved.write(tmp_path, one.id, saved.encoded(one))
    saver.start()
    saver.forget(CallId(one.id))
    await saver.close()
    assert not list(tmp_path.iterdir())


def test_an_event_of_another_version_costs_only_itself():
    good = SavedEvent.of(next(iter(Story().whole())))
    unreadable = [
        SavedEvent(kind="FaxCame", data=good.data),
        SavedEvent(kind=good.kind, data=msgspec.msgpack.encode({"at": 1})),
        SavedEvent(kind=good.kind, data=b"\xc1"),
    ]
    forgotten: list[str] = []
    registry = SimpleNamespace(
        services=SimpleNamespace(lane=SimpleNamespace(standing={})), legs=[], forget=forgotten.append
    )
    told: list[Event] = []
    left = call(ended=True, events=[*unreadable, good])
    assert resuming.take_up(cast(CallRegistry, registry), [left], 0, told.append) == 0
    assert [event_id(event) for event in told] == [event_id(good.event())]
    assert forgotten == [left.id]


class Left:
    """What `resuming` needs of a registry, with ports that an earlier main has left."""

    def __init__(self) -> None:
        self.legs: list[object] = []
        self.claimed: list[int] = []
        self.closed: list[int] = []
        self.sent: list[object] = []
        self.events: list[Event] = []
        self.dialplans: list[object] = []
        self.forget = lambda _call: None
        self.services = SimpleNamespace(
            lane=SimpleNamespace(standing={7: Standing(call=7)}, send=self.sent.append),
            media=self,
            events=SimpleNamespace(emit=self.events.append),
        )

    def claim(self, slot: int, port: int) -> SimpleNamespace:
        self.claimed.append(port)
        return SimpleNamespace(port=port, slot=slot, ipv6=False, connected=None)

    def close_port(self, port: SimpleNamespace) -> None:
        self.closed.append(port.port)


@pytest.mark.parametrize(
    "changed",
    [
        {"legs": [leg()], "speaks_on": "leg_that_has_ended"},
        {"todo": [SavedStep(kind="FaxStep", values={})], "legs": [leg()]},
        {"legs": [msgspec.structs.replace(leg(), offer="v=0\r\nm=nonsense")]},
    ],
    ids=["its line has ended", "a step of another version", "an offer that cannot be read"],
)
async def test_a_call_that_cannot_be_taken_up_keeps_no_port(changed: dict[str, Any]):
    registry, one = Left(), call(events=[], **{"speaks_on": changed["legs"][0].id, **changed})
    assert resuming.take_up(cast(CallRegistry, registry), [one], 0, lambda _event: None) == 0
    assert registry.closed == registry.claimed
    assert [type(event).__name__ for event in registry.events] == ["LegEnded", "CallEnded"]
    assert registry.sent == [Hangup(call=7)]


async def test_what_went_with_the_main_process_gets_its_end(tmp_path: Path):
    """Streams, playbacks and questions that were under way; those that were over have had theirs."""
    story = Story()
    began = [event for event in story.other_facts(2) if isinstance(event, StreamStarted | PlaybackStarted)]
    over = [event for event in story.other_facts(3) if isinstance(event, StreamEnded | PlaybackEnded)]
    notes = Saver(tmp_path)
    for event in (*story.arrives(), *began):
        notes.emit(event)
    under_way = list(notes._notes[story.call_id].under_way.values())
    for event in over:
        notes.emit(event)
    assert not notes._notes[story.call_id].under_way
    await notes.close()

    registry, one = Left(), call(legs=[], events=[], under_way=under_way, asking=["gather_1"])
    told: list[Event] = []
    resuming.take_up(cast(CallRegistry, registry), [one], 0, told.append)
    ends = [event for event in registry.events if isinstance(event, StreamEnded | PlaybackEnded | Gathered)]
    stream, playback, gathered = ends
    assert isinstance(stream, StreamEnded) and isinstance(playback, PlaybackEnded) and isinstance(gathered, Gathered)
    assert (stream.stream_id, stream.failed, stream.reason) == ("strm_1", True, resuming.MAIN_DIED)
    assert (playback.playback_id, playback.reason) == ("play_1", resuming.MAIN_DIED)
    assert (gathered.gather_id, gathered.by, gathered.reason) == ("gather_1", "nothing", "ended")
    assert isinstance(registry.events[-1], CallEnded)


def test_a_step_of_another_version_is_refused():
    with pytest.raises(ValueError, match="there is no step FaxStep"):
        saved.steps_of([SavedStep(kind="FaxStep", values={})])


def test_a_call_that_cannot_be_gone_on_with_costs_itself_alone(monkeypatch: pytest.MonkeyPatch):
    ended: list[str] = []
    resumed: list[str] = []

    def rebuilt(_registry: object, one: SavedCall, _standing: object) -> Any:
        line = SimpleNamespace(id="leg", may_go_on=True, hear=lambda: 1 / 0 if one.turns else None)
        return SimpleNamespace(
            id=one.id,
            leg=line,
            legs=[line],
            todo=[],
            left=None,
            go_on_with=lambda _first: None,
            hangup=lambda _by, _cause, why: ended.append(f"{one.id} {why}"),
        )

    monkeypatch.setattr(resuming, "_rebuilt", rebuilt)
    registry = SimpleNamespace(
        services=SimpleNamespace(lane=SimpleNamespace(standing={}), events=SimpleNamespace(emit=lambda _event: None)),
        legs=[],
        resume=lambda call: resumed.append(call.id),
    )
    odd, well = call(turns=1, events=[]), call(turns=0, events=[])
    assert resuming.take_up(cast(CallRegistry, registry), [odd, well], 0, lambda _event: None) == 1
    assert resumed == [odd.id, well.id]
    assert ended == [f"{odd.id} it could not be gone on with"]
