"""Demand traces: what a recorded run read for each token, without its routing (semantics, section 10).

A CSV begins with the line ``# slicesim demand v1`` and a preamble of ``# key: value`` lines, the fields of
DemandHeader; then a row of column names, then one row per decode token. A Parquet file has the same columns, and the
header as JSON under the key ``slicesim-demand`` of its metadata.
"""

from __future__ import annotations

import csv
import hashlib
import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, ValidationError, model_validator

from slicesim.errors import UserError
from slicesim.scenario.document import parse_value
from slicesim.scenario.schema import Section

FIRST_LINE = "# slicesim demand v1"
METADATA_KEY = b"slicesim-demand"

#: More than any device could move for one token; sums of a long trace stay far below 2^63.
MOST_BYTES = 10**13
MOST_PS = 10**16

Count = Annotated[int, Field(ge=1, le=10**6)]


class DemandHeader(Section):
    """What a demand trace says of itself."""

    model: str = Field(min_length=1, description="model that was recorded")
    layers: Count = Field(description="layers with routed experts")
    top_k: Count
    read_bytes: Annotated[int, Field(ge=1, le=MOST_BYTES)] = Field(description="size of one flash read")
    reads_per_expert: Count = 3
    expert_bytes: Annotated[int, Field(ge=1, le=MOST_BYTES)] | None = Field(
        None, description="bytes of one expert in DRAM; none: reads_per_expert x read_bytes"
    )
    non_expert_bytes: Annotated[int, Field(ge=1, le=MOST_BYTES)] | None = Field(
        None, description="bytes of all other weights that a token reads from DRAM; none: the model's, in INT8"
    )
    context: Annotated[int, Field(ge=0, le=10**9)] = Field(0, description="tokens in the KV cache at the beginning")
    kept: bool = Field(True, description="what is read goes into a cache, rather than into a buffer that is used again")
    source: str = Field(min_length=1)
    licence: str = Field(min_length=1)
    synthetic: bool = False
    notes: str = ""

    @model_validator(mode="after")
    def _can_be_counted(self) -> DemandHeader:
        experts = self.layers * self.top_k
        most = max(experts * self.expert_size, experts * self.reads_per_expert * self.read_bytes)
        if most > MOST_BYTES:
            raise ValueError(f"layers x top_k experts are {most:,} bytes, more than a device could move for one token")
        return self

    @property
    def expert_size(self) -> int:
        """Bytes of one expert."""
        return self.expert_bytes or self.reads_per_expert * self.read_bytes


@dataclass(frozen=True)
class DemandTrace:
    """token, flash_read_bytes, hit_bytes: int64 [tokens]; compute_ps: the same, or None where not recorded.

    hit_bytes: bytes of routed experts that the token found in DRAM.
    """

    header: DemandHeader
    token: NDArray[np.int64]
    flash_read_bytes: NDArray[np.int64]
    hit_bytes: NDArray[np.int64]
    compute_ps: NDArray[np.int64] | None = None
    name: str = "memory"

    def __len__(self) -> int:
        """Return the number of tokens."""
        return len(self.token)

    @property
    def digest(self) -> str:
        """SHA-256 over header and columns."""
        state = hashlib.sha256(self.header.model_dump_json().encode())
        for column in (self.token, self.flash_read_bytes, self.hit_bytes, self.compute_ps):
            if column is not None:
                state.update(np.ascontiguousarray(column).tobytes())
        return state.hexdigest()

    def first(self, tokens: int | None) -> DemandTrace:
        """Return the first tokens alone."""
        compute = None if self.compute_ps is None else self.compute_ps[:tokens]
        read, hits = self.flash_read_bytes[:tokens], self.hit_bytes[:tokens]
        return DemandTrace(self.header, self.token[:tokens], read, hits, compute, self.name)

    @classmethod
    def of(
        cls,
        header: DemandHeader,
        flash_read_bytes: Sequence[int] | NDArray[np.int64],
        hit_bytes: NDArray[np.int64] | None = None,
        compute_ps: NDArray[np.int64] | None = None,
        token: NDArray[np.int64] | None = None,
        name: str = "memory",
    ) -> DemandTrace:
        """Build a trace; hits that were not recorded are what the flash reads leave of top_k experts a layer."""
        read = np.array(flash_read_bytes, dtype=np.int64)
        if hit_bytes is None:
            hit_bytes = np.maximum(0, header.layers * header.top_k * header.expert_size - read)
        return cls(header, np.arange(len(read)) if token is None else token, read, hit_bytes, compute_ps, name)


