"""Traces in every format, damaged: one clear line, or the rows that a plain reader finds in the same file."""

from __future__ import annotations

import io
import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from slicesim.errors import UserError
from slicesim.live.prompts import read_prompts
from slicesim.simulation import Simulation
from slicesim.trace import Trace, load_trace
from slicesim.trace.demand import read_demand, write_demand
from slicesim.trace.importers import ImportOptions, import_trace
from slicesim.trace.split import segments
from slicesim.trace.store import METADATA_KEY, write_trace
from slicesim.trace.table import first_fault
from slicesim.trace.validate import validate_trace
from tests.fuzz import formats
from tests.fuzz.harness import fuzz, refusal, require_line
from tests.fuzz.mutate import VALUES, damaged_bytes, damaged_text, damaged_tree
from tests.kit import ROOT, scenario

#: Text formats: file name, sound text, plain reader.
TEXTS: dict[str, tuple[str, str, Callable[[Path], formats.Rows] | None]] = {
    "csv": ("c.csv", formats.csv_text(), formats.plain_csv),
    "jsonl": ("j.jsonl", formats.jsonl_text(), formats.plain_jsonl),
    "route-trace": ("r.route.csv", formats.route_text(), None),  # its tokens are numbered anew: see the last test
    "esft": ("expert_weights_1.txt", formats.esft_text(), formats.plain_esft),
}


def options(folder: Path, name: str) -> ImportOptions:
    return ImportOptions(format=name, model=str(folder / "tiny-moe.yaml"))


def same_rows(one: formats.Rows, other: formats.Rows) -> bool:
    return list(one) != [] and one.keys() == other.keys() and all(one[key] == other[key] for key in one)


def fares(read: Callable[[], Trace], path: Path, plain: Callable[[Path], formats.Rows] | None) -> str:
    """Read; what is accepted has no fault, equals the plain reader's rows, survives Parquet, and can be replayed."""
    trace, _ = refusal(read, path.name)
    if trace is None:
        return "refused"
    try:
        rows = formats.rows_of_trace(trace)
        simulation = Simulation.prepare(scenario(trace__top_k=trace.header.top_k, trace__layer_subset=True), trace)
        list(segments(trace, simulation.scenario.settings.trace.split))
    except UserError as error:
        require_line(str(error), path.name, "--set", "mobile.yaml")
        return "refused later"
    if plain is not None:
        assert same_rows(rows, plain(path))
    copy = path.with_name("copy.parquet")
    write_trace(copy, trace.header, trace.blocks())
    again = load_trace(copy)
    assert again.header == trace.header
    assert rows == formats.rows_of_trace(again)
    return "sound"


def test_text_formats(folder: Path) -> None:
    def check(choice: random.Random) -> str:
        name = choice.choice(sorted(TEXTS))
        file, text, plain = TEXTS[name]
        path = folder / file
        if name == "jsonl" and choice.random() < 0.5:
            records = damaged_tree(choice, [json.loads(line) for line in text.splitlines()])
            path.write_text("".join(json.dumps(record) + "\n" for record in records))
        else:
            path.write_bytes(damaged_text(choice, text))
        given = options(folder, name)
        if choice.random() < 0.1:
            for fault in validate_trace(path, given):
                require_line(fault, file, "more")
        return fares(lambda: import_trace(path, given), path, plain)

    fared = fuzz("text_traces", check)
    assert min(fared["refused"], fared["sound"]) > 0


def npz_bytes(arrays: dict[str, Any]) -> bytes:
    out = io.BytesIO()
    np.savez_compressed(out, **arrays)
    return out.getvalue()


def test_npz(folder: Path) -> None:
    path, sound = folder / "n.npz", formats.npz_arrays()
    whole = npz_bytes(sound)

    def check(choice: random.Random) -> str:
        if choice.random() < 0.5:
            path.write_bytes(damaged_bytes(choice, whole))
        else:
            path.write_bytes(npz_bytes(_damaged_arrays(choice, sound)))
        return fares(lambda: import_trace(path, ImportOptions()), path, None)

    fared = fuzz("npz", check)
    assert min(fared["refused"], fared["sound"]) > 0


