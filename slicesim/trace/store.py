"""The Parquet file format of traces: one row per token and layer, read by row group.

Columns: request, token (int64), phase (prefill or decode), layer (int16), experts (list of top_k int32),
scores (list of top_k double, same order), and, where captured, logits (list of ``experts`` float).
The header lies as JSON under the key ``slicesim`` of the file's metadata.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray
from pydantic import ValidationError

from slicesim.errors import UserError
from slicesim.trace.table import ABSENT, TraceBlock, TraceHeader, count_in_order
from slicesim.whole_file import whole_file

METADATA_KEY = b"slicesim"
PHASES = ("prefill", "decode")
TOKENS_PER_ROW_GROUP = 1024


@dataclass(frozen=True)
class ParquetTrace:
    """A trace file, read row group by row group."""

    path: Path

    @property
    def name(self) -> str:
        """File name."""
        return self.path.name

    @cached_property
    def digest(self) -> str:
        """SHA-256 of the file."""
        with self.path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()

    @cached_property
    def header(self) -> TraceHeader:
        """Geometry and provenance; raises UserError where the file is no slicesim trace."""
        with _reading(self.path), pq.ParquetFile(self.path) as file:
            metadata = file.schema_arrow.metadata or {}
            names = set(file.schema_arrow.names)
        if METADATA_KEY not in metadata:
            raise UserError(f"{self.path}: no slicesim trace (the Parquet metadata has no key 'slicesim')")
        try:
            header = TraceHeader.model_validate_json(metadata[METADATA_KEY])
        except ValidationError as error:
            fault = error.errors()[0]
            place = ".".join(map(str, fault["loc"]))
            raise UserError(f"{self.path}: trace header: {place}: {fault['msg']}") from None
        missing = set(_schema(header).names) - names
        if missing:
            raise UserError(
                f"{self.path}: column {sorted(missing)[0]!r} is missing; columns: {', '.join(sorted(names))}"
            )
        return header

    def request_lengths(self) -> dict[int, int]:
        """Tokens of each request, in order of appearance."""
        return self._lengths

    @cached_property
    def _lengths(self) -> dict[int, int]:
        """Counted once, from the request and layer columns alone."""
        first_layer = self.header.layers[0]
        lengths: dict[int, int] = {}
        for table in self._row_groups(["request", "layer"]):
            request = table["request"].to_numpy()[table["layer"].to_numpy() == first_layer]
            for key, count in count_in_order(request).items():
                lengths[key] = lengths.get(key, 0) + count
        return lengths

    def blocks(self) -> Iterator[TraceBlock]:
        """Yield one block per row group; a token that is cut by a row group's end goes to the next block."""
        for block, _ in self.numbered_blocks():
            yield block

    def numbered_blocks(self) -> Iterator[tuple[TraceBlock, NDArray[np.int64]]]:
        """Yield each block with the file's row numbers [tokens, layers], ABSENT where there is no row."""
        header = self.header
        carry: pa.Table | None = None
        first_row = 0
        for group in self._row_groups(_schema(header).names):
            table = group if carry is None else pa.concat_tables([carry, group]).combine_chunks()
            starts = _token_starts(table)
            last = int(starts[-1]) if len(starts) else 0
            carry = table.slice(last)
            if last:
                yield self._block(table.slice(0, last), starts[:-1], first_row)
                first_row += last
        if carry is not None and carry.num_rows:
            yield self._block(carry, np.zeros(1, np.int64), first_row)

    def _row_groups(self, columns: list[str]) -> Iterator[Any]:
        with _reading(self.path), pq.ParquetFile(self.path) as file:
            for index in range(file.num_row_groups):
                yield file.read_row_group(index, columns=columns)

    def _block(self, table: Any, starts: NDArray[np.int64], first_row: int) -> tuple[TraceBlock, NDArray[np.int64]]:
        header = self.header
        layer = _integers(table, "layer", self.path)
        slot = np.searchsorted(header.layers, layer)
        known = np.isin(layer, header.layers)
        if not known.all():
            row = int(np.flatnonzero(~known)[0])
            raise UserError(f"{self.path}: row {first_row + row}: layer {layer[row]} is not in the header's layers")
        token_of_row = np.searchsorted(starts, np.arange(table.num_rows), side="right") - 1
        cell = token_of_row * len(header.layers) + slot
        if len(np.unique(cell)) < len(cell):
            _, first = np.unique(cell, return_index=True)
            row = int(np.setdiff1d(np.arange(len(cell)), first)[0])
            raise UserError(f"{self.path}: row {first_row + row}: a second row for the same token and layer")
        shape = (len(starts), len(header.layers))

        def spread(name: str, width: int, dtype: Any, fill: float) -> NDArray[Any]:
            full = np.full((shape[0] * shape[1], width), fill, dtype=dtype)
            values = _lists(table, name, width, self.path, first_row)
            if dtype is np.int32:  # a wider number must not become another one
                values = np.clip(values.astype(np.int64), -(2**31), 2**31 - 1)
            full[cell] = values
            return full.reshape(*shape, width)

        phase = _phases(table, self.path, first_row)
        differs = np.flatnonzero(phase != phase[starts][token_of_row])
        if len(differs):
            row = first_row + int(differs[0])
            raise UserError(f"{self.path}: row {row}: the rows of one token differ in phase")
        rows = np.full(shape[0] * shape[1], ABSENT, dtype=np.int64)
        rows[cell] = first_row + np.arange(table.num_rows)
        block = TraceBlock(
            request=_integers(table, "request", self.path)[starts],
            token=_integers(table, "token", self.path)[starts],
            phase=phase[starts],
            ids=spread("experts", header.top_k, np.int32, ABSENT),
            scores=spread("scores", header.top_k, np.float64, 0.0),
            logits=spread("logits", header.experts, np.float32, 0.0) if header.has_logits else None,
        )
        return block, rows.reshape(shape)


