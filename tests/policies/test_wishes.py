"""What presets ask of the schedule, and who has the last word."""

from __future__ import annotations

from pathlib import Path

import pytest

from slicesim import compare, simulate
from slicesim.errors import UserError
from slicesim.policies import load_preset, presets
from slicesim.policies.wishes import timed_alike, with_wishes
from slicesim.scenario import Scenario
from tests.kit import DATA, MOBILE, random_trace, simulation

AHEAD = "read-ahead-co-activation"


@pytest.fixture
def config(tmp_path: Path) -> Path:
    file = tmp_path / "c.yaml"
    file.write_text(
        f"extends: {MOBILE}\nmodel: {DATA / 'tiny-moe.yaml'}\ncache: {{capacity_gb: 0.00004}}\n"
        "schedule:\n  overlap: serial\n"
    )
    return file


def load(config: Path, policy: str, **assignments: object) -> Scenario:
    return Scenario.load(config, policy=policy, assignments={k.replace("__", "."): v for k, v in assignments.items()})


def test_a_wish_goes_before_the_file_and_says_so(config):
    scenario = with_wishes(load(config, AHEAD))
    assert scenario.settings.schedule.overlap == "prefetch"
    assert scenario.notes == (
        f"schedule.overlap is prefetch here (policy {AHEAD} asks for it; {config}:5 says serial)",
    )
    assert with_wishes(scenario) == scenario


def test_the_summary_shows_what_was_used():
    simulated = simulation(random_trace(1, 8), policy=AHEAD)
    summary = simulated.run().summary
    assert summary["scenario"]["schedule"]["overlap"] == "prefetch"
    assert summary["warnings"] == list(simulated.scenario.notes)
    assert len(summary["warnings"]) == 1


def test_what_was_set_by_hand_goes_before_a_wish(config):
    scenario = load(config, AHEAD, schedule__overlap="layer")
    assert with_wishes(scenario).settings.schedule.overlap == "layer"
    message = r"co-activation reads ahead, which needs schedule\.overlap=prefetch \(it is layer\)"
    with pytest.raises(UserError, match=message):
        simulation(random_trace(1, 8), policy=AHEAD, schedule__overlap="layer")


def test_no_note_where_the_file_is_silent_or_agrees(config):
    config.write_text(config.read_text().replace("serial", "prefetch"))
    assert with_wishes(load(config, AHEAD)).notes == ()
    assert with_wishes(load(config, "dbsc")).settings.schedule.overlap == "prefetch"


def test_all_rows_of_a_comparison_are_timed_alike(config):
    rows = timed_alike([load(config, name) for name in ("dbsc", AHEAD, "read-ahead-popularity")])
    assert [row.settings.schedule.overlap for row in rows] == ["prefetch"] * 3
    assert rows[0].notes == (
        f"schedule.overlap is prefetch here (all rows, as policy {AHEAD} asks for it; {config}:5 says serial)",
    )
    assert rows[1].notes == rows[2].notes == ()


def test_a_comparison_without_wishes_is_left_alone(config):
    rows = timed_alike([load(config, name) for name in ("dbsc", "lru-high")])
    assert [row.settings.schedule.overlap for row in rows] == ["serial", "serial"]
    assert rows[0].notes == ()


def test_compare_from_python():
    results = compare(MOBILE, ["dbsc", AHEAD], set={"trace.max_tokens": 40})
    assert [result.summary["scenario"]["schedule"]["overlap"] for result in results] == ["prefetch", "prefetch"]
    notes = [[note for note in result.summary["warnings"] if "overlap" in note] for result in results]
    assert [len(own) for own in notes] == [1, 0]
    alone = simulate(MOBILE, policy="dbsc", set={"trace.max_tokens": 40, "schedule.overlap": "layer"})
    assert results[0].decode["latency_ps"] == alone.decode["latency_ps"]


def test_presets_that_read_ahead_ask_for_their_overlap():
    names = [name for name in presets() if load_preset(name).prefetch.name != "none"]
    assert len(names) >= 5
    assert all(load_preset(name).schedule["overlap"] == "prefetch" for name in names)


def test_a_wish_must_be_a_key_of_the_schedule(tmp_path, monkeypatch):
    text = presets()["dbsc"].read_text()
    for line, message in (("overlop: layer", "overlop"), ("overlap: all", "overlap")):
        file = tmp_path / "wrong.yaml"
        file.write_text(f"{text}schedule: {{{line}}}\n")
        monkeypatch.setattr("slicesim.policies.compose.presets", lambda file=file: {"wrong": file})
        with pytest.raises(UserError, match=message):
            load_preset("wrong")


def test_wishes_of_a_policy_itself_stay_in_its_row(config, monkeypatch):
    """How an expert is cut is a policy's own; what overlaps is the device's."""
    both = load_preset("dbsc").model_copy(update={"schedule": {"overlap": "layer", "pipeline": "matrix"}})
    known = load_preset
    monkeypatch.setattr("slicesim.policies.wishes.load_preset", lambda n, s: both if n == "fifo" else known(n, s))
    rows = [with_wishes(row) for row in timed_alike([load(config, "dbsc"), load(config, "fifo")])]
    found = [(row.settings.schedule.overlap, row.settings.schedule.pipeline) for row in rows]
    assert found == [("layer", "expert"), ("layer", "matrix")]
    assert [len(row.notes) for row in rows] == [1, 0]
