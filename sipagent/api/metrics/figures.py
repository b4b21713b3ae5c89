"""What the events of a node add up to, as Prometheus counts: totals and histograms since the node began.

No label holds a number, a name of a person or an id of a call: trunks, providers, tools and causes only, of which a
configuration has few.
"""

from collections.abc import Iterator
from typing import Any, Protocol

from prometheus_client import CollectorRegistry, Counter, Histogram
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from sipagent.api.node.backend import Health
from sipagent.core.clock import Stamp
from sipagent.core.events import (
    AgentInterrupted,
    AudioTrouble,
    CallCreated,
    CalleeDetected,
    CallEnded,
    CallQuality,
    CallRefused,
    Event,
    LegEnded,
    Problem,
    ProcessEnded,
    ToolReturned,
    TransferChanged,
    TurnEnded,
    TurnLatency,
)
from sipagent.core.states import RegistrationState, TrunkState

CALL_S = (5, 15, 30, 60, 120, 300, 600, 1800, 3600)
WAIT_S = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.8, 1.0, 1.5, 2.0, 3.0, 5.0, 10.0)
PART_S = (0.02, 0.05, 0.1, 0.2, 0.3, 0.4, 0.6, 0.8, 1.0, 1.5, 2.5, 5.0, 10.0)
MOS = (1.5, 2.0, 2.5, 3.0, 3.4, 3.6, 3.8, 4.0, 4.2, 4.5)
MOST_OPEN = 20_000  # calls whose beginning is remembered


class NodeHealth(Protocol):
    def health(self) -> Health: ...


class Figures:
    """Subscribe `count` to the hub; `registry` is what Prometheus reads."""

    def __init__(self, node: NodeHealth) -> None:
        self.registry = to = CollectorRegistry()
        self._begun: dict[str, Stamp] = {}
        self._calls = Counter("sipagent_calls", "Calls begun", ["direction"], registry=to)
        self._ended = Counter("sipagent_calls_ended", "Calls ended", ["disposition", "cause", "by"], registry=to)
        self._refused = Counter("sipagent_calls_refused", "Calls refused unheard", ["sip_status"], registry=to)
        self._lasted = Histogram("sipagent_call_seconds", "How long calls lasted", buckets=CALL_S, registry=to)
        self._turns = Counter("sipagent_turns", "Turns of conversations", registry=to)
        self._cut = Counter("sipagent_interruptions", "Turns of agents cut short by their callers", registry=to)
        self._waited = Histogram(
            "sipagent_response_seconds",
            "From the caller's last voiced packet to the agent's first",
            buckets=WAIT_S,
            registry=to,
        )
        self._parts = Histogram(
            "sipagent_response_part_seconds", "Where that time went", ["part"], buckets=PART_S, registry=to
        )
        self._asked = Counter(
            "sipagent_provider_requests", "What providers did", ["role", "provider", "outcome"], registry=to
        )
        self._first = Histogram(
            "sipagent_provider_first_seconds",
            "Until a provider's first words or audio",
            ["role", "provider"],
            buckets=PART_S,
            registry=to,
        )
        self._tools = Counter("sipagent_tool_calls", "Calls of tools", ["name", "status"], registry=to)
        self._transfers = Counter("sipagent_transfers", "States transfers came to", ["kind", "state"], registry=to)
        self._callees = Counter("sipagent_callees", "Who answered calls of ours", ["callee"], registry=to)
        self._problems = Counter("sipagent_problems", "Survived failures within calls", ["where"], registry=to)
        self._deaths = Counter("sipagent_processes_ended", "Processes of the node that ended", ["process"], registry=to)
        self._packets = Counter("sipagent_rtp_packets", "RTP packets of ended legs", ["way"], registry=to)
        self._missing = Counter("sipagent_rtp_packets_missing", "RTP packets lost or late", ["how"], registry=to)
        self._concealed = Counter("sipagent_audio_concealed_seconds", "Audio made up for missing", registry=to)
        self._trouble = Counter("sipagent_audio_troubles", "Troubles with the audio of calls", ["kind"], registry=to)
        self._mos = Histogram("sipagent_call_mos", "MOS-LQ of ended legs", buckets=MOS, registry=to)
        to.register(_Now(node))

    def count(self, event: Event) -> None:
        match event:
            case CallCreated():
                self._calls.labels(event.direction).inc()
                if len(self._begun) < MOST_OPEN:
                    self._begun[event.call_id] = event.at
            case CallEnded(termination=end):
                self._ended.labels(end.disposition, end.cause, end.by).inc()
                if (begun := self._begun.pop(event.call_id, None)) is not None:
                    self._lasted.observe(event.at.ms_since(begun) / 1000)
            case CallRefused():
                self._refused.labels(str(event.sip_status)).inc(1 + event.others)
            case TurnEnded():
                self._turn(event)
            case AgentInterrupted():
                self._cut.inc()
            case ToolReturned():
                self._tools.labels(event.name, event.status).inc()
            case TransferChanged():
                self._transfers.labels(event.kind, event.state).inc()
            case CalleeDetected():
                self._callees.labels(event.callee).inc()
            case Problem():
                self._problems.labels(event.where).inc()
            case ProcessEnded():
                self._deaths.labels(event.process).inc()
            case LegEnded(figures=of):
                self._packets.labels("in").inc(of.packets_in)
                self._packets.labels("out").inc(of.packets_out)
                self._missing.labels("lost").inc(max(of.lost, 0))
                self._missing.labels("late").inc(of.late)
                self._concealed.inc(of.concealed_ms / 1000)
            case AudioTrouble(active=True):
                self._trouble.labels(event.kind).inc()
            case CallQuality(final=True, mos_lq=mos) if mos is not None:
                self._mos.observe(mos)

    def _turn(self, turn: TurnEnded) -> None:
        self._turns.inc()
        if turn.latency is not None:
            self._waited.observe(turn.latency.total_ms / 1000)
            for name in TurnLatency.__dataclass_fields__:
                if name != "total_ms":
                    self._parts.labels(name.removesuffix("_ms")).observe(getattr(turn.latency, name) / 1000)
        for note in turn.details.get("providers", ()):
            self._provider(note)

    def _provider(self, note: dict[str, Any]) -> None:
        role, provider = note["role"], note["provider"]
        outcome = "failed" if "failed" in note else "late" if note.get("late") else "answered"
        self._asked.labels(role, provider, outcome).inc()
        if "first_ms" in note:
            self._first.labels(role, provider).observe(note["first_ms"] / 1000)


