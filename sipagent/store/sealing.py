"""Secrets in the database are sealed (Fernet: AES-128-CBC with HMAC-SHA-256); the key lies beside it in a file.

Nodes that share a database need the same key: [store] seal_key.
"""

from pathlib import Path

from cryptography.fernet import Fernet, InvalidToken

from sipagent.core.errors import ConfigError, SetupError, SipagentError
from sipagent.core.kept import kept

KEY_FILE = "seal.key"


class NotSealedByUs(SipagentError):
    """The secret was sealed with another key."""


class Seal:
    def __init__(self, key: str) -> None:
        """`key`: 32 bytes in URL-safe base64. Raises ConfigError."""
        try:
            self._fernet = Fernet(key)
        except ValueError:
            raise ConfigError(
                "[store] seal_key must be 32 bytes in URL-safe base64, as `openssl rand -base64 32 | tr +/ -_` makes"
            ) from None

    def close(self, plain: str) -> str:
        return self._fernet.encrypt(plain.encode()).decode()

    def open(self, sealed: str) -> str:
        """Raises NotSealedByUs."""
        try:
            return self._fernet.decrypt(sealed).decode()
        except InvalidToken:
            raise NotSealedByUs(
                "a secret was sealed with another key: give every node the same [store] seal_key"
            ) from None


def seal_of(state: Path, configured: str) -> Seal:
    """With the configured key, or one that is made once and kept in the state folder, readable by its owner alone.

    Raises ConfigError or SetupError.
    """
    if configured:
        return Seal(configured)
    file = state / KEY_FILE
    try:
        return Seal(kept(file, lambda: Fernet.generate_key().decode()))
    except OSError as error:
        raise SetupError(f"{file}: cannot be read or made ({error.strerror})") from error
