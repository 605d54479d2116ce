"""Builds sdist and wheel, and tries the wheel in clean environments of every Python that is here.

    python .ci/release.py [--keep FOLDER]

Each environment gets the wheel with the pins of constraints.txt and works in an empty folder: ``slicesim init``, then
runs with all commands whose work can be shared out. The first one does so with --jobs 1, the second with 2, the third
with 3 (where fewer Pythons are found, the last one goes on): all files of all results must be the same, byte by byte.
Needs the package ``build``. --keep: leave wheel, environments and results there.
"""

from __future__ import annotations

import argparse
import configparser
import glob
import hashlib
import os
import re
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
VERSIONS = ("3.11", "3.12", "3.13")
JOBS = (1, 2, 3)

#: What a new user would type; {jobs} differs between environments, the results must not.
COMMANDS = (
    "--version",
    "init",
    "devices",
    "run hwconfigs/mobile.yaml --policy dbsc --set trace.max_tokens=200 --out results/run",
    "compare hwconfigs/mobile.yaml --policies lru-high,dbsc --set trace.max_tokens=200 --jobs {jobs} --out results/compare",
    "mrc hwconfigs/mobile.yaml --policies lru-high,dbsc --set trace.max_tokens=200 --points 4 --jobs {jobs} --out results/mrc",
    "sweep hwconfigs/mobile.yaml --grid grid.yaml --jobs {jobs} --out results/sweep",
)
GRID = """\
cache.capacity_gb: [1.8, 2.4]
device.flash.energy_pj_per_bit: [37, 103]
policy: [lru-high, dbsc]
trace.max_tokens: [200]
"""


class FailedError(Exception):
    """What must hold does not."""


