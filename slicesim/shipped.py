"""Device files and traces that come along: beside the package in a checkout, under ``share/slicesim`` of a wheel."""

from __future__ import annotations

import shutil
from importlib.metadata import PackageNotFoundError, files
from pathlib import Path

from slicesim.errors import UserError

#: Folders that a scenario file needs, relative to each other as in a checkout.
HWCONFIGS, TRACES = "hwconfigs", "traces"


def shipped() -> Path:
    """Return the folder that holds ``hwconfigs`` and ``traces``. Raises UserError where neither place has them."""
    checkout = Path(__file__).resolve().parents[1]
    if (checkout / HWCONFIGS).is_dir():
        return checkout
    try:
        known = files("slicesim") or []
    except PackageNotFoundError:
        known = []
    for file in known:
        if file.parts[-4:-1] == ("share", "slicesim", HWCONFIGS):
            return Path(str(file.locate())).resolve().parents[1]
    raise UserError("this installation has no device files: install the wheel again, or work in a checkout")


def copy_shipped(folder: Path) -> list[Path]:
    """Copy device files, and the traces that a wheel holds, into a folder; return what is there now.

    Raises UserError where one of them is there already.
    """
    source = shipped()
    targets = [folder / HWCONFIGS, folder / TRACES]
    for target in targets:
        if target.exists():
            raise UserError(f"{target}: is there already; give another folder")
    for target in targets:
        partial = target.with_name(f".{target.name}.partial")
        shutil.rmtree(partial, ignore_errors=True)
        try:
            shutil.copytree(source / target.name, partial, ignore=_ignored)
            partial.rename(target)
        except (OSError, shutil.Error) as error:
            raise UserError(f"{target}: cannot be written ({getattr(error, 'strerror', None) or error})") from None
        finally:
            shutil.rmtree(partial, ignore_errors=True)
    return targets


def _ignored(folder: str, names: list[str]) -> list[str]:
    """Of a checkout: what a wheel leaves out for its size (micro models, and traces captured from them)."""
    return [name for name in names if "micro" in name]
