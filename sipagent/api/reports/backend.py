"""What the API asks of the node about calls that were."""

from datetime import datetime
from typing import Protocol

from sipagent.reports.reading import DetailPage
from sipagent.reports.report import Question, Report
from sipagent.store.records import CallFilter


class ReportsBackend(Protocol):
    """Each raises RecordUnavailable (503), and ValueError (422) for more than one answer can hold."""

    @property
    def time_zone(self) -> str:
        """In which days and hours are counted where nobody says otherwise, "" for the machine's."""
        ...

    async def report(self, question: Question) -> Report: ...

    async def page(self, question: Question) -> str:
        """As one HTML file."""
        ...

    async def details(self, wanted: CallFilter) -> DetailPage: ...

    async def details_csv(self, begin: datetime, end: datetime) -> str: ...
