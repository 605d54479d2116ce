"""A lower bound by prices: every batch puts a price on a byte that stays resident after it (docs/bound.md).

Between two look-ups of a slice lies an interval of batches. A slice that stays pays the prices of its interval, one
that does not is read again for 1 a byte. Any prices at all give a true bound (weak duality); good ones are looked for
by multiplicative steps with momentum, from the best constant price on. With that constant price alone it would be
PFOO-L of Berger, Beckmann and Harchol-Balter, "Practical Bounds on Optimal Caching with Variable Object Sizes",
POMACS 2(2), 2018.
"""

from __future__ import annotations

import hashlib
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from slicesim.compiled import jit
from slicesim.policies.slices import FloatArray, IntArray

#: Steps towards better prices. On law.npz they come within 1.5 % of Belady's bytes (whole experts); more gain little.
_STEPS = 80
#: First size of a step, in the logarithm of a price; it falls to a tenth. Share of the last step that is kept.
_STEP, _MOMENTUM = 0.5, 0.9
#: A slice pays or is read again; between the two lies a slope that narrows, else all prices would jump at once.
_SLOPE_FIRST, _SLOPE_LAST = 0.4, 0.03

#: Prices are whole multiples of 2^-30 in the end, so that the bound is worked out without rounding.
_UNIT = 1 << 30

#: Bounds by digest, and how many of them are kept.
_KNOWN: dict[bytes, int] = {}
_MOST_KNOWN = 256


class Reuses(NamedTuple):
    """Look-ups of slices that were looked up before, in any order.

    begin, end: int32, batches of the look-up before and of this one (begin < end); kind: int16, index into
    size_bytes; size_bytes: int64, of each kind; batches: how many there are in all.
    """

    begin: NDArray[np.int32]
    end: NDArray[np.int32]
    kind: NDArray[np.int16]
    size_bytes: IntArray
    batches: int


def least_read_bytes(reuses: Reuses, capacity_bytes: int) -> int:
    """Return bytes that must be read again at least, whatever a cache of this capacity keeps.

    Policies that are compared often make the same look-ups: what was worked out is remembered.
    """
    if not len(reuses.begin):
        return 0
    key = _digest(reuses, capacity_bytes)
    if key not in _KNOWN:
        if len(_KNOWN) == _MOST_KNOWN:
            _KNOWN.clear()
        prices = _good_prices(reuses, capacity_bytes)
        _KNOWN[key] = max(0, _value(reuses, capacity_bytes, prices))
    return _KNOWN[key]


def _digest(reuses: Reuses, capacity_bytes: int) -> bytes:
    """Return what stands for look-ups and capacity."""
    digest = hashlib.blake2b(f"{capacity_bytes} {reuses.batches} {len(reuses.begin)}".encode(), digest_size=16)
    for column in (reuses.begin, reuses.end, reuses.kind, reuses.size_bytes):
        digest.update(np.ascontiguousarray(column).data)
    return digest.digest()


def _good_prices(reuses: Reuses, capacity_bytes: int) -> FloatArray:
    size = reuses.size_bytes / capacity_bytes
    prices = np.full(reuses.batches, _constant_price(reuses, size))
    best = np.zeros_like(prices)
    steps = np.linspace(_STEP, _STEP / 10, _STEPS)
    slopes = np.geomspace(_SLOPE_FIRST, _SLOPE_LAST, _STEPS)
    scratch = np.zeros((3, reuses.batches + 1))
    _ascend(reuses.begin, reuses.end, reuses.kind, size, steps, slopes, _MOMENTUM, prices, best, scratch)
    return best


def _constant_price(reuses: Reuses, size: FloatArray) -> float:
    """Return the best constant price: short intervals stay until the bytes x batches of the whole cache are spent."""
    length = (reuses.end - reuses.begin).astype(np.int64)
    spent = np.cumsum(np.bincount(length, weights=size[reuses.kind] * length))
    return 1 / min(max(int(np.searchsorted(spent, reuses.batches)), 1), len(spent) - 1)


def _value(reuses: Reuses, capacity_bytes: int, prices: FloatArray) -> int:
    """Return the bound that these prices give, in whole numbers throughout; it is one, so it may be rounded up."""
    paid = np.rint(np.concatenate(([0.0], np.cumsum(prices))) * _UNIT).astype(np.int64)
    total = np.zeros(len(reuses.size_bytes), dtype=np.int64)
    _pay(reuses.begin, reuses.end, reuses.kind, paid, _UNIT, total)
    gain: int = sum(size * units for size, units in zip(reuses.size_bytes.tolist(), total.tolist(), strict=True))
    return -((capacity_bytes * int(paid[-1]) - gain) // _UNIT)


# What follows is compiled, and allocates nothing.


@jit
def _ascend(begin, end, kind, size, steps, slopes, momentum, prices, best, scratch):
    """Improve ``prices`` step by step, and leave the best ones in ``best``. size: of each kind, over the capacity.

    scratch: [3, batches + 1].
    """
    paid, change, speed = scratch
    batches, best_value = len(prices), 0.0
    for number in range(len(steps)):
        total = 0.0
        for batch in range(batches):
            paid[batch] = total
            change[batch] = 0.0
            total += prices[batch]
        paid[batches] = total
        value = -total
        slope = slopes[number]
        for index in range(len(begin)):  # no branch to guess
            price, own = paid[end[index]] - paid[begin[index]], size[kind[index]]
            value += own * min(price, 1.0)
            stays = own * min(max((1.0 - price) / slope + 0.5, 0.0), 1.0)
            change[begin[index]] += stays
            change[end[index]] -= stays
        if value > best_value:
            best_value = value
            for batch in range(batches):
                best[batch] = prices[batch]
        used = 0.0
        for batch in range(batches):
            used += change[batch]
            wanted = 2.0 * (used - 1.0) / (used + 1.0)  # near the logarithm, and cheaper; the same for the power below
            speed[batch] = min(max(momentum * speed[batch] + steps[number] * wanted, -1.0), 1.0)
            prices[batch] *= (2.0 + speed[batch]) / (2.0 - speed[batch])


@jit
def _pay(begin, end, kind, paid, unit, total):
    """Add up by kind what each interval pays, ``unit`` at most."""
    for index in range(len(begin)):
        total[kind[index]] += min(paid[end[index]] - paid[begin[index]], unit)
