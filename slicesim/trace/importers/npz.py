"""NumPy archives: ids, w, layers, seq, phase and a JSON text ``meta`` (model, E, K, w_scale, provenance)."""

from __future__ import annotations

import json
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from slicesim.errors import UserError
from slicesim.trace.fault_list import FaultList
from slicesim.trace.importers.importer import Importer, ImportOptions, make_header, reason
from slicesim.trace.table import MemoryTrace, TraceBlock, faults, group_requests

_ARRAYS = {"ids": 3, "w": 3, "layers": 1, "seq": 1, "phase": 1}
_META_KEYS = ("model", "E", "K", "w_scale")

_BROKEN = (zipfile.BadZipFile, zlib.error, NotImplementedError, RuntimeError)

#: Range of an expert's id.
_LEAST, _MOST = -(2**31), 2**31 - 1

#: An archive may unpack to so many bytes, or to so many times its own size: no routing is that repetitive.
_MOST_BYTES, _MOST_RATIO = 2**28, 200

#: How the ``weight`` text of the meta data words each kind of score.
_SCORE_KINDS = {
    "over the selected experts": "renormalised",
    "not renormalised": "softmax",
    "softmax probability": "softmax",
}


def _sniff(path: Path) -> bool:
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return path.suffix == ".npz" or file.read(4) == b"PK\x03\x04"


def _read(path: Path, options: ImportOptions) -> MemoryTrace:
    arrays, meta = _load(path)
    scores = arrays["w"] / meta["w_scale"]
    has_logits = "all_probs" in arrays
    header = make_header(
        path,
        options,
        scores,
        model=str(meta["model"]),
        layers=[int(layer) for layer in arrays["layers"]],
        experts=meta["E"],
        top_k=meta["K"],
        score_kind=_score_kind(str(meta.get("weight", ""))),
        source=_source(meta),
        licence=str(meta["licence"]) if "licence" in meta else None,
        has_logits=has_logits,
        notes=f"phases: {meta['phase']}" if "phase" in meta else "",
    )
    expected = (len(arrays["seq"]), len(header.layers), header.top_k)
    for name in ("ids", "w"):
        if arrays[name].shape != expected:
            raise UserError(f"{path}: {name} has the shape {arrays[name].shape}, not {expected}")
    if has_logits and arrays["all_probs"].dtype.kind not in "iuf":
        raise UserError(f"{path}: all_probs must be an array of numbers")
    every_expert = (*expected[:2], header.experts)
    if has_logits and arrays["all_probs"].shape != every_expert:
        raise UserError(f"{path}: all_probs has the shape {arrays['all_probs'].shape}, not {every_expert}")
    if not np.isin(arrays["phase"], (0, 1)).all() or len(arrays["phase"]) != expected[0]:
        raise UserError(f"{path}: phase must be 0 (prompt) or 1 (decode) for each of the {expected[0]} tokens")
    request = arrays["seq"].astype(np.int64)
    block = group_requests(
        TraceBlock(
            request=request,
            token=np.zeros(len(request), np.int64),
            phase=arrays["phase"].astype(np.int8),
            ids=np.clip(arrays["ids"].astype(np.int64), _LEAST, _MOST).astype(np.int32),  # none becomes another one
            scores=scores,
            logits=_logits(arrays, meta["w_scale"]) if has_logits else None,
        )
    )
    block = TraceBlock(block.request, _positions(block.request), *block[2:])
    found = FaultList()
    for token, layer, message in faults(header, block):
        place = f"sequence {block.request[token]}, token {block.token[token]}, layer {header.layers[layer]}"
        found.add(f"{path}: {place}: {message}")
    found.refuse()
    return MemoryTrace(header, block, path.name)


def _load(path: Path) -> tuple[dict[str, NDArray[Any]], Mapping[str, Any]]:
    try:
        _refuse_bomb(path)
        with np.load(path, allow_pickle=False) as archive:
            arrays = {name: np.asarray(archive[name]) for name in archive.files}
    except (OSError, EOFError, ValueError, AttributeError, MemoryError, *_BROKEN) as error:
        raise UserError(f"{path}: not a whole npz archive of plain arrays ({reason(error)})") from None
    for name, dimensions in _ARRAYS.items():
        if name not in arrays:
            raise UserError(f"{path}: the array {name!r} is missing; it holds {', '.join(arrays) or 'none'}")
        kind = arrays[name].dtype.kind
        if arrays[name].ndim != dimensions or kind not in ("iuf" if name == "w" else "iu"):
            raise UserError(f"{path}: {name!r} must be an array of {dimensions} dimensions of whole numbers")
    try:
        meta = json.loads(str(arrays["meta"]))
        missing = [key for key in _META_KEYS if key not in meta]
    except (KeyError, TypeError, ValueError, RecursionError):
        raise UserError(f"{path}: 'meta' must be a JSON text with {', '.join(_META_KEYS)}") from None
    if missing:
        raise UserError(f"{path}: meta: {missing[0]!r} is missing")
    if not isinstance(meta["w_scale"], (int, float)) or not 0 < meta["w_scale"] <= 1e300:
        raise UserError(f"{path}: meta: w_scale must be a number above 0, is {meta['w_scale']!r}")
    return arrays, meta


def _refuse_bomb(path: Path) -> None:
    with zipfile.ZipFile(path) as archive:
        unpacked = sum(member.file_size for member in archive.infolist())
    if unpacked > max(_MOST_BYTES, _MOST_RATIO * path.stat().st_size):
        raise ValueError(f"it would unpack to {unpacked:,} bytes")


def _logits(arrays: Mapping[str, NDArray[Any]], scale: float) -> NDArray[np.float32]:
    """Return logarithms of the recorded softmax; a probability rounded to 0 counts as half a step."""
    probabilities = arrays["all_probs"] / scale
    logits = np.log(np.maximum(probabilities, 0.5 / scale)).astype(np.float32)
    # Rounding can tie a chosen expert with one that was not: lift the chosen by the least step there is.
    chosen = np.clip(arrays["ids"].astype(np.int64), 0, logits.shape[2] - 1)
    lifted = np.nextafter(np.take_along_axis(logits, chosen, axis=2), np.float32(np.inf))
    np.put_along_axis(logits, chosen, lifted, axis=2)
    return logits


def _score_kind(weight: str) -> str | None:
    return next((kind for words, kind in _SCORE_KINDS.items() if words in weight), None)


def _source(meta: Mapping[str, Any]) -> str | None:
    if "repo" not in meta:
        return None
    file = f": {meta['path']}" if "path" in meta else ""
    return f"{meta['repo']}{file}" + (f" at {meta['commit']}" if "commit" in meta else "")


def _positions(request: NDArray[np.int64]) -> NDArray[np.int64]:
    """Number the tokens of each request from 0; requests stand together."""
    index = np.arange(len(request))
    begins = np.flatnonzero(np.diff(request, prepend=request[:1] - 1))
    return index - np.repeat(begins, np.diff(begins, append=len(request)))


IMPORTER = Importer("npz", "NumPy archive: ids, w, layers, seq, phase, meta", _sniff, _read)
