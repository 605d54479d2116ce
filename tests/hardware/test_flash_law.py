"""The flash law by hand, against two measured devices, and monotone in every coefficient."""

from __future__ import annotations

import importlib.util
import sys
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from types import ModuleType

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from slicesim.hardware.closed_loop import read_ends_ps, throughput_bytes_per_s
from slicesim.hardware.flash import FlashTier
from slicesim.hardware.flash_law import FlashLaw
from slicesim.hardware.thermal import PARTS, Thermal
from slicesim.scenario.schema import Flash
from slicesim.validation.reference import reference_rows, relative_error

ROOT = Path(__file__).parents[2]
US = 10**6
LAW = FlashLaw(
    latency_ps=100 * US, lane_bytes_per_s=10**9, ceiling_bytes_per_s=2 * 10**9, gap_ps=40 * US, lanes=2, queue_depth=8
)


def _fit_flash() -> ModuleType:
    spec = importlib.util.spec_from_file_location("fit_flash", ROOT / "experiments" / "fit_flash.py")
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules["fit_flash"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


fit_flash = _fit_flash()


def _part(name: str) -> FlashTier:
    text = (ROOT / "hwconfigs" / "parts" / f"{name}.yaml").read_text(encoding="utf-8")
    return FlashTier(Flash.model_validate(yaml.safe_load(text)))


def test_two_lanes_by_hand() -> None:
    """Three reads of 200 KB on two lanes. Turn 40 / 2 = 20 us, bytes 100 us on the pipe and 200 us on a lane.

    Reads 0 and 1 start at 0 and ask for the pipe at 80. Read 0 holds it to 80 + 20 + 100 = 200; its lane needs
    80 + 20 + 200 = 300: it ends at 300. Read 1 holds the pipe from 200 to 320 and ends then. Read 2 takes lane 0 at
    300, asks at 380, has the pipe from 380 to 500, and its lane until 300 + 300 = 600.
    """
    assert (LAW.turn_ps, LAW.wait_ps) == (20 * US, 80 * US)
    assert (LAW.pipe_ps(200_000), LAW.lane_ps(200_000)) == (120 * US, 220 * US)
    assert read_ends_ps(LAW, [200_000] * 3) == [300 * US, 320 * US, 600 * US]


def test_a_lone_read_takes_the_latency_and_its_bytes_whatever_the_lanes() -> None:
    for lanes in (1, 2, 4, 32):
        assert read_ends_ps(replace(LAW, lanes=lanes, queue_depth=None), [200_000]) == [300 * US]


def test_the_queue_bounds_what_is_in_flight() -> None:
    """Eight lanes behind a queue of two commands are two lanes; four such queues let all eight through."""
    narrow = replace(LAW, lanes=8, queue_depth=2)
    assert narrow.in_flight == 2
    assert read_ends_ps(narrow, [200_000] * 9) == read_ends_ps(LAW, [200_000] * 9)
    assert replace(narrow, queues=4).in_flight == 8


def test_the_gap_never_exceeds_the_latency_it_hides_in() -> None:
    law = replace(LAW, latency_ps=5 * US)
    assert (law.turn_ps, law.wait_ps) == (5 * US - 1, 1)
    assert replace(LAW, latency_ps=1).turn_ps == 0


def test_warming_up_by_hand() -> None:
    """Half as fast when hot, tau 1 s: after ln 2 s of service half of the loss has come, so 0.75 of the rate."""
    thermal = Thermal(hot_share=0.5, time_constant_s=1.0)
    assert thermal.share_parts(0) == PARTS
    assert thermal.share_parts(693_147_180_560) == pytest.approx(0.75 * PARTS, abs=1)
    assert thermal.share_parts(10**15) == pytest.approx(0.5 * PARTS, abs=1)


def test_a_series_on_a_warming_device() -> None:
    """Each read's pipe time comes from the busy time before it, and adds to it; in pieces as in one go."""
    law = replace(LAW, thermal=Thermal(0.5, 1e-3))
    times, busy = law.pipe_series_ps([10**6] * 20)
    assert times[0] == law.pipe_ps(10**6)
    assert times == sorted(times)
    assert times[-1] == pytest.approx(2 * times[0], rel=0.05)
    assert busy == sum(times)
    first, middle = law.pipe_series_ps([10**6] * 7)
    second, end = law.pipe_series_ps([10**6] * 13, middle)
    assert (first + second, end) == (times, busy)


def test_ufs_table_within_its_errors() -> None:
    errors = [abs(fit_flash.FITTED.error(read)) for read in fit_flash.table()]
    assert len(errors) == 24
    assert sum(errors) / len(errors) < 0.04
    assert max(errors) < 0.105


def test_ufs_rows_that_no_fit_has_seen() -> None:
    assert all(abs(fit_flash.FITTED.error(read)) < 0.09 for read in fit_flash.table(["held-out"]))


def test_the_fit_is_where_the_search_ends() -> None:
    """One step from the result in any direction is no better."""
    reads = fit_flash.table()
    best = fit_flash.loss(fit_flash.FITTED, reads)
    for name, value in vars(fit_flash.FITTED).items():
        for factor in (0.97, 1.03):
            assert fit_flash.loss(replace(fit_flash.FITTED, **{name: value * factor}), reads) > best


def test_the_part_in_hwconfigs_is_the_fit() -> None:
    law, fitted = _part("flash-ufs4-oneplus15r").law, fit_flash.FITTED
    assert (law.latency_ps, law.gap_ps) == (fitted.latency_us * US, fitted.gap_us * US)
    assert law.lane_bytes_per_s == fitted.lane_gbs * 1e9
    assert law.ceiling_bytes_per_s == fitted.by_size_gbs * 1e9
    assert law.pipe_ps(10**6, 10**16) == pytest.approx(law.turn_ps + 1e6 / (0.67 * 2.453e9) * 1e12, rel=1e-3)


@pytest.mark.parametrize("row", reference_rows("nvme_reads"), ids=lambda row: f"{row['read_kib']}KiB")
def test_nvme_table(row: dict[str, str]) -> None:
    law = replace(_part("flash-nvme-pcie4").law, lanes=int(row["in_flight"]))
    measured = float(row["gb_per_s"]) * 1e9
    assert abs(relative_error(throughput_bytes_per_s(law, int(row["read_kib"]) * 1024), measured)) < 0.01


def test_unseen_sizes_and_lane_counts_are_plausible() -> None:
    """More bytes a read and more lanes never lower the throughput, from 16 KiB to 16 MiB and 1 to 32 lanes."""
    base = _part("flash-ufs4-oneplus15r").law
    rates = {
        (lanes, kib): throughput_bytes_per_s(replace(base, lanes=lanes), kib * 1024)
        for lanes in (1, 2, 3, 4, 6, 8, 16, 32)
        for kib in (16, 64, 128, 256, 512, 1024, 4096, 16384)
    }
    lanes, sizes = sorted({n for n, _ in rates}), sorted({s for _, s in rates})
    for n in lanes:
        assert all(rates[n, a] <= rates[n, b] * (1 + 1e-9) for a, b in pairwise(sizes))
    for size in sizes:
        assert all(rates[a, size] <= rates[b, size] * (1 + 1e-9) for a, b in pairwise(lanes))
    assert max(rates.values()) < base.ceiling_bytes_per_s


BETTER = {
    "latency_ps": -1,
    "gap_ps": -1,
    "lane_bytes_per_s": 1,
    "ceiling_bytes_per_s": 1,
    "lanes": 1,
    "queue_depth": 1,
    "queues": 1,
}


@settings(max_examples=1000, deadline=None)
@given(
    st.builds(
        FlashLaw,
        latency_ps=st.integers(1, 300 * US),
        lane_bytes_per_s=st.integers(10**8, 4 * 10**9),
        ceiling_bytes_per_s=st.integers(10**8, 8 * 10**9),
        gap_ps=st.integers(0, 300 * US),
        lanes=st.integers(1, 12),
        queue_depth=st.integers(1, 12),
        queues=st.integers(1, 3),
    ),
    st.sampled_from(sorted(BETTER)),
    st.integers(1, 10**8),
    st.lists(st.integers(1, 1 << 23), min_size=1, max_size=25),
)
def test_monotone_in_every_coefficient(law: FlashLaw, name: str, step: int, sizes: list[int]) -> None:
    """A better coefficient never ends a batch later, whatever its sizes; rounding up may cost 2 ps a read."""
    step = step if name.endswith(("_ps", "_s")) else 1 + step % 8
    better = replace(law, **{name: max(0 if name == "gap_ps" else 1, getattr(law, name) + BETTER[name] * step)})
    assert max(read_ends_ps(better, sizes)) <= max(read_ends_ps(law, sizes)) + 2 * len(sizes)


@given(st.floats(0.05, 1), st.floats(0.05, 1), st.floats(0.1, 1e4), st.integers(0, 10**17), st.integers(0, 10**17))
def test_thermal_is_monotone(hot: float, hotter: float, tau: float, busy: int, more: int) -> None:
    low, high = sorted((hot, hotter))
    assert Thermal(low, tau).share_parts(busy) <= Thermal(high, tau).share_parts(busy) + 1
    assert Thermal(low, tau).share_parts(busy + more) <= Thermal(low, tau).share_parts(busy) + 1
    assert Thermal(low, tau).share_parts(busy) <= Thermal(low, 2 * tau).share_parts(busy) + 1