def main() -> None:
    """Build, install, run, compare."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--keep", type=Path)
    keep = parser.parse_args().keep
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) if keep is None else keep.resolve()
        folder.mkdir(parents=True, exist_ok=True)
        try:
            check(folder)
        except FailedError as error:
            sys.exit(f"release: {error}")


def check(folder: Path) -> None:
    """Go through all steps, those that do not need each other at once."""
    began = time.monotonic()
    pythons = found_pythons()
    missing = [version for version in VERSIONS if version not in pythons]
    print(
        f"release: Python {', '.join(pythons)}" + (f"; not here: {', '.join(missing)}" if missing else ""), flush=True
    )
    with ThreadPoolExecutor(len(pythons) + 1) as pool:
        wheel = pool.submit(build, folder)
        dependencies = [pool.submit(environment, folder, *item) for item in pythons.items()]
        check_contents(wheel.result())
        environments = [pool.submit(install, made.result(), wheel.result()).result() for made in dependencies]
        say(began, f"{wheel.result().name} is installed in {len(environments)} environments")
        places = [environments[min(place, len(environments) - 1)] for place in range(len(JOBS))]
        runs = [pool.submit(results, folder, place, jobs) for place, jobs in zip(places, JOBS, strict=True)]
        digests = [run.result() for run in runs]
    for jobs, other in zip(JOBS[1:], digests[1:], strict=True):
        differing = sorted(name for name in digests[0] | other if digests[0].get(name) != other.get(name))
        if differing:
            raise FailedError(f"results of {places[jobs - 1].name} with {jobs} jobs differ: {', '.join(differing)}")
    say(began, f"{len(digests[0])} files of results are the same with " + ", ".join(
        f"Python {place.name} and {jobs} job{'s' * (jobs > 1)}" for place, jobs in zip(places, JOBS, strict=True)
    ))  # fmt: skip


def say(began: float, what: str) -> None:
    """Print a line with the seconds so far."""
    print(f"release: {time.monotonic() - began:.0f} s: {what}", flush=True)


def found_pythons() -> dict[str, str]:
    """Return a working interpreter of each version that is found: this one, the path's, pyenv's."""
    found = {}
    pyenv = os.environ.get("PYENV_ROOT", str(Path.home() / ".pyenv"))
    for version in VERSIONS:
        own = [sys.executable] if sys.version_info[:2] == tuple(map(int, version.split("."))) else []
        for candidate in (*own, f"python{version}", *sorted(glob.glob(f"{pyenv}/versions/{version}.*/bin/python"))):
            if _works(candidate, version):
                found[version] = candidate
                break
    return found


def _works(python: str, version: str) -> bool:
    """Whether it starts; a shim of pyenv may be there and fail."""
    ask = "import sys, venv; print('%d.%d' % sys.version_info[:2])"
    try:
        done = subprocess.run([python, "-c", ask], capture_output=True, text=True, check=False)
    except OSError:
        return False
    return done.stdout.strip() == version


def run(command: list[str], where: Path, **variables: str) -> str:
    """Run a command with no Python variables of the caller's; return its output."""
    outer = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "VIRTUAL_ENV"))}
    done = subprocess.run(
        command, cwd=where, env=outer | variables, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise FailedError(f"{' '.join(command)}\n{done.stdout[-2000:]}{done.stderr[-4000:]}")
    return done.stdout


def build(folder: Path) -> Path:
    """Build the sdist, and the wheel from it; return the wheel. Times in it are those of the last commit."""
    epoch = run(["git", "log", "-1", "--format=%ct"], ROOT).strip()
    out = folder / "dist"
    command = [sys.executable, "-m", "build", "--outdir", str(out), str(ROOT)]
    run(command, folder, SOURCE_DATE_EPOCH=epoch)
    (wheel,) = out.glob("slicesim-*.whl")
    (_,) = out.glob("slicesim-*.tar.gz")
    return wheel


def check_contents(wheel: Path) -> None:
    """The package whole, its data, device files and traces; nothing else, and nothing of this machine."""
    tracked = [Path(name) for name in run(["git", "ls-files", "slicesim", "hwconfigs", "traces"], ROOT).splitlines()]
    shipped = "traces/README.md", "traces/*-twin.yaml", "traces/*-twin.parquet", "traces/*.demand.csv", "hwconfigs/*"
    prefix = next(name for name in zipfile.ZipFile(wheel).namelist() if ".data/data/" in name).split(".data/")[0]
    expected = {
        str(path) if path.parts[0] == "slicesim" else f"{prefix}.data/data/share/slicesim/{path}"
        for path in tracked
        if path.parts[0] in ("slicesim", "hwconfigs") or any(path.match(pattern) for pattern in shipped)
    }
    with zipfile.ZipFile(wheel) as archive:
        names = {name for name in archive.namelist() if not name.startswith(f"{prefix}.dist-info/")}
        for name in names:
            if {str(ROOT).encode(), str(Path.home()).encode() + b"/"} & set(
                re.findall(rb"/[\w/.-]+", archive.read(name))
            ):
                raise FailedError(f"{wheel.name}: {name} names a folder of this machine")
    if names != expected:
        raise FailedError(f"{wheel.name}: lacks {sorted(expected - names)}, holds {sorted(names - expected)} beside it")


def environment(folder: Path, version: str, python: str) -> Path:
    """Make an environment with all that the wheel will need: it is not built yet."""
    place = folder / "environments" / version
    run([python, "-m", "venv", "--clear", str(place)], folder)
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg", encoding="utf-8")
    pip(place, *setup["options"]["install_requires"].split())
    return place


def install(place: Path, wheel: Path) -> Path:
    """Put the wheel into an environment; what it needs must be there."""
    pip(place, "--no-index", str(wheel))
    return place


def pip(place: Path, *what: str) -> None:
    """Install with the pins of constraints.txt."""
    options = ["--quiet", "--no-compile", "--disable-pip-version-check", "--constraint", str(ROOT / "constraints.txt")]
    run([str(place / "bin" / "python"), "-m", "pip", "install", *options, *what], place)


def results(folder: Path, place: Path, jobs: int) -> dict[str, str]:
    """Work in an empty folder; return the SHA-256 of each file of the results, and of what was printed."""
    where = folder / "work" / f"{place.name}-{jobs}"
    where.mkdir(parents=True)
    (where / "grid.yaml").write_text(GRID, encoding="utf-8")
    digests = {}
    for command in COMMANDS:
        words = command.format(jobs=jobs).split()
        printed = run([str(place / "bin" / "slicesim"), *words], where, NUMBA_CACHE_DIR=str(where / "compiled"))
        digests[f"output of {words[0]}"] = hashlib.sha256(printed.encode()).hexdigest()
    for path in _files(where / "results"):
        digests[str(path.relative_to(where))] = hashlib.sha256(path.read_bytes()).hexdigest()
    return digests


def _files(folder: Path) -> Iterator[Path]:
    return (path for path in sorted(folder.rglob("*")) if path.is_file())


if __name__ == "__main__":
    main()
