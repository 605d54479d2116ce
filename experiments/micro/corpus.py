"""Text and code for the micro models: CPython's standard library and its help topics, split by file."""

from __future__ import annotations

import hashlib
import sysconfig
from dataclasses import dataclass
from pathlib import Path

#: Tests and tables are no text; what was installed later, and this machine's settings, differ between machines.
EXCLUDED = frozenset({"site-packages", "test", "tests", "idle_test", "encodings", "pydoc_data", "__pycache__"})
EXCLUDED_PREFIXES = ("config-", "_sysconfigdata")
#: Of 16 documents, about one is held out.
HELD_OUT = 16


@dataclass(frozen=True)
class Document:
    """One file of the library, by its path from the library's root, or one help topic, ``topic/NAME``."""

    name: str
    text: str

    @property
    def is_held_out(self) -> bool:
        """Tell whether the document serves for evaluation only: decided by its name."""
        return hashlib.sha256(self.name.encode()).digest()[0] % HELD_OUT == 0


def documents() -> list[Document]:
    """Read the running Python's library: sources (.py), text (.txt) and help topics, in order of their names."""
    from pydoc_data.topics import topics

    root = Path(sysconfig.get_paths()["stdlib"])
    found = [Document(f"topic/{name}", text) for name, text in topics.items()]
    for path in root.rglob("*"):
        relative = path.relative_to(root)
        if path.suffix in (".py", ".txt") and not _is_excluded(relative):
            text = path.read_text(encoding="utf-8", errors="ignore")
            found.append(Document(relative.as_posix(), text))
    return sorted((each for each in found if each.text.strip()), key=lambda each: each.name)


def digest(texts: list[Document]) -> str:
    """Return the SHA-256 of all names and texts: the same text, the same figure."""
    sha = hashlib.sha256()
    for each in texts:
        sha.update(each.name.encode() + b"\0" + each.text.encode() + b"\0")
    return sha.hexdigest()


def _is_excluded(relative: Path) -> bool:
    return not EXCLUDED.isdisjoint(relative.parts) or relative.parts[0].startswith(EXCLUDED_PREFIXES)
