"""Results that are read back, damaged: one clear line, or a page and a table."""

from __future__ import annotations

import json
import random
import shutil
from pathlib import Path

import pytest

from slicesim.report.diff import Diff, diff_table
from slicesim.report.page import write_report
from slicesim.report.saved import read_summary, whole_results
from slicesim.simulation import simulate
from slicesim.sweeps import prepare_sweep
from tests.fuzz.harness import fuzz, refusal
from tests.fuzz.mutate import damaged_bytes, damaged_text, damaged_tree
from tests.fuzz.test_yaml import SWEEP


def test_saved_results(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("plotly.offline.get_plotlyjs", lambda: "")  # five megabytes for each page
    simulate("hw/mobile.yaml", policy="dbsc").save("whole")
    sound = {file.name: file.read_bytes() for file in Path("whole").iterdir()}
    summary = json.loads(sound["summary.json"])
    shutil.copytree("whole", "r")
    read = [name for name in sorted(sound) if name.endswith((".json", ".parquet"))]

    def diff() -> str:
        with whole_results(Path("whole"), Path("r")):
            found = Diff.of(read_summary(Path("whole")), read_summary(Path("r")))
            assert diff_table(found, ("whole", "r"), True)
            return json.dumps(found.describe())

    def check(choice: random.Random) -> str:
        name = choice.choice(("summary.json", *read))
        file = Path("r") / name
        if name == "summary.json" and choice.random() < 0.6:
            file.write_text(json.dumps(damaged_tree(choice, summary)))
        elif name.endswith(".json"):
            file.write_bytes(damaged_text(choice, sound[name].decode()))
        else:
            file.write_bytes(damaged_bytes(choice, sound[name]))
        page, _ = refusal(lambda: write_report([Path("r")], Path("page.html")), "r:", "r/")
        told, _ = refusal(diff, "r:", "r/")
        file.write_bytes(sound[name])
        Path("page.html").unlink(missing_ok=True)
        return "refused" if page is None or told is None else "sound"

    fared = fuzz("saved_results", check)
    assert min(fared["refused"], fared["sound"]) > 0


def test_points_of_a_sweep(folder: Path) -> None:
    Path("s.yaml").write_text(SWEEP)
    whole = prepare_sweep("s.yaml", "o").run()
    points = sorted(Path("o/points").iterdir())

    def check(choice: random.Random) -> str:
        point = choice.choice(points)
        sound = point.read_bytes()
        if choice.random() < 0.5:
            point.write_text(json.dumps(damaged_tree(choice, json.loads(sound))) + "\n")
        else:
            point.write_bytes(damaged_text(choice, sound.decode()))
        try:
            again, _ = refusal(lambda: prepare_sweep("s.yaml", "o").run(), point.name, "o/points")
        finally:
            point.write_bytes(sound)
        assert again is None or len(again.frame) == len(whole.frame)
        return "refused" if again is None else "run again" if again.ran else "sound"

    fared = fuzz("sweep_points", check)
    assert min(fared["refused"], fared["run again"]) > 0
    assert prepare_sweep("s.yaml", "o").run().frame.equals(whole.frame)
