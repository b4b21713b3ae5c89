"""Lists that are in memory, newest first, cut by id: what comes or goes meanwhile shifts nothing."""

from collections.abc import Callable, Iterable, Sequence
from typing import Annotated, Any, Protocol, TypeVar

from msgspec import Meta

from sipagent.api.errors import ApiError, field_error
from sipagent.api.types import Cursor, Request, Response
from sipagent.calls.inventory import Inventory
from sipagent.store.records import MAX_PAGE

FIXED = "it stands in the configuration of the node: change it there"
Search = Annotated[str, Meta(min_length=1, max_length=128)]
Words = Annotated[tuple[Annotated[str, Meta(min_length=1, max_length=128)], ...], Meta(max_length=50)]


class PageQuery(Request, kw_only=True, frozen=True):
    """Newest first. At most one of the cursors."""

    search: Search | None = None  # part of the name, in any case
    limit: Annotated[int, Meta(ge=1, le=MAX_PAGE)] = 50
    cursor_after: Cursor | None = None
    cursor_before: Cursor | None = None


class PageOut(Response, kw_only=True, frozen=True):
    next_cursor: str | None  # for `cursor_after`
    previous_cursor: str | None  # for `cursor_before`
    has_more: bool


class DeleteOut(Response, kw_only=True, frozen=True):
    success: bool = True
    message: str = "deleted"


class _Identified(Protocol):
    @property
    def id(self) -> str: ...


_Record = TypeVar("_Record", bound=_Identified)
_Found = TypeVar("_Found")


def cut(records: Iterable[_Record], query: PageQuery) -> tuple[list[_Record], dict[str, Any]]:
    """The page, and the fields of PageOut. Raises 422 for two cursors."""
    after, before = query.cursor_after, query.cursor_before
    if after is not None and before is not None:
        raise field_error("cursor_after", "cannot be used together with cursor_before")
    ordered = sorted(records, key=lambda record: record.id, reverse=True)
    if before is not None:
        newer = [record for record in ordered if record.id > before]
        page = newer[-query.limit :]
        more_before, more_after = len(newer) > len(page), bool(page)
    else:
        older = [record for record in ordered if after is None or record.id < after]
        page = older[: query.limit]
        more_before, more_after = bool(page) and after is not None, len(older) > len(page)
    return page, {
        "next_cursor": page[-1].id if more_after else None,
        "previous_cursor": page[0].id if more_before else None,
        "has_more": more_after,
    }


def matches(search: str | None, *texts: str) -> bool:
    return search is None or any(search.casefold() in text.casefold() for text in texts)


def one_of(records: dict[str, _Found], record_id: str, what: str) -> _Found:
    found = records.get(record_id)
    if found is None:
        raise ApiError(404, f"there is no such {what}")
    return found


def changeable(inventory: Inventory, ids: Sequence[str], what: str) -> None:
    """Raises 409 when one of them stands in the configuration."""
    if any(record_id in inventory.fixed for record_id in ids):
        raise ApiError(409, f"this {what} cannot be changed over the API: {FIXED}")


def checked_url(check: Callable[[str], None], field: str, url: str) -> str:
    """Raises 422. "" is none."""
    if url:
        try:
            check(url)
        except ValueError as error:
            raise field_error(field, str(error)) from error
    return url
