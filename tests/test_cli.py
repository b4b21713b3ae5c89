"""The command line as a user meets it: help, errors in one sentence, exit codes."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from sipagent.cli import cli
from sipagent.cli.demo import ALIKE, _alike, _best
from sipagent.cli.settings import reference
from sipagent.cli.show import BAR_WIDTH, latency_bar
from sipagent.store.journal import Journal
from tests.store.test_migrations import NEWEST

ROOT = Path(__file__).parents[1]


def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "sipagent", *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        env={**os.environ, **environment},
        stdin=subprocess.DEVNULL,
    )


@pytest.mark.parametrize("command", [[], *[[name] for name in cli.commands]])
def test_every_command_has_help(command):
    result = CliRunner().invoke(cli, [*command, "--help"])
    assert result.exit_code == 0
    assert len(result.output) > 150


def test_settings_reference_is_up_to_date():
    assert (ROOT / "docs" / "settings.md").read_text() == reference(), "run: sipagent settings > docs/settings.md"
    rows = [line for line in reference().splitlines() if line.startswith("| `")]
    assert len(rows) > 50
    assert not [row for row in rows if row.endswith("|  |")], "every setting says what it is"


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["no-such-command"], 2, "No such command"),
        (["serve", "-c", "missing.toml"], 2, "missing.toml: cannot be read"),
        (["call", "nonsense", "--deaf"], 1, "not a SIP URI"),
        (["call", "sip:1@127.0.0.1", "--deaf", "--say", "x"], 2, "leave out --deaf"),
        (["calls"], 3, "there is no record yet"),
        (["call", "sip:1@127.0.0.1", "--deaf", "--host", "192.0.2.1"], 3, "not an address of this machine"),
    ],
)
def test_errors_are_one_sentence_with_an_exit_code(tmp_path, arguments, code, words):
    result = run(*arguments, XDG_STATE_HOME=str(tmp_path))
    assert result.returncode == code, result.stderr
    assert words in result.stderr
    assert "Traceback" not in result.stderr


def test_a_broken_dialplan_stops_the_node_with_file_and_line(tmp_path):
    plans = tmp_path / "plans"
    plans.mkdir()
    (plans / "a.yaml").write_text("routes:\n  - steps: x\n    caled: [1]\n")
    result = run("serve", SIPAGENT_NODE_DIALPLANS=str(plans), SIPAGENT_NODE_STATE_DIR=str(tmp_path))
    assert result.returncode == 2
    assert f"{plans}/a.yaml:3: unknown key `caled` (did you mean `called`?)" in result.stderr


def test_a_key_is_shown_once_with_its_hash():
    output = CliRunner().invoke(cli, ["key", "create"]).output
    assert re.search(r"sk_sipagent_\S{40,}", output)
    assert re.search(r"\b[0-9a-f]{64}\b", output)


def test_a_caller_is_erased_and_the_proof_shown(tmp_path):
    environment = {"SIPAGENT_NODE_STATE_DIR": str(tmp_path)}
    erased = CliRunner().invoke(cli, ["db", "erase", "+4930123456", "--yes", "--json"], env=environment)
    assert erased.exit_code == 0 and json.loads(erased.stdout)["counts"] == {}
    refused = CliRunner().invoke(cli, ["db", "erase", "ab", "--yes"], env=environment)
    assert refused.exit_code == 2 and "3 digits" in refused.output


def test_a_caller_is_not_erased_while_the_journal_has_what_would_bring_it_back(tmp_path, monkeypatch):
    monkeypatch.setattr(sys.modules["sipagent.cli.db"], "JOURNAL_LIMIT_S", 0.1)
    environment = {"SIPAGENT_NODE_STATE_DIR": str(tmp_path)}
    command = ["db", "erase", "+4930123456", "--yes"]
    journal = Journal(tmp_path / "journal", 1 << 24, 0)
    journal.open()
    journal.append(b"who called")
    refused = CliRunner().invoke(cli, command, env=environment)
    assert refused.exit_code != 0 and "events wait in the journal" in str(refused.exception)
    assert journal.close() == (1, 0)  # a node that is down
    assert "events wait in the journal" in str(CliRunner().invoke(cli, command, env=environment).exception)
    again = Journal(tmp_path / "journal", 1 << 24, 0)
    again.open()
    batch = again.next_batch(10)
    assert batch is not None
    again.finish(batch)
    assert CliRunner().invoke(cli, command, env=environment).exit_code == 0  # while the node runs
    again.close()


def test_a_key_in_the_database_is_listed_and_revoked(tmp_path):
    environment = {"SIPAGENT_NODE_STATE_DIR": str(tmp_path)}
    made = run("key", "create", "--name", "ci", "--scope", "read", "--days", "3", **environment)
    assert made.returncode == 0, made.stderr
    [key_id] = re.findall(r"key_[0-9a-z]{26}", made.stdout)
    assert re.search(rf"{key_id}  read  ci  until \d{{4}}-", run("key", "list", **environment).stdout)
    assert run("key", "revoke", key_id, **environment).returncode == 0
    assert "revoked" in run("key", "list", **environment).stdout
    assert run("key", "revoke", "key_none", **environment).returncode == 2


def test_the_database_goes_up_and_down(tmp_path):
    environment = {"SIPAGENT_NODE_STATE_DIR": str(tmp_path)}
    assert run("db", "current", **environment).stdout.strip() == "none"
    assert run("db", "upgrade", **environment).returncode == 0
    assert run("db", "current", **environment).stdout.strip() == NEWEST
    assert run("calls", **environment).stdout.strip() == "no calls on record yet"
    assert json.loads(run("calls", "--json", **environment).stdout) == []


@pytest.mark.models
def test_models_are_listed_with_licence_and_size():
    models = json.loads(run("models", "list", "--json").stdout)
    assert {model["kind"] for model in models} == {"stt", "tts", "vad", "embedding", "turn"}
    for model in models:
        assert model["licence"] and model["size"] > 1_000_000 and model["installed"], model


def test_the_bar_is_as_long_as_its_parts():
    bar = latency_bar({"endpointing_ms": 300.0, "stt_ms": 100.0, "playout_ms": 0.2}, 800.0)
    assert bar.plain.count("█") == BAR_WIDTH // 2
    assert "400 ms" in bar.plain and "wait 300" in bar.plain and "send" not in bar.plain


def test_how_alike_texts_are():
    assert _alike("What are your opening hours?", "what are your opening hours") == 1.0
    assert _alike("What are your opening hours?", "Where can I park?") < ALIKE
    assert _best("free parking", "there is free parking behind the house") == 1.0
    assert _best("free parking", "we are closed") < ALIKE


@pytest.mark.models
@pytest.mark.timeout(200)
def test_demo(tmp_path):
    """The README's first command."""
    result = run_demo(tmp_path)
    assert result.returncode == 0, result.stdout[-3000:] + result.stderr[-3000:]
    facts = json.loads(result.stdout)
    assert facts["problems"] == []
    assert [turn["intent"] for turn in facts["turns"]] == ["", "hours", "price", "location"]
    assert [turn["interrupted"] for turn in facts["turns"]] == [False, False, True, False]
    assert facts["call"]["ended_by"] == "caller"
    assert Path(facts["recording"]).stat().st_size > 500_000  # stereo, 16 bit, 8 kHz: 32 kB a second
    assert "agent hears" in result.stderr and "The record" in result.stderr


def run_demo(folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "sipagent", "demo", "--json"],
        capture_output=True,
        text=True,
        timeout=180,
        env={**os.environ, "XDG_STATE_HOME": str(folder)},
        stdin=subprocess.DEVNULL,
    )
