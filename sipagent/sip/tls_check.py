"""Whether a trunk's server may be spoken to over TLS: who it proves to be, asked beside the edge's own connections.

Kamailio verifies the chain of every connection that it makes, compares no names, and tells of a failure only in its
log. So each server is asked in a handshake of our own, with the edge's certificate and authorities, before the edge
may send it anything (`TrunkWatch` says when); the name is compared as RFC 5922 section 7 asks.
"""

import asyncio
import contextlib
import socket
import ssl
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from sipagent.sip.edge_script import Tls
from sipagent.sip.servers import Server

_CONNECT_S, _HANDSHAKE_S = 3.0, 2.0  # the latter for each of its few messages
_REFUSAL_S = 0.3  # TLS 1.3 refuses a client's certificate only after the handshake (RFC 8446 section 4.4.2.4)
_SHOWN_NAMES = 4
_LONGEST_NAME = 100

# X509_V_ERR_*, as OpenSSL numbers them.
_NOT_YET_VALID, _EXPIRED, _SELF_SIGNED, _REVOKED, _OTHER_NAME, _OTHER_ADDRESS = 9, 10, 18, 23, 62, 64
_CHAIN = {
    _NOT_YET_VALID: "is not valid yet: check this machine's clock, or tell the provider",
    _EXPIRED: "has expired: tell the provider (or check this machine's clock)",
    _SELF_SIGNED: "is signed by itself: add it to the file of `tls_ca` in [sip] if it is what the provider gave you",
    _REVOKED: "has been revoked: tell the provider",
}
_UNTRUSTED = (
    "comes from an authority that we do not trust ({why}): add the provider's to the file of `tls_ca` in [sip], or the "
    "server does not send its intermediate certificates"
)

# Alerts by which a server refuses, as OpenSSL names them without their prefix.
_ALERTS = {
    "CERTIFICATE_REQUIRED": "wants a client certificate and not ours: ask the provider which it admits",
    "UNKNOWN_CA": "does not trust our certificate's authority: give the provider the chain of `tls_certificate`",
    "BAD_CERTIFICATE": "refuses our certificate: check `tls_certificate` in [sip], and what the provider admits",
    "CERTIFICATE_EXPIRED": "says that our certificate has expired: renew `tls_certificate` in [sip]",
    "CERTIFICATE_REVOKED": "says that our certificate has been revoked: renew `tls_certificate` in [sip]",
    "CERTIFICATE_UNKNOWN": "refuses our certificate: check `tls_certificate` in [sip], and what the provider admits",
    "UNSUPPORTED_CERTIFICATE": "does not take certificates like ours: it may have to allow client authentication",
    "ACCESS_DENIED": "denies us access: ask the provider which certificates it admits",
    "PROTOCOL_VERSION": "speaks no TLS of version 1.2 or later: ask the provider for it",
    "HANDSHAKE_FAILURE": "refuses the handshake: it may want another client certificate, or shares no cipher with us",
    "UNRECOGNIZED_NAME": "knows no such name: check the trunk's host",
}
_CLOSED = "it may want another client certificate, ask the provider"
_NOT_TLS = "does not speak TLS at this port: check the port and `transport`"


@dataclass(frozen=True, slots=True)
class Verdict:
    """``trusted``: None where the server could not be asked. ``sentence``: what is wrong and what to do, else ""."""

    trusted: bool | None
    sentence: str = ""


