"""What an installed slicesim begins with."""

from __future__ import annotations

from importlib.metadata import PackagePath
from pathlib import Path

import pytest

from slicesim import shipped
from slicesim.errors import UserError
from tests.kit import ROOT


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_init(slicesim, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    done = slicesim("init")
    assert done.out == "written: hwconfigs/\nwritten: traces/\nnow try: slicesim run hwconfigs/mobile.yaml\n"
    assert contents(tmp_path / "hwconfigs") == contents(ROOT / "hwconfigs")
    traces = contents(tmp_path / "traces")
    assert traces["deepseek-v2-lite-twin.parquet"] == (ROOT / "traces/deepseek-v2-lite-twin.parquet").read_bytes()
    assert not [name for name in traces if "micro" in name]
    before = contents(tmp_path)
    again = slicesim("init")
    assert (again.code, again.err) == (2, "slicesim: hwconfigs: is there already; give another folder\n")
    assert contents(tmp_path) == before


def test_init_where_nothing_can_be_written(slicesim, tmp_path):
    (tmp_path / "file").write_text("")
    done = slicesim("init", tmp_path / "file")
    assert done.code == 2
    assert done.err.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_shipped_of_a_wheel(monkeypatch, tmp_path):
    """Installed, the package lies in site-packages; its list of files says where the data went."""
    package = tmp_path / "lib" / "site-packages" / "slicesim" / "shipped.py"
    device = PackagePath("../../share/slicesim/hwconfigs/mobile.yaml")
    device.dist = type("Distribution", (), {"locate_file": lambda self, path: package.parents[1] / path})()
    monkeypatch.setattr(shipped, "__file__", str(package))
    monkeypatch.setattr(shipped, "files", lambda name: [PackagePath("slicesim/shipped.py"), device])
    (tmp_path / "share" / "slicesim" / "hwconfigs").mkdir(parents=True)
    assert shipped.shipped() == tmp_path / "share" / "slicesim"
    monkeypatch.setattr(shipped, "files", lambda name: None)
    with pytest.raises(UserError, match="no device files"):
        shipped.shipped()
