"""MkDocs hook: every notebook of docs/ becomes a page with the outputs that it was committed with."""

from __future__ import annotations

import os.path
import re
from typing import Any

import nbformat
from mkdocs.structure.files import File, Files
from nbconvert import MarkdownExporter


def on_files(files: Files, config: Any) -> Files:
    """Add a page, and its pictures, for each notebook."""
    for notebook in [file for file in files if file.src_uri.endswith(".ipynb")]:
        stem = notebook.src_uri.removesuffix(".ipynb")
        prefix = os.path.basename(stem)
        content = nbformat.reads(notebook.content_string, as_version=4)
        text, resources = MarkdownExporter().from_notebook_node(content, {"unique_key": prefix, "output_files_dir": ""})
        files.append(File.generated(config, f"{stem}.md", content=_plain_tables(text)))
        for name, data in resources["outputs"].items():
            files.append(File.generated(config, f"{os.path.dirname(stem)}/{name}", content=data))
    return files


def _plain_tables(text: str) -> str:
    """Tables of pandas without a style of their own: they look like all others."""
    return re.sub(r"<style scoped>.*?</style>\n?", "", text, flags=re.S).replace(' border="1" class="dataframe"', "")
