"""MkDocs hook: files that docs link to outside docs/ come along on the site.

So a link like ``../traces/README.md`` works on a code host and on the site alike. Markdown stays a page, other text
becomes a page with its code, a folder becomes a list of its files, whatever else is copied. Links to notebooks lead to
their pages. A link to a file that does not exist is left as it is, and MkDocs complains of it.
"""

from __future__ import annotations

import os.path
import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).resolve().parents[2]
PREFIX = "repository/"
TEXT = {".py": "python", ".yaml": "yaml", ".sh": "sh", ".csv": "text", ".cff": "yaml"}

_LINK = re.compile(r"(?<=\]\()(?![a-z]+:)([^)\s#]+)(?=[)#])")


def on_files(files: Files, config: Any) -> Files:
    """Add what pages link to, then what the added pages link to."""
    pages = [(_repository_path(file.src_uri), file.content_string) for file in files.documentation_pages()]
    pages += [("docs/nav", f"]({'../' + uri.removeprefix(PREFIX)})") for uri in _nav_uris(config.nav)]
    while pages:
        place, text = pages.pop()
        for link in _LINK.findall(text):
            target = _target(place, link)
            if target is None or target.startswith("docs/") or files.get_file_from_path(_site_uri(target)):
                continue
            file = _file(target, config)
            files.append(file)
            if file.is_documentation_page():
                pages.append((_repository_path(file.src_uri), file.content_string))
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Files) -> str:
    """Point links at the places that their targets have on the site."""
    place, here = _repository_path(page.file.src_uri), os.path.dirname(page.file.src_uri)

    def moved(match: re.Match[str]) -> str:
        target = _target(place, match[1])
        return match[1] if target is None else os.path.relpath(_site_uri(target), here)

    return _LINK.sub(moved, markdown)


def _nav_uris(nav: Any) -> list[str]:
    """Pages outside docs/ that the navigation names."""
    if isinstance(nav, str):
        return [nav] if nav.startswith(PREFIX) else []
    parts = nav.values() if isinstance(nav, dict) else nav or []
    return [uri for part in parts for uri in _nav_uris(part)]


def _repository_path(src_uri: str) -> str:
    """Where a page of the site stands in the repository."""
    return src_uri.removeprefix(PREFIX) if src_uri.startswith(PREFIX) else f"docs/{src_uri}"


def _target(place: str, link: str) -> str | None:
    """Path in the repository that a link leads to; none where nothing is there."""
    target = os.path.normpath(os.path.join(os.path.dirname(place), link))
    return target if not target.startswith("..") and (ROOT / target).exists() else None


def _site_uri(target: str) -> str:
    """Where a path of the repository stands on the site."""
    if target.startswith("docs/"):
        return re.sub(r"\.ipynb$", ".md", target.removeprefix("docs/"))
    if (ROOT / target).is_dir():
        return f"{PREFIX}{target}/README.md"
    return f"{PREFIX}{target}{'.md' if Path(target).suffix in TEXT else ''}"


def _file(target: str, config: Any) -> File:
    path, uri = ROOT / target, _site_uri(target)
    if path.is_dir():
        readme = path / "README.md"
        content = readme.read_text(encoding="utf-8") if readme.is_file() else _listing(path, target)
        return File.generated(config, uri, content=content)
    if path.suffix in TEXT:
        code = path.read_text(encoding="utf-8").rstrip("\n")
        return File.generated(config, uri, content=f"# {target}\n\n````{TEXT[path.suffix]}\n{code}\n````\n")
    return File.generated(config, uri, abs_src_path=str(path))


def _listing(folder: Path, target: str) -> str:
    names = sorted(file.name for file in folder.iterdir() if file.suffix in TEXT)
    return "\n".join([f"# {target}/", "", *(f"- [{name}]({name})" for name in names)]) + "\n"
