"""YAML of every kind, damaged: one clear line, or a scenario that runs and keeps the laws."""

from __future__ import annotations

import copy
import math
import random
from functools import partial
from pathlib import Path
from typing import Any

import yaml

from slicesim.decide import DecodeDemand
from slicesim.models import int8_bytes, load_model
from slicesim.policies.base import Strategy
from slicesim.policies.compose import KINDS, build_policy, presets
from slicesim.preparation import prepare
from slicesim.scenario import Scenario, parse_assignments
from slicesim.simulation import Simulation
from slicesim.sweeps import prepare_sweep
from slicesim.trace.synth import synthesise
from slicesim.trace.table import first_fault
from slicesim.trace.twin.profile import make_profile, write_profile
from slicesim.trace.twin.recording import read_recording
from tests.fuzz.harness import fuzz, refusal
from tests.fuzz.mutate import BOMB, VALUES, damaged_text, damaged_tree

SWEEP = """\
scenario: hw/mobile.yaml
policies: [lru-high, dbsc]
set: {seed: 1}
grid:
  device.flash.bandwidth_gbs: [1.0, 2.0]
  cache.capacity_gb: [0.00004032, 0.00006]
tie:
  device.flash.lane_bandwidth_gbs: device.flash.bandwidth_gbs
"""

#: Policies whose compiled loops other tests use too.
POLICIES = ("lru-high", "dbsc", "slicemoe")

#: What a coefficient may be off by.
FACTORS = (0, 0.001, 0.5, 0.9, 1, 1.1, 2, 3, 1000)

#: Assignments that are sound by themselves.
SOUND = (
    "cache.capacity_gb=0.00005", "cache.scope=layer", "cache.reset=request", "trace.split=0.5", "trace.max_tokens=9",
    "trace.split=all-decode", "seed=3", "policy.preset=dbsc", "schedule.overlap=layer", "schedule.read_kib=1",
    "amat.group=16", "device.flash.bandwidth_gbs=1.5", "device.npu.clock_ghz=2", "policy.eviction={name: lru}",
)  # fmt: skip

#: Keys of ``--set``, shipped and mistaken.
KEYS = (
    "cache.capacity_gb", "cache.scope", "device.flash.bandwidth_gbs", "device.dram.memory", "device.dram", "device",
    "device.npu.clock_ghz", "trace.split", "trace.max_tokens", "trace.top_k", "trace.path", "model", "policy",
    "policy.preset", "policy.eviction", "policy.eviction.name", "policy.precision.threshold", "policy.routing.name",
    "policy.constraint.target", "schedule.overlap", "schedule.read_kib", "amat.group", "amat.high_bits", "seed",
    "software", "device.interconnect", "", ".", "a..b", "cache.", ".cache", "x.y.z", "extends", "device.flash.0",
)  # fmt: skip


def _trees(folder: Path) -> list[tuple[str, Any]]:
    return [(file.name, yaml.safe_load(file.read_text())) for file in sorted((folder / "hw").glob("*.yaml"))]


def _written(path: Path, data: Any) -> Path:
    path.write_text(yaml.safe_dump(data, sort_keys=False, allow_unicode=True, width=10**6), encoding="utf-8")
    return path


def test_scenarios_with_damaged_values(folder: Path) -> None:
    trees, file = _trees(folder), folder / "hw/case.yaml"

    def check(choice: random.Random) -> str:
        _, data = choice.choice(trees)
        _written(file, damaged_tree(choice, data))
        simulation, _ = refusal(lambda: prepare(Scenario.load(file)), "hw/", "policy", "parquet", "yaml", "/dev/null")
        return "refused" if simulation is None else "sound"

    fared = fuzz("scenario_trees", check)
    assert min(fared["refused"], fared["sound"]) > 0


def test_scenarios_with_damaged_text(folder: Path) -> None:
    texts, file = [path.read_text() for path in sorted((folder / "hw").glob("*.yaml"))], folder / "hw/case.yaml"

    def check(choice: random.Random) -> str:
        file.write_bytes(damaged_text(choice, choice.choice((*texts, BOMB))))
        simulation, _ = refusal(lambda: prepare(Scenario.load(file)), "hw/", "policy", "parquet", "yaml", "/dev/null")
        return "refused" if simulation is None else "sound"

    fared = fuzz("scenario_texts", check)
    assert min(fared["refused"], fared["sound"]) > 0


