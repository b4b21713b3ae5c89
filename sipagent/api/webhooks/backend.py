"""What the API asks of the node about webhooks."""

from datetime import datetime
from typing import Protocol

from sipagent.store.outbox import DeliveryFilter, DeliveryPage, DeliveryRecord


class WebhooksBackend(Protocol):
    """Each raises RecordUnavailable (503)."""

    async def list_deliveries(self, wanted: DeliveryFilter) -> DeliveryPage: ...

    async def get_delivery(self, delivery_id: str) -> DeliveryRecord | None: ...

    async def send_again(self, delivery_id: str) -> datetime | None:
        """When it was asked for; None when there is no such delivery."""
        ...
