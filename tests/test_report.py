"""`sipagent report`: a period's calls as table, CSV, JSON and HTML."""

import csv
import io
import json
import re
from datetime import timedelta
from html.parser import HTMLParser
from pathlib import Path

import msgspec
import pytest
from click.testing import CliRunner

from sipagent.cli import cli
from sipagent.core.states import Direction
from sipagent.reports.cdr import call_detail
from sipagent.reports.columns import columns_of
from sipagent.reports.page import page, questions
from sipagent.reports.report import Question, report
from sipagent.reports.tables import details_csv
from sipagent.store.engine import upgrade
from sipagent.store.recorder import Recorder
from tests.reports.calls import NOW, START, many
from tests.store.story import START as STORY_START
from tests.store.story import Story

CONFIG = """
[node]
state_dir = "{folder}"
[reports]
time_zone = "Europe/Berlin"
[[prices]]
of = "call"
price = 0.25
"""


@pytest.fixture
async def config(tmp_path: Path) -> Path:
    url = f"sqlite:///{tmp_path / 'sipagent.db'}"
    upgrade(url)
    recorder = Recorder(url)
    recorder.start()
    for number in range(3):
        for event in Story(STORY_START + timedelta(minutes=number), from_number="=cmd()").whole():
            recorder.emit(event)
    assert await recorder.close() == 0
    file = tmp_path / "sipagent.toml"
    file.write_text(CONFIG.format(folder=tmp_path))
    return file


def told(config: Path, *words: str) -> str:
    result = CliRunner().invoke(cli, ["report", "-c", str(config), *words], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.stdout


DAY = ("--from", "2026-03-29", "--to", "2026-03-29")


def test_a_table_for_the_terminal(config: Path) -> None:
    text = told(config, *DAY)
    assert "3, 3 answered, 0 still up; at most 1 at one time" in text and "ASR 100.0 %" in text
    assert "0.75 EUR" in text
    assert re.search(r"^2026-03-29 01:00\+01:00 +1 ", text, re.MULTILINE)
    assert re.search(r"^2026-03-29 03:00\+02:00 +2 ", text, re.MULTILINE)
    assert max(map(len, text.splitlines())) <= 80
    assert re.search(r"^carrier +3 ", told(config, *DAY, "--by", "trunk"), re.MULTILINE)


def test_json_and_csv(config: Path, tmp_path: Path) -> None:
    found = json.loads(told(config, *DAY, "--json", "--by", "cause"))
    assert found["total"]["calls"] == 3 and [row["key"] for row in found["rows"]] == ["normal"]
    told(config, *DAY, "--by", "total", "-o", str(tmp_path / "day.csv"))
    (row,) = csv.DictReader((tmp_path / "day.csv").read_text().splitlines())
    assert (row["key"], row["calls"], row["cost"]) == ("total", "3", "0.75")
    assert (tmp_path / "day.csv").stat().st_mode & 0o077 == 0


def test_detail_records(config: Path) -> None:
    legs = list(csv.DictReader(io.StringIO(told(config, *DAY, "--cdr", "--format", "csv"))))
    assert len(legs) == 3 and {leg["leg_role"] for leg in legs} == {"caller"}
    assert legs[0]["call_from_number"] == "'=cmd()"  # no formula for a spreadsheet
    calls = [json.loads(line) for line in told(config, *DAY, "--cdr").splitlines()]
    assert [call["charges"][0]["amount"] for call in calls] == [0.25] * 3
    assert told(config, *DAY, "--cdr", "--trunk", "other") == ""


@pytest.mark.parametrize(
    ("words", "error"),
    [
        (("--from", "soon"), "is no time"),
        (("--zone", "Mars/Base"), "no time zone"),
        (("--from", "2026-03-29", "--to", "2026-03-28"), "--from is not before --to"),
        (("--from", "2001-01-01", "--by", "hour"), "more than 20000 periods"),
    ],
)
def test_mistakes_are_said(config: Path, words: tuple[str, ...], error: str) -> None:
    result = CliRunner().invoke(cli, ["report", "-c", str(config), *words])
    assert result.exit_code == 2 and error in result.output


class Balanced(HTMLParser):
    """Every element is closed in order, and nothing leads out of the page."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append(tag)
        assert not {"src", "href", "onload", "onclick"} & {name for name, _ in attrs}
        if tag != "meta":
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_one_page_with_everything_in_it() -> None:
    details = [call_detail(each, NOW) for each in many(80)]
    evil = msgspec.structs.replace(details[0], to_number="<script>alert(1)</script>", direction=Direction.INBOUND)
    columns = columns_of([*details, evil])
    period = Question(begin=START, end=NOW, by="hour", zone="Europe/Berlin", trunk=None)
    text = page([report(columns, question, NOW, "EUR") for question in questions(period)])
    parser = Balanced()
    parser.feed(text)
    assert parser.open == [] and "script" not in parser.seen and parser.seen.count("svg") == 6
    assert "url(" not in text and "@import" not in text and "&lt;script&gt;" in text
    assert "By trunk" in text and "17 user busy" in text


def test_a_page_of_no_calls() -> None:
    period = Question(begin=START, end=NOW, by="month", zone="UTC")
    text = page([report(columns_of([]), question, NOW, "EUR") for question in questions(period)])
    assert "<b>0</b>" in text and "By trunk" not in text


def test_a_call_that_never_had_a_leg_has_a_line() -> None:
    refused = msgspec.structs.replace(call_detail(many(1)[0], NOW), legs=[])
    (head, line) = csv.reader(io.StringIO("".join(details_csv([refused]))))
    assert len(head) == len(line) and line[head.index("leg_id")] == ""
