"""`sipagent calls`: what is on record."""

import os
from pathlib import Path

import click

from sipagent.api.calls.sip_messages import packets, sip_messages_page
from sipagent.cli import show
from sipagent.cli.ladder import ladder
from sipagent.cli.options import config_option, json_option, load, print_json
from sipagent.core.errors import SetupError
from sipagent.sip.pcap import capture
from sipagent.state_folder import database_url
from sipagent.store import engine
from sipagent.store.queries import Queries
from sipagent.store.records import MAX_PAGE, CallFilter, CallRecord


@click.command()
@click.argument("call_id", required=False)
@click.option("--limit", default=20, show_default=True, type=click.IntRange(1, MAX_PAGE), help="How many to list.")
@click.option("--sip", is_flag=True, help="Show the call's SIP messages as a ladder.")
@click.option("--full", is_flag=True, help="With --sip: the text of every message too.")
@click.option(
    "--pcap", type=click.Path(dir_okay=False, path_type=Path), help="Write the SIP messages into a capture file."
)
@config_option
@json_option
def calls(
    call_id: str | None,
    limit: int,
    sip: bool,
    full: bool,
    pcap: Path | None,
    config_path: Path | None,
    as_json: bool,
) -> None:
    """List the newest calls; or show everything about one: who said what, where the time went, how it ended.

    CALL_ID may be shortened to its end, or be "last".

    \b
      sipagent calls last --sip            the SIP messages, who sent which and when
      sipagent calls last --pcap call.pcap the same for Wireshark
    """
    if full and not sip:
        raise click.UsageError("--full says how --sip shows messages: give both")
    if (sip or pcap) and call_id is None:
        raise click.UsageError('name the call: its id as `sipagent calls` lists it, or "last"')
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
        if sip or pcap:
            _messages(queries, record.call, full=full, pcap=pcap, as_json=as_json, show_them=sip)
        elif as_json:
            print_json(record)
        else:
            show.console().print(show.call_record(record))
    finally:
        queries.close()


def _messages(
    queries: Queries, call: CallRecord, *, full: bool, pcap: Path | None, as_json: bool, show_them: bool
) -> None:
    page = sip_messages_page(queries.sip_messages(call.id))
    if pcap is not None:
        try:
            # Numbers stand in it: for its owner only.
            with os.fdopen(os.open(pcap, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as out:
                out.write(capture(packets(page)))
        except OSError as error:
            raise SetupError(f"the capture file {pcap} cannot be written: {error.strerror}") from error
        click.echo(f"{len(page.data)} messages written to {pcap}", err=True)
    if not show_them:
        return
    if as_json:
        print_json(page)
    else:
        show.console().print(ladder(call, page, full=full), soft_wrap=True)


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
