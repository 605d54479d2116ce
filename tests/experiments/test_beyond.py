"""The figures beyond the paper: their formulas by hand, their scripts on a few tokens, and the law behind them."""

from __future__ import annotations

import sys
from collections import OrderedDict
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from slicesim.decide import SliceSizes
from slicesim.models import load_model
from tests.kit import ROOT, make_trace, simulation

sys.path.insert(0, str(ROOT / "experiments" / "figures"))

import beyond_bandwidth
import beyond_critical
import beyond_devices
import beyond_equal_error
import replays

TIME, ENERGY = beyond_bandwidth.maps(quick=True)
Load = beyond_bandwidth.Load


def test_the_roofline_by_hand():
    """100 MB of flash and 1000 of DRAM against 50 and 800: at 1 and 10 GB/s 200 ms against 130.

    Flash of 20 GB/s writes at DRAM's 10: 110 against 85. By energy, at 100 and 2 pJ/bit: 12000 against 6600.
    """
    whole, slices = Load(100, 1000, 0), Load(50, 800, 0)
    assert beyond_bandwidth.roofline(whole, slices, TIME, 1, 10) == pytest.approx(200 / 130)
    assert beyond_bandwidth.roofline(whole, slices, TIME, 20, 10) == pytest.approx(110 / 85)
    assert beyond_bandwidth.roofline(whole, slices, ENERGY, 100, 2) == pytest.approx(12000 / 6600)


def test_where_a_gain_is_reached():
    """100 r + 1000 = 1.5 (50 r + 800) at r = 8; 3 lies above the limit of 2, 1.2 below that of 1.25."""
    whole, slices = Load(100, 1000, 0), Load(50, 800, 0)
    assert beyond_bandwidth.ratio_at(whole, slices, 1.5) == pytest.approx(8)
    assert beyond_bandwidth.roofline(whole, slices, ENERGY, 8, 1) == pytest.approx(1.5)
    assert beyond_bandwidth.ratio_at(whole, slices, 3) is None
    assert beyond_bandwidth.ratio_at(whole, slices, 1.2) is None


def test_the_papers_crossovers():
    """Its phone: flash takes as long as DRAM at 10 / 104 of misses, and as much energy at 1.5 / 103."""
    paper = replays.DEVICES[0]
    flash, dram = beyond_bandwidth.place(paper, TIME)
    assert flash / dram == pytest.approx(10 / 104)
    flash, dram = beyond_bandwidth.place(paper, ENERGY)
    assert dram / flash == pytest.approx(1.5 / 103)


def test_break_even_and_plain_cost():
    assert beyond_critical.break_even([1.0, 0.0, 0.5], [0.5, 2.0, 1.5]) == pytest.approx(0.75)
    assert beyond_critical.break_even([0.0, 1.0], [2.0, 1.1]) is None
    plain = pd.DataFrame({"rel_mse": [0.01, 0.0001], "energy_mj": [100.0, 400.0]})
    assert beyond_equal_error.plain_cost(plain, "rel_mse", 0.001) == pytest.approx(200)
    assert np.isnan(beyond_equal_error.plain_cost(plain, "rel_mse", 0.1))


def test_caches_of_the_devices():
    """Half of 16 GB less 1.34 of weights and KV; where all fit, all: 1664 experts of 9,461,760 bytes; and a quarter."""
    flagship, orin = replays.DEVICES[2], replays.DEVICES[6]
    model = "deepseek-v2-lite"
    free = 8 - replays.resident_gb(model, 620)
    assert beyond_devices.cache_gb(flagship, model, beyond_devices.RULES[0], 620) == pytest.approx(free, abs=0.006)
    assert 6.6 < free < 6.7
    assert beyond_devices.cache_gb(orin, model, beyond_devices.RULES[0], 620) == 15.74
    assert beyond_devices.cache_gb(orin, model, beyond_devices.RULES[1], 620) == 3.94


EXPERTS, TOKENS, SLICE = 32, 4000, 3072


def test_slicing_gains_nothing_where_all_is_critical(tmp_path: Path):
    """Equal slices, uniform routing, all experts critical, and a cache of all MSB slices: half of the whole experts.

    Then a whole expert hits half of the time and a miss reads two slices, while of the slices every LSB is read: the
    same bytes but for chance, the first touches, and the one LSB that fits beside the MSB slices. Both counts are also
    worked out from the routing alone.
    """
    text = (ROOT / "tests" / "data" / "one-layer.yaml").read_text(encoding="utf-8")
    path = tmp_path / "uniform.yaml"
    path.write_text(text.replace("experts: 4", f"experts: {EXPERTS}").replace("top_k: 2", "top_k: 1"), encoding="utf-8")
    ids = np.random.default_rng(5).integers(0, EXPERTS, TOKENS)
    trace = make_trace(ids.reshape(-1, 1, 1), np.ones((TOKENS, 1, 1)), model=load_model(str(path)))
    read = {}
    for policy, sizes in (("lru-high", (2 * SLICE, 0, 8, 0)), ("dbsc", (SLICE, SLICE, 4, 4))):
        own = simulation(trace, str(path.with_suffix("")), policy, cache__capacity_gb=(EXPERTS + 1) * SLICE / 1e9)
        msb, lsb, high, low = sizes
        equal = SliceSizes(np.array([msb]), np.array([lsb]), high, low)
        read[policy] = replace(own, sizes=equal).run().decode["bytes"]["flash_read"]
    assert read["lru-high"] == 2 * SLICE * _lru_misses(ids, EXPERTS // 2)
    assert read["dbsc"] == SLICE * _dbsc_misses(ids, EXPERTS + 1)
    assert read["dbsc"] / read["lru-high"] == pytest.approx(1, abs=0.05)


def _lru_misses(ids: np.ndarray, most: int) -> int:
    """An LRU of its own: what it holds, oldest first."""
    held: OrderedDict[int, None] = OrderedDict()
    misses = 0
    for expert in ids.tolist():
        misses += expert not in held
        held[expert] = None
        held.move_to_end(expert)
        if len(held) > most:
            held.popitem(last=False)
    return misses


def _dbsc_misses(ids: np.ndarray, most: int) -> int:
    """MSB slices stay; LSB slices have what room they leave, the oldest goes."""
    msb: set[int] = set()
    lsb: OrderedDict[int, None] = OrderedDict()
    misses = 0
    for expert in ids.tolist():
        misses += (expert not in msb) + (expert not in lsb)
        msb.add(expert)
        lsb[expert] = None
        lsb.move_to_end(expert)
        while len(msb) + len(lsb) > most:
            lsb.popitem(last=False)
    return misses
