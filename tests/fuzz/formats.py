"""One sound trace in every format that is read, and plain readers of each that share no code with slicesim's."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from slicesim.trace import TraceBlock
from tests.kit import random_trace

#: (request, token, layer) -> (phase, experts, scores); requests are numbered by first appearance.
Rows = dict[tuple[int, int, int], tuple[str, list[int], list[float]]]

TRACE = random_trace(3, 6, requests=2, prompt=3)
PHASES = ("prefill", "decode")


def rows_of(block: TraceBlock, layers: list[int]) -> Rows:
    """Rows of a block; a token without a row for a layer has none."""
    numbers: dict[int, int] = {}
    return {
        (numbers.setdefault(int(request), len(numbers)), int(token), layer): (
            PHASES[phase], block.ids[place, slot].tolist(), block.scores[place, slot].tolist()
        )
        for place, (request, token, phase) in enumerate(zip(block.request, block.token, block.phase, strict=True))
        for slot, layer in enumerate(layers)
        if (block.ids[place, slot] >= 0).all()
    }  # fmt: skip


def rows_of_trace(trace: Any) -> Rows:
    found: Rows = {}
    columns = [np.concatenate(column) for column in list(zip(*trace.blocks(), strict=True))[:5]]
    found |= rows_of(TraceBlock(*columns), trace.header.layers)
    return found


def _slots() -> Any:
    block, layers = TRACE.block, TRACE.header.layers
    for place in range(len(block)):
        for slot, layer in enumerate(layers):
            for rank in range(TRACE.header.top_k):
                yield place, layer, rank, int(block.ids[place, slot, rank]), float(block.scores[place, slot, rank])


def csv_text() -> str:
    block = TRACE.block
    lines = ["request,token,phase,layer,slot,expert,score"] + [
        f"{block.request[p]},{block.token[p]},{PHASES[block.phase[p]]},{layer},{rank},{expert},{score!r}"
        for p, layer, rank, expert, score in _slots()
    ]
    return "\n".join(lines) + "\n"


def route_text() -> str:
    block = TRACE.block
    head = "# route_trace v1 model=tiny-moe n_layer=3 n_expert=8 n_expert_used=2\n"
    head += "".join(f"# layer={layer} expert_bytes=6720\n" for layer in (1, 2))
    lines = ["turn,phase,step,layer,slot,expert,weight"] + [
        f"{block.request[p]},{block.phase[p]},{block.token[p]},{layer},{rank},{expert},{score!r}"
        for p, layer, rank, expert, score in _slots()
    ]
    return head + "\n".join(lines) + "\n"


def jsonl_text() -> str:
    block = TRACE.block
    return "".join(
        json.dumps({
            "req_id": f"r{block.request[p]}", "token_idx": int(block.token[p]), "layer": layer,
            "phase": PHASES[block.phase[p]], "topk_ids": block.ids[p, slot].tolist(),
            "topk_weights": block.scores[p, slot].tolist(),
        }) + "\n"
        for p in range(len(block))
        for slot, layer in enumerate(TRACE.header.layers)
    )  # fmt: skip


def esft_text(slot: int = 0) -> str:
    block = TRACE.block
    lines = []
    for request in (0, 1):
        own = block.request == request
        ids = "\t".join(map(str, block.ids[own, slot].reshape(-1).tolist()))
        lines.append(f"{ids}\t\t" + "\t".join(map(repr, block.scores[own, slot].reshape(-1).tolist())))
    return "\n".join(lines) + "\n"


def npz_arrays() -> dict[str, Any]:
    block = TRACE.block
    meta = {"model": "tiny-moe", "E": 8, "K": 2, "w_scale": 10000, "weight": "softmax probability"}
    return {
        "ids": block.ids.astype(np.uint8), "w": np.round(block.scores * 10000).astype(np.uint16),
        "layers": np.array(TRACE.header.layers, np.uint8), "seq": block.request.astype(np.uint16),
        "phase": block.phase.astype(np.uint8), "meta": np.array(json.dumps(meta)),
    }  # fmt: skip


def plain_csv(path: Path) -> Rows:
    with path.open(encoding="utf-8-sig", newline="") as file:
        lines = [line for line in file if line.strip() and not line.startswith("#")]
    found: dict[Any, Any] = {}
    numbers: dict[int, int] = {}
    names = [name.strip() for name in lines[0].split(",")]
    for cells in csv.reader(lines[1:], quoting=csv.QUOTE_NONE):
        cell = dict(zip(names, (text.partition("#")[0] for text in cells), strict=False))
        request = numbers.setdefault(int(cell["request"]), len(numbers))
        key = (request, int(cell["token"]), int(cell["layer"]))
        row = found.setdefault(key, (cell["phase"].strip(), {}, {}))
        row[1][int(cell["slot"])] = int(cell["expert"])
        row[2][int(cell["slot"])] = float(cell["score"])
    return {key: (p, [i[s] for s in sorted(i)], [w[s] for s in sorted(w)]) for key, (p, i, w) in found.items()}


def plain_jsonl(path: Path) -> Rows:
    found: Rows = {}
    numbers: dict[Any, int] = {}
    for line in path.read_text(encoding="utf-8-sig").split("\n"):
        if line.strip():
            r = json.loads(line)
            key = (numbers.setdefault(r["req_id"], len(numbers)), r["token_idx"], r["layer"])
            found[key] = (r.get("phase") or "decode", r["topk_ids"], r["topk_weights"])
    return found


def plain_esft(path: Path) -> Rows:
    found: Rows = {}
    layer = int(path.stem.rpartition("_")[2])
    lines = [line for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    for request, line in enumerate(lines):
        left, _, right = line.partition("\t\t")
        ids, weights = [int(t) for t in left.split("\t")], [float(t) for t in right.rstrip("\t").split("\t")]
        for token in range(len(ids) // 2):
            part = slice(2 * token, 2 * token + 2)
            found[request, token, layer] = ("prefill", ids[part], weights[part])
    return found


def plain_parquet(path: Path) -> Rows:
    numbers: dict[int, int] = {}
    return {
        (numbers.setdefault(r["request"], len(numbers)), r["token"], r["layer"]): (
            r["phase"],
            r["experts"],
            r["scores"],
        )
        for r in pq.read_table(path).to_pylist()
    }
