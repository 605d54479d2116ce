"""SRAM, systolic arrays and bit slices by hand, against CACTI and SCALE-Sim, and monotone."""

from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from slicesim.hardware.bit_slices import (
    brick_share,
    bricks,
    mac_energy_pj,
    proportional_share,
    with_dequantisation_ps,
)
from slicesim.hardware.sram_law import (
    NODE_OVER_22NM,
    largest_tile_bytes,
    leakage_mw,
    read_pj_per_byte,
    write_pj_per_byte,
)
from slicesim.hardware.systolic import SystolicArray
from slicesim.validation.reference import reference_rows, relative_error

FLOWS = {"ws": "weight-stationary", "os": "output-stationary"}


def test_weight_stationary_by_hand() -> None:
    """1 x 8 x 8 on a 4 x 4 array: 2 x 2 folds, each 4 to load, 1 to stream, 6 to drain: 44 cycles of 64 / 16 = 4."""
    array = SystolicArray(4, 4, "weight-stationary")
    assert array.folds(1, 8, 8) == 4
    assert array.cycles(1, 8, 8) == 4 * (4 + 1 + 6)
    assert array.utilisation(1, 8, 8) == pytest.approx(64 / (44 * 16))


def test_output_stationary_by_hand() -> None:
    """1 x 8 x 8 on a 4 x 4 array: 1 x 2 folds, each 8 to stream, 6 to cross, 4 to shift out: 36 cycles."""
    assert SystolicArray(4, 4, "output-stationary").cycles(1, 8, 8) == 2 * (8 + 6 + 4)


@pytest.mark.parametrize("row", reference_rows("gemm_cycles"), ids=lambda r: "-".join(r.values()))
def test_cycles_of_scale_sim(row: dict[str, str]) -> None:
    array = SystolicArray(int(row["rows"]), int(row["columns"]), FLOWS[row["dataflow"]])  # type: ignore[arg-type]
    cycles = array.cycles(int(row["m"]), int(row["n"]), int(row["k"]))
    assert abs(relative_error(cycles, float(row["cycles"]))) < 0.07


@given(
    st.sampled_from(list(FLOWS.values())),
    st.integers(1, 256),
    st.integers(1, 256),
    st.integers(1, 5000),
    st.integers(1, 5000),
    st.integers(1, 5000),
)
def test_more_work_never_takes_fewer_cycles(flow: str, rows: int, columns: int, m: int, n: int, k: int) -> None:
    array = SystolicArray(rows, columns, flow)  # type: ignore[arg-type]
    cycles = array.cycles(m, n, k)
    assert min(array.cycles(m + 1, n, k), array.cycles(m, n + 1, k), array.cycles(m, n, k + 1)) >= cycles
    assert 0 < array.utilisation(m, n, k) <= 1


def test_prompts_fill_an_array_that_a_token_leaves_empty() -> None:
    """A row of tokens through loaded weights: utilisation grows with M towards 1."""
    array = SystolicArray(64, 128, "weight-stationary")
    use = [array.utilisation(m, 1408, 2048) for m in (1, 16, 128, 1024, 16384)]
    assert use == sorted(use)
    assert use[0] < 0.005
    assert use[-1] > 0.98


def test_bricks_by_hand() -> None:
    """8 x 8 is 4 x 4 = 16 bricks, 8 x 4 is 8, 8 x 3 is 8 as well, 8 x 2 is 4; 6 bits in slices 3 + 3 cost 16."""
    assert [bricks(8, bits) for bits in (8, 4, 3, 2)] == [16, 8, 8, 4]
    assert brick_share(8, 4) == Fraction(1, 2)
    assert brick_share(8, 3, 3) == 1
    assert brick_share(8, 4, 4) == 1
    assert (proportional_share(4), proportional_share(3, 3)) == (Fraction(1, 2), Fraction(3, 4))


def test_energy_of_a_sliced_product_by_hand() -> None:
    """7 nm: 16 bricks of 0.013 pJ = 0.208; as two slices 0.104 + 0.104 + 0.03 for the merge."""
    assert mac_energy_pj(0.013, 8, 8) == pytest.approx(0.208)
    assert mac_energy_pj(0.013, 8, 4, 4, merge_pj=0.03) == pytest.approx(0.238)


@given(st.integers(1, 10**13), st.floats(0, 1), st.floats(0, 1))
def test_dequantisation_adds_its_share(compute: int, share: float, other: float) -> None:
    low, high = sorted((share, other))
    assert compute == with_dequantisation_ps(compute, 0) <= with_dequantisation_ps(compute, low)
    assert with_dequantisation_ps(compute, low) <= with_dequantisation_ps(compute, high)
    assert with_dequantisation_ps(1000, 0.12) == 1120


@pytest.mark.parametrize("row", reference_rows("sram_energy"), ids=lambda r: f"{r['capacity_kib']}KiB")
def test_sram_energy_of_cacti(row: dict[str, str]) -> None:
    """Within 12 % from 64 KiB; below that the square-root law is too high, and says so."""
    kib = float(row["capacity_kib"])
    errors = [
        relative_error(read_pj_per_byte(kib, 45), float(row["read_45nm_pj_per_byte"])),
        relative_error(read_pj_per_byte(kib, 22), float(row["read_22nm_pj_per_byte"])),
        relative_error(write_pj_per_byte(kib, 22), float(row["write_22nm_pj_per_byte"])),
    ]
    assert max(map(abs, errors)) < (0.12 if kib >= 64 else 0.7)


def test_sram_of_a_phone_by_hand() -> None:
    """8 MiB at 7 nm: 0.041 x sqrt(8192) x 0.45 = 1.67 pJ/B (hardware.md 0: 1 to 4); 5 uW/KiB leak 41 mW."""
    assert read_pj_per_byte(8192, 7) == pytest.approx(1.67, abs=0.01)
    assert leakage_mw(8192, "mobile") == pytest.approx(40.96)


def test_what_fits_twice() -> None:
    """64 KiB with 4 KiB of activations leave 60: two tiles of 30 KiB."""
    assert largest_tile_bytes(64, 4096) == 30 * 1024
    assert largest_tile_bytes(4, 8192) == 0


@given(st.floats(1, 1e5), st.floats(1, 1e5), st.sampled_from(list(NODE_OVER_22NM)))
def test_larger_memories_cost_more(kib: float, other: float, node: int) -> None:
    low, high = sorted((kib, other))
    assert read_pj_per_byte(low, node) <= read_pj_per_byte(high, node)
    assert write_pj_per_byte(low, node) <= read_pj_per_byte(high, node)
    assert leakage_mw(low, "lop") <= leakage_mw(high, "lop")
