"""Replays in other processes, to which only plain data goes: each opens traces and strategies by itself."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterable, Iterator
from functools import cache, lru_cache
from threading import Thread, current_thread, main_thread
from typing import Any

from slicesim.errors import UserError
from slicesim.trace import Trace, load_trace


def cores() -> int:
    """Return how many processes can work at once here."""
    from joblib import cpu_count  # type: ignore[import-untyped]

    return int(cpu_count())


def in_processes(
    work: Callable[..., Any], calls: Iterable[tuple[Any, ...]], jobs: int, kept: str = ""
) -> Iterator[Any]:
    """Yield what ``work`` returns for each call's arguments, as they finish, with ``jobs`` processes at once.

    kept: what is not lost where a process is killed. Relative paths are read from the folder that is current now.
    """
    from joblib import Parallel, delayed
    from joblib.externals.loky.process_executor import TerminatedWorkerError  # type: ignore[import-untyped]

    folder = os.getcwd()
    tasks = (delayed(_in_worker)(folder, work, arguments) for arguments in calls)
    try:
        yield from Parallel(n_jobs=jobs, batch_size=1, return_as="generator_unordered")(tasks)
    except TerminatedWorkerError:
        raise UserError(f"a worker process was killed (out of memory?): run again with fewer --jobs{kept}") from None


def _in_worker(folder: str, work: Callable[..., Any], arguments: tuple[Any, ...]) -> Any:
    """Work in another process. folder: from which relative paths are read; it may have been started in another one."""
    _settle()
    os.chdir(folder)
    return work(*arguments)


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
