"""The catalogue, and that nothing but the pinned bytes is ever put in place."""

import dataclasses
import hashlib
import importlib.util
import shutil
import subprocess
import zipfile
from pathlib import Path

import pytest

from sipagent.core.errors import SetupError
from sipagent.speech import models

MEMBER = "silero_vad/data/silero_vad.onnx"
CONTENT = b"not really a network" * 100


def make_wheel(path: Path, content: bytes = CONTENT) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(MEMBER, content)
    return path


@pytest.fixture
def pinned(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A wheel whose hashes the catalogue names for silero-vad."""
    wheel = make_wheel(tmp_path / "silero_vad-0-py3-none-any.whl")
    model = models.CATALOGUE["silero-vad"]
    assert isinstance(model.source, models.InWheel)
    file = dataclasses.replace(model.files[0], sha256=hashlib.sha256(CONTENT).hexdigest(), size=len(CONTENT))
    source = dataclasses.replace(model.source, sha256=models.sha256_of(wheel))
    monkeypatch.setitem(models.CATALOGUE, "silero-vad", dataclasses.replace(model, files=(file,), source=source))
    return wheel


def test_pull_takes_the_one_file_out_and_tells_the_steps(pinned: Path, tmp_path: Path) -> None:
    asked: list[str] = []

    def download(requirement: str, folder: Path) -> Path:
        asked.append(requirement)
        return Path(shutil.copy(pinned, folder))

    steps: list[str] = []
    home = str(tmp_path / "models")
    path = models.pull("silero-vad", home, steps.append, download)
    assert path.read_bytes() == CONTENT
    assert path == models.locate("silero-vad", "vad", home) == models.verify("silero-vad", home)
    assert models.installed(home)["silero-vad"]
    assert len(steps) == 3

    models.pull("silero-vad", home, steps.append, download)
    assert asked == ["silero-vad==6.2.3"]  # the second time it was there
    assert list(path.parent.iterdir()) == [path]


def test_a_wheel_of_other_bytes_is_refused(pinned: Path, tmp_path: Path) -> None:
    other = make_wheel(tmp_path / "other.whl", b"something else")
    with pytest.raises(SetupError, match="the wheel of silero-vad==6.2.3 is not the one"):
        models.pull("silero-vad", str(tmp_path / "models"), download=lambda requirement, folder: other)
    assert not (tmp_path / "models").exists()


def test_a_tampered_file_is_refused_and_pulled_again(pinned: Path, tmp_path: Path) -> None:
    home = str(tmp_path / "models")
    path = models.pull("silero-vad", home, download=lambda requirement, folder: pinned)
    path.write_bytes(CONTENT[:-1] + b"!")
    with pytest.raises(SetupError, match="its sha256 differs"):
        models.verify("silero-vad", home)
    models.pull("silero-vad", home, download=lambda requirement, folder: pinned)
    assert models.verify("silero-vad", home).read_bytes() == CONTENT


def test_what_pip_says_is_passed_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(command: list[str], **options: object) -> None:
        assert "--no-deps" in command and "--only-binary=:all:" in command
        raise subprocess.CalledProcessError(1, command, stderr="WARNING: x\nERROR: no such package\n")

    monkeypatch.setattr(subprocess, "run", refuse)
    with pytest.raises(SetupError, match="pip could not get silero-vad==6.2.3: ERROR: no such package"):
        models.pull("silero-vad", str(tmp_path))


def test_a_missing_model_names_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SetupError, match="type: sipagent models pull"):
        models.locate("silero-vad", "vad", str(tmp_path))
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(SetupError, match=r"type: pip install 'sipagent\[speech\]'"):
        models.locate("whisper-tiny.en", "stt")


def test_the_operators_own_path_is_taken(tmp_path: Path) -> None:
    voice = tmp_path / "own.onnx"
    voice.touch()
    assert models.locate(str(voice), "tts") == voice
    with pytest.raises(SetupError, match="give one of en_US-joe-medium or a path"):
        models.locate("en_US-jo-medium", "tts")
    with pytest.raises(SetupError, match="is a model for vad"):
        models.locate("silero-vad", "tts")


def test_the_folder_follows_argument_then_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SIPAGENT_MODELS", raising=False)
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    assert models.model_folder() == tmp_path / "sipagent" / "models"
    monkeypatch.setenv("SIPAGENT_MODELS", str(tmp_path / "m"))
    assert models.model_folder() == tmp_path / "m"
    assert models.model_folder("/srv/models") == Path("/srv/models")


@pytest.mark.models
@pytest.mark.parametrize("name", sorted(models.CATALOGUE))
def test_the_installed_files_are_the_catalogued_ones(name: str, local_models: None) -> None:
    path = models.verify(name)
    folder = path if path.is_dir() else path.parent
    for file in models.CATALOGUE[name].files:
        assert (folder / file.name).stat().st_size == file.size
