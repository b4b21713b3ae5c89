"""`sipagent edge`: the configuration of Kamailio before a node's lanes, or before several nodes."""

import sys
import tempfile
from pathlib import Path

import click

from sipagent.cli.options import config_option, load
from sipagent.core.errors import ConfigError
from sipagent.sip.edge import Installation, check, listens, tls_of, write
from sipagent.sip.edge_script import Plan

_EXAMPLE_INSIDE = "127.0.0.1:5070"
_EXAMPLE_LANE = {"127.0.0.1:5071": 4}
_DEFAULT_PORT = 5060


@click.command()
@config_option
@click.option(
    "--node",
    "nodes",
    multiple=True,
    metavar="HOST[:PORT]=CALLS",
    help="Be the front of this node, which takes so many calls at a time (0: no limit). May be given several times.",
)
@click.option(
    "--out",
    type=click.Path(file_okay=False, path_type=Path),
    help="Write kamailio.cfg and what belongs to it into this folder, instead of printing it.",
)
@click.option("--check", "checked", is_flag=True, help="Have Kamailio read it (kamailio -c).")
def edge(config_path: Path | None, nodes: tuple[str, ...], out: Path | None, checked: bool) -> None:
    """Print the Kamailio configuration made from [sip]; `sipagent serve` makes and runs its own by itself.

    With --node it is the front of several nodes: calls go to the node that has the fewest, never more than it takes,
    and on to the next when one is full, draining, broken or silent. Nodes believe the addresses it reports when its
    own address is in their [sip] `fronts`.

    \b
      sipagent edge --check
      sipagent edge --node 10.0.0.11=100 --node 10.0.0.12=100 --out /etc/kamailio --check
    """
    config, _ = load(config_path)
    capacities = dict(_node(text) for text in nodes)
    tls = tls_of(config.sip)
    installed = Installation.find(tls=tls is not None)
    with tempfile.TemporaryDirectory(prefix="sipagent-edge-") as temporary:
        plan = Plan(
            listens=listens(config.sip),
            inside="" if capacities else _EXAMPLE_INSIDE,
            fronts=config.sip.fronts,
            tls=tls,
            modules=installed.modules,
            folder=(out or Path(temporary)).absolute(),
        )
        try:
            write(plan, capacities or _EXAMPLE_LANE)
        except OSError as error:
            raise ConfigError(f"{plan.folder} cannot be written to ({error.strerror})") from error
        if checked:
            check(installed, plan)
            click.echo("Kamailio takes this configuration", err=True)
        if out is None:
            sys.stdout.write(plan.files["config"].read_text())
        else:
            click.echo(f"start it with: kamailio -f {plan.files['config']}", err=True)


def _node(text: str) -> tuple[str, int]:
    """ "10.0.0.11:5060=100" as address and capacity. Raises ConfigError."""
    address, equals, calls = text.rpartition("=")
    host, colon, port = address.rpartition(":") if not address.endswith("]") else (address, "", "")
    host, port = (host, port) if colon else (address, str(_DEFAULT_PORT))
    if not equals or not calls.isdigit() or not host or not port.isdigit() or not 0 < int(port) < 65536:
        raise ConfigError(f'--node takes HOST[:PORT]=CALLS, such as 10.0.0.11:5060=100, not "{text}"')
    if any(c.isspace() or c in "\"';" for c in host):
        raise ConfigError(f'"{host}" is not the address of a node')
    return f"{host}:{port}", int(calls)
