"""`sipagent db`: the schema of the record."""

from pathlib import Path

import click

from sipagent.app import database_url
from sipagent.cli.options import config_option, load
from sipagent.store import engine


@click.group()
def db() -> None:
    """Bring the database's schema up or down (`serve` brings it up by itself)."""


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
@config_option
def current(config_path: Path | None) -> None:
    """The schema's revision."""
    click.echo(engine.current(database_url(*load(config_path))) or "none")
