"""What becomes of trunks when the list of them is another: compared, and refused where it cannot be. Pure."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from sipagent.core.errors import ConfigError
from sipagent.sip.settings import SipSettings, TrunkSettings
from sipagent.sip.trunks import out_of_reach

MAX_TRUNKS = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class TrunkChanges:
    """By name."""

    added: frozenset[str]
    changed: frozenset[str]
    removed: frozenset[str]

    def __bool__(self) -> bool:
        return bool(self.added or self.changed or self.removed)


def compare(before: Sequence[TrunkSettings], after: Sequence[TrunkSettings]) -> TrunkChanges:
    """
    >>> changes = compare([TrunkSettings(name="a"), TrunkSettings(name="b")],
    ...     [TrunkSettings(name="b", priority=1), TrunkSettings(name="c")])
    >>> changes.added, changes.changed, changes.removed
    (frozenset({'c'}), frozenset({'b'}), frozenset({'a'}))
    """
    old, new = ({trunk.name: trunk for trunk in trunks} for trunks in (before, after))
    return TrunkChanges(
        added=frozenset(new.keys() - old.keys()),
        changed=frozenset(name for name in new.keys() & old.keys() if new[name] != old[name]),
        removed=frozenset(old.keys() - new.keys()),
    )


def check_trunks(trunks: Sequence[TrunkSettings], sip: SipSettings) -> None:
    """Raises ConfigError with the sentence for the operator about what cannot be."""
    if len(trunks) > MAX_TRUNKS:
        raise ConfigError(f"{len(trunks)} trunks are more than the {MAX_TRUNKS} that a node takes")
    name, count = next(iter(Counter(trunk.name for trunk in trunks).most_common(1)), ("", 0))
    if count > 1:
        raise ConfigError(f"{count} trunks are named `{name}`: names must differ")
    for trunk in trunks:
        if problem := out_of_reach(trunk, sip):
            raise ConfigError(problem)


def check_room(trunks: Sequence[TrunkSettings], registrations: int) -> None:
    """``registrations``: for how many trunks the lanes have room. Raises ConfigError."""
    registering = sum(trunk.registers for trunk in trunks)
    if registering > registrations:
        raise ConfigError(
            f"{registering} trunks register, and this node's lanes have room for {registrations}: raise"
            " [limits] max_calls for more lanes, set `register = false` on some, or run them on another node"
        )
