"""The miss rates at which flash costs as much as DRAM reads on the paper's phone (slicemoe.md 1.9)."""

from __future__ import annotations

import pytest

from slicesim.trace import load_trace
from tests.kit import MOBILE, ROOT


@pytest.fixture(scope="module")
def decode():
    """Real size: the synthetic trace on DeepSeek-V2-Lite, whole experts."""
    import slicesim

    trace = ROOT / "traces" / "deepseek-v2-lite-twin.parquet"
    assert load_trace(trace).header.synthetic
    result = slicesim.simulate(MOBILE, policy="lru-high", trace=trace, set={"trace.max_tokens": 230})
    rows = result.tokens
    return rows[rows["phase"] == "decode"].sum(numeric_only=True)


def test_in_time(decode):
    """1.25 / 13 = 9.6 %: at this share of misses the flash pipe is busy as long as the DRAM pipe with expert reads."""
    flash_ps_per_byte = decode["flash_busy_ps"] / decode["flash_read_bytes"]
    dram_ps = decode["dram_busy_ps"] - decode["fill_bytes"] / 13e9 * 1e12
    moved = sum(decode[f"{c}_dram_{w}_bytes"] for c in ("expert", "non_expert") for w in ("read", "write"))
    assert (dram_ps / moved) / flash_ps_per_byte == pytest.approx(0.096, abs=0.0005)


def test_in_energy(decode):
    """1.5 / 103 = 1.46 %."""
    flash_pj_per_byte = decode["flash_energy_pj"] / decode["flash_read_bytes"]
    moved = sum(decode[f"{c}_dram_{w}_bytes"] for c in ("expert", "non_expert") for w in ("read", "write"))
    dram_pj_per_byte = decode["dram_energy_pj"] / (moved + decode["fill_bytes"])
    assert dram_pj_per_byte / flash_pj_per_byte == pytest.approx(0.0146, abs=0.00005)
