"""`sipagent call`: the test phone."""

import asyncio
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import msgspec

from sipagent.calls import sounds
from sipagent.cli.options import json_option, print_json
from sipagent.media.telephone_event import check_keys
from sipagent.phone import Phone, PhoneCall, PhoneSettings
from sipagent.speech.settings import SpeechSettings


@dataclass(frozen=True, slots=True)
class Keys:
    digits: str


@click.command()
@click.argument("uri")
@click.option("--say", "texts", multiple=True, help="Say this once the other side is quiet. May be repeated.")
@click.option(
    "--play",
    "files",
    multiple=True,
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Play this WAV file once the other side is quiet (after what is said). May be repeated.",
)
@click.option(
    "--dtmf",
    "digits",
    default="",
    help="Press these keys once the other side is quiet (after all else); a comma waits.",
)
@click.option(
    "--record", type=click.Path(dir_okay=False, path_type=Path), help="Write both sides to a stereo WAV file."
)
@click.option("--duration", default=60.0, show_default=True, help="Hang up after this many seconds.")
@click.option("--from", "from_user", default="phone", show_default=True, help="Our number.")
@click.option("--host", default="127.0.0.1", show_default=True, help="Address of this machine to call from.")
@click.option("--deaf", is_flag=True, help="Do not recognise what is heard (starts at once, needs no models).")
@json_option
def call(
    uri: str,
    texts: tuple[str, ...],
    files: tuple[Path, ...],
    digits: str,
    record: Path | None,
    duration: float,
    from_user: str,
    host: str,
    deaf: bool,
    as_json: bool,
) -> None:
    """Ring URI, speak, and print what was heard.

    \b
    sipagent call sip:100@127.0.0.1 --say "What are your opening hours?" --say "Goodbye."
    sipagent call sip:100@127.0.0.1 --play question.wav --record call.wav
    """
    if deaf and texts:
        raise click.UsageError("--say needs a voice: leave out --deaf")
    if digits:
        try:
            digits = check_keys(digits)
        except ValueError as error:
            raise click.UsageError(f"--dtmf: {error}") from error
    script: list[str | Path | Keys] = [*texts, *files, *([Keys(digits)] if digits else [])]
    facts = asyncio.run(
        _call(uri, script, duration, PhoneSettings(host=host, ears=not deaf), from_user, record, as_json)
    )
    if as_json:
        print_json(facts)
    else:
        click.echo(f"ended: {facts['cause']} by {facts['ended_by']}, SIP {facts['sip_status']}, {facts['seconds']} s")
        quality = facts["media"]
        click.echo(
            f"media: {quality['packets_in']} packets in, {quality['packets_out']} out, {quality['lost']} lost,"
            f" {quality['late']} late, jitter {quality['jitter_ms']:.1f} ms"
        )
        judged = facts["quality"]
        if judged is not None and judged["mos_lq"] is not None:
            click.echo(
                f"quality: MOS {judged['mos_lq']:.2f}, {judged['concealed_ms']} ms concealed,"
                f" playout delay {judged['playout_delay_ms']:.0f} ms"
            )
        if record is not None:
            click.echo(f"recording: {record}")
    if not facts["answered"]:
        raise click.exceptions.Exit(1)


async def _call(
    uri: str,
    script: list[str | Path | Keys],
    duration: float,
    settings: PhoneSettings,
    from_user: str,
    record: Path | None,
    quiet: bool,
) -> dict[str, Any]:
    phone = Phone(settings, SpeechSettings())
    await phone.start()
    try:
        call = await phone.call(uri, from_user)
        if not quiet:
            call.on_heard = lambda text: click.echo(f"  heard  {text}")
        began = time.monotonic()
        answered = await call.answered(duration)
        try:
            if answered:
                async with asyncio.timeout(duration):
                    await _converse(call, script, quiet)
        except TimeoutError:
            pass
        figures = await call.hang_up()
        if record is not None:
            call.tape.write(record)
        termination = call.leg.ended.result()
        return {
            "answered": answered,
            "disposition": termination.disposition,
            "cause": termination.cause,
            "ended_by": termination.by,
            "sip_status": termination.sip_status,
            "seconds": round(time.monotonic() - began, 1),
            "heard": call.heard,
            "media": msgspec.to_builtins(figures),
            "quality": msgspec.to_builtins(call.quality),
        }
    finally:
        await phone.close()


async def _converse(call: PhoneCall, script: list[str | Path | Keys], quiet: bool) -> None:
    for item in script:
        await call.until_quiet(1.0, 30.0)
        if call.over:
            return
        if isinstance(item, Path):
            if not quiet:
                click.echo(f"  played {item}")
            rate = call.leg.port.rate
            await call.play(sounds.read_wav(item, rate), rate)
        elif isinstance(item, Keys):
            if not quiet:
                click.echo(f"  pressed {item.digits}")
            await call.press(item.digits)
        else:
            if not quiet:
                click.echo(f"  said   {item}")
            await call.say(item)
    if script:
        await call.until_quiet(1.5, 30.0)
    else:
        while not call.over:
            await call.until_quiet(3600.0, 5.0)
