"""`sipagent key`: keys for the API."""

from datetime import UTC, timedelta
from pathlib import Path

import click

from sipagent.api.keys import made_key, new_key
from sipagent.cli.options import config_option, load
from sipagent.core import clock
from sipagent.state_folder import database_url
from sipagent.store import access, engine
from sipagent.store.writing import Writes


@click.group()
def key() -> None:
    """Keys for the API.

    Without any configured key a node makes its own and keeps it in its state folder, for commands on the same machine.
    """


@key.command()
@click.option("--name", help="Keep it in the database under this name; without, it is for [api] key_hashes.")
@click.option(
    "--scope",
    default="admin",
    show_default=True,
    type=click.Choice(["read", "control", "admin"]),
    help="What it may do; each has what the ones before it have.",
)
@click.option("--rate", type=click.FloatRange(min=0, min_open=True), help="Requests a second.")
@click.option("--days", type=click.IntRange(1, 3650), help="How long it is good; without, until it is revoked.")
@config_option
def create(name: str | None, scope: str, rate: float | None, days: int | None, config_path: Path | None) -> None:
    """Make a key. It is shown once; only its hash is kept."""
    if name is None:
        if scope != "admin" or rate is not None or days is not None:
            raise click.UsageError("--scope, --rate and --days are of keys in the database: give a --name")
        plain, hashed = new_key()
        click.echo(f"key    {plain}    (give this to the client, as the header x-api-key)")
        click.echo(f'hash   {hashed}    (put this into sipagent.toml: [api] key_hashes = ["…"])')
        return
    now = clock.now().wall
    plain, made = made_key(name, [scope], rate, now, now + timedelta(days=days) if days is not None else None)
    _writes(config_path).run(lambda session: access.add_key(session, made))
    click.echo(f"key    {plain}    (give this to the client, as the header x-api-key)")
    click.echo(f"id     {made.id}")


@key.command("list")
@config_option
def list_keys(config_path: Path | None) -> None:
    """The keys in the database, newest first."""
    for made in _writes(config_path).run(access.keys):
        until = f"until {made.expires_at:%Y-%m-%d}" if made.expires_at is not None else ""
        gone = "revoked" if made.revoked_at is not None else until
        used = f"used {made.last_used_at.astimezone(UTC):%Y-%m-%d %H:%M} UTC" if made.last_used_at is not None else ""
        click.echo("  ".join(part for part in (made.id, ",".join(made.scopes), made.name, gone, used) if part))


@key.command()
@click.argument("key_id")
@config_option
def revoke(key_id: str, config_path: Path | None) -> None:
    """Revoke a key of the database. Nodes that run notice within seconds."""
    writes, now = _writes(config_path), clock.now().wall
    if all(made.id != key_id for made in writes.run(access.keys)):
        raise click.UsageError("there is no such key; `sipagent key list` shows them")
    writes.run(lambda session: access.revoke_key(session, key_id, now))
    click.echo(f"revoked {key_id}")


def _writes(config_path: Path | None) -> Writes:
    config, state = load(config_path)
    url = database_url(config, state)
    engine.upgrade(url)
    return Writes(url)
