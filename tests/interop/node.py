"""A whole node in the test's own process, without speech models: its dialplans play tones, and a test can look inside.

Everything else is as `sipagent serve` has it: a lane process, a media process, the record in SQLite.
"""

import json
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import yaml

from sipagent import config
from sipagent.app import Node as App
from sipagent.calls.call import Call
from sipagent.core.events import Event
from sipagent.core.states import RegistrationState
from sipagent.store.queries import Queries
from sipagent.store.records import FullCall, LegRecord
from tests.peers.pbx import sine, write_wav
from tests.peers.ports import free_block, free_port
from tests.wait import until

TONE_HZ = 1150  # what the node's `tone` step plays, at -15 dBFS
E = TypeVar("E", bound=Event)

_CONFIG = """
[node]
name = "interop"
state_dir = "{folder}"
dialplans = "{folder}/dialplans"
[sip]
host = "127.0.0.1"
port = {sip_port}
{sip}
[media]
host = "127.0.0.1"
port_min = {media_port}
port_max = {media_last}
port_quarantine_s = 0.5
[speech]
stt_model = ""
tts_voice = ""
embedding_model = ""
vad = "webrtc"
[api]
enabled = false
"""


class Node:
    """``async with Node(trunks, plan) as node:``

    The plan may `play` tone.wav (60 s), short.wav (1 s) and blip.wav (0.2 s).
    """

    def __init__(self, trunks: str, plan: str, *, sip: str = "") -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="interop-"))
        self.sip_port = free_port()
        self.media_port = free_block(128)
        self._text = (
            _CONFIG.format(
                folder=self.folder,
                sip_port=self.sip_port,
                sip=sip,
                media_port=self.media_port,
                media_last=self.media_port + 127,
            )
            + trunks
        )
        self._plan = yaml.safe_load(plan)
        plans = self.folder / "dialplans"
        plans.mkdir()
        self._write_plan()
        write_wav(plans / "tone.wav", sine(TONE_HZ, 60, -15))
        write_wav(plans / "short.wav", sine(TONE_HZ, 1, -15))
        write_wav(plans / "blip.wav", sine(TONE_HZ, 0.2, -15))
        self.events: list[Event] = []

    async def __aenter__(self) -> "Node":
        try:
            await self.start()
        except BaseException:
            await self.app.close()
            raise
        return self

    async def start(self, *, registered: bool = True) -> None:
        """Until every trunk that registers is registered."""
        file = self.folder / "sipagent.toml"
        file.write_text(self._text)
        settings = config.load(file, {})
        self.app = App(settings, config.state_dir(settings, {}))
        self.app.hub.subscribe(self.events.append)
        await self.app.start()
        if registered:
            await until(self._registered, "registration of every trunk")

    async def __aexit__(self, failure: type[BaseException] | None, *_: object) -> None:
        await self.app.close()
        if failure is None:
            shutil.rmtree(self.folder, ignore_errors=True)

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.sip_port}"

    def _registered(self) -> bool:
        return all(view.state is RegistrationState.REGISTERED for view in self.app.registrar.states.values())

    async def call(self, target: str, trunk: str, steps: str = "tone", *, ring_timeout_s: float = 0.0) -> str:
        """The id of a call that is on its way."""
        return await self.app.registry.originate(target, trunk=trunk, steps=steps, ring_timeout_s=ring_timeout_s)

    async def steps(self, name: str, *steps: object) -> str:
        """Puts more steps into the dialplan, as SIGHUP would; their name."""
        self._plan["steps"][name] = list(steps)
        self._write_plan()
        await self.app.reload()
        return name

    async def route(self, calling: str, *steps: object) -> None:
        """What becomes of calls from this number from now on."""
        name = await self.steps(f"from-{calling}", *steps)
        self._plan["routes"].insert(0, {"name": name, "calling": [calling], "steps": name})
        self._write_plan()
        await self.app.reload()

    def _write_plan(self) -> None:
        (self.folder / "dialplans/test.yaml").write_text(json.dumps(self._plan))

    def live(self, call_id: str) -> Call:
        return next(call for call in self.app.registry.live if call.id == call_id)

    async def incoming(self, since: int = 0, **wanted: Any) -> Call:
        """The inbound call that came after the event number `since` (over this trunk, ...) and is answered."""
        created = await self.event("CallCreated", since=since, direction="inbound", **wanted)
        call_id = created.call_id
        await self.event("LegAnswered", since=since, call_id=call_id)
        return self.live(call_id)

    async def answered(self, call_id: str) -> Call:
        await self.event("LegAnswered", call_id=call_id)
        return self.live(call_id)

    async def event(self, name: str, *, since: int = 0, within_s: float = 30.0, **wanted: object):
        """The first such event from the position `since` in ``events`` on."""

        def matches(event: Event) -> bool:
            return type(event).__name__ == name and all(getattr(event, key) == value for key, value in wanted.items())

        return await until(
            lambda: next((event for event in self.events[since:] if matches(event)), None),
            f"event {name} {wanted}",
            within_s,
        )

    def of(self, call_id: str, kind: type[E], keep: Callable[[E], bool] = lambda _: True) -> list[E]:
        return [e for e in self.events if isinstance(e, kind) and getattr(e, "call_id", "") == call_id and keep(e)]

    async def leg_of(self, call_id: str) -> LegRecord:
        """The first leg as it is on record by now."""
        return (await self._recorded(call_id, lambda _: True, 5)).call.legs[0]

    async def sip_messages(self, call_id: str, count: int) -> list[str]:
        """The texts of the call's messages, once so many are on record."""
        queries = Queries(f"sqlite:///{self.folder / 'sipagent.db'}")
        try:

            def enough() -> list[str] | None:
                found = [message.text for message in queries.sip_messages(call_id)]
                return found if len(found) >= count else None

            return await until(enough, f"{count} SIP messages on record", 20)
        finally:
            queries.close()

    async def ended(self, call_id: str, within_s: float = 30.0) -> FullCall:
        """The call's record, once it is complete."""
        return await self._recorded(call_id, lambda found: found.call.ended_at is not None, within_s)

    async def _recorded(self, call_id: str, enough: Callable[[FullCall], bool], within_s: float) -> FullCall:
        queries = Queries(f"sqlite:///{self.folder / 'sipagent.db'}")
        try:

            def record() -> FullCall | None:
                found = queries.get_call(call_id)
                return found if found is not None and enough(found) else None

            return await until(record, "record of the call", within_s)
        finally:
            queries.close()
