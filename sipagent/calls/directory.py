"""Which voice app takes a call, by the number that was called. Asked for every inbound call: all of it is in memory."""

from collections.abc import Sequence

from sipagent.calls.inventory import Inventory, passed_to
from sipagent.dialplan import matching
from sipagent.dialplan.matching import Match
from sipagent.dialplan.model import Dialplan, DialStep, HangupStep, Step
from sipagent.store.resources import SipTrunkRecord, VoiceAppRecord


class Directory:
    def __init__(self, inventory: Inventory | None = None) -> None:
        self.take(inventory or Inventory())

    def take(self, inventory: Inventory) -> None:
        """In place of what there was. Of a number that the configuration names too, the configuration's counts."""
        self.inventory = inventory
        fixed = inventory.fixed
        self._numbers = {it.number: it for it in sorted(inventory.numbers.values(), key=lambda it: it.id in fixed)}

    def app(self, app_id: str) -> VoiceAppRecord | None:
        return self.inventory.apps.get(app_id)

    def app_of(self, number: str, trunk: str) -> VoiceAppRecord | None:
        """The app of this called number, None where the dialplans' routes decide. `trunk`: the one it came by."""
        found = self._numbers.get(number)
        if found is None or found.voice_app_id is None or found.trunk not in ("", trunk):
            return None
        return self.inventory.apps.get(found.voice_app_id)

    def trunk_of(self, number: str, trunk: str) -> SipTrunkRecord | None:
        """The trunk that calls of this number are passed on over."""
        found = self._numbers.get(number)
        if found is None or found.trunk not in ("", trunk):
            return None
        return self.inventory.trunks.get(passed_to(found))


def steps_of(app: VoiceAppRecord, dialplans: Sequence[Dialplan]) -> Match | None:
    """What the app's dialplan has calls do; None when there is no dialplan of that name."""
    return matching.by_name(dialplans, app.dialplan) if app.dialplan else None


def passing_on(trunk: SipTrunkRecord, number: str) -> Match:
    """Rings the number over the trunk: the user of the trunk's inbound route, where it names one."""
    target = trunk.settings.get("inbound_route", {}).get("sip_user") or number
    steps: list[Step] = [DialStep(to=target, trunk=trunk.name, show="caller"), HangupStep()]
    return Match(Dialplan(name=trunk.name, folder="", routes=[], steps={"pass-on": steps}, agents={}), "pass-on", steps)
