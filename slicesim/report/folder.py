"""The result folder: whole or absent."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path

from slicesim.errors import UserError

SUMMARY = "summary.json"


def check_free(folder: Path, mark: str = SUMMARY) -> None:
    """Refuse, before a long run rather than after it, a place that takes no result or holds anything but one.

    mark: what every earlier result of the kind holds.
    """
    try:
        fault = _fault(folder.resolve(), mark)
    except (OSError, RuntimeError) as error:  # RuntimeError: a circle of links
        fault = getattr(error, "strerror", None) or str(error)
    if fault:
        raise UserError(f"{folder}: {fault}; choose another --out")


def _fault(place: Path, mark: str) -> str | None:
    if Path.cwd().is_relative_to(place):
        return "is where you are working"
    if place.is_dir() and any(place.iterdir()) and not (place / mark).exists():
        return "holds other files, not an earlier result"
    if place.exists() and not place.is_dir():
        return "is a file"
    parent = next(above for above in place.parents if above.exists())
    if not parent.is_dir():
        return f"{parent} is a file"
    return None if os.access(parent, os.W_OK | os.X_OK) else f"no permission to write in {parent}"


def _remove_leavings(place: Path) -> None:
    """Remove what runs left beside the target that were killed while they wrote it; others may be at work."""
    if not place.parent.is_dir():
        return
    for beside in place.parent.iterdir():
        for start in (f".{place.name}.partial-", f".{place.name}.old-"):
            number = beside.name.removeprefix(start)
            if number != beside.name and number.isdecimal() and not _is_alive(int(number)):
                shutil.rmtree(beside, ignore_errors=True)


def _is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        return True  # another user's
    return True


def write_folder(folder: Path, files: Mapping[str, Callable[[Path], object]]) -> Path:
    """Write all files beside the target, then put the folder in place; an earlier result is replaced.

    files: name -> function that writes to a path.
    """
    check_free(folder)
    place = folder.resolve()
    partial = place.with_name(f".{place.name}.partial-{os.getpid()}")
    old = place.with_name(f".{place.name}.old-{os.getpid()}")
    _remove_leavings(place)
    try:
        partial.mkdir(parents=True)
        for name, write in files.items():
            write(partial / name)
        if place.exists():
            place.rename(old)
        partial.rename(place)
    except OSError as error:
        raise UserError(f"{folder}: cannot be written ({error.strerror or error})") from None
    finally:
        shutil.rmtree(partial, ignore_errors=True)
        if os.path.exists(place):
            shutil.rmtree(old, ignore_errors=True)
        elif os.path.exists(old):
            old.rename(place)
    return folder
