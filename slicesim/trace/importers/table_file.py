"""Comma-separated files with a header row and ``#`` comments, read fast, with line numbers for the faults."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from slicesim.errors import UserError
from slicesim.trace.importers.importer import reason

#: How each type of column is spoken of, and read when a line is looked at alone.
_CONVERTERS: Mapping[str, tuple[str, Any]] = {"i": ("a whole number", np.int64), "f": ("a number", float)}


@dataclass(frozen=True)
class TableFile:
    """Columns of a file, and the line of each row."""

    path: Path
    columns: Mapping[str, NDArray[Any]]

    @cached_property
    def lines(self) -> NDArray[np.int64]:
        """Line number (from 1) of each row; the file is read again for it."""
        numbers = [number for number, _ in _content(self.path)]
        return np.array(numbers[1:], dtype=np.int64)


def read_table(path: Path, types: Mapping[str, str], rows: str = "routes") -> TableFile:
    """Read the named columns, each as its NumPy type; ``rows``: what they are called in messages.

    Raises UserError for a missing column, a file without rows, and, by line, for what is no number.
    """
    number, names = column_names(path)
    missing = [name for name in types if name not in names]
    if missing:
        raise UserError(f"{path}: line {number}: column {missing[0]!r} is missing; needed: {','.join(types)}")
    places = [names.index(name) for name in types]
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", UserWarning)  # "input contained no data"
            table = np.loadtxt(
                path,
                dtype=list(types.items()),
                delimiter=",",
                comments="#",
                skiprows=number,
                usecols=places,
                encoding="utf-8-sig",
                ndmin=1,
            )
    except UserWarning:
        raise UserError(f"{path}: holds no {rows} below the header row") from None
    except UnicodeDecodeError:
        raise UserError(f"{path}: cannot be read as text") from None
    except (ValueError, OverflowError) as error:
        raise _first_bad_line(path, types, names) or UserError(
            f"{path}: cannot be read as a table ({reason(error)})"
        ) from None
    return TableFile(path, {name: np.ascontiguousarray(table[name]) for name in types})


def column_names(path: Path) -> tuple[int, list[str]]:
    """Return the header row's line number and its names."""
    try:
        number, text = next(_content(path), (1, ""))
    except (OSError, UnicodeDecodeError):
        raise UserError(f"{path}: cannot be read as text") from None
    return number, [name.strip() for name in text.split(",")]


def _content(path: Path) -> Iterator[tuple[int, str]]:
    """Yield number and text of each line that is neither blank nor a comment."""
    with path.open(encoding="utf-8-sig") as file:
        for number, line in enumerate(file, 1):
            if line.strip() and not line.startswith("#"):
                yield number, line.rstrip("\r\n")


def _first_bad_line(path: Path, types: Mapping[str, str], names: list[str]) -> UserError | None:
    """Look at the lines one by one, as the fast reader does not say where it stopped."""
    rows = _content(path)
    next(rows, None)
    for number, line in rows:
        fields = line.partition("#")[0].split(",")
        if len(fields) < len(names):
            return UserError(f"{path}: line {number}: {len(fields)} fields, not {len(names)}; truncated?")
        for name, kind in types.items():
            text = fields[names.index(name)].strip()
            described, convert = _CONVERTERS.get(kind[0], ("", str))
            try:
                convert(text)
            except (ValueError, OverflowError):
                return UserError(f"{path}: line {number}: {name} must be {described}, is {text!r}")
    return None
