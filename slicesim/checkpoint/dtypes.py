"""The number formats of safetensors that slicesim computes with: to float32 and back.

numpy has no bfloat16; its 16 bits are the upper half of a float32.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]

#: Bits of one element, by the name that safetensors gives the format; so far as is needed to check a file's offsets.
BITS = {
    "BOOL": 8, "U8": 8, "I8": 8, "F8_E4M3": 8, "F8_E5M2": 8, "F8_E8M0": 8, "F8_E4M3FNUZ": 8, "F8_E5M2FNUZ": 8,
    "U16": 16, "I16": 16, "F16": 16, "BF16": 16, "U32": 32, "I32": 32, "F32": 32,
    "U64": 64, "I64": 64, "F64": 64, "C64": 64, "F4": 4, "F6_E2M3": 6, "F6_E3M2": 6,
}  # fmt: skip

#: Formats that are read as weights, and how numpy sees their bytes.
_SEEN_AS = {"F16": "<f2", "BF16": "<u2", "F32": "<f4", "F64": "<f8"}


def is_float(dtype: str) -> bool:
    """Tell whether a format is read as weights."""
    return dtype in _SEEN_AS


def decode(raw: NDArray[np.uint8], dtype: str) -> Floats:
    """Turn a tensor's bytes into float32: exact, but for F64, which is rounded."""
    seen = raw.view(_SEEN_AS[dtype])
    if dtype == "BF16":
        wide = seen.astype(np.uint32)
        wide <<= 16
        return wide.view(np.float32)
    return seen.astype(np.float32, copy=False)


def encode(values: Floats, dtype: str) -> NDArray[np.uint8]:
    """Turn finite float32 into a tensor's bytes, rounded half to even."""
    flat = np.ascontiguousarray(values, dtype=np.float32).reshape(-1)
    if dtype == "BF16":
        word = flat.view(np.uint32)
        rounded = word + (((word >> 16) & 1) + np.uint32(0x7FFF))
        return (rounded >> 16).astype("<u2").view(np.uint8)
    return flat.astype(_SEEN_AS[dtype], copy=False).view(np.uint8)
