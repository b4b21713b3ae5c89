"""Options and helpers that several commands share."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click
import msgspec

from sipagent import config as configuration
from sipagent.config import Config

F = TypeVar("F", bound=Callable[..., Any])


def config_option(function: F) -> F:
    return click.option(
        "-c",
        "--config",
        "config_path",
        type=click.Path(dir_okay=False, path_type=Path),
        help="Configuration file [default: sipagent.toml here, if there is one].",
    )(function)


def json_option(function: F) -> F:
    return click.option("--json", "as_json", is_flag=True, help="Print the facts as JSON.")(function)


def load(config_path: Path | None) -> tuple[Config, Path]:
    """The configuration and the node's state folder."""
    config = configuration.load(config_path, os.environ)
    return config, configuration.state_dir(config, os.environ)


def print_json(value: Any) -> None:
    click.echo(json.dumps(msgspec.to_builtins(value), indent=2, ensure_ascii=False))
