"""The files in sipp-scenarios/ themselves."""

from pathlib import Path

from tests.peers.sipp import SCENARIOS

TESTS = Path(__file__).resolve().parents[1]


def test_every_scenario_is_played_by_a_test_and_told_of_in_the_readme() -> None:
    played = "".join(path.read_text() for path in TESTS.rglob("*.py"))
    readme = (SCENARIOS / "README.md").read_text()
    files = sorted(SCENARIOS.glob("*.xml"))
    assert len(files) >= 45
    assert [file.name for file in files if f'"{file.name}"' not in played] == []
    assert [file.name for file in files if f"`{file.stem}`" not in readme] == []
