"""A process that has loaded slicesim once, and children of it that run commands until they end or are killed.

Loading takes a second or more, a command on a tiny model a tenth of one: so the kills fall within the command.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from tests.fuzz.harness import watched

PROGRAM = """
import json, os, resource, signal, sys
from slicesim.cli import main

def child(order):
    for number, name in ((1, "out"), (2, "err")):
        os.dup2(os.open(order[name], os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
    if order["most_bytes"]:
        resource.setrlimit(resource.RLIMIT_FSIZE, (order["most_bytes"], resource.RLIM_INFINITY))
    sys.argv = ["slicesim", *order["words"]]
    signal.signal(signal.SIGINT, signal.default_int_handler)  # the parent's main() has set others
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    try:
        main()
    except SystemExit as end:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(end.code or 0)

shown, sys.stdout = sys.stdout, open(os.devnull, "w")
for words in json.loads(sys.argv[1]):  # all that the commands load and compile
    sys.argv = ["slicesim", *words]
    try:
        main()
    except SystemExit:
        pass
sys.stdout = shown

for line in sys.stdin:
    order = json.loads(line)
    pid = os.fork()
    if not pid:
        child(order)
    print(pid, flush=True)
    print(os.waitpid(pid, 0)[1], flush=True)
"""


class Nursery:
    """Runs commands one after another in a folder. warm: commands that the process runs itself before any other."""

    def __init__(self, folder: Path, warm: Sequence[Sequence[str]]) -> None:
        self.folder = folder
        self._process = subprocess.Popen(
            [sys.executable, "-c", PROGRAM, json.dumps(warm)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=folder, bufsize=1,
            start_new_session=True,
        )  # fmt: skip

    def run(self, *words: str, during: Callable[[int], Any] = lambda pid: None, most_bytes: int = 0) -> tuple[int, str]:
        """Run a command; ``during`` is called with its process id. Returns its exit code (-9: killed) and stderr.

        most_bytes: no file may grow beyond, as on a full disk.
        """
        files = {name: str(self.folder / f".{name}") for name in ("out", "err")}
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps({"words": words, "most_bytes": most_bytes, **files}) + "\n")
        with watched(300):  # the first command waits for all that is compiled
            during(int(self._process.stdout.readline()))
            status = int(self._process.stdout.readline())
        return os.waitstatus_to_exitcode(status), Path(files["err"]).read_text()

    def close(self) -> None:
        """End the process, and a child that hangs."""
        os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()


def signal_after(seconds: float, number: int) -> Callable[[int], None]:
    """Return what sends a signal after a time."""

    def send(pid: int) -> None:
        time.sleep(seconds)
        _send(pid, number)

    return send


def signal_at(is_time: Callable[[], bool], number: int, seconds: float = 20) -> Callable[[int], None]:
    """Return what sends a signal as soon as something is so."""

    def send(pid: int) -> None:
        end = time.monotonic() + seconds
        while not is_time() and time.monotonic() < end and os.path.exists(f"/proc/{pid}"):
            pass
        _send(pid, number)

    return send


def _send(pid: int, number: int) -> None:
    with suppress(ProcessLookupError):  # it was quicker
        os.kill(pid, number)
