"""What the API asks of the node, by topic."""

from dataclasses import dataclass

from sipagent.api.access.backend import AccessBackend
from sipagent.api.calls.backend import CallsBackend
from sipagent.api.dialplans.backend import DialplansBackend
from sipagent.api.erasures.backend import ErasuresBackend
from sipagent.api.mutations.backend import MutationsBackend
from sipagent.api.node.backend import NodeBackend
from sipagent.api.nodes.backend import NodesBackend
from sipagent.api.recordings.backend import RecordingsBackend
from sipagent.api.reports.backend import ReportsBackend
from sipagent.api.resources.backend import ResourcesBackend
from sipagent.api.steering.backend import SteeringBackend
from sipagent.api.webhooks.backend import WebhooksBackend


@dataclass(frozen=True, kw_only=True)
class Backend:
    calls: CallsBackend
    steering: SteeringBackend
    mutations: MutationsBackend
    recordings: RecordingsBackend
    node: NodeBackend
    access: AccessBackend
    dialplans: DialplansBackend
    nodes: NodesBackend
    resources: ResourcesBackend
    webhooks: WebhooksBackend
    reports: ReportsBackend
    erasures: ErasuresBackend
