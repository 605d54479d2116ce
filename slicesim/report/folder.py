"""The result folder: whole or absent."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from slicesim.errors import UserError

if TYPE_CHECKING:
    from slicesim.result import Result

SUMMARY = "summary.json"


def check_free(folder: Path) -> None:
    """Refuse a folder that holds anything but an earlier result, before a long run rather than after it."""
    if folder.is_file():
        raise UserError(f"{folder}: is a file; choose another --out")
    if folder.is_dir() and any(folder.iterdir()) and not (folder / SUMMARY).is_file():
        raise UserError(f"{folder}: holds other files, not an earlier result; choose another --out")


def write_folder(result: Result, folder: Path) -> Path:
    """Write all files beside the target, then put the folder in place; an earlier result is replaced."""
    from slicesim.report.plots import overview
    from slicesim.report.timeline import write_timeline

    check_free(folder)
    partial = folder.with_name(f".{folder.name}.partial-{os.getpid()}")
    old = folder.with_name(f".{folder.name}.old-{os.getpid()}")
    try:
        partial.mkdir(parents=True)
        (partial / SUMMARY).write_text(to_json(result), encoding="utf-8")
        result.tokens.to_parquet(partial / "tokens.parquet", index=False)
        write_timeline(result, partial / "timeline.json")
        overview(result, partial / "overview.png")
        if folder.exists():
            folder.rename(old)
        partial.rename(folder)
    except OSError as error:
        raise UserError(f"{folder}: cannot be written ({error.strerror})") from None
    finally:
        shutil.rmtree(partial, ignore_errors=True)
        if folder.exists():
            shutil.rmtree(old, ignore_errors=True)
        elif old.exists():
            old.rename(folder)
    return folder


def to_json(result: Result) -> str:
    """The summary as text; figures that do not exist are null."""
    return json.dumps(result.summary, indent=2, allow_nan=False) + "\n"