class _Now:
    """What is so at the moment, asked when Prometheus asks."""

    def __init__(self, node: NodeHealth) -> None:
        self._node = node

    def describe(self) -> Iterator[Metric]:
        """Nothing: the node is not up yet when this is registered."""
        return iter(())

    def collect(self) -> Iterator[Metric]:
        health = self._node.health()
        info = GaugeMetricFamily("sipagent_info", "1; the version is a label", labels=["version"])
        info.add_metric([health.version], 1)
        yield info
        state = GaugeMetricFamily("sipagent_state", "1 for the state the node is in", labels=["state"])
        for each in ("ok", "degraded", "draining"):
            state.add_metric([each], health.status == each)
        yield state
        yield GaugeMetricFamily("sipagent_uptime_seconds", "Since the node began", health.uptime_s)
        yield GaugeMetricFamily("sipagent_calls_active", "Calls that are up", health.calls_active)
        yield GaugeMetricFamily("sipagent_calls_limit", "Calls that may be up", health.max_calls)
        registered = GaugeMetricFamily("sipagent_registered", "1 for a trunk we are registered at", labels=["trunk"])
        for registration in health.registrations:
            registered.add_metric([registration.trunk], registration.state is RegistrationState.REGISTERED)
        yield registered
        up = GaugeMetricFamily("sipagent_trunk_up", "1 for a trunk that answers, 0.5 degraded", labels=["trunk"])
        busy = GaugeMetricFamily("sipagent_trunk_calls", "Calls over a trunk", labels=["trunk", "direction"])
        for trunk in health.trunks:
            up.add_metric([trunk.name], {TrunkState.UP: 1.0, TrunkState.DEGRADED: 0.5}.get(trunk.state, 0.0))
            busy.add_metric([trunk.name, "inbound"], trunk.calls_in)
            busy.add_metric([trunk.name, "outbound"], trunk.calls_out)
        yield up
        yield busy
        if health.recorder is not None:
            events = CounterMetricFamily("sipagent_record_events", "Events for the record", labels=["outcome"])
            for outcome in ("written", "dropped", "refused"):
                events.add_metric([outcome], getattr(health.recorder, outcome))
            yield events
            yield GaugeMetricFamily("sipagent_record_backlog", "Events that wait for it", health.recorder.backlog)
