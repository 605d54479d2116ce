"""One step ahead: the decision plane works on the next table while the schedule is busy with this one."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

Item = TypeVar("Item")


def ahead(items: Iterable[Item]) -> Iterator[Item]:
    """Yield the items, each worked out in a thread while the caller has the one before; compiled code does not hold
    the interpreter. Whatever an item raises is raised here when its turn comes."""
    iterator, end = iter(items), object()
    with ThreadPoolExecutor(max_workers=1) as pool:
        coming = pool.submit(next, iterator, end)  # type: ignore[arg-type]
        while (item := coming.result()) is not end:
            coming = pool.submit(next, iterator, end)  # type: ignore[arg-type]
            yield item
