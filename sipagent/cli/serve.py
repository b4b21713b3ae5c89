"""`sipagent serve`: the node."""

import asyncio
import gc
import logging
import signal
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import click
import msgspec

from sipagent import logs
from sipagent.app import Node
from sipagent.cli import heart
from sipagent.cli.options import config_option, load
from sipagent.cli.supervisor import pulse_of_main, supervise
from sipagent.config import Config
from sipagent.core import errors
from sipagent.core.errors import SipagentError
from sipagent.core.events import Event, RegistrationChanged
from sipagent.core.heap import give_large_blocks_back
from sipagent.core.states import RegistrationState
from sipagent.predecessor import Death
from sipagent.sip.trunk_changes import check_trunks

log = logging.getLogger(__name__)

SAME_S = 0.5  # a service manager tells every process of ours to stop, and the supervisor passes it on: that is one stop


@click.command()
@config_option
def serve(config_path: Path | None) -> None:
    """Run the node: register, answer calls by the dialplan, place calls over the API.

    Ctrl-C (or SIGTERM) says goodbye to the calls that are up, writes the record and leaves; a second one leaves at
    once. SIGHUP reads the dialplans and the trunks of the configuration again; calls that are up go on.

    \b
    Try it:  sipagent serve
             sipagent call sip:100@127.0.0.1 --say "What are your opening hours?"
    """
    config, state = load(config_path)
    logs.setup(config.log)
    before = supervise(state)
    if before is not None:
        config = _with_trunks_of_today(config, config_path)
    asyncio.run(_serve(config, config_path, state, before))


def _with_trunks_of_today(config: Config, config_path: Path | None) -> Config:
    """What the main before us had reloaded, that the configuration we are forked with does not know."""
    try:
        trunks = load(config_path)[0].trunks
        check_trunks(trunks, config.sip)
        return msgspec.structs.replace(config, trunks=trunks)
    except SipagentError as error:
        log.error("trunks not read anew", extra={"reason": str(error)})
        return config


async def _serve(config: Config, config_path: Path | None, state: Path, before: Death | None) -> None:
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    again = asyncio.Event()
    node = Node(config, state, before, survives=True)
    node.hub.subscribe(_announce)

    asked_at = 0.0

    def on_signal() -> None:
        nonlocal asked_at
        if stop.is_set() and loop.time() - asked_at > SAME_S:
            raise SystemExit(130)  # a second Ctrl-C: children see that nobody comes after us, and go
        asked_at = asked_at or loop.time()
        stop.set()

    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, on_signal)
    loop.add_signal_handler(signal.SIGHUP, again.set)

    beating = asyncio.create_task(_beat(lambda: heart.HUNG_S if starting.done() else heart.STARTING_S), name="beat")
    give_large_blocks_back()
    starting = asyncio.create_task(node.start())
    stopping = asyncio.create_task(stop.wait())
    await asyncio.wait({starting, stopping}, return_when=asyncio.FIRST_COMPLETED)
    if not starting.done():
        starting.cancel()
        await asyncio.wait({starting})
        beating.cancel()
        return
    await starting
    # What a node is made of stays: the collector looks at what calls leave only, soon and at little cost.
    gc.collect()
    gc.freeze()
    try:
        _greet(node)
        while not stop.is_set():
            hangup = asyncio.create_task(again.wait())
            await asyncio.wait({stopping, hangup}, return_when=asyncio.FIRST_COMPLETED)
            hangup.cancel()
            if again.is_set():
                again.clear()
                await _reload(node, config_path)
        click.echo("stopping: ending calls, writing the record", err=True)
    finally:
        await node.close()
        beating.cancel()


async def _beat(limit_s: Callable[[], float]) -> None:
    """For the supervisor: the event loop turns."""
    while True:
        pulse_of_main.beat(limit_s())
        await asyncio.sleep(heart.LOOK_S / 2)


async def _reload(node: Node, config_path: Path | None) -> None:
    try:
        config, _ = await asyncio.to_thread(load, config_path)
        waiting = node.waits_for_a_start(config)
        await node.reload(config)
    except SipagentError as error:
        log.error("dialplans and trunks not reloaded", extra={"reason": str(error)})
    except Exception as error:  # calls are up: whatever is wrong with a new dialplan must not end them
        log.error("dialplans and trunks not reloaded", extra={"reason": errors.where(error)})
    else:
        log.info("dialplans and trunks reloaded")
        if waiting:
            log.warning("other settings that have changed wait for the next start", extra={"tables": waiting})


def _greet(node: Node) -> None:
    ready = node.lane.ready
    assert ready is not None
    click.echo(f"SIP   {ready.host}:{ready.port}, up to {node.registry.max_calls} calls at a time", err=True)
    if node.lane.notice:
        click.echo(f"note  {node.lane.notice}", err=True)
    for trunk, view in node.registrar.states.items():
        click.echo(f"trunk {trunk}: {view.state}", err=True)
    if not node.config.trunks:
        click.echo("trunk none configured: calls are taken from any address (add [[trunks]] to change that)", err=True)
    if node.api is not None:
        click.echo(f"API   {node.api.url}/api/v1", err=True)
        click.echo(f"page  {node.api.url}/", err=True)
        if not node.config.api.key_hashes:
            click.echo(f"key   {node.state / 'api.key'}", err=True)
    click.echo("ready; Ctrl-C ends it", err=True)


def _announce(event: Event) -> None:
    if isinstance(event, RegistrationChanged) and event.state is not RegistrationState.REGISTERING:
        with suppress(OSError):  # the terminal may be gone; the node is not
            click.echo(f"trunk {event.trunk}: {event.state} {event.sip_status or ''} {event.reason}".rstrip(), err=True)