def test_assignments(folder: Path) -> None:
    values = ("0.00004032", "2.5", "layer", "[1, 2]", "{value: 1, source: x}", "{name: lru}", "dbsc", "recorded", "0.5")

    def check(choice: random.Random) -> str:
        texts = []
        for _ in range(choice.choice((1, 1, 2, 3))):
            if choice.random() < 0.4:
                texts.append(choice.choice(SOUND))
                continue
            key = (
                choice.choice(KEYS) if choice.random() < 0.8 else ".".join(choice.choices(["a.b", "device", "x"], k=3))
            )
            value = str(choice.choice((*values, *VALUES)))
            if choice.random() < 0.3:
                value = damaged_text(choice, value).decode(errors="replace")
            texts.append(f"{key}{choice.choice('====: ')}{value}")
        simulation, _ = refusal(
            lambda: prepare(Scenario.load("hw/mobile.yaml", assignments=parse_assignments(texts))),
            "--set",
            "hw/mobile",
            "/dev/null",
        )
        return "refused" if simulation is None else "sound"

    fared = fuzz("assignments", check)
    assert min(fared["refused"], fared["sound"]) > 0


def test_policies(folder: Path) -> None:
    """Each preset with another strategy, or another parameter, in one place or more."""
    scenario, names = Scenario.load("hw/mobile.yaml"), sorted(presets())

    def check(choice: random.Random) -> str:
        policy: dict[str, Any] = {"preset": choice.choice(names)}
        for kind in choice.sample(sorted(KINDS), choice.choice((0, 1, 1, 2))):
            name = choice.choice(sorted(Strategy.registry[kind]))
            fields = sorted(Strategy.registry[kind][name].model_fields)
            given = choice.sample(fields, min(len(fields), choice.randrange(3)))
            policy[kind] = {"name": name, **{field: choice.choice(VALUES) for field in given}}
        logits = choice.random() < 0.5
        assignments = {"policy": policy, "trace.path": "l.parquet" if logits else "t.parquet"}
        chosen, _ = refusal(lambda: Scenario.load("hw/mobile.yaml", assignments=assignments), "--set policy")
        if chosen is None:
            return "refused"
        built, _ = refusal(lambda: build_policy(chosen, has_logits=logits), "policy", "hw/")
        return "refused" if built is None else "sound"

    assert scenario.settings.policy.preset
    fared = fuzz("policies", check)
    assert min(fared["refused"], fared["sound"]) > 0


def test_what_is_accepted_runs_and_keeps_the_laws(folder: Path) -> None:
    """Numbers changed in sound scenarios; both engines, which share no code for the clock, must agree."""
    trees = [(name, tree) for name, tree in _trees(folder) if name != "expert-parallel.yaml"]
    numbers = (*(value for value in VALUES if type(value) in (int, float)), 3e5, 7, 1e-6, 1e6)
    file = folder / "hw/case.yaml"

    for policy in POLICIES:  # compiled before the watch is set
        prepare(Scenario.load("hw/mobile.yaml", policy=policy)).run()

    def check(choice: random.Random) -> str:
        data = copy.deepcopy(choice.choice(trees)[1])
        for _ in range(choice.choice((1, 2, 3))):
            place = choice.choice(_coefficients(data))
            value = choice.choice(numbers) if choice.random() < 0.2 else place["value"] * choice.choice(FACTORS)
            place |= {"value": value, "low": None, "high": None}
        _written(file, data)
        policy = choice.choice(POLICIES)
        assignments = {"device.flash.latency_us": choice.choice((0, 200))} if choice.random() < 0.3 else {}
        results = []
        for engine in ("fast", "reference"):
            given = {**assignments, "schedule.engine": engine, "trace.max_tokens": 14}
            load = partial(Scenario.load, file, policy=policy, assignments=given)
            simulation, _ = refusal(lambda load=load: prepare(load()), "hw/", "--")
            if not isinstance(simulation, Simulation):
                return "refused"
            result, _ = refusal(simulation.run, "case.yaml", "hw/", "--", "simulated")
            if result is None:
                return "refused in the run"
            results.append(result)
        require_laws(simulation, results[0].summary)
        assert results[0].decode == results[1].decode
        assert results[0].prefill == results[1].prefill
        return "ran"

    fared = fuzz("replays", check)
    assert min(fared["ran"], fared["refused"]) > 0