def write_trace(path: Path, header: TraceHeader, blocks: Iterable[TraceBlock]) -> None:
    """Write a trace; the file appears under its name only when it is whole."""
    schema = _schema(header).with_metadata({METADATA_KEY: header.model_dump_json().encode()})
    with whole_file(path) as partial, pq.ParquetWriter(partial, schema, **_encoding(schema)) as writer:
        for block in blocks:
            for start in range(0, len(block), TOKENS_PER_ROW_GROUP):
                writer.write_table(_table(schema, header, block.part(start, start + TOKENS_PER_ROW_GROUP)))


def _encoding(schema: Any) -> dict[str, Any]:
    """Real numbers hardly repeat: byte by byte they take a quarter less room than in a dictionary."""
    columns = [f"{field.name}.list.element" if _is_list(field) else field.name for field in schema]
    real = [name for name in columns if name.startswith(("scores", "logits"))]
    return {
        "compression": "zstd",
        "use_dictionary": [name for name in columns if name not in real],
        "use_byte_stream_split": real,
    }


def _is_list(field: Any) -> bool:
    return bool(pa.types.is_fixed_size_list(field.type))


def _schema(header: TraceHeader) -> Any:
    fields = [
        ("request", pa.int64()),
        ("token", pa.int64()),
        ("phase", pa.dictionary(pa.int8(), pa.string())),
        ("layer", pa.int16()),
        ("experts", pa.list_(pa.int32(), header.top_k)),
        ("scores", pa.list_(pa.float64(), header.top_k)),
    ]
    if header.has_logits:
        fields.append(("logits", pa.list_(pa.float32(), header.experts)))
    return pa.schema(fields)


