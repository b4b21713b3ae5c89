"""What an operator may set about the URLs of apps, numbers and requests: flows, webhooks, audio files, streams."""

from typing import Annotated

import msgspec
from msgspec import Meta


class WebSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    allow: tuple[str, ...] = ()  # names, addresses and networks, not public ones, that URLs may lead to ("10.0.0.0/8")
    flow_timeout_s: Annotated[float, Meta(gt=0, le=60)] = 5.0  # for a flow URL to answer; the caller waits
    flow_steps: Annotated[int, Meta(ge=1, le=1000)] = 50  # times that flow URLs are asked in one call
    # that signs what is sent where no app has one of its own; "" makes one, in webhook.key of the state folder
    secret: str = ""
