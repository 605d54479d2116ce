"""One step ahead: demand tables are made while the caller is busy with the one before."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

Item = TypeVar("Item")


def ahead(items: Iterable[Item]) -> Iterator[Item]:
    """Yield the items, each worked out in a thread while the caller has the one before; compiled code does not hold
    the interpreter. Whatever an item raises is raised here when its turn comes."""
    iterator = iter(items)
    pool = ThreadPoolExecutor(max_workers=1)
    try:
        coming = pool.submit(next, iterator, None)
        while (item := coming.result()) is not None:
            coming = pool.submit(next, iterator, None)
            yield item
    finally:
        pool.shutdown(wait=False)  # who stops early, by Ctrl-C for one, need not wait for the next item
