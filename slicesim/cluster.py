"""Workers on a cluster: dask's scheduler hands the work out, and gives that of a worker that died to another one."""

from __future__ import annotations

import logging
import os
import re
import signal
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from functools import cached_property
from itertools import islice
from multiprocessing.resource_tracker import ensure_running
from threading import Lock
from types import TracebackType
from typing import TYPE_CHECKING, Any

from slicesim.errors import UserError
from slicesim.version import __version__
from slicesim.workers import Arguments, Work

if TYPE_CHECKING:
    from distributed import Client

#: Seconds to wait for a scheduler, and for its first worker.
_PATIENCE_S = 30

_FORMS = re.compile(r"local:(?P<workers>[1-9][0-9]{0,3})|(?P<address>(tcp|tls)://\S+:[0-9]+)")


class Cluster:
    """A dask cluster, connected to when it is first needed; leave it by ``with``.

    place: ``tcp://HOST:PORT`` of a scheduler, or ``local:N`` for a scheduler and N worker processes on this machine.
    Raises UserError for another form, or without the package.
    """

    is_here = False

    def __init__(self, place: str) -> None:
        form = _FORMS.fullmatch(place)
        if form is None:
            raise UserError(f"--cluster {place}: give tcp://HOST:PORT of a dask scheduler, or local:N for N processes")
        try:
            import distributed  # noqa: F401
        except ImportError:
            raise UserError(
                f"--cluster {place}: needs dask's package distributed: pip install 'slicesim[cluster]'"
            ) from None
        self._place = place
        self._workers = int(form["workers"] or 0)
        self._held = ExitStack()

    def __enter__(self) -> Cluster:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._held.close()

    @property
    def slots(self) -> int:
        """Calls at once: threads of all workers."""
        return max(1, int(sum(self.client.ncores().values())))

    @cached_property
    def client(self) -> Client:
        """The connection; raises UserError where no scheduler or no worker answers."""
        from distributed import Client

        self._held.enter_context(_quiet())
        try:
            address = self._held.enter_context(_local_cluster(self._workers)) if self._workers else self._place
            client: Client = self._held.enter_context(Client(address, timeout=_PATIENCE_S, set_as_default=False))
        except OSError:
            raise UserError(
                f"--cluster {self._place}: no scheduler answers there; start one with dask scheduler"
            ) from None
        except RuntimeError:  # a script that would start itself again
            raise self._error(
                "the workers did not start; in a script, call slicesim.sweep under if __name__ == '__main__':"
            ) from None
        try:
            client.wait_for_workers(1, timeout=_PATIENCE_S)
        except TimeoutError:
            raise self._error(f"the scheduler has no workers; start some with dask worker {self._place}") from None
        return client

    def each(self, work: Work, calls: Iterable[Arguments], kept: str = "") -> Iterator[Any]:
        """Yield what ``work`` returns for each call's arguments, as they finish; two calls a slot are under way.

        dask is asked without joblib, whose backend for it waits for ever for a call that dask has given up.
        """
        from distributed import KilledWorker, as_completed

        folder, client = os.getcwd(), self.client
        begun = (client.submit(_on_worker, __version__, folder, work, call, pure=False) for call in calls)
        running = as_completed(islice(begun, 2 * self.slots), loop=client.loop)
        try:
            for future in running:
                result = future.result()
                running.update(islice(begun, 1))
                yield result
        except KilledWorker as fault:
            deaths = fault.allowed_failures + 1
            raise self._error(f"{deaths} workers died over the same work (out of memory?){kept}") from None
        except ImportError as fault:
            raise UserError(
                f"--cluster {self._place}: a worker lacks a package ({fault}); install slicesim there"
            ) from None
        except UserError:
            raise
        except Exception:
            if client.status == "running":
                raise
            raise self._error(f"the scheduler was lost{kept}; run again") from None

    def _error(self, message: str) -> UserError:
        return UserError(f"--cluster {self._place}: {message}")


#: A worker with several threads has one current folder, and one compiler.
_one_at_a_time = Lock()


def _on_worker(version: str, folder: str, work: Work, arguments: Arguments) -> Any:
    """Work on a cluster's worker, which is left as it was. folder: from which relative paths are read."""
    if version != __version__:
        raise UserError(f"a worker of the cluster has slicesim {__version__}, this is {version}: install the same one")
    with _one_at_a_time:
        before = os.getcwd()
        try:
            os.chdir(folder)
        except OSError:
            raise UserError(
                f"{folder}: no such folder on a worker of the cluster; it must see the same files under the same paths"
            ) from None
        try:
            return work(*arguments)
        finally:
            os.chdir(before)


@contextmanager
def _local_cluster(workers: int) -> Iterator[Any]:
    """Start a scheduler and single-threaded worker processes, which end with this process."""
    from distributed import LocalCluster

    ensure_running()  # which would let signals through again, had it to start later
    with ExitStack() as held:
        with _held_back(signal.SIGINT):
            cluster = held.enter_context(
                LocalCluster(
                    n_workers=workers, threads_per_worker=1, processes=True, dashboard_address=":0", memory_limit=0,
                    silence_logs=logging.CRITICAL,
                )
            )  # fmt: skip
        yield cluster


@contextmanager
def _held_back(number: signal.Signals) -> Iterator[None]:
    """Take a signal later; threads and processes that are started meanwhile never take it: Ctrl-C is for this one."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {number})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep the package's logs, which tell of every worker that comes and goes, off the terminal."""
    loggers = [logging.getLogger(name) for name in logging.root.manager.loggerDict if name.startswith("distributed")]
    before = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        for logger, level in zip(loggers, before, strict=True):
            logger.setLevel(level)
