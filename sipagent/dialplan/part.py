"""What every mapping of a dialplan file has in common."""

import msgspec


class Part(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One YAML mapping; the field names are the keys a user writes. Unknown keys are errors."""
