"""Several devices: exchanges by hand, and what must hold for any number of them.

The model and the device are those of ``test_by_hand``: an expert at 8 bits streams 6,720,000 ps, the head 8,320,000 ps,
attention and router 12,868,000 ps for the first token and 64,000 ps more for each one after it. A token's hidden state
is 64 x 2 B = 128 B. Two devices with links of 1 GB/s, 1 us and 10 pJ/bit: 128 B take 1,128,000 ps. Experts 0 and 2 are
on device 0, 1 and 3 on device 1; tokens 0, 1, 2 are on devices 0, 1, 0.
"""

from __future__ import annotations

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.devices import linked
from tests.kit import make_trace, random_trace, run, simulation, tiny_model
from tests.parity.test_engines import assert_equal
from tests.schedule.test_by_hand import ATTENTION, DEVICE, HEAD, MODEL

EXPERT = 6_720_000
EXCHANGE = 1_128_000
ROUTES = [[[0, 1]], [[0, 2]], [[2, 0]]]
VISITS = ["device_visits", "remote_visits"]


def tokens(prompt=0, routes=ROUTES, **more):
    trace = make_trace(routes, [[[0.5, 0.2]]] * len(routes), prompt=prompt, model=tiny_model(MODEL))
    return run(trace, MODEL, "expert-parallel", **{**DEVICE, **linked(), **more}).tokens


@pytest.mark.parametrize("overlap", ["serial", "layer", "prefetch"])
def test_decode(overlap):
    """Token 0: one expert at home, one away at the same time (1 ps). Token 1: both away, on one device, one after the
    other. Token 2: both at home, nothing is exchanged."""
    rows = tokens(schedule__overlap=overlap)
    assert rows["latency_ps"].tolist() == [
        ATTENTION + EXCHANGE + EXPERT + 1 + EXCHANGE + HEAD,
        ATTENTION + 64_000 + EXCHANGE + 2 * EXPERT + EXCHANGE + HEAD,
        ATTENTION + 128_000 + 2 * EXPERT + HEAD,
    ]
    assert rows["exchange_ps"].tolist() == [2 * EXCHANGE, 2 * EXCHANGE, 0]
    assert rows["all_to_all_bytes"].tolist() == [256, 256, 0]
    assert rows["interconnect_energy_pj"].tolist() == [256 * 80.0, 256 * 80.0, 0.0]
    assert rows[VISITS].values.tolist() == [[2, 1], [1, 1], [1, 0]]
    assert rows["expert_dram_read_bytes"].tolist() == [2 * 6720] * 3


def test_prompt():
    """Token 0 goes from 0 to 1, token 1 from 1 to 0, token 2 (experts 1 and 3) from 0 to 1: three states each way, two
    of them over the link of device 0, out and then back in: 2 x (1,000,000 + 256,000) ps."""
    row = tokens(prompt=3, routes=[*ROUTES[:2], [[1, 3]], [[0, 2]]]).iloc[0]
    assert (row.prompt_tokens, row.all_to_all_bytes, row.exchange_ps) == (3, 6 * 128, 2 * 1_256_000)
    assert row[VISITS].tolist() == [4, 3]


@pytest.mark.parametrize("placement", ["none", "round-robin", "speculative"])
def test_one_device_is_as_without_an_interconnect(placement):
    trace = random_trace(4, 12, requests=2, prompt=5)
    plain = run(trace, policy="all-in-dram").tokens
    alone = run(trace, policy="all-in-dram", policy__placement__name=placement, **linked(devices=1)).tokens
    assert alone["all_to_all_bytes"].sum() == alone["remote_visits"].sum() == 0
    pd.testing.assert_frame_equal(plain.drop(columns=VISITS), alone.drop(columns=VISITS), check_exact=True)


def test_all_on_one_of_several_devices():
    """The time of one device; the others stand by, which costs their background power."""
    trace = random_trace(4, 12, prompt=5)
    power = {"device__flash__background_power_mw": 7.0}
    plain = run(trace, policy="all-in-dram", **power).tokens
    idle = run(trace, policy="all-in-dram", **power, **linked(devices=3)).tokens
    assert idle["latency_ps"].equals(plain["latency_ps"])
    assert idle["all_to_all_bytes"].sum() == 0
    assert idle["background_energy_pj"].sum() == pytest.approx(3 * plain["background_energy_pj"].sum())


@given(
    seed=st.integers(0, 50),
    devices=st.integers(1, 9),
    policy=st.sampled_from(("expert-parallel", "speculative-moe")),
    overlap=st.sampled_from(("serial", "layer", "prefetch")),
    pipeline=st.sampled_from(("expert", "matrix")),
    prompt=st.integers(0, 6),
)
@settings(max_examples=40, deadline=None)
def test_laws(seed, devices, policy, overlap, pipeline, prompt):
    trace = random_trace(seed, prompt + 8, requests=2, prompt=prompt)
    keys = {"schedule__overlap": overlap, "schedule__pipeline": pipeline, **linked(devices)}
    fast, reference = (
        simulation(trace, policy=policy, schedule__engine=name, **keys) for name in ("fast", "reference")
    )
    assert_equal(fast, reference)
    result = fast.run()
    rows = result.tokens
    one = run(trace, policy="all-in-dram", **{**keys, **linked(1)}).tokens
    for name in ("expert_dram_read_bytes", "expert_mac_eighths", "non_expert_dram_read_bytes", "npu_energy_pj"):
        assert rows[name].tolist() == one[name].tolist()
    assert (rows["all_to_all_bytes"] == 2 * 128 * rows["remote_visits"]).all()
    assert (rows["remote_visits"] <= rows["device_visits"]).all()
    for part in (result.prefill, result.decode):
        energy = part["energy_pj"]
        tiers = ("flash", "dram", "sram", "npu", "interconnect", "background")
        assert energy["total"] == pytest.approx(sum(energy[tier] for tier in tiers), rel=1e-12)
        assert energy["interconnect"] == pytest.approx(part["bytes"]["all_to_all"] * 80)
        assert sum(part["time_ps"].values()) == part["latency_ps"]["total"]
    # A MoE layer whose token leaves home has two exchanges, of 1 us and what a link needs at 1 GB/s.
    decode = rows[rows["phase"] == "decode"]
    assert (decode["exchange_ps"] >= 1000 * decode["all_to_all_bytes"]).all()


def test_tables_of_any_size(monkeypatch):
    """What a token's home follows from goes on from table to table."""
    import sys

    rows = []
    for at_once in (1, 3, 256):
        monkeypatch.setattr(sys.modules["slicesim.decide.decide"], "TOKENS_PER_TABLE", at_once)
        rows.append(run(random_trace(3, 14, prompt=4), policy="speculative-moe", **linked()).tokens)
    assert rows[0].equals(rows[1])
    assert rows[0].equals(rows[2])


def test_timeline_shows_exchanges():
    trace = make_trace(ROUTES, [[[0.5, 0.2]]] * 3, model=tiny_model(MODEL))
    events = run(trace, MODEL, "expert-parallel", **{**DEVICE, **linked()}).events()
    assert events[events["track"] == "interconnect"]["duration_ps"].tolist() == [EXCHANGE] * 4
