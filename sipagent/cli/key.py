"""`sipagent key`: keys for the API."""

import click

from sipagent.api.keys import new_key


@click.group()
def key() -> None:
    """Keys for the API.

    Without any configured key a node makes its own and keeps it in its state folder, for commands on the same machine.
    """


@key.command()
def create() -> None:
    """Make a key. It is shown once; the node needs only its hash."""
    plain, hashed = new_key()
    click.echo(f"key    {plain}    (give this to the client, as the header x-api-key)")
    click.echo(f'hash   {hashed}    (put this into sipagent.toml: [api] key_hashes = ["…"])')
