"""HTTP to servers of tools: a connection goes to an address that the guard has checked, whatever a proxy or DNS say."""

from collections.abc import Mapping

import httpx2

from sipagent.web.guard import Guard

TIMEOUT = httpx2.Timeout(30.0, connect=5.0, read=300.0)  # a server may hold a stream of events open


def guarded_client(guard: Guard, headers: Mapping[str, str]) -> httpx2.AsyncClient:
    """It follows no redirects: the protocol's client does so by itself, within the address's own origin."""
    transport = _Guarded(guard, httpx2.AsyncHTTPTransport(trust_env=False))
    return httpx2.AsyncClient(transport=transport, headers=dict(headers), timeout=TIMEOUT, trust_env=False)


class _Guarded(httpx2.AsyncBaseTransport):
    def __init__(self, guard: Guard, below: httpx2.AsyncBaseTransport) -> None:
        self._guard = guard
        self._below = below

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        """Raises NotAllowed or OSError, or as httpx2."""
        host = request.url.host
        addresses = await self._guard.addresses(host)
        for address in addresses[:-1]:
            try:
                return await self._below.handle_async_request(_to(request, host, address))
            except (httpx2.ConnectError, httpx2.ConnectTimeout):  # nothing has been sent
                continue
        return await self._below.handle_async_request(_to(request, host, addresses[-1]))

    async def aclose(self) -> None:
        await self._below.aclose()


def _to(request: httpx2.Request, host: str, address: str) -> httpx2.Request:
    """With the name still in the Host field and in the certificate that is asked for."""
    return httpx2.Request(
        request.method,
        request.url.copy_with(host=address),
        headers=request.headers,
        stream=request.stream,
        extensions={**request.extensions, "sni_hostname": host},
    )
