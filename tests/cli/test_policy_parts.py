"""Routing, precision and constraint strategies from the command line: figures, and mistakes in one line."""

from __future__ import annotations

import json

from tests.cli.test_mistakes import refused


def decode(slicesim, *words):
    output = slicesim("run", "c.yaml", "--out", "o", "--json", *words)
    assert output.code == 0, output.err
    return json.loads(output.out)["decode"]


def test_a_table_of_widths_is_found_beside_the_file_that_names_it(slicesim, here, monkeypatch):
    monkeypatch.setattr("slicesim.report.plots.overview", lambda *_: None)  # drawn elsewhere
    (here / "sub").mkdir()
    rows = [f"{layer},{expert},8" for layer in (1, 2) for expert in range(8)]
    (here / "sub" / "w.csv").write_text("\n".join(["layer,expert,bits", *rows]))
    precision = "precision: {name: static-widths, table: w.csv}"
    (here / "sub" / "x.yaml").write_text(f"extends: ../c.yaml\npolicy: {{preset: static-widths, {precision}}}\n")
    output = slicesim("run", "sub/x.yaml", "--out", "o", "--json")
    assert output.code == 0, output.err
    assert json.loads(output.out)["decode"]["quality"]["high_mass"] == 1
    words = ("--policy", "static-widths", "--set", "policy.precision.table=sub/w.csv")
    assert decode(slicesim, *words)["quality"]["high_mass"] == 1
    assert decode(slicesim, *words[:2])["quality"]["high_mass"] < 1


def test_faulty_tables(slicesim, here):
    words = ("run", "c.yaml", "--out", "o", "--policy", "static-widths", "--set", "policy.precision.table=w.csv")
    refused(slicesim(*words), "w.csv: no such file")
    (here / "w.csv").write_text("layer,expert,bits\n1,0,7\n")
    refused(slicesim(*words), "w.csv: line 2: bits is 7, but an expert has 8 or 4")
    (here / "w.csv").write_text("layer,expert,bits\n1,0,8\n")
    refused(slicesim(*words), "w.csv: layer 1, expert 1 is missing")
    assert not (here / "o").exists()


def test_bisection_needs_logits(slicesim, here, monkeypatch):
    monkeypatch.setattr("slicesim.report.plots.overview", lambda *_: None)
    words = ("--policy", "cache-prior-bisect")
    refused(slicesim("run", "c.yaml", "--out", "o", *words), "cache-prior reroutes, but the trace holds only the top-k")
    report = decode(slicesim, *words, "--trace", "l.parquet", "--set", "policy.constraint.start_step=0")["constraint"]
    assert report["name"] == "bisect"
    assert report["strength_mean"] == report["strength_last"]


def test_parameters_out_of_range(slicesim, here):
    for preset, key, message in (
        ("hobbit-precision", "precision.t1=0.95", "t1 (0.95) must not be above t2 (0.9)"),
        ("skip", "routing.mass=0", "policy.routing.mass: must be greater than 0 (given: 0)"),
        ("buddy", "routing.buddies=0", "policy.routing.buddies: must be greater than or equal to 1 (given: 0)"),
        ("budgeted", "precision.most=-1", "policy.precision.most: must be greater than or equal to 0 (given: -1)"),
    ):
        refused(slicesim("run", "c.yaml", "--out", "o", "--policy", preset, "--set", f"policy.{key}"), message)


OWN = """
import numpy as np
from slicesim.policies import Constraint, Precision, Routing

class Halve(Constraint):
    steers = True
    needs_future = True
    def strength(self, rate):
        return 0.5 if rate(0.5) < rate(0.0) else 0.0

class Much(Halve):
    def strength(self, rate):
        return "much"

class Lost(Halve):
    def strength(self, rate):
        return rate(0.5) + self.nothing

class LastOut(Routing):
    def amend(self, slots, slices, base, memory):
        slots[len(slots) - 1].expert = -1

class Faulty(Routing):
    def amend(self, slots, slices, base, memory):
        slots.nothing()

class Even(Precision):
    def critical(self, asked):
        return asked.ids % 2 == 0

class Three(Precision):
    def critical(self, asked):
        return np.zeros(3)

class Boom(Precision):
    def critical(self, asked):
        return asked.nothing
"""


def test_a_users_own(slicesim, here, monkeypatch):
    """Any part may be a class in a file: the last expert is dropped, even ones run high, lambda is 0.5 or 0."""
    monkeypatch.setattr("slicesim.report.plots.overview", lambda *_: None)
    (here / "mine.py").write_text(OWN)
    parts = ("--policy", "dbsc", "--set", "policy.routing.name=mine.py:LastOut")
    own = decode(slicesim, *parts, "--set", "policy.precision.name=mine.py:Even")
    assert own["denied"]["dropped"] == own["tokens"] * 2
    assert 0 < own["requests"]["lsb"] < own["tokens"] * 2
    words = ("--policy", "cache-prior", "--trace", "l.parquet", "--set", "policy.constraint.name=mine.py:Halve")
    assert decode(slicesim, *words)["constraint"]["name"] == "Halve"


def test_a_users_faults(slicesim, here):
    (here / "mine.py").write_text(OWN)
    prior = ("--policy", "cache-prior", "--trace", "l.parquet")
    for words, kind, name, message in (
        ((), "routing", "Faulty", "Faulty cannot be compiled (TypingError): write it with numbers, arrays and loops"),
        ((), "precision", "Three", "Three.critical must return an array of booleans shaped as asked.ids"),
        ((), "precision", "Boom", "mine.py:37: AttributeError: 'Asked' object has no attribute 'nothing'"),
        (prior, "constraint", "Much", "Much.strength must return a number from 0 to 1"),
        (prior, "constraint", "Lost", "Lost.strength failed at"),
    ):
        words = (*words, "--set", f"policy.{kind}.name=mine.py:{name}")
        refused(slicesim("run", "c.yaml", "--out", "o", "--policy", "dbsc", *words), message)
        assert not (here / "o").exists()
