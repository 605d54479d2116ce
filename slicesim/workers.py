"""Replays in other processes, to which only plain data goes: each opens traces and strategies by itself."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cache, lru_cache
from threading import Thread, current_thread, main_thread
from typing import Any, Protocol

from slicesim.errors import UserError
from slicesim.trace import Trace, load_trace


def cores() -> int:
    """Return how many processes can work at once here."""
    from joblib import cpu_count  # type: ignore[import-untyped]

    return int(cpu_count())


#: Work, and the arguments of one call of it: plain data.
Work = Callable[..., Any]
Arguments = tuple[Any, ...]

#: Processes that a call may cost, running alone, before it is given up.
_DEATHS = 3


class Pool(Protocol):
    """Where work is done. slots: calls at once."""

    @property
    def slots(self) -> int:
        """Calls at once."""

    @property
    def is_here(self) -> bool:
        """Whether this process sees files as the workers do, and may do a single call's work itself."""

    def each(self, work: Work, calls: Iterable[Arguments], kept: str = "") -> Iterator[Any]:
        """Yield what ``work`` returns for each call's arguments, as they finish.

        kept: what is not lost where the work has to be given up. Relative paths are read from the folder that is
        current now. Raises UserError where workers die over and over.
        """


@dataclass(frozen=True)
class Processes:
    """Processes on this machine. When one is killed, the rest of the work goes on in fresh ones."""

    slots: int
    is_here: bool = True

    def each(self, work: Work, calls: Iterable[Arguments], kept: str = "") -> Iterator[Any]:
        """Yield what ``work`` returns for each call's arguments, as they finish.

        A killed process takes the others down with it, and nothing tells whose call was to blame: all that were begun
        are run last, one at a time.
        """
        from joblib.externals.loky.process_executor import BrokenProcessPool  # type: ignore[import-untyped]

        folder = os.getcwd()
        left = dict(enumerate(calls))
        begun: dict[int, Arguments] = {}

        def begin() -> Iterator[Arguments]:
            while left:
                number = next(iter(left))
                begun[number] = left.pop(number)
                yield number, folder, work, begun[number]

        suspects: dict[int, Arguments] = {}
        while left:
            try:
                for number, result in _parallel(begin(), self.slots):
                    del begun[number]
                    yield result
            except BrokenProcessPool:
                suspects.update(begun)
                begun.clear()
        given_up = None
        for arguments in suspects.values():
            try:
                yield _alone((0, folder, work, arguments), kept)
            except _DeadlyWorkError as fault:
                given_up = fault  # the rest is done first
        if given_up is not None:
            raise given_up


class _DeadlyWorkError(UserError):
    """Work that kills whatever process it runs in."""


def _alone(call: Arguments, kept: str) -> Any:
    """Do what may have cost a process, again and again, with nothing beside it."""
    from joblib.externals.loky.process_executor import BrokenProcessPool

    for _ in range(_DEATHS):
        try:
            ((_, result),) = _parallel([call], jobs=2)  # of one job, joblib does it in this process
            return result
        except BrokenProcessPool:
            continue
    raise _DeadlyWorkError(f"a worker process was killed {_DEATHS} times over the same work (out of memory?){kept}")


def _parallel(calls: Iterable[Arguments], jobs: int) -> Iterator[Any]:
    """Yield what ``_in_process`` returns for each call, as they finish."""
    from joblib import Parallel, delayed

    run = Parallel(n_jobs=jobs, batch_size=1, return_as="generator_unordered")
    results: Iterator[Any] = run(delayed(_in_process)(*arguments) for arguments in calls)
    return results


def in_processes(work: Work, calls: Iterable[Arguments], jobs: int, kept: str = "") -> Iterator[Any]:
    """Yield what ``work`` returns for each call's arguments, as they finish, with ``jobs`` processes at once."""
    return Processes(jobs).each(work, calls, kept)


def _in_process(number: int, folder: str, work: Work, arguments: Arguments) -> tuple[int, Any]:
    """Work in another process. folder: from which relative paths are read; it may have been started in another one."""
    _settle()
    os.chdir(folder)
    return number, work(*arguments)


@cache
def _settle() -> None:
    """Make a worker process heed its parent alone.

    It leaves Ctrl-C to the parent, and ends when that is killed: joblib's workers would wait for work for minutes.
    """
    if current_thread() is main_thread():  # elsewhere no signals arrive
        signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = os.getppid()

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(0.2)
        os._exit(1)

    Thread(target=watch, daemon=True).start()


@lru_cache(maxsize=2)
def same_trace(path: str, model: str, digest: str) -> Trace:
    """Open a trace once per process; the digest keeps a worker from using what the file held in an earlier call."""
    trace = load_trace(path, model=model)
    if trace.digest != digest:
        raise UserError(f"{path}: the trace was changed while it is replayed")
    return trace
