"""The devices of a folder of scenario files, one line each."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rich.table import Table

from slicesim.checks import check_device
from slicesim.errors import UserError
from slicesim.hardware import Hardware
from slicesim.scenario import Scenario
from slicesim.shipped import HWCONFIGS, shipped


def list_devices(folder: Path | None = None) -> list[dict[str, Any]]:
    """Return what each scenario file of a folder says of its device; without a folder, the shipped ones.

    Raises UserError where a file is not valid, or there is none.
    """
    folder = folder or shipped() / HWCONFIGS
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder; give one with scenario files")
    paths = sorted(folder.glob("*.yaml"))
    if not paths:
        raise UserError(f"{folder}: holds no scenario files (*.yaml)")
    return [_describe(path) for path in paths]


def _describe(path: Path) -> dict[str, Any]:
    scenario = Scenario.load(path)
    check_device(scenario)
    device = scenario.settings.device
    hardware = Hardware.of(device)
    return {
        "config": path.stem,
        "name": device.name if hardware.interconnect is None else f"{hardware.devices} x {device.name}",
        "devices": hardware.devices,
        "compute": device.compute,
        "flash": device.flash.kind,
        "flash_gbs": device.flash.bandwidth_gbs.value,
        "flash_reads_in_flight": hardware.flash.lanes,
        "dram": device.dram.kind,
        "dram_capacity_gb": device.dram.capacity_gb.value,
        "dram_peak_gbs": hardware.dram.peak_gbs,
        "dram_client_gbs": hardware.dram.client_gbs,
        "cache_gb": scenario.settings.cache.capacity_gb,
    }


def devices_table(devices: list[dict[str, Any]]) -> Table:
    """Lay the devices out for the terminal."""
    table = Table(title="devices")
    table.add_column("config")
    for heading in ("device", "client", "flash"):
        table.add_column(heading)
    for heading in ("GB/s", "DRAM", "GB", "peak GB/s", "client GB/s", "cache GB"):
        table.add_column(heading, justify="left" if heading == "DRAM" else "right")
    for device in devices:
        peak = device["dram_peak_gbs"]
        table.add_row(
            device["config"],
            device["name"],
            device["compute"],
            device["flash"],
            f"{device['flash_gbs']:.2f}",
            device["dram"],
            f"{device['dram_capacity_gb']:g}",
            "-" if peak is None else f"{peak:.1f}",
            f"{device['dram_client_gbs']:.1f}",
            f"{device['cache_gb']:.3g}",
        )
    return table