class CertificateCheck:
    """Asks servers for their certificates, with ours at hand."""

    def __init__(self, tls: Tls) -> None:
        self._tls = tls

    async def ask(self, server: Server, host: str, name: str = "") -> Verdict:
        """``host``: as the trunk is configured. ``name``: what to find in the certificate, "" is the host, "*" any.

        Takes up to 10 s of a thread, not of the loop.
        """
        return await asyncio.to_thread(self._ask, server, host.strip("[]"), name or host.strip("[]"))

    def _ask(self, server: Server, host: str, name: str) -> Verdict:
        try:
            self._shake(server, host if name == "*" else name, compare=name != "*")
        except ssl.SSLCertVerificationError as error:
            if error.verify_code not in (_OTHER_NAME, _OTHER_ADDRESS):
                return Verdict(False, f"the certificate of {server.address} {_chain(error)}")
        except ssl.SSLError as error:
            return Verdict(False, f"{server.address} {refusal(error.reason or '')}")
        except ConnectionResetError:
            return Verdict(False, f"{server.address} ends the connection in the TLS handshake: {_CLOSED}")
        except TimeoutError:
            return Verdict(None, f"{server.address} does not answer: check the address, and the firewall")
        except OSError as error:
            why = error.strerror or type(error).__name__
            return Verdict(None, f"{server.address} cannot be reached ({why}): check host, port, and the firewall")
        else:
            return Verdict(True)
        names: list[str] = []
        with contextlib.suppress(OSError):
            names = self._shake(server, name, compare=False)
        if f"URI:sip:{name.lower()}" in names:
            return Verdict(True)
        return Verdict(False, wrong_name(server, name, names))

    def _shake(self, server: Server, name: str, *, compare: bool) -> list[str]:
        """One handshake; the names in the certificate. Raises OSError."""
        context = self._context(compare)
        with socket.create_connection((server.host, server.port), _CONNECT_S) as plain:
            plain.settimeout(_HANDSHAKE_S)
            with context.wrap_socket(plain, server_hostname=name) as secure:
                names = list(_names(secure.getpeercert()))
                secure.settimeout(_REFUSAL_S)
                with contextlib.suppress(TimeoutError):
                    if not secure.recv(1):
                        raise ConnectionResetError
                return names

    def _context(self, compare: bool) -> ssl.SSLContext:
        """Like the edge's own (edge_script.tls_profiles)."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.check_hostname = compare
        context.load_verify_locations(self._tls.ca)
        context.load_cert_chain(self._tls.certificate, self._tls.key)
        return context


def refusal(reason: str) -> str:
    """What a server says with the alert, or OpenSSL of the server, of which this is OpenSSL's short name.

    >>> refusal("TLSV1_ALERT_PROTOCOL_VERSION")
    'speaks no TLS of version 1.2 or later: ask the provider for it'
    """
    if reason in ("WRONG_VERSION_NUMBER", "HTTP_REQUEST", "PACKET_LENGTH_TOO_LONG", "RECORD_LAYER_FAILURE"):
        return _NOT_TLS
    if reason in ("UNSUPPORTED_PROTOCOL", "UNKNOWN_PROTOCOL"):
        return _ALERTS["PROTOCOL_VERSION"]
    for ending, sentence in _ALERTS.items():
        if reason.endswith(ending):
            return sentence
    return f"fails in the TLS handshake ({reason.lower().replace('_', ' ') or 'no reason given'}): ask the provider"


def wrong_name(server: Server, name: str, names: Iterable[str]) -> str:
    shown = [entry.partition(":")[2][:_LONGEST_NAME] for entry in names][:_SHOWN_NAMES]
    whose = f"is for {', '.join(shown)}, not for {name}" if shown else f"is not for {name}"
    return (
        f"the certificate of {server.address} {whose}: it is not used; check the trunk's host, or set `tls_name` to "
        "the name that the provider tells you"
    )


def _chain(error: ssl.SSLCertVerificationError) -> str:
    return _CHAIN.get(error.verify_code) or _UNTRUSTED.format(why=error.verify_message)


def _names(certificate: dict[str, Any] | None) -> Iterable[str]:
    """``kind:name`` of those that a certificate is for."""
    for kind, name in (certificate or {}).get("subjectAltName", ()):
        if isinstance(name, str) and name.isprintable():
            yield f"{kind}:{name.lower()}"
