"""Reference figures: small CSV files beside this one, each with its source in the lines that begin with ``#``."""

from __future__ import annotations

import csv
from importlib.resources import files


def reference_rows(name: str) -> list[dict[str, str]]:
    """Return the rows of ``name``.csv; an empty cell means that the source gives no figure."""
    lines = files("slicesim.validation").joinpath(f"{name}.csv").read_text(encoding="utf-8").splitlines()
    return list(csv.DictReader(line for line in lines if not line.startswith("#")))


def relative_error(computed: float, measured: float) -> float:
    """Error as a fraction of what was measured."""
    return computed / measured - 1.0
