"""What an operator may set about the tools of agents."""

import msgspec


class ToolSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    allow: tuple[str, ...] = ()  # names, addresses and networks, not public ones, that tools may reach ("10.0.0.0/8")
    rounds: int = 5  # of tool calls in one turn; after them the model has to answer with what it knows
