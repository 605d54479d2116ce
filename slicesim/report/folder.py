"""The result folder: whole or absent."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path

from slicesim.errors import UserError

SUMMARY = "summary.json"


def check_free(folder: Path) -> None:
    """Refuse a folder that holds anything but an earlier result, before a long run rather than after it."""
    if folder.is_file():
        raise UserError(f"{folder}: is a file; choose another --out")
    if folder.is_dir() and any(folder.iterdir()) and not (folder / SUMMARY).is_file():
        raise UserError(f"{folder}: holds other files, not an earlier result; choose another --out")


def write_folder(folder: Path, files: Mapping[str, Callable[[Path], object]]) -> Path:
    """Write all files beside the target, then put the folder in place; an earlier result is replaced.

    files: name -> function that writes to a path.
    """
    check_free(folder)
    partial = folder.with_name(f".{folder.name}.partial-{os.getpid()}")
    old = folder.with_name(f".{folder.name}.old-{os.getpid()}")
    try:
        partial.mkdir(parents=True)
        for name, write in files.items():
            write(partial / name)
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
