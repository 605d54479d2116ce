"""Where a sweep keeps what it has found: one file per finished point, and one table of all."""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa

from slicesim.errors import UserError
from slicesim.report.folder import check_free

POINTS, TABLE, FRONT = "points", "sweep.parquet", "pareto.png"

_END = b"}\n"


class Store:
    """The folder of a sweep. Every file in it is whole or absent, whenever the process is killed."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.points = folder / POINTS
        check_free(folder, POINTS)

    @contextmanager
    def opened(self) -> Iterator[None]:
        """Make the folder and keep other sweeps out of it; half-written files of a killed one are removed."""
        with _writing(self.folder):
            self.points.mkdir(parents=True, exist_ok=True)
            with (self.folder / ".lock").open("w") as lock:
                try:
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)  # let go by the system, even after kill -9
                except BlockingIOError:
                    raise UserError(
                        f"{self.folder}: another sweep is at work here; wait for it, or choose another --out"
                    ) from None
                for partial in (*self.points.glob(".*.partial*"), *self.folder.glob(".*.partial*")):
                    partial.unlink()
                yield

    def has(self, digest: str) -> bool:
        """Tell whether a point is finished; a file that breaks off (the machine went down) is removed."""
        path = self._path(digest)
        if not path.is_file():
            return False
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - len(_END)))
            whole = file.read() == _END
        if not whole:
            path.unlink()
        return whole

    def put(self, digest: str, summary: str) -> None:
        """Keep a finished point: the text of its summary, one JSON object on one line."""
        self._put(self._path(digest), lambda path: path.write_text(summary + "\n", encoding="utf-8"))

    def get(self, digest: str) -> dict[str, Any]:
        """Return a finished point's summary."""
        path = self._path(digest)
        try:
            summary: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        except (ValueError, RecursionError):
            summary = {}
        if not _is_point(summary):
            raise UserError(f"{path}: is no point of a sweep; remove it and run the sweep again")
        return summary

    def write_table(self, frame: pd.DataFrame) -> pd.DataFrame:
        """Write the table of all points and return it as it reads back."""
        table = self.folder / TABLE
        try:
            self._put(table, lambda path: frame.to_parquet(path, index=False))
        except (pa.ArrowException, ValueError, TypeError, OverflowError) as error:  # a point was changed by hand
            line = str(error).splitlines()[0]
            raise UserError(f"{self.points}: makes no table ({line}); remove the point that was changed") from None
        return pd.read_parquet(table)

    def write_front(self, draw: Callable[[Path], object] | None) -> None:
        """Draw the picture of the front; without ``draw``, one of an earlier call is taken away."""
        picture = self.folder / FRONT
        if draw is None:
            picture.unlink(missing_ok=True)
        else:
            self._put(picture, draw, ending=picture.suffix)  # which says what is drawn

    def _path(self, digest: str) -> Path:
        return self.points / f"{digest}.json"

    @staticmethod
    def _put(path: Path, write: Callable[[Path], object], ending: str = "") -> None:
        partial = path.with_name(f".{path.name}.partial{ending}")
        try:
            write(partial)
            os.replace(partial, path)
        finally:
            partial.unlink(missing_ok=True)


def _is_point(summary: Any) -> bool:
    """Whether a summary has the parts that go into the table, each of its kind."""
    return (
        isinstance(summary, dict)
        and all(isinstance(summary.get(part), dict) for part in ("decode", "prefill", "trace", "scenario"))
        and all(isinstance(summary.get(part), str) for part in ("policy", "slicesim_version"))
        and isinstance(summary["trace"].get("sha256"), str)
        and isinstance(summary.get("warnings"), list)
        and all(isinstance(warning, str) for warning in summary["warnings"])
    )


@contextmanager
def _writing(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise UserError(f"{folder}: cannot be written ({error.strerror or error})") from None
