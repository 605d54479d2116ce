"""What a trace is called wherever it shows: synthetic and micro-model traces by their label, real ones plainly."""

import json

import pandas as pd
import pytest

from slicesim.report.figure import finish
from slicesim.report.label import kind, label_of, leading_kind
from slicesim.report.sweep import sweep_table
from slicesim.report.tables import info_table, provenance
from slicesim.report.timeline import write_timeline
from slicesim.sweeps.goals import NO_GOALS

REAL = {"path": "t.parquet", "source": "a phone", "synthetic": False}
MICRO = {**REAL, "micro_model": True}


@pytest.mark.parametrize(
    ("trace", "name", "leading"),
    [
        (REAL, "trace", "trace"),
        ({**REAL, "micro_model": False}, "trace", "trace"),
        ({**REAL, "synthetic": True}, "synthetic trace", "SYNTHETIC trace"),
        ({**REAL, "imputed_logits": True}, "imputed logits trace", "IMPUTED LOGITS trace"),
        (MICRO, "micro model trace", "MICRO MODEL trace"),
        # A twin fitted to a micro model's trace is synthetic above all.
        ({**MICRO, "synthetic": True}, "synthetic trace", "SYNTHETIC trace"),
    ],
)
def test_names(trace, name, leading):
    assert kind(trace) == name
    assert leading_kind(trace) == leading
    assert (label_of(trace) is None) == (name == "trace")


def test_tables_say_micro_model():
    assert provenance({"trace": MICRO}) == (
        "MICRO MODEL trace t.parquet: captured from a tiny model trained for slicesim"
    )
    assert info_table({**MICRO, "name": "t.parquet"}).title == "MICRO MODEL trace t.parquet"


def test_timeline_says_micro_model(tmp_path):
    write_timeline([], MICRO, tmp_path / "t.json")
    content = json.loads((tmp_path / "t.json").read_text())
    assert content["otherData"] == {
        "trace": "t.parquet",
        "synthetic": False,
        "micro_model": True,
        "imputed_logits": False,
    }
    assert content["traceEvents"][0]["args"]["name"] == "slicesim (micro model trace)"


def test_figures_bear_a_stamp(tmp_path):
    plt = pytest.importorskip("matplotlib.pyplot")
    for trace, stamps in ((MICRO, ["MICRO MODEL TRACE"]), (REAL, [])):
        figure = plt.figure()
        finish(figure, "heading", trace, tmp_path / "figure.png")
        assert [text.get_text() for text in figure.texts if text is not figure._suptitle] == stamps
        assert figure.get_suptitle() == f"heading\n{kind(trace)}: t.parquet"


def test_sweeps_say_what_their_traces_are():
    class Outcome:
        """As much of a sweep as the table reads: two points without figures."""

        keys = ()
        goals = NO_GOALS
        figures = dict.fromkeys(
            ("decode.tokens_per_s", "decode.latency_ps.mean", "decode.energy_pj_per_token.total",
             "decode.miss_rate.slices", "decode.quality.expected_rel_mse"),
        )  # fmt: skip

        def __init__(self, synthetic, micro_model):
            rows = {
                "policy": "a",
                **self.figures,
                "synthetic": synthetic,
                "micro_model": micro_model,
                "imputed_logits": False,
            }
            self.frame = pd.DataFrame(rows, index=range(len(synthetic)))

    assert sweep_table(Outcome([False], [False])).caption is None
    assert sweep_table(Outcome([True, False], [False, True])).caption == (
        "SYNTHETIC traces: no model was run\nMICRO MODEL traces: captured from a tiny model trained for slicesim"
    )
