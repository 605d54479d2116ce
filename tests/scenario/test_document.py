"""YAML that knows the file and line of every key."""

from __future__ import annotations

import pytest

from slicesim.errors import UserError
from slicesim.scenario import Scenario, parse_assignments
from slicesim.scenario.document import parse_value, read_document
from tests.kit import MOBILE


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


def test_every_key_has_its_line(folder):
    path = write(folder / "a.yaml", "# top\nx: 1\ny:\n  z: {u: 2, v: [3, {w: 4}]}\n")
    document = read_document(path)
    assert document.data == {"x": 1, "y": {"z": {"u": 2, "v": [3, {"w": 4}]}}}
    assert document.where(("y", "z", "u")) == f"{path}:4"
    assert document.where(("y", "z", "v", 1, "w")) == f"{path}:4"
    assert document.where(("y", "unknown", "deep")) == f"{path}:3"
    assert document.where(()) == str(path)
    assert str(document.error(("x",), "is odd")) == f"{path}:2: x: is odd"


@pytest.mark.parametrize(
    ("text", "value"),
    [("1e9", 1e9), ("1E-3", 1e-3), ("12", 12), ("0.5", 0.5), ("yes please", "yes please"), ("", None)],
)
def test_values(text, value):
    assert parse_value(text, "--set x") == value
    assert type(parse_value(text, "--set x")) is type(value)


def test_extends(folder):
    write(folder / "base.yaml", "a: {value: 1, source: book}\nb: {c: 1, d: 2}\nlist: [1, 2]\n")
    child = write(folder / "sub" / "child.yaml", "extends: ../base.yaml\nb: {d: 3}\na: {value: 5}\nlist: [9]\n")
    document = read_document(child)
    assert document.data == {"a": {"value": 5}, "b": {"c": 1, "d": 3}, "list": [9]}
    assert document.where(("b", "c")).endswith("base.yaml:2")
    assert document.where(("b", "d")).endswith("child.yaml:2")
    assert document.where(("a", "source")).endswith("child.yaml:3")


def test_a_device_laid_over_another_takes_a_name_and_keeps_the_rest(folder):
    write(folder / "base.yaml", "device: {name: base, flash: {kind: UFS, lanes: {value: 4}}, dram: {kind: LPDDR}}\n")
    child = write(folder / "c.yaml", "extends: base.yaml\ndevice: {name: mine, flash: {lanes: {value: 8}}}\n")
    assert read_document(child).data["device"] == {
        "name": "mine", "flash": {"kind": "UFS", "lanes": {"value": 8}}, "dram": {"kind": "LPDDR"},
    }  # fmt: skip


def test_extends_twice(folder):
    write(folder / "a.yaml", "x: 1\ny: 1\nz: 1\n")
    write(folder / "b.yaml", "extends: a.yaml\ny: 2\nz: 2\n")
    assert read_document(write(folder / "c.yaml", "extends: b.yaml\nz: 3\n")).data == {"x": 1, "y": 2, "z": 3}


@pytest.mark.parametrize("parent", ["c.yaml", "../x/c.yaml"])
def test_extends_in_a_circle(folder, parent):
    path = write(folder / "x" / "c.yaml", f"extends: {parent}\n")
    with pytest.raises(UserError, match=r"c\.yaml:1: extends: circle"):
        read_document(path)


def test_relative_paths_belong_to_the_file_that_wrote_them(folder):
    base = MOBILE.read_text(encoding="utf-8").replace("../traces/", "own/")
    write(folder / "base" / "phone.yaml", base)
    child = write(folder / "child" / "x.yaml", "extends: ../base/phone.yaml\nmodel: ./m.yaml\n")
    settings = Scenario.load(child).settings
    assert settings.trace.path == "base/own/deepseek-v2-lite-twin.parquet"
    assert settings.model == "child/m.yaml"
    write(child, "extends: ../base/phone.yaml\ntrace: {path: t.parquet, split: all-decode}\n")
    scenario = Scenario.load(child)
    assert scenario.settings.trace.path == "child/t.parquet"
    assert scenario.where("trace", "path") == f"{child}:2"
    assert Scenario.load(child, trace="t.parquet").settings.trace.path == "t.parquet"
    assert Scenario.load(child, trace="t.parquet").where("trace", "path").startswith("--trace")


def test_a_shipped_model_is_no_path(folder):
    assert Scenario.load(MOBILE).settings.model == "deepseek-v2-lite"


def test_assign(folder):
    document = read_document(write(folder / "a.yaml", "a: {value: 1, source: book, low: 0}\nb: {c: 1}\n"))
    changed = document.assign("a", 2, "--set a").assign("b.d.e", 3, "--set b.d.e")
    assert changed.data == {"a": {"value": 2, "source": "--set a"}, "b": {"c": 1, "d": {"e": 3}}}
    assert changed.where(("a", "value")) == "--set a"
    assert changed.where(("b", "d")) == "--set b.d.e"
    assert changed.where(("b", "c")).endswith("a.yaml:2")
    assert document.data["b"] == {"c": 1}


def test_assign_through_a_value(folder):
    document = read_document(write(folder / "a.yaml", "a: {b: 1}\n"))
    with pytest.raises(UserError, match=r"--set a\.b\.c: a\.b is a single value, it has no keys below it"):
        document.assign("a.b.c", 2, "--set a.b.c")


def test_assignments():
    assert parse_assignments(["a.b=1", " c = [1, x] ", "a.b=2", "d=k=v"]) == {"a.b": 2, "c": [1, "x"], "d": "k=v"}
