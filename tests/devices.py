"""Devices for the tests: each function returns assignments (keys with __ for dots) over the paper's phone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.kit import ROOT

CONFIGS = sorted((ROOT / "hwconfigs").glob("*.yaml"))

DEVICE_NAMES = {
    "mobile", "phone-flagship-2024", "phone-midrange", "oneplus-15r", "jetson-orin-nano", "jetson-agx-orin",
    "laptop-snapdragon-x", "raspberry-pi-5", "apple-m3-max", "expert-parallel", "phone-flagship-2026",
}  # fmt: skip

#: What every device can replay.
ON_SHIPPED_TRACE: dict[str, Any] = {
    "model": "deepseek-v2-lite",
    "trace": ROOT / "traces" / "deepseek-v2-lite-twin.parquet",
    "policy": "slicemoe",
}

#: What several devices replay in its place.
ON_LINKED_DEVICES = {**ON_SHIPPED_TRACE, "policy": "speculative-moe"}


def on_shipped_trace(config: Path) -> dict[str, Any]:
    """What a shipped device replays."""
    return ON_LINKED_DEVICES if config.stem == "expert-parallel" else ON_SHIPPED_TRACE


def linked(devices: int = 2, gbs: float = 1.0, us: float = 1.0, pj: float = 10.0) -> dict[str, Any]:
    """Several devices of the same kind."""
    return {"device__interconnect": section(devices=devices, bandwidth_gbs=gbs, latency_us=us, energy_pj_per_bit=pj)}


SEPARATE_SRAM = {
    f"device__sram__{key}": {"value": 1.0, "source": "test"}
    for key in ("read_energy_pj_per_byte", "write_energy_pj_per_byte", "leakage_power_mw")
}


def section(**coefficients: Any) -> dict[str, Any]:
    """Numbers become coefficients; words, and None, stay."""
    return {
        key: {"value": value, "source": "test"} if isinstance(value, (int, float)) else value
        for key, value in coefficients.items()
        if value is not None
    }


def client(name: str, share: float | None, **coefficients: Any) -> dict[str, Any]:
    energies = {"mac_energy_pj": 1.0, "dequant_energy_pj_per_weight": 0.5, "background_power_mw": 10.0}
    chosen = section(**{**energies, "client_share": share, **coefficients})
    return {"device__compute": name, f"device__{name}": chosen, "device__sram__tile_kib": None, **SEPARATE_SRAM}


def cpu_client(share: float | None = None, **more: Any) -> dict[str, Any]:
    return {**client("cpu", share, **{"gflops": 2.0, **more}), "device__npu": None}


def npu_by_shape(share: float | None = None, **more: Any) -> dict[str, Any]:
    shape = {"clock_ghz": 0.1, "array_rows": 8, "array_columns": 4, "dataflow": "weight-stationary"}
    return client("npu", share, **{**shape, "bit_cost": "bricks", **more})


def npu_by_macs(share: float | None = None, **more: Any) -> dict[str, Any]:
    peak = {"clock_ghz": 0.1, "macs_per_cycle": 64, "gemv_utilisation": 0.5, "gemm_utilisation": 1.0}
    return client("npu", share, **{**peak, "bit_cost": "bricks", **more})


def from_memory(name: str = "LPDDR4-3200", channels: int = 1, **more: Any) -> dict[str, Any]:
    dram = section(kind=name, capacity_gb=8.0, memory=name, channels=channels, **more)
    return {"device__dram": dram}


def warming(hot: float = 0.5, seconds: float = 1e-4) -> dict[str, Any]:
    values = section(hot_share=hot, hot_time_constant_s=seconds)
    return {f"device__flash__{key}": value for key, value in values.items()}
