"""The schema, and the JSON Schema that editors get."""

from __future__ import annotations

import copy
from importlib import resources

import jsonschema
import pytest
import yaml

from slicesim.errors import UserError
from slicesim.scenario import Scenario
from slicesim.scenario.schema import Coefficient, Settings, scenario_schema
from tests.kit import MOBILE, ROOT


@pytest.fixture(scope="module")
def mobile():
    return yaml.safe_load(MOBILE.read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def check():
    schema = scenario_schema()
    jsonschema.Draft202012Validator.check_schema(schema)
    return jsonschema.Draft202012Validator(schema)


def coefficients(node, path=()):
    """All coefficients below a settings section, with their key paths."""
    for name in type(node).model_fields:
        value = getattr(node, name)
        if isinstance(value, Coefficient):
            yield (*path, name), value
        elif hasattr(type(value), "model_fields"):
            yield from coefficients(value, (*path, name))


def test_json_schema_accepts_the_shipped_scenario(check, mobile):
    check.validate(mobile)


@pytest.mark.parametrize("path", sorted((ROOT / "hwconfigs").glob("*.yaml")), ids=lambda path: path.name)
def test_shipped_scenarios_load(check, path):
    check.validate(Scenario.load(path).document.data)


@pytest.mark.parametrize(
    ("section", "key", "value"),
    [
        ((), "modle", "x"),
        (("device", "dram"), "bandwidth_mbs", {"value": 1, "source": "x"}),
        (("device", "dram"), "bandwidth_gbs", "13 GB/s"),
        (("device", "dram"), "bandwidth_gbs", {"value": 13}),
        (("cache",), "capacity_gb", -1),
        (("cache",), "scope", "expert"),
        (("schedule",), "overlap", "full"),
        (("trace",), "max_tokens", 0),
    ],
)
def test_json_schema_refuses_what_slicesim_refuses(check, mobile, tmp_path, section, key, value):
    wrong = copy.deepcopy(mobile)
    node = wrong
    for part in section:
        node = node[part]
    node[key] = value
    assert not check.is_valid(wrong)
    path = tmp_path / "wrong.yaml"
    path.write_text(yaml.safe_dump(wrong), encoding="utf-8")
    with pytest.raises(UserError, match=key):
        Scenario.load(path)


def test_json_schema_knows_extends(check, mobile):
    check.validate({**mobile, "extends": "other.yaml"})


def test_every_coefficient_has_a_source_and_its_unit():
    found = dict(coefficients(Scenario.load(MOBILE).settings.device, ("device",)))
    assert len(found) >= 15
    dimensionless = {"lanes", "macs_per_cycle", "gemv_utilisation", "gemm_utilisation"}
    units = ("_gb", "_gbs", "_us", "_kib", "_ghz", "_mw", "_pj", "_pj_per_bit", "_pj_per_byte", "_tops_per_w")
    for path, coefficient in found.items():
        assert coefficient.source
        assert path[-1] in dimensionless or path[-1].endswith(units), path


def test_the_paper_device():
    device = Scenario.load(MOBILE).settings.device
    assert (device.dram.bandwidth_gbs.value, device.dram.energy_pj_per_bit.value) == (13, 1.5)
    assert (device.flash.bandwidth_gbs.value, device.flash.energy_pj_per_bit.value) == (1.25, 103)
    assert (device.npu.macs_per_cycle.value, device.npu.clock_ghz.value) == (8192, 1)
    assert device.npu.efficiency_tops_per_w.value == 3.18
    assert 2 * device.npu.macs_per_cycle.value * device.npu.clock_ghz.value / 1000 == pytest.approx(16.4, abs=0.02)


def test_settings_cannot_be_changed():
    settings = Scenario.load(MOBILE).settings
    with pytest.raises(ValueError, match="frozen"):
        settings.seed = 1


def test_required_keys():
    assert [name for name, field in Settings.model_fields.items() if field.is_required()] == [
        "device", "model", "trace", "cache",
    ]  # fmt: skip


@pytest.mark.parametrize("good", ["recorded", "all-decode", 0.5])
def test_split(good):
    assert Scenario.load(MOBILE, assignments={"trace.split": good}).settings.trace.split == good


@pytest.mark.parametrize("bad", [0, 1, 1.5, -0.1, float("nan"), True, None, "half", [0.5]])
def test_no_split(bad):
    with pytest.raises(UserError, match=r"--set trace\.split: must be recorded, all-decode, or a fraction"):
        Scenario.load(MOBILE, assignments={"trace.split": bad})


def test_separate_energies_instead_of_the_all_in_figure():
    keys = ("npu.mac_energy_pj", "npu.dequant_energy_pj_per_weight", "npu.background_power_mw",
            "sram.read_energy_pj_per_byte", "sram.write_energy_pj_per_byte", "sram.leakage_power_mw")  # fmt: skip
    separate = {f"device.{key}": {"value": 1, "source": "test"} for key in keys}
    with pytest.raises(UserError, match="counted twice"):
        Scenario.load(MOBILE, assignments=separate)
    device = Scenario.load(MOBILE, assignments={"device.npu.efficiency_tops_per_w": None, **separate}).settings.device
    assert device.npu.efficiency_tops_per_w is None
    del separate["device.sram.leakage_power_mw"]
    with pytest.raises(UserError, match=r"all of: .*sram\.leakage_power_mw"):
        Scenario.load(MOBILE, assignments={"device.npu.efficiency_tops_per_w": None, **separate})


def test_presets_are_documented():
    folder = resources.files("slicesim.policies.presets")
    for file in folder.iterdir():
        if file.name.endswith(".yaml"):
            preset = yaml.safe_load(file.read_text(encoding="utf-8"))
            assert preset["description"], file.name
            assert preset["source"], file.name
