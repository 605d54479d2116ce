"""Expert parallelism from the command line: what runs where, and mistakes in one line."""

from __future__ import annotations

import json

import pytest

from slicesim.policies import presets
from tests.cli.test_mistakes import refused

LINKS = {
    key: {"value": value, "source": "test"}
    for key, value in {"devices": 2, "bandwidth_gbs": 1.0, "latency_us": 1.0, "energy_pj_per_bit": 10.0}.items()
}
LINKED = ("--set", f"device.interconnect={json.dumps(LINKS)}")


@pytest.mark.parametrize("policy", ["expert-parallel", "speculative-moe"])
def test_needs_an_interconnect(slicesim, here, policy):
    output = slicesim("run", "c.yaml", "--policy", policy)
    refused(output, "policy.placement.name: ", "shares experts among devices: it needs device.interconnect")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--policy", "lru-high"), "all experts are resident, but lru evicts: use expert-parallel"),
        (("--policy", "all-in-dram", "--set", "policy.routing.name=skip"), "use routing stock"),
        (
            ("--policy", "expert-parallel", "--set", "device.dram.capacity_gb=1e-5"),
            "one device's experts, non-expert weights and KV cache need",
        ),
        (("--policy", "speculative-moe", "--set", "policy.placement.calibration_tokens=0"), "placement"),
        (("--policy", "speculative-moe", "--set", "device.interconnect.bandwidth_gbs=0"), "bandwidth_gbs"),
        (("--policy", "speculative-moe", "--set", "device.interconnect.links=2"), "unknown key"),
    ],
)
def test_mistakes(slicesim, here, words, message):
    refused(slicesim("run", "c.yaml", *LINKED, *words), message)


def test_compare_all(slicesim, here):
    """Of the presets, those run whose experts are all resident; the others are left out with the reason."""
    output = slicesim("compare", "c.yaml", "--policies", "all", *LINKED, "--out", "o")
    assert output.code == 0, output.err
    summary = json.loads((here / "o" / "summary.json").read_text())
    ran = {row["policy"] for row in summary["decode"]}
    assert ran == {"all-in-dram", "expert-parallel", "speculative-moe"}
    left_out = {row["policy"]: row["reason"] for row in summary["left_out"]}
    assert set(left_out) == set(presets()) - ran
    assert "with device.interconnect all experts are resident" in left_out["lru-high"]


def test_devices_counts_them(slicesim):
    listed = {device["config"]: device for device in json.loads(slicesim("devices", "--json").out)}
    assert (listed["expert-parallel"]["devices"], listed["mobile"]["devices"]) == (4, 1)
    assert listed["expert-parallel"]["name"] == "4 x Jetson AGX Orin"
