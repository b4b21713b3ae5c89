"""`sipagent settings`: the reference of all settings, made from the settings classes and the comments in them."""

import inspect
import re
from typing import Any

import click
import msgspec

from sipagent.config import Config, Table, config_tables

_FIELD = re.compile(r"^    (\w+): .+?(?:  # (.*))?$")
_HEAD = """\
# Settings

Made by `sipagent settings`. A setting stands in its table of `sipagent.toml`, or in the environment as
`SIPAGENT_<TABLE>_<SETTING>`. Texts may be `{ env = "NAME" }` or `{ file = "path" }`.
"""
_COMMENT = re.compile(r"^    # (.*)$")


@click.command()
def settings() -> None:
    """Every setting of sipagent.toml, its default, and why it is what it is."""
    click.echo(reference(), nl=False)


def reference() -> str:
    """The reference page as Markdown."""
    parts = [_HEAD]
    for table in config_tables(Config):
        parts.append(f"\n## {_title(table)}\n\n")
        parts.append("| setting | default | meaning |\n|---|---|---|\n")
        about = _comments(table.settings)
        for field in msgspec.structs.fields(table.settings):
            meaning = about.get(field.name, "").replace("|", "\\|")
            parts.append(f"| `{field.name}` | {_default(field)} | {meaning} |\n")
    return "".join(parts)


def _title(table: Table) -> str:
    if table.kind:
        return f'[{table.name}] kind = "{table.kind}"'
    return f"[[{table.name}]]" if table.many else f"[{table.name}]"


def _default(field: msgspec.structs.FieldInfo) -> str:
    if field.required:
        return "required"
    value: Any = field.default if field.default is not msgspec.NODEFAULT else field.default_factory()
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    if isinstance(value, str):
        return f'`"{value}"`'
    return f"`{list(value) if isinstance(value, list | tuple) else value}`"


def _comments(kind: type[msgspec.Struct]) -> dict[str, str]:
    """Field to comment: behind it, or in the lines above it."""
    found: dict[str, str] = {}
    above: list[str] = []
    bases = [base for base in kind.__mro__ if base.__module__.startswith("sipagent.")]
    for line in (line for base in reversed(bases) for line in inspect.getsource(base).splitlines()):
        if comment := _COMMENT.match(line):
            above.append(comment.group(1))
        elif field := _FIELD.match(line):
            found[field.group(1)] = " ".join([*above, field.group(2) or ""]).strip()
            above = []
        else:
            above = []
    return found
