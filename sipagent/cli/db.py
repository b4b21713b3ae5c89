"""`sipagent db`: the schema of the record, and erasing a caller's data."""

import time
from pathlib import Path

import click

from sipagent.cli.options import config_option, json_option, load, print_json
from sipagent.core import clock
from sipagent.core.errors import SetupError
from sipagent.state_folder import database_url, journal_folder, recordings_folder
from sipagent.store import engine
from sipagent.store.erasure import erase_caller
from sipagent.store.journal import holds_records
from sipagent.store.recording_files import RecordingFiles
from sipagent.store.writing import Writes

JOURNAL_LIMIT_S, JOURNAL_LOOK_S = 3.0, 0.05


@click.group()
def db() -> None:
    """The database's schema (`serve` brings it up by itself), and erasing what it has of a caller."""


@db.command()
@config_option
def upgrade(config_path: Path | None) -> None:
    """To the newest schema; makes the database when there is none."""
    engine.upgrade(database_url(*load(config_path)))
    click.echo("the database is up to date")


@db.command()
@click.argument("revision")
@config_option
def downgrade(revision: str, config_path: Path | None) -> None:
    """Back to REVISION ("base" removes every table and everything in it)."""
    url = database_url(*load(config_path))
    if revision == "base":
        click.confirm("This deletes the whole record. Go on?", abort=True)
    engine.downgrade(url, revision)
    click.echo(f"the database is at {engine.current(url) or 'base'}")


@db.command()
@click.argument("number")
@click.option("--yes", is_flag=True, help="Do not ask.")
@config_option
@json_option
def erase(number: str, yes: bool, config_path: Path | None, as_json: bool) -> None:
    """Erase what the record has of a caller: NUMBER, what was said, recordings. The proof stays."""
    config, state = load(config_path)
    url = database_url(config, state)
    _wait_for_the_journal(state)
    engine.upgrade(url)
    if not yes:
        click.confirm(f"Erase the numbers, words and recordings of all ended calls with {number}. Go on?", abort=True)
    files = RecordingFiles(recordings_folder(config, state), config.node.name)
    writes = Writes(url)
    try:
        proof = writes.run(lambda session: erase_caller(session, number, files, "command line", clock.now().wall))
    except ValueError as error:
        raise click.UsageError(str(error)) from error
    except OSError as error:
        raise SetupError(f"a recording cannot be deleted: {error.strerror}") from error
    finally:
        writes.close()
    if as_json:
        print_json(proof)
        return
    click.echo(f"erased   {proof.id}, at {proof.at:%Y-%m-%d %H:%M:%S} UTC")
    for name, count in sorted(proof.counts.items()):
        click.echo(f"         {count} {name.replace('_', ' ')}")
    if "calls_up" in proof.counts:
        click.echo("calls that are up keep what they hold: erase again when they have ended")
    if "recordings_elsewhere" in proof.counts:
        click.echo("other nodes have recordings of this caller: erase there, too")


def _wait_for_the_journal(state: Path) -> None:
    """What stands there would come back. A node that runs writes it soon. Raises SetupError."""
    try:
        for _ in range(round(JOURNAL_LIMIT_S / JOURNAL_LOOK_S)):
            if not holds_records(journal_folder(state)):
                return
            time.sleep(JOURNAL_LOOK_S)
    except OSError as error:
        raise SetupError(f"the journal {journal_folder(state)} cannot be read: {error.strerror}") from error
    raise SetupError(
        "events wait in the journal and would bring back what is erased: start the node, so that it writes them, or"
        " while it runs erase with POST /api/v1/erasures"
    )


@db.command()
@config_option
def current(config_path: Path | None) -> None:
    """The schema's revision."""
    click.echo(engine.current(database_url(*load(config_path))) or "none")
