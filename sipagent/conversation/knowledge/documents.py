"""Documents as plain text: headings become lines of their own that begin with `#`, paragraphs are blocks of lines."""

from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path

from sipagent.core.errors import ConfigError, SetupError

MAX_BYTES = 10 << 20  # of one file
MAX_TEXT = 2_000_000  # characters of one file
_SKIPPED = {"script", "style", "head", "nav", "template", "noscript"}
_BLOCKS = {"p", "div", "li", "tr", "section", "article", "ul", "ol", "table", "blockquote", "dd", "dt", "br"}
_HEADINGS = {"h1", "h2", "h3", "h4", "h5", "h6"}


def read_document(path: Path) -> str:
    """Raises ConfigError for a file that is too large or cannot be read, SetupError where a package is missing."""
    if path.stat().st_size > MAX_BYTES:
        raise ConfigError(f"{path}: larger than {MAX_BYTES >> 20} MiB; cut it into several documents")
    text = _READERS[path.suffix.lower()](path)
    if len(text) > MAX_TEXT:
        raise ConfigError(f"{path}: more than {MAX_TEXT} characters; cut it into several documents")
    return text


def is_document(path: Path) -> bool:
    return path.suffix.lower() in _READERS and path.is_file()


def _plain(path: Path) -> str:
    try:
        return path.read_text("utf-8")
    except UnicodeDecodeError:
        return path.read_text("latin-1")


def _html(path: Path) -> str:
    parser = _Text()
    parser.feed(_plain(path))
    parser.close()
    return "".join(parser.parts)


class _Text(HTMLParser):
    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.parts: list[str] = []
        self._skipping = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag in _SKIPPED:
            self._skipping += 1
        elif tag in _HEADINGS:
            self.parts.append("\n\n# ")
        elif tag in _BLOCKS:
            self.parts.append("\n\n")

    def handle_endtag(self, tag: str) -> None:
        if tag in _SKIPPED:
            self._skipping = max(0, self._skipping - 1)
        elif tag in _HEADINGS or tag in _BLOCKS:
            self.parts.append("\n\n")

    def handle_data(self, data: str) -> None:
        if not self._skipping:
            self.parts.append(" ".join(data.split()) + (" " if data[-1:].isspace() else ""))


def _pdf(path: Path) -> str:
    try:
        import pypdf
    except ImportError:
        raise SetupError(f"{path}: PDF files need a package: pip install 'sipagent[documents]'") from None
    try:
        return "\n\n".join(page.extract_text() for page in pypdf.PdfReader(path).pages)
    except Exception as error:  # whatever a damaged file makes of the library
        raise ConfigError(f"{path}: cannot be read as PDF ({type(error).__name__})") from error


_READERS: dict[str, Callable[[Path], str]] = {
    ".txt": _plain,
    ".md": _plain,
    ".html": _html,
    ".htm": _html,
    ".pdf": _pdf,
}
