"""`sipagent calls`: what is on record."""

from pathlib import Path

import click

from sipagent.app import database_url
from sipagent.cli import show
from sipagent.cli.options import config_option, json_option, load, print_json
from sipagent.core.errors import SetupError
from sipagent.store import engine
from sipagent.store.queries import Queries
from sipagent.store.records import MAX_PAGE, CallFilter


@click.command()
@click.argument("call_id", required=False)
@click.option("--limit", default=20, show_default=True, type=click.IntRange(1, MAX_PAGE), help="How many to list.")
@config_option
@json_option
def calls(call_id: str | None, limit: int, config_path: Path | None, as_json: bool) -> None:
    """List the newest calls; or show everything about one: who said what, where the time went, how it ended.

    CALL_ID may be shortened to its end, or be "last".
    """
    config, state = load(config_path)
    url = database_url(config, state)
    if engine.current(url) is None:
        raise SetupError("there is no record yet: start `sipagent serve` (or name its configuration with -c) first")
    queries = Queries(url)
    try:
        if call_id is None:
            page = queries.list_calls(CallFilter(limit=limit))
            if as_json:
                print_json(page.calls)
            elif page.calls:
                show.console().print(show.calls_table(page.calls))
            else:
                click.echo("no calls on record yet")
            return
        record = queries.get_call(_complete(queries, call_id))
        if record is None:
            raise click.ClickException(f"no call {call_id} on record; `sipagent calls` lists them")
        if as_json:
            print_json(record)
        else:
            show.console().print(show.call_record(record))
    finally:
        queries.close()


def _complete(queries: Queries, given: str) -> str:
    if given.startswith("call_"):
        return given
    recent = [call.id for call in queries.list_calls(CallFilter(limit=MAX_PAGE)).calls]
    if given == "last":
        return recent[0] if recent else given
    found = [call_id for call_id in recent if call_id.endswith(given)]
    if len(found) > 1:
        raise click.ClickException(f"{given} could be {len(found)} calls: give more of it")
    return found[0] if found else given
