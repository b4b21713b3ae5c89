"""All topics of the API. A topic is a package of its own: handlers with their routes, types, and what they ask of
the node."""

from sipagent.api.access import handlers as access
from sipagent.api.calls import handlers as calls
from sipagent.api.dashboard import handlers as dashboard
from sipagent.api.dialplans import handlers as dialplans
from sipagent.api.docs import handlers as docs
from sipagent.api.erasures import handlers as erasures
from sipagent.api.events import handlers as events
from sipagent.api.metrics import handlers as metrics
from sipagent.api.mutations import handlers as mutations
from sipagent.api.node import handlers as node
from sipagent.api.nodes import handlers as nodes
from sipagent.api.recordings import handlers as recordings
from sipagent.api.reports import handlers as reports
from sipagent.api.resources import acls, apps, numbers, secrets, sip_calls, trunks
from sipagent.api.routing import Route, Topic
from sipagent.api.steering import handlers as steering
from sipagent.api.twilio import handlers as twilio
from sipagent.api.webhooks import handlers as webhooks

TOPICS: tuple[Topic, ...] = (
    Topic(calls.CallHandlers, calls.ROUTES),
    Topic(steering.SteeringHandlers, steering.ROUTES),
    Topic(apps.AppHandlers, apps.ROUTES),
    Topic(numbers.NumberHandlers, numbers.ROUTES),
    Topic(mutations.MutationHandlers, mutations.ROUTES),
    Topic(recordings.RecordingHandlers, recordings.ROUTES),
    Topic(trunks.TrunkHandlers, trunks.ROUTES),
    Topic(acls.AclHandlers, acls.ROUTES),
    Topic(secrets.SecretHandlers, secrets.ROUTES),
    Topic(sip_calls.SipCallHandlers, sip_calls.ROUTES),
    Topic(events.EventHandlers, events.ROUTES),
    Topic(webhooks.WebhookHandlers, webhooks.ROUTES),
    Topic(reports.ReportHandlers, reports.ROUTES),
    Topic(access.AccessHandlers, access.ROUTES),
    Topic(twilio.TwilioHandlers, twilio.ROUTES),
    Topic(dashboard.DashboardHandlers, dashboard.ROUTES),
    Topic(erasures.ErasureHandlers, erasures.ROUTES),
    Topic(dialplans.DialplanHandlers, dialplans.ROUTES),
    Topic(nodes.NodesHandlers, nodes.ROUTES),
    Topic(docs.DocsHandlers, docs.ROUTES),
    Topic(node.NodeHandlers, node.ROUTES),
    Topic(metrics.MetricsHandlers, metrics.ROUTES),
)

ROUTES: tuple[Route, ...] = tuple(route for topic in TOPICS for route in topic.routes)