def _damaged_arrays(choice: random.Random, sound: dict[str, Any]) -> dict[str, Any]:
    arrays = dict(sound)
    name = choice.choice(sorted(arrays))
    array = arrays[name]
    match choice.randrange(9):
        case 0:
            del arrays[name]
        case 1:
            arrays[name] = (
                array.astype(choice.choice(("f4", "f8", "i8", "u1", "S4", "U4", "?", "c8")), casting="unsafe")
                if name != "meta"
                else array.astype("S")
            )
        case 2:
            arrays[name] = array.reshape(-1)[: choice.randrange(4)]
        case 3:
            arrays[name] = array[None]
        case 4 if name != "meta":
            array = array.astype(choice.choice(("i8", "f8")))
            array.reshape(-1)[choice.randrange(array.size)] = choice.choice(
                (-1, 0, 2, 255, 2**31, 2**62, 2**32 + 1, 300)
            )
            arrays[name] = array
        case 5:
            meta = damaged_tree(choice, json.loads(str(sound["meta"])))
            arrays["meta"] = np.array(json.dumps(meta))
        case 6:
            arrays["all_probs"] = np.full((12, 2, choice.choice((7, 8))), choice.choice((0, 1, 1250, 65535)), np.uint16)
        case 7:
            arrays["meta"] = np.array(choice.choice(("", "{", "[]", "null", "[" * 5000, "{}", "1", '"meta"')))
        case _:
            arrays[name] = np.zeros((0,) * array.ndim, array.dtype)
    return arrays


def parquet(folder: Path) -> tuple[Path, pa.Table]:
    path = folder / "p.parquet"
    write_trace(path, formats.TRACE.header, formats.TRACE.blocks())
    return path, pq.read_table(path)


def test_parquet_tables(folder: Path) -> None:
    """Columns, types, values, order and header changed; the file itself is whole."""
    path, sound = parquet(folder)

    def check(choice: random.Random) -> str:
        table = _damaged_table(choice, sound)
        if table is None:
            return "no table"
        pq.write_table(table, path, row_group_size=choice.choice((1, 3, 1000)))
        if choice.random() < 0.2:
            for fault in validate_trace(path):
                require_line(fault, path.name, "more")
        return fares(lambda: load_trace(path), path, formats.plain_parquet)

    fared = fuzz("parquet_tables", check)
    assert min(fared["refused"], fared["sound"]) > 0


KINDS = (
    pa.int8(), pa.uint64(), pa.float32(), pa.string(), pa.bool_(), pa.list_(pa.int64()), pa.binary(), pa.null(),
    pa.large_string(), pa.list_(pa.float16()), pa.large_list(pa.int64()), pa.timestamp("us"),
)  # fmt: skip


def _damaged_table(choice: random.Random, table: pa.Table) -> pa.Table | None:
    header = json.loads(table.schema.metadata[METADATA_KEY])
    rows = table.to_pylist()
    place = choice.randrange(len(rows))
    name = choice.choice(table.column_names)
    kind = table.schema.field(name).type
    match choice.randrange(12):
        case 0:
            return table.drop_columns([name])
        case 1:
            kind = choice.choice(KINDS)
        case 2:
            rows[place][name] = None
        case 3:
            rows[place][name] = choice.choice((-1, 0, 1, 2, 9, 2**15 - 1, 2**31 - 1, 2**62, "prefill", "decode", "x"))
        case 4:
            column = choice.choice(("experts", "scores"))
            if column == "experts" and choice.random() < 0.5:
                name, kind = column, pa.list_(pa.int64())
            rows[place][column][choice.randrange(2)] = choice.choice(
                (None, -1, 0, 7, 8, 2**31 - 1, 2**32 + 1, 1e300, float("nan"))
            )
        case 5:
            kind = pa.list_(kind.value_type) if name in ("experts", "scores") else kind
            rows[place][name] = choice.choice(([], [1], [1, 2, 3], list(range(1000)), None))
        case 6:
            del rows[place : place + choice.choice((1, 2, 100))]
        case 7:
            rows.insert(place, dict(rows[choice.randrange(len(rows))]))
        case 8:
            rows = rows[choice.choice((1, 2)) :] + rows[:1] if choice.random() < 0.5 else rows[::-1]
        case 9:
            rows = rows[:0]
        case 10:
            header = damaged_tree(choice, header)
        case _:
            header = choice.choice(
                (*VALUES[:40], {**header, choice.choice(("layers", "experts", "top_k")): choice.choice(VALUES)})
            )
    schema = pa.schema([(f.name, kind if f.name == name else f.type) for f in table.schema])
    try:
        changed = pa.Table.from_pylist(rows, schema=schema)
    except (pa.ArrowException, TypeError, ValueError, OverflowError):
        return None
    return changed.replace_schema_metadata({METADATA_KEY: json.dumps(header).encode()})