def _table(schema: Any, header: TraceHeader, block: TraceBlock) -> Any:
    tokens, layers, _ = block.ids.shape
    present = ~(block.ids == ABSENT).all(axis=2).reshape(-1)

    def per_row(column: NDArray[Any]) -> NDArray[Any]:
        return np.asarray(np.repeat(column, layers)[present])

    def lists(values: NDArray[Any], kind: Any) -> Any:
        flat = values.reshape(tokens * layers, -1)[present]
        return pa.FixedSizeListArray.from_arrays(pa.array(flat.reshape(-1), kind), flat.shape[1])

    columns = [
        pa.array(per_row(block.request)),
        pa.array(per_row(block.token)),
        pa.DictionaryArray.from_arrays(pa.array(per_row(block.phase), pa.int8()), pa.array(PHASES)),
        pa.array(np.tile(np.asarray(header.layers, np.int16), tokens)[present]),
        lists(block.ids, pa.int32()),
        lists(block.scores, pa.float64()),
    ]
    if block.logits is not None:
        columns.append(lists(block.logits, pa.float32()))
    return pa.Table.from_arrays(columns, schema=schema)


def _token_starts(table: Any) -> NDArray[np.int64]:
    request, token = table["request"].to_numpy(), table["token"].to_numpy()
    changed = (request[1:] != request[:-1]) | (token[1:] != token[:-1])
    return np.flatnonzero(np.concatenate(([len(request) > 0], changed))).astype(np.int64)


def _integers(table: Any, name: str, path: Path) -> NDArray[np.int64]:
    column = table[name]
    if column.null_count or not pa.types.is_integer(column.type):
        raise UserError(f"{path}: column {name!r} must hold whole numbers, without gaps")
    return np.asarray(column.to_numpy(), dtype=np.int64)


def _phases(table: Any, path: Path, first_row: int) -> NDArray[np.int8]:
    column = table["phase"]
    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    code = pc.index_in(column, value_set=pa.array(PHASES, column.type)) if _is_text(column.type) else None
    if code is None or code.null_count:
        row = 0 if code is None else int(np.flatnonzero(np.asarray(code.is_null()))[0])
        raise UserError(f"{path}: row {first_row + row}: phase must be prefill or decode")
    return np.asarray(code.to_numpy(), dtype=np.int8)


def _is_text(kind: Any) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))


def _lists(table: Any, name: str, width: int, path: Path, first_row: int) -> NDArray[Any]:
    column = table[name].combine_chunks()
    chunk = column.chunk(0) if isinstance(column, pa.ChunkedArray) else column
    kind = chunk.type
    is_fixed = pa.types.is_fixed_size_list(kind)
    is_list = is_fixed or pa.types.is_list(kind) or pa.types.is_large_list(kind)
    is_whole = is_list and pa.types.is_integer(kind.value_type)
    if not is_whole and not (is_list and name != "experts" and pa.types.is_floating(kind.value_type)):
        raise UserError(f"{path}: column {name!r} must hold lists of {'whole ' if name == 'experts' else ''}numbers")
    if chunk.null_count or not is_fixed:
        lengths = np.asarray(chunk.value_lengths().fill_null(0))
    else:
        lengths = np.full(len(chunk), kind.list_size)
    if (lengths != width).any():
        row = int(np.flatnonzero(lengths != width)[0])
        raise UserError(f"{path}: row {first_row + row}: {name} holds {lengths[row]} values, the header says {width}")
    values = chunk.flatten()
    if values.null_count:
        row = int(np.flatnonzero(np.asarray(values.is_null()))[0]) // width
        raise UserError(f"{path}: row {first_row + row}: {name} holds a gap (null)")
    return np.asarray(values.to_numpy(zero_copy_only=False)).reshape(-1, width)


class _reading:  # noqa: N801 - used as a statement
    """Turn Arrow's errors on a file into one line."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __enter__(self) -> None:
        if not self.path.is_file():
            raise UserError(f"{self.path}: no such trace file")

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: object) -> None:
        if isinstance(error, (pa.ArrowException, OSError, UnicodeDecodeError)):
            text = (str(error) or type(error).__name__).splitlines()[0]
            raise UserError(f"{self.path}: not a whole Parquet file, perhaps truncated ({text})") from None
