"""What an operator may set about the URLs of apps, numbers and requests: flows, webhooks, audio files, streams."""

import msgspec


class WebSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    allow: tuple[str, ...] = ()  # names, addresses and networks, not public ones, that URLs may lead to ("10.0.0.0/8")
