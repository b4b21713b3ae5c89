"""The lane's accounts: PJSIP's array of them is small, so only trunks that register have one for themselves.

A request of another trunk, and one that has to go to a certain server, is made with an account that is changed for it
first: PJSIP copies identity, credentials and route into each dialog when it begins.
"""

from collections.abc import Callable, Iterator
from typing import Any

import msgspec

from sipagent.sip.lane_callbacks import LaneAccount
from sipagent.sip.lane_calls import Owner
from sipagent.sip.protocol import AddAccount

MAX_ACCOUNTS = 8  # PJSUA_MAX_ACC as PJSIP has it; one more and it aborts the process


class Accounts:
    """``configure``: the pjsua2 configuration of an account. The one named "" is for calls without a trunk."""

    def __init__(self, lane: Owner, local: AddAccount, configure: Callable[[AddAccount], Any]) -> None:
        self._lane = lane
        self._configure = configure
        self._known: dict[str, AddAccount] = {"": local}
        self._own: dict[str, LaneAccount] = {}
        self._as: dict[str, AddAccount] = {"": local}  # what each of `_own` is at the moment
        self._spare: list[LaneAccount] = []  # of trunks that are gone: their calls refer to them, others may have them
        account = self._own[""] = LaneAccount(lane, "")
        account.create(configure(local), True)

    def add(self, command: AddAccount) -> None:
        if not command.account:
            command = msgspec.structs.replace(self._known[""], contact=command.contact)
        before = self._known.get(command.account, command)
        if command.account in self._own and not command.registrar:  # what it registered for an earlier main, it keeps
            command = msgspec.structs.replace(command, registrar=before.registrar)
        self._known[command.account] = command
        if command.account in self._own:
            moved = command.contact != before.contact and self._own[command.account].registered
            self._become(command.account, command, register=moved)
        elif command.registrar:
            self._give_own(command)

    def _give_own(self, command: AddAccount) -> None:
        name = command.account
        if self._spare:
            account = self._own[name] = self._spare.pop()
            account.name, self._as[name] = name, self._known[""]
            self._become(name, command)
        elif len(self._own) < MAX_ACCOUNTS:  # else calls can go by it all the same; `registering` says the rest
            account = LaneAccount(self._lane, name)
            account.create(self._configure(command))
            self._own[name], self._as[name] = account, command

    def remove(self, name: str) -> None:
        """The trunk is gone. PJSIP takes a registration back that is left."""
        if not name:
            return
        self._known.pop(name, None)
        self._as.pop(name, None)
        account = self._own.pop(name, None)
        if account is not None:
            account.name, account.registered = "", False
            account.modify(self._configure(self._known[""]))
            self._spare.append(account)

    def find(self, name: str, route: list[str] | None = None) -> LaneAccount:
        """The account to make this trunk's next request with; ``route``: None is the trunk's own."""
        command = self._known.get(name)
        if command is None:
            raise LookupError(f"no account named {name!r} was added")
        if route is not None:
            command = msgspec.structs.replace(command, route=route)
        holder = name if name in self._own else ""
        self._become(holder, command)
        return self._own[holder]

    def settle(self) -> None:
        """The account of calls that come in has nobody's password; what was placed by it has a copy of its own."""
        if "" in self._known:
            self._become("", self._known[""])

    def registering(self, name: str) -> LaneAccount:
        """The account that holds this trunk's registration. Raises RuntimeError when PJSIP has no room for it."""
        account = self.find(name)
        if name not in self._own:
            raise RuntimeError(
                f"PJSIP has room for {MAX_ACCOUNTS - 1} trunks that register: set `register = false` on some, or "
                "run them on another node"
            )
        return account

    def __iter__(self) -> Iterator[LaneAccount]:
        return iter(self._own.values())

    def _become(self, holder: str, command: AddAccount, *, register: bool = False) -> None:
        """``register``: PJSIP takes its registration back and makes it anew, which a new Contact asks for."""
        if self._as[holder] != command:
            config = self._configure(command)
            config.regConfig.disableRegOnModify = not register
            self._own[holder].modify(config)
            self._as[holder] = command