def is_demand(path: Path) -> bool:
    """Tell by its first line, or by its metadata, whether a file is a demand trace."""
    if not os.path.isfile(path):
        return False
    with path.open("rb") as file:
        start = file.read(len(FIRST_LINE) + 8)
    if start.startswith(b"PAR1"):
        return METADATA_KEY in _parquet_metadata(path)
    return start.decode("utf-8-sig", errors="replace").startswith("# slicesim demand")


def read_demand(path: str | Path) -> DemandTrace:
    """Read a demand trace. Raises UserError, with file, line and what to do, for whatever is not valid."""
    path = Path(path)
    is_parquet = path.open("rb").read(4) == b"PAR1"
    header, columns, place = _read_parquet(path) if is_parquet else _read_csv(path)
    return _trace(path, header, columns, place)


def write_demand(path: str | Path, trace: DemandTrace) -> None:
    """Write a demand trace: Parquet where the name ends so, else CSV."""
    path = Path(path)
    columns = {"token": trace.token, "flash_read_bytes": trace.flash_read_bytes, "hit_bytes": trace.hit_bytes}
    if trace.compute_ps is not None:
        columns["compute_ps"] = trace.compute_ps
    if path.suffix == ".parquet":
        import pyarrow as pa
        import pyarrow.parquet as pq

        table = pa.table(columns).replace_schema_metadata({METADATA_KEY: trace.header.model_dump_json()})
        pq.write_table(table, path)
        return
    with path.open("w", encoding="utf-8", newline="\n") as file:
        file.write(FIRST_LINE + "\n")
        for key, value in trace.header.model_dump(exclude_none=True).items():
            file.write(f"# {key}: {json.dumps(value, ensure_ascii=False)}\n")  # YAML has no pairs of escapes
        file.write(",".join(columns) + "\n")
        for row in zip(*(column.tolist() for column in columns.values()), strict=True):
            file.write(",".join(map(str, row)) + "\n")


#: Where a row stands, for messages.
Place = Callable[[int], str]
Columns = Mapping[str, Sequence[Any]]


def _read_csv(path: Path) -> tuple[dict[str, Any], Columns, Place]:
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError:
        raise UserError(f"{path}: is no text (UTF-8), give a demand CSV") from None
    first = lines[0].strip() if lines else ""
    if first != FIRST_LINE:
        raise UserError(f"{path}: line 1: is {first!r}; write {FIRST_LINE!r}")
    header = dict(_preamble(path, lines))
    rows = [(n, line) for n, line in enumerate(lines, 1) if line.strip() and not line.startswith("#")]
    if not rows:
        raise UserError(f"{path}: no row of column names; write token,flash_read_bytes below the preamble")
    names = [name.strip() for name in rows[0][1].split(",")]
    cells: list[list[str]] = []
    for number, line in rows[1:]:
        row = _cells(line)
        if len(row) != len(names):
            raise UserError(f"{path}: line {number}: {len(row)} cells; give {len(names)}: {','.join(names)}")
        cells.append(row)
    columns = {name: [row[place] for row in cells] for place, name in enumerate(names)}
    return header, columns, lambda row: f"line {rows[row + 1][0]}"


def _cells(line: str) -> list[str]:
    """Split one line; a quote that is not closed must not swallow the next."""
    try:
        return next(csv.reader([line], strict=True), [])
    except csv.Error:
        return []


def _preamble(path: Path, lines: Iterable[str]) -> Iterator[tuple[str, Any]]:
    seen: set[str] = set()
    for number, line in enumerate(lines, 1):
        key, colon, text = line.removeprefix("#").partition(":")
        if number == 1 or not line.startswith("#") or not line.removeprefix("#").strip():
            continue
        if not colon:
            raise UserError(
                f"{path}: line {number}: write '# key: value'; keys: {', '.join(DemandHeader.model_fields)}"
            )
        if key.strip() in seen:
            raise UserError(f"{path}: line {number}: {key.strip()} is given twice; leave one out")
        seen.add(key.strip())
        words = key.strip() in ("model", "source", "licence", "notes")
        value = text.strip()
        mark = f"{path}: line {number}"
        # Words need no quotes, whatever they hold.
        yield key.strip(), value if words and not value.startswith('"') else parse_value(value, mark)


