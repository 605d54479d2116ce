"""A user's eviction strategy in a Python file."""

from __future__ import annotations

import json

import pytest

HEAD = "import numpy as np\nfrom slicesim.policies import LSB, MSB, Eviction, Routing\n\n"

STRATEGIES = """
class Lru(Eviction):
    def score(self, state, entries):
        return (state.last_use[entries],)

class LsbFirst(Eviction):
    def score(self, state, entries):
        return (state.kind[entries] == MSB, state.last_use[entries])

class Fewest(Eviction):
    def score(self, state, entries):
        return state.count[entries]

class LsbFirstKey(Eviction):
    def key(self, entry, now):
        return 1.0 if entry.kind == MSB else 0.0

class FewestKey(Eviction):
    def key(self, entry, now):
        return entry.count

class FewestPlain(Eviction):
    def key(self, entry, now):
        return {"count": entry.count}["count"] + 0 * len(str(now))

class Tilted(Eviction):
    weight: float = 0.0

    def score(self, state, entries):
        return (self.weight * state.count[entries],)
"""


def figures(slicesim, *words):
    output = slicesim("run", "c.yaml", "--out", "o", "--json", *words)
    assert output.code == 0, output.err
    summary = json.loads(output.out)
    return {part: summary[part] for part in ("prefill", "decode")}


@pytest.fixture
def mine(here, monkeypatch):
    monkeypatch.setattr("slicesim.report.plots.overview", lambda *_: None)  # drawn elsewhere
    (here / "mine.py").write_text(HEAD + STRATEGIES)
    return here


@pytest.mark.parametrize(
    ("strategy", "builtin"),
    [("Lru", "lru"), ("LsbFirst", "dbsc"), ("Fewest", "lfu-keep"), ("LsbFirstKey", "dbsc"), ("FewestKey", "lfu-keep"),
     ("FewestPlain", "lfu-keep")],
)  # fmt: skip
def test_the_same_score_gives_the_same_run(slicesim, mine, strategy, builtin):
    own = figures(slicesim, "--policy", f"mine.py:{strategy}")
    assert own == figures(slicesim, "--policy", "dbsc", "--set", f"policy.eviction.name={builtin}")
    assert own["decode"]["misses"]["msb"] > 0


def test_an_edited_strategy_is_compiled_anew(slicesim, here, monkeypatch):
    """Also where only a number or a function outside the class has changed."""
    monkeypatch.setattr("slicesim.report.plots.overview", lambda *_: None)
    text = HEAD + (
        "import numba\nSIGN = {sign}\n\n@numba.njit\ndef weigh(count):\n    return count * {factor}\n\n"
        "class My(Eviction):\n    def key(self, entry, now):\n        return SIGN * weigh(entry.count)\n"
    )
    found = []
    for sign, factor in ((1, 1), (-1, 1), (1, -1)):
        (here / "mine.py").write_text(text.format(sign=sign, factor=factor))
        found.append(figures(slicesim, "--policy", "mine.py:My"))
    assert found[0] != found[1]
    assert found[1] == found[2]


def test_parameters_are_fields(slicesim, mine):
    own = "mine.py:Tilted"
    plain = figures(slicesim, "--policy", own)
    assert plain == figures(slicesim, "--policy", "mine.py:Lru")
    tilted = figures(slicesim, "--policy", own, "--set", "policy.eviction.weight=1")
    assert tilted == figures(slicesim, "--policy", "mine.py:Fewest")
    assert tilted != plain


def test_in_yaml_the_file_is_relative_to_the_yaml(slicesim, mine):
    (mine / "sub").mkdir()
    (mine / "mine.py").rename(mine / "sub" / "mine.py")
    (mine / "sub" / "x.yaml").write_text(
        'extends: ../c.yaml\npolicy: {preset: dbsc, eviction: {name: "mine.py:Lru"}}\n', encoding="utf-8"
    )
    assert slicesim("run", "sub/x.yaml", "--out", "o").code == 0
    (mine / "sub" / "mine.py").unlink()
    output = slicesim("run", "sub/x.yaml", "--out", "o")
    assert output.code == 2
    assert "sub/x.yaml:2: sub/mine.py:Lru: no such file" in output.err


def test_compare_with_a_preset(slicesim, mine):
    output = slicesim("compare", "c.yaml", "--policies", "dbsc,mine.py:LsbFirst", "--json")
    rows = json.loads(output.out)["decode"]
    assert [row["policy"] for row in rows] == ["dbsc", "dbsc+LsbFirst"]
    assert rows[1]["latency_gain"] == 1


KEY = "class My(Eviction):\n    def key(self, entry, now):\n        "
SCORE = "class My(Eviction):\n    def score(self, state, entries):\n        "


@pytest.mark.parametrize(
    ("name", "source", "fragments"),
    [
        ("other.py:My", "", ["--policy other.py:My: no such file"]),
        ("my.py:My", "class My(:\n", ["my.py:My: cannot be imported (SyntaxError", "line 4"]),
        ("my.py:My", "import nothing_like_it\n", ["cannot be imported (ModuleNotFoundError: No module named 'nothing"]),
        ("my.py:My", "raise SystemExit(0)\n", ["cannot be imported (SystemExit"]),
        ("my.py:Mi", "class My(Eviction): pass\n", ["must be a class that derives from slicesim.policies.Eviction"]),
        ("my.py:My", "class My: pass\n", ["must be a class that derives from slicesim.policies.Eviction"]),
        ("my.py:My", "class My(Routing): pass\n", ["must be a class that derives from slicesim.policies.Eviction"]),
        ("my.py:My", "class My(Eviction): pass\n", ["My must define key(entry, now) or score(state, entries)"]),
        ("my.py:My", SCORE + "return state.use[entries]\n", ["My.score failed at", "my.py:6: AttributeError", "'use'"]),
        ("my.py:My", KEY + "return 1 / (entry.count - entry.count)\n", ["My.key failed: ZeroDivisionError"]),
        ("my.py:My", KEY + "return np.nan\n", ["My.key failed: ValueError: NaN is no key"]),
        (
            "my.py:My",
            SCORE + "return (np.zeros(3),)\n",
            ["My.score must return", "arrays of numbers as long as the entries"],
        ),
        ("my.py:My", SCORE + "return None\n", ["My.score must return", "arrays of numbers"]),
        (
            "my.py:My",
            "class My(Eviction):\n    need: float\n    def score(self, state, entries):\n        return ()\n",
            ["policy.eviction.need: is missing"],
        ),
        (
            "my.py:My",
            "class My(Eviction):\n    def __init__(self, **k):\n        super().__init__(**k)\n"
            "        self.seen = {}\n",
            ["policy.eviction.seen: a strategy is frozen: declare parameters as fields, and keep state in"],
        ),
    ],
)
def test_faulty(slicesim, here, name, source, fragments):
    (here / "my.py").write_text(HEAD + source)
    output = slicesim("run", "c.yaml", "--out", "o", "--policy", name)
    assert output.code == 2
    assert len(output.err.strip().splitlines()) == 1
    for fragment in fragments:
        assert fragment in output.err
    assert not (here / "o").exists()


def test_state_of_its_own(slicesim, here):
    (here / "my.py").write_text(
        HEAD + "class My(Eviction):\n    _calls: int = 0\n    def score(self, state, entries):\n"
        "        self._calls += 1\n        return (np.full(len(entries), self._calls),)\n"
    )
    assert slicesim("run", "c.yaml", "--out", "o", "--policy", "my.py:My").code == 0
