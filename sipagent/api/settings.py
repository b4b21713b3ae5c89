"""Settings of the HTTP side."""

import re

import msgspec

_PUBLIC_URL = re.compile(r"https?://[A-Za-z0-9.:\[\]-]+(/[!-~]*)?")


class ApiSettings(msgspec.Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    enabled: bool = True  # False serves nothing at all, not even health
    # loopback: whoever wants the API reachable from outside says so, and puts TLS in front of it
    host: str = "127.0.0.1"
    port: int = 8080  # 0 is any free port
    tls_certificate: str = ""  # PEM file of the API, with its chain; "" is no TLS: then a proxy should speak it
    tls_key: str = ""  # its private key, readable by this user alone
    # where clients reach it, such as https://sip.example.com, where a proxy stands before it: signed URLs of recordings
    # begin with this; "" is as the request came
    public_url: str = ""
    # SHA-256 of each key, as `sipagent key create` prints it; with none, the node makes one key and keeps it in api.key
    key_hashes: list[str] = []
    rate_per_s: float = 1000.0  # requests of a key that has no rate of its own; beyond: 429. 0 is no limit
    request_timeout_s: float = 30.0  # a request that takes longer is answered with 504
    heartbeat_s: float = 15.0  # comment lines on a quiet event stream; proxies cut connections silent for 30 to 60 s
    max_streams: int = 100  # event streams at once; each may hold 1,000 events for a client that reads slowly

    def __post_init__(self) -> None:
        if bool(self.tls_certificate) != bool(self.tls_key):
            raise ValueError("TLS of the API needs both `tls_certificate` and `tls_key`")
        if self.public_url and (not _PUBLIC_URL.fullmatch(self.public_url) or set("?#@") & set(self.public_url)):
            raise ValueError("public_url: must be https://, a host and maybe a port and a path")
