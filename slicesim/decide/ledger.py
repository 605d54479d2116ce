"""The running miss rate that a constraint watches (semantics, sections 4 and 10)."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from slicesim.compiled import inlined
from slicesim.policies.constraint import Constraint, Watch

#: What is watched, and the counts: of a request, or of its last tokens; ``*_before``: when the token in hand began.
BOOK = np.dtype(
    [
        ("target", np.float64),
        ("gain", np.float64),
        ("strength", np.float64),
        ("price", np.float64),
        ("aim", np.float64),
        ("price_gain", np.float64),
        ("start_step", np.int64),
        ("step", np.int64),
        ("misses", np.int64),
        ("lookups", np.int64),
        ("misses_before", np.int64),
        ("lookups_before", np.int64),
        ("acts", np.bool_),
        ("paces", np.bool_),
        ("denies_lsb", np.bool_),
        ("denies_msb", np.bool_),
    ],
    align=True,
)


class Ledger(NamedTuple):
    """book: one BOOK record; window: misses and look-ups of each of the last tokens [window, 2]."""

    book: Any
    window: NDArray[np.int64]

    @classmethod
    def of(cls, constraint: Constraint, strength: float) -> Ledger:
        """Begin with nothing counted. strength: of cache-aware routing, at first."""
        watch = constraint.watch()
        target, start_step, denies_lsb, denies_msb, gain, window, aim, price_gain = watch or Watch(1.0, 0, False, False)
        book = np.zeros(1, dtype=BOOK)
        book["target"], book["gain"], book["strength"], book["start_step"] = target, gain, strength, start_step
        book["aim"], book["price_gain"], book["paces"] = aim, price_gain, price_gain > 0
        book["acts"], book["denies_lsb"], book["denies_msb"] = watch is not None, denies_lsb, denies_msb
        return cls(book, np.zeros((window, 2), dtype=np.int64))

    def begin_request(self) -> None:
        """Forget the counts; strength and price that the controllers found stay."""
        for name in ("step", "misses", "lookups", "misses_before", "lookups_before"):
            self.book[name] = 0
        self.window[:] = 0

    @property
    def denies_msb(self) -> bool:
        """Whether experts beyond the target are replaced or dropped."""
        return bool(self.book["denies_msb"][0])


# What follows is compiled; ``book`` is the record itself.


@inlined
def active(book):
    """Whether the constraint counts and acts at this decode step."""
    return book.acts and book.step >= book.start_step


@inlined
def allows(book, misses, lookups):
    """Whether a batch with so many new misses and look-ups keeps the target."""
    return book.misses + misses <= book.target * (book.lookups + lookups)


@inlined
def move_price(book, misses, lookups):
    """Correct the price of a read by a batch's miss rate."""
    rate = misses / lookups if lookups else 0.0
    book.price = min(max(book.price + book.price_gain * (rate - book.aim), 0.0), 1.0)


@inlined
def end_token(book, window):
    """Let the controller correct its strength over its window, and go to the next decode step."""
    size = len(window)
    if size > 0 and active(book):
        rate = book.misses / book.lookups if book.lookups else 0.0
        book.strength = min(max(book.strength + book.gain * (rate - book.target), 0.0), 1.0)
        place = (book.step - book.start_step) % size
        window[place, 0] = book.misses - book.misses_before
        window[place, 1] = book.lookups - book.lookups_before
        oldest = (place + 1) % size  # zeros until the window is full
        book.misses -= window[oldest, 0]
        book.lookups -= window[oldest, 1]
        book.misses_before, book.lookups_before = book.misses, book.lookups
    book.step += 1
