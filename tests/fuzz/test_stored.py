"""Checkpoints and packed experts, damaged: one clear line, or the bytes that the header tells of."""

from __future__ import annotations

import json
import random
import struct
from pathlib import Path

import numpy as np

from slicesim.amat.pack import Packing
from slicesim.amat.pairs import parse_pair
from slicesim.amat.unpack import Unpacking
from slicesim.checkpoint import find_experts, open_checkpoint
from tests.checkpoint.samples import checkpoint
from tests.fuzz.harness import fuzz, refusal
from tests.fuzz.mutate import VALUES, damaged_bytes, damaged_tree

#: What may stand for a length, an offset or a side of a shape.
SIZES = (*VALUES[:22], 7, 8, 64, 128, 4096)


def _damaged(choice: random.Random, whole: bytes) -> bytes:
    """Damage bytes anywhere, the header's length, or an entry of the header."""
    (length,) = struct.unpack("<Q", whole[:8])
    match choice.randrange(6):
        case 0:
            return damaged_bytes(choice, whole)
        case 1:
            return struct.pack("<Q", choice.choice((0, 1, length - 1, length + 1, 2**31, 2**63, 2**64 - 1))) + whole[8:]
        case 2:
            return whole[:8] + damaged_bytes(choice, whole[8 : 8 + length]) + whole[8 + length :]
        case 3:
            place = choice.randrange(8 + length, len(whole))
            return whole[:place] + choice.choice((b"\x00", b"\x7f", b"\x80", b"\xff")) + whole[place + 1 :]
    entries = json.loads(whole[8 : 8 + length])
    if choice.random() < 0.5 or "__metadata__" not in entries:
        entries = damaged_tree(choice, entries, SIZES)
    else:
        for key, text in entries["__metadata__"].items():
            if isinstance(text, str) and text.startswith("{"):
                entries["__metadata__"][key] = json.dumps(damaged_tree(choice, json.loads(text), SIZES))
    header = json.dumps(entries).encode()
    return struct.pack("<Q", len(header)) + header + whole[8 + length :]


def test_safetensors_and_packed_experts(tmp_path: Path) -> None:
    plain, packed, out = tmp_path / "m.safetensors", tmp_path / "p.safetensors", tmp_path / "o.safetensors"
    checkpoint(plain, experts=2, layers=(1,))
    Packing(plain, packed, parse_pair(8, 4, 32)).run(lambda done: None)
    sound = {path: path.read_bytes() for path in (plain, packed)}

    def check(choice: random.Random) -> str:
        path = choice.choice((plain, packed))
        path.write_bytes(_damaged(choice, sound[path]))
        try:
            if path == plain:
                return _read(path, out)
            done, _ = refusal(lambda: Unpacking(path, out, choice.choice(("high", "low"))).run(), "p.safetensors")
            return "refused" if done is None else "sound"
        finally:
            out.unlink(missing_ok=True)
            path.write_bytes(sound[path])

    fared = fuzz("safetensors", check)
    assert min(fared["refused"], fared["sound"]) > 0
    assert {file.name for file in tmp_path.iterdir()} == {"m.safetensors", "p.safetensors"}


def _read(path: Path, out: Path) -> str:
    found, _ = refusal(lambda: open_checkpoint(path), path.name)
    if found is None:
        return "refused"
    whole = path.read_bytes()
    for tensor in found.tensors.values():
        assert tensor.raw().tobytes() == whole[tensor.start : tensor.start + tensor.bytes]
    experts, _ = refusal(lambda: find_experts(found), path.name)
    if experts is None:
        return "refused"
    assert all(np.array_equal(m.floats().size, m.size) for expert in experts for m in expert.matrices)
    packed, _ = refusal(lambda: Packing(path, out, parse_pair(8, 4, 32)).run(lambda done: None), path.name)
    return "refused" if packed is None else "sound"
