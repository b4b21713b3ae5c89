"""The examples in docstrings do what they say."""

import doctest
import importlib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def runs(line: str) -> bool:
    return ">>> " in line and "+SKIP" not in line  # these need lanes, and only show how things are put together


SHOWN = sorted(f for f in (ROOT / "sipagent").rglob("*.py") if any(map(runs, f.read_text("utf-8").splitlines())))


@pytest.mark.parametrize("file", SHOWN, ids=lambda file: file.stem)
def test_an_example_does_what_it_says(file: Path) -> None:
    module = importlib.import_module(".".join(file.relative_to(ROOT).with_suffix("").parts))
    result = doctest.testmod(module)
    assert result.attempted and not result.failed
