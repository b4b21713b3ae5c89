"""What a node keeps in its state folder, or elsewhere where the configuration says so: places, and keys made once."""

from pathlib import Path

from sipagent.api.keys import hash_key, new_key
from sipagent.config import Config
from sipagent.core.errors import ConfigError
from sipagent.core.kept import kept
from sipagent.store import engine as store_engine
from sipagent.web.signing import key_of, new_secret


def database_url(config: Config, state: Path) -> str:
    return config.store.url or store_engine.default_url(state)


def journal_folder(state: Path) -> Path:
    return state / "journal"


def recordings_folder(config: Config, state: Path) -> Path:
    return Path(config.recordings.folder) if config.recordings.folder else state / "recordings"


def local_key(state: Path) -> tuple[str, str]:
    """The API key of a node for which none is configured, and its hash: made once, kept in the state folder for the
    commands of the same user."""
    plain = kept(state / "api.key", lambda: new_key()[0])
    return plain, hash_key(plain)


def hook_key(secret: str, state: Path) -> bytes:
    """What signs webhooks, and what is asked of flow URLs. Without a secret one is made once, and kept in the state
    folder. Raises ConfigError."""
    if not secret:
        secret = kept(state / "webhook.key", new_secret)
    try:
        return key_of(secret)
    except ValueError as error:
        raise ConfigError(f"[web] secret: {error}") from error
