"""The node itself."""

from collections.abc import Callable

from sipagent import __version__
from sipagent.api.node.backend import Health
from sipagent.api.node.types import RegistrationOut, TrunkOut, TrunkServerOut
from sipagent.calls.registry import CallRegistry
from sipagent.core import clock
from sipagent.core.clock import Stamp
from sipagent.core.states import Direction
from sipagent.sip.registrar import Registrar
from sipagent.store.recorder import Recorder


class LiveNode:
    """`api.node.backend.NodeBackend` on a live node. `processes` tells the process ids by role."""

    def __init__(
        self,
        registry: CallRegistry,
        registrar: Registrar,
        recorder: Recorder,
        processes: Callable[[], dict[str, int]],
    ) -> None:
        self._registry = registry
        self._registrar = registrar
        self._recorder = recorder
        self._processes = processes
        self._started: Stamp = clock.now()

    def health(self) -> Health:
        processes = self._processes()
        complete = {"lane", "media"} <= set(processes) and any(name.startswith("speech") for name in processes)
        return Health(
            status="draining" if self._registry.draining else "ok" if complete else "degraded",
            version=__version__,
            uptime_s=clock.now().ms_since(self._started) / 1000,
            calls_active=len(self._registry.live),
            max_calls=self._registry.max_calls,
            processes=processes,
            registrations=[
                RegistrationOut(
                    trunk=trunk,
                    state=view.state,
                    sip_status=view.sip_status,
                    reason=view.reason,
                    expires_s=view.expires_s,
                    next_try_s=view.next_try_s,
                )
                for trunk, view in self._registrar.states.items()
            ],
            trunks=self._trunks(),
            recorder=self._recorder.statistics,
        )

    def _trunks(self) -> list[TrunkOut]:
        trunks = self._registry.trunks
        at = clock.now()
        return [
            TrunkOut(
                name=name,
                state=view.state,
                reason=view.reason,
                since_s=round(max(0.0, at.mono / 1e9 - view.since), 1) if view.since else 0.0,
                servers=[TrunkServerOut(address=it.address, up=it.up, reason=it.reason) for it in view.servers],
                calls_in=trunks.in_use(name)[Direction.INBOUND],
                calls_out=trunks.in_use(name)[Direction.OUTBOUND],
                total_in=trunks.counters[name].calls_in,
                total_out=trunks.counters[name].calls_out,
                refused_channels=trunks.counters[name].refused_channels,
                refused_rate=trunks.counters[name].refused_rate,
                refused_password=trunks.counters[name].refused_password,
                refused_redirects=trunks.counters[name].refused_redirects,
            )
            for name, view in trunks.states.items()
        ]