def _parquet_metadata(path: Path) -> Mapping[bytes, bytes]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        return pq.ParquetFile(path).schema_arrow.metadata or {}
    except (pa.ArrowException, OSError, ValueError):  # ValueError: names that are no UTF-8
        return {}


def _read_parquet(path: Path) -> tuple[dict[str, Any], Columns, Place]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    metadata = _parquet_metadata(path)
    if METADATA_KEY not in metadata:
        raise UserError(f"{path}: no demand trace (the Parquet metadata has no key {METADATA_KEY.decode()!r})")
    try:
        table = pq.read_table(path)
        columns = {name: column.to_pylist() for name, column in zip(table.column_names, table.columns, strict=True)}
        header = json.loads(metadata[METADATA_KEY])
    except (pa.ArrowException, OSError, ValueError, OverflowError, RecursionError) as error:
        raise UserError(f"{path}: not a whole Parquet file with a header in JSON ({_first_line(error)})") from None
    return header, columns, lambda row: f"row {row}"


def _first_line(error: BaseException) -> str:
    return (str(error) or type(error).__name__).splitlines()[0]


_NEEDED = "token and flash_read_bytes or hit_rate; may be added: hit_bytes, compute_ps"


def _trace(path: Path, fields: dict[str, Any], columns: Columns, place: Place) -> DemandTrace:
    try:
        header = DemandHeader.model_validate(fields)
    except ValidationError as error:
        fault = error.errors()[0]
        key = ".".join(map(str, fault["loc"]))
        advice = {
            "missing": "is missing: add it to the preamble",
            "extra_forbidden": "is no key of the preamble: leave it out",
        }
        raise UserError(f"{path}: preamble: {key} {advice.get(fault['type'], 'is wrong: ' + fault['msg'])}") from None
    unknown = [
        name for name in columns if name not in ("token", "flash_read_bytes", "hit_rate", "hit_bytes", "compute_ps")
    ]
    if unknown:
        raise UserError(f"{path}: column {unknown[0]!r} is not known; give {_NEEDED}")
    if "token" not in columns or ("flash_read_bytes" in columns) == ("hit_rate" in columns):
        raise UserError(f"{path}: columns are {','.join(columns)}; give {_NEEDED}")
    if not len(columns["token"]):
        raise UserError(f"{path}: the trace holds no tokens; give one row for each")

    def whole(name: str, most: int = MOST_BYTES) -> NDArray[np.int64]:
        return _numbers(path, name, columns[name], place, int, most).astype(np.int64)

    token = whole("token")
    steps = np.flatnonzero(np.diff(token) <= 0)
    if len(steps):
        row = int(steps[0]) + 1
        raise UserError(
            f"{path}: {place(row)}: token {token[row]} follows {token[row - 1]}; give tokens in rising order"
        )
    hits = whole("hit_bytes") if "hit_bytes" in columns else None
    if "flash_read_bytes" in columns:
        read = whole("flash_read_bytes")
    else:
        rate = _numbers(path, "hit_rate", columns["hit_rate"], place, float, 1)
        experts = header.layers * header.top_k * header.reads_per_expert
        read = np.round((1 - rate) * experts).astype(np.int64) * header.read_bytes
    compute = whole("compute_ps", MOST_PS) if "compute_ps" in columns else None
    return DemandTrace.of(header, read, hits, compute, token, path.name)


def _numbers(
    path: Path, name: str, cells: Sequence[Any], place: Place, kind: Callable[[Any], Any], most: int
) -> NDArray[Any]:
    what = f"a {'whole ' * (kind is int)}number from 0 to {most}"
    values = []
    for row, cell in enumerate(cells):
        try:
            value = kind(cell)
        except (TypeError, ValueError, OverflowError):
            value = -1
        if isinstance(cell, float) and value != cell:  # a fraction where a whole number should stand
            value = -1
        if not 0 <= value <= most:
            raise UserError(f"{path}: {place(row)}: {name} is {str(cell).strip()!r}; give {what}")
        values.append(value)
    return np.array(values)
