"""Logs of deepseek-ai/ESFT: a file per layer, a sequence per line: ids, a double tab, weights."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from slicesim.errors import UserError
from slicesim.models import load_model
from slicesim.trace.fault_list import FaultList
from slicesim.trace.importers.importer import Importer, ImportOptions, make_header
from slicesim.trace.table import PREFILL, MemoryTrace, TraceBlock, faults

#: The model that ESFT's published logs are of.
DEFAULT_MODEL = "deepseek-v2-lite"

_FILE_NAME = re.compile(r"expert_weights_(\d+)\.txt")

_Sequence = tuple[NDArray[np.int64], NDArray[np.float64]]  # ids, weights: [tokens, top_k]


def _files(path: Path) -> dict[int, Path]:
    """Return the log file of each layer, layers rising."""
    candidates = path.iterdir() if path.is_dir() else [path]
    matches = ((_FILE_NAME.fullmatch(file.name), file) for file in candidates)
    return dict(sorted((int(match[1]), file) for match, file in matches if match))


def _sniff(path: Path) -> bool:
    return bool(_files(path))


def _read(path: Path, options: ImportOptions) -> MemoryTrace:
    files = _files(path)
    if not files:
        raise UserError(f"{path}: no file expert_weights_<layer>.txt here")
    geometry = options.geometry() or load_model(DEFAULT_MODEL)
    top_k = options.top_k or geometry.top_k
    layers = {layer: _layer(file, top_k) for layer, file in files.items()}
    lengths = _common_lengths(files, layers)

    ids = np.stack([np.concatenate([s[0] for s in sequences]) for sequences in layers.values()], axis=1)
    scores = np.stack([np.concatenate([s[1] for s in sequences]) for sequences in layers.values()], axis=1)
    header = make_header(
        path,
        options,
        scores,
        model=geometry.name,
        layers=list(files),
        experts=geometry.experts,
        top_k=top_k,
        notes="teacher-forced: every token stands as prefill",
    )
    token = np.concatenate([np.arange(length) for length in lengths]).astype(np.int64)
    block = TraceBlock(
        request=np.repeat(np.arange(len(lengths)), lengths).astype(np.int64),
        token=token,
        phase=np.full(len(token), PREFILL, np.int8),
        ids=np.clip(ids, -1, 2**31 - 1).astype(np.int32),
        scores=scores,
    )
    found = FaultList()
    for index, layer, message in faults(header, block):
        file = files[header.layers[layer]]
        found.add(f"{file}: line {block.request[index] + 1}: token {block.token[index]}: {message}")
    found.refuse()
    return MemoryTrace(header, block, path.name)


def _layer(file: Path, top_k: int) -> list[_Sequence]:
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError):
        raise UserError(f"{file}: cannot be read as text") from None
    return [_sequence(line, top_k, f"{file}: line {n}") for n, line in enumerate(lines, 1) if line.strip()]


def _sequence(line: str, top_k: int, where: str) -> _Sequence:
    left, gap, right = line.partition("\t\t")
    if not gap:
        raise UserError(f"{where}: no double tab between ids and weights; is the line truncated?")
    try:
        ids = np.array([int(text) for text in left.split("\t")], dtype=np.int64)
        weights = np.array([float(text) for text in right.rstrip("\t").split("\t")], dtype=np.float64)
    except (ValueError, OverflowError):
        raise UserError(f"{where}: ids must be whole numbers and weights numbers, tab-separated") from None
    if len(ids) != len(weights):
        raise UserError(f"{where}: {len(ids)} ids but {len(weights)} weights; is the line truncated?")
    if len(ids) % top_k:
        raise UserError(f"{where}: {len(ids)} ids are no multiple of top-k {top_k}; is --top-k right?")
    return ids.reshape(-1, top_k), weights.reshape(-1, top_k)


def _common_lengths(files: dict[int, Path], layers: dict[int, list[_Sequence]]) -> list[int]:
    """Return the tokens of each sequence, which must be the same in every layer's file."""
    first, *others = layers
    lengths = [len(ids) for ids, _ in layers[first]]
    for layer in others:
        here = [len(ids) for ids, _ in layers[layer]]
        if len(here) != len(lengths):
            raise UserError(f"{files[layer]}: {len(here)} sequences, {files[first].name} has {len(lengths)}")
        for line, (length, expected) in enumerate(zip(here, lengths, strict=True), 1):
            if length != expected:
                raise UserError(f"{files[layer]}: line {line}: {length} tokens, {files[first].name} has {expected}")
    if not lengths:
        raise UserError(f"{files[first]}: holds no sequence")
    return lengths


IMPORTER = Importer("esft", "ESFT logs: expert_weights_<layer>.txt, or their folder", _sniff, _read)