def _coefficients(data: Any) -> list[dict[str, Any]]:
    """All mappings that hold a value."""
    if "value" in data:
        return [data]
    return [found for part in data.values() if isinstance(part, dict) for found in _coefficients(part)]


def require_laws(simulation: Simulation, summary: dict[str, Any]) -> None:
    capacity = round(simulation.scenario.settings.cache.capacity_gb * 1e9)
    for phase in ("prefill", "decode"):
        part = summary[phase]
        denied = part["denied"]
        for kind, kept_out in (("lsb", denied["degraded"]), ("msb", denied["dropped"] + denied["substituted"])):
            assert part["requests"][kind] == part["hits"][kind] + part["misses"][kind] + kept_out
        assert all(math.isfinite(value) and value >= 0 for value in part["energy_pj"].values())
    assert summary["decode"]["latency_ps"]["total"] > 0
    for demand, _, timeline in simulation.tables():
        if isinstance(demand, DecodeDemand):
            assert (demand.resident_bytes <= capacity).all()
        assert (timeline.op_request <= timeline.op_grant).all()


def test_models_and_parts(folder: Path) -> None:
    """A device part, or a model's geometry, damaged under a sound scenario."""
    model, workload, file = folder / "tiny-moe.yaml", folder / "hw/parts/workload.yaml", folder / "hw/oneplus-15r.yaml"
    sound = {path: path.read_text() for path in (model, workload)}

    def check(choice: random.Random) -> str:
        path = choice.choice((model, model, workload))
        if choice.random() < 0.5:
            path.write_bytes(damaged_text(choice, sound[path]))
        else:
            _written(path, damaged_tree(choice, yaml.safe_load(sound[path])))
        try:
            if path == model:
                geometry, _ = refusal(lambda: load_model(str(model)), "tiny-moe.yaml")
                if geometry is None:
                    return "refused"
                assert geometry.total_weights > 0
                assert int8_bytes(geometry.non_expert_weights) > 0
            simulation, _ = refusal(lambda: prepare(Scenario.load(file)), "hw/", "tiny-moe", "t.parquet", "policy")
            return "refused" if simulation is None else "sound"
        finally:
            path.write_text(sound[path])

    fared = fuzz("parts_and_models", check)
    assert min(fared["refused"], fared["sound"]) > 0


def test_sweep_files(folder: Path) -> None:
    file, data = folder / "s.yaml", yaml.safe_load(SWEEP)

    def check(choice: random.Random) -> str:
        if choice.random() < 0.5:
            file.write_bytes(damaged_text(choice, SWEEP))
        else:
            _written(file, damaged_tree(choice, data))
        prepared, _ = refusal(lambda: prepare_sweep(file, "o"), "s.yaml", "hw/", "policy", "t.parquet")
        return "refused" if prepared is None else "sound"

    fared = fuzz("sweeps", check)
    assert min(fared["refused"], fared["sound"]) > 0
    assert not (folder / "o").exists()


def test_profiles_of_twins(folder: Path) -> None:
    from tests.trace.twin.samples import small_trace, small_twin

    file = folder / "p.yaml"
    write_profile(file, make_profile("p", read_recording([small_trace(300, 4)]), small_twin(), "tests"))
    text = file.read_text()
    data = yaml.safe_load(text)

    def check(choice: random.Random) -> str:
        if choice.random() < 0.4:
            file.write_bytes(damaged_text(choice, text))
        else:
            _written(file, damaged_tree(choice, data))
        trace, _ = refusal(lambda: synthesise(file, tokens=6, seed=1), "p.yaml")
        if trace is None:
            return "refused"
        assert first_fault(trace.header, trace.block) is None
        return "sound"

    fared = fuzz("profiles", check)
    assert min(fared["refused"], fared["sound"]) > 0