def test_parquet_bytes(folder: Path) -> None:
    path, _ = parquet(folder)
    whole = path.read_bytes()

    def check(choice: random.Random) -> str:
        path.write_bytes(damaged_bytes(choice, whole))
        return fares(lambda: load_trace(path), path, formats.plain_parquet)

    fared = fuzz("parquet_bytes", check)
    assert min(fared["refused"], fared["sound"]) > 0


def test_demand_traces(folder: Path) -> None:
    text = "\n".join((ROOT / "traces/qwen3-30b-a3b-b5.demand.csv").read_text().splitlines()[:24]) + "\n"
    csv_file, parquet_file = folder / "d.csv", folder / "d.parquet"
    csv_file.write_text(text)
    trace = read_demand(csv_file)
    write_demand(parquet_file, trace)
    assert read_demand(parquet_file).digest == trace.digest
    whole, table = parquet_file.read_bytes(), pq.read_table(parquet_file)
    key = b"slicesim-demand"

    def check(choice: random.Random) -> str:
        path = choice.choice((csv_file, csv_file, parquet_file))
        if path == csv_file:
            path.write_bytes(damaged_text(choice, text))
        elif choice.random() < 0.5:
            path.write_bytes(damaged_bytes(choice, whole))
        else:
            header = damaged_tree(choice, json.loads(table.schema.metadata[key]))
            columns = {name: table[name].to_pylist() for name in table.column_names}
            name = choice.choice(sorted(columns))
            columns[name][choice.randrange(len(columns[name]))] = choice.choice((None, -1, 0, 2**62, 10**13))
            pq.write_table(pa.table(columns).replace_schema_metadata({key: json.dumps(header)}), path)
        found, _ = refusal(lambda: read_demand(path), path.name)
        if found is None:
            return "refused"
        copy = folder / "again.csv"
        write_demand(copy, found)
        assert read_demand(copy).digest == found.digest
        return "sound"

    fared = fuzz("demand", check)
    assert min(fared["refused"], fared["sound"]) > 0


def test_prompts(folder: Path) -> None:
    text = '{"prompt": "a b"}\n{"messages": [{"role": "user", "content": "c"}]}\n'

    def check(choice: random.Random) -> str:
        path = folder / choice.choice(("p.jsonl", "p.txt"))
        path.write_bytes(damaged_text(choice, text))
        prompts, _ = refusal(lambda: read_prompts(path), path.name)
        if prompts is None:
            return "refused"
        assert all(prompt.text or prompt.messages for prompt in prompts.prompts)
        return "sound"

    fared = fuzz("prompts", check)
    assert min(fared["refused"], fared["sound"]) > 0


@pytest.mark.parametrize("name", sorted(TEXTS))
def test_the_sound_text_gives_the_same_rows_in_each_format(folder: Path, name: str) -> None:
    file, text, plain = TEXTS[name]
    (folder / file).write_text(text)
    rows = formats.rows_of_trace(import_trace(folder / file, options(folder, name)))
    if plain is not None:
        assert rows == plain(folder / file)
    if name == "esft":
        rows = {key: (formats.rows_of_trace(formats.TRACE)[key][0], *row[1:]) for key, row in rows.items()}
        assert rows == {key: row for key, row in formats.rows_of_trace(formats.TRACE).items() if key[2] == 1}
    else:
        assert rows == formats.rows_of_trace(formats.TRACE)


def test_the_sound_trace_in_parquet_and_npz(folder: Path) -> None:
    path, _ = parquet(folder)
    assert formats.rows_of_trace(load_trace(path)) == formats.plain_parquet(path)
    (folder / "n.npz").write_bytes(npz_bytes(formats.npz_arrays()))
    imported = import_trace(folder / "n.npz", ImportOptions())
    assert first_fault(imported.header, imported.block) is None
    np.testing.assert_array_equal(imported.block.ids, formats.TRACE.block.ids)
    np.testing.assert_array_equal(imported.block.scores, np.round(formats.TRACE.block.scores * 10000) / 10000)
