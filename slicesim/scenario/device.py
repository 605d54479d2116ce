"""The device's part of a scenario: memory tiers, and the client that computes (semantics, sections 5, 6 and 10)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag, model_validator

from slicesim.scenario.coefficient import Coefficient, Count, NotNegative, Positive, Share
from slicesim.scenario.section import Section


class Flash(Section):
    """Flash storage: lanes behind one queue, and a pipe that they share."""

    kind: str = Field(description="what it is, for tables")
    capacity_gb: Positive = Field(description="what the chip holds; the experts must fit")
    bandwidth_gbs: Positive = Field(description="ceiling of the shared pipe")
    lanes: Count = Field(description="reads in service at once")
    lane_bandwidth_gbs: Positive = Field(description="rate of one lane")
    latency_us: NotNegative = Field(description="t0: from taking a lane to the first byte")
    gap_us: NotNegative | None = Field(
        None, description="the pipe stands empty for gap / reads in flight between two reads in a row; none: 0"
    )
    queue_depth: Count | None = Field(None, description="commands that one queue holds; none: as many as lanes")
    queues: Count | None = Field(None, description="command queues; none: one (UFS)")
    hot_share: Share | None = Field(None, description="ceiling of the hot device over that of the cold one; none: 1")
    hot_time_constant_s: Positive | None = Field(None, description="busy time in which the device warms up (1 - 1/e)")
    energy_pj_per_bit: NotNegative = Field(description="read, link included")
    background_power_mw: NotNegative = Field(description="drawn at all times")

    @model_validator(mode="after")
    def _warms_up_wholly(self) -> Flash:
        if (self.hot_share is None) != (self.hot_time_constant_s is None):
            raise ValueError("give hot_share and hot_time_constant_s together, or neither")
        return self


class _Dram(Section):
    """What both forms of DRAM say."""

    kind: str = Field(description="what it is, for tables")
    capacity_gb: Positive = Field(description="what the chips hold; cache and non-expert weights must fit")

    @model_validator(mode="before")
    @classmethod
    def _one_form(cls, data: Any) -> Any:
        """An empty key is as good as none, so that a file laid over another one can change the form."""
        if not isinstance(data, Mapping):
            return data
        given = {key: value for key, value in data.items() if value is not None}
        plain, timed = ("bandwidth_gbs", "row_kib"), ("channels", "idle_state")
        wrong = [key for key in (plain if "memory" in given else timed) if key in given]
        if wrong and "memory" in given:
            raise ValueError(f"memory gives rate and rows from its timing: remove {', '.join(wrong)}, or memory")
        if wrong:
            raise ValueError(f"{', '.join(wrong)}: goes with memory; remove it, or give memory for bandwidth_gbs")
        return given


class PlainDram(_Dram):
    """DRAM as its client sees it: one pipe with an effective rate."""

    bandwidth_gbs: Positive = Field(description="effective rate, all channels together")
    energy_pj_per_bit: NotNegative = Field(description="read or write, without row activation")
    row_kib: Positive = Field(description="bytes opened by one row activation, over all channels")
    activation_energy_pj: NotNegative = Field(description="one row activation and precharge")
    background_power_mw: NotNegative = Field(description="standby and refresh, at all times")


class MemoryDram(_Dram):
    """DRAM by its memory's timing and currents. An energy that is given replaces that of the memory's table."""

    memory: str = Field(min_length=1, description="name in the table of memories, for example LPDDR5X-9600")
    channels: Count = Field(description="channels of that memory (LPDDR: 16 bits each)")
    idle_state: Literal["standby", "power-down", "self-refresh"] = Field(
        "power-down", description="state of the channels while nothing is transferred"
    )
    energy_pj_per_bit: NotNegative | None = Field(None, description="read or write burst; none: the memory's")
    activation_energy_pj: NotNegative | None = Field(
        None, description="a row opened in every channel; none: the memory's"
    )
    background_power_mw: NotNegative | None = Field(
        None, description="standby and refresh at all times; none: the memory's, by state"
    )


def _dram_form(data: Any) -> str:
    memory = data.get("memory") if isinstance(data, Mapping) else getattr(data, "memory", None)
    return "plain DRAM" if memory is None else "DRAM by memory"


Dram = Annotated[
    Annotated[PlainDram, Tag("plain DRAM")] | Annotated[MemoryDram, Tag("DRAM by memory")],
    Discriminator(_dram_form),
]


class Sram(Section):
    """On-chip scratchpad (a CPU's caches) that double-buffers weight tiles if two of them fit.

    Energy: three coefficients, or from capacity and node; neither beside an all-in figure of the client.
    """

    capacity_kib: Positive = Field(description="what it holds")
    tile_kib: Positive | None = Field(None, description="weights that come in at once; none: the array's own size")
    read_energy_pj_per_byte: NotNegative | None = Field(None, description="one of the three plain energies")
    write_energy_pj_per_byte: NotNegative | None = Field(None, description="one of the three plain energies")
    leakage_power_mw: NotNegative | None = Field(None, description="one of the three plain energies")
    node_nm: Literal[45, 22, 7, 5, 4] | None = Field(None, description="energy by capacity and node")
    cells: Literal["lop", "mobile", "lstp"] | None = Field(None, description="kind of cell: leakage by capacity")

    @model_validator(mode="after")
    def _energy_by_node_or_plain(self) -> Sram:
        if (self.node_nm is None) != (self.cells is None):
            raise ValueError("give node_nm and cells together, or neither")
        twice = [key for key in PLAIN_SRAM_ENERGY if getattr(self, key) is not None]
        if self.node_nm is not None and twice:
            raise ValueError(f"node_nm and cells give the energy: remove {', '.join(twice)}, or those two")
        return self

    @model_validator(mode="after")
    def _one_tile_fits(self) -> Sram:
        if self.tile_kib is not None and self.tile_kib.value > self.capacity_kib.value:
            raise ValueError("tile_kib: one tile must fit capacity_kib, two of them to be double-buffered")
        return self


#: The plain energies, key by key.
PLAIN_SRAM_ENERGY = ("read_energy_pj_per_byte", "write_energy_pj_per_byte", "leakage_power_mw")


class Client(Section):
    """What computes and reads DRAM; give either the all-in efficiency or the separate coefficients of energy."""

    client_share: Share | None = Field(
        None, description="what this client sustains of the memory controller's rate; only with dram.memory"
    )
    layer_overhead_us: NotNegative | None = Field(
        None, description="software: added to attention and router of each MoE layer, whatever the tokens; none: 0"
    )
    dequant_share: NotNegative | None = Field(
        None, description="time to dequantise experts, as a share of their computation; none: fused"
    )
    dequant_ps_per_weight: NotNegative | None = Field(None, description="the same as a time for each expert weight")
    efficiency_tops_per_w: Positive | None = Field(None, description="all-in: MACs, SRAM and leakage together")
    mac_energy_pj: NotNegative | None = Field(None, description="one INT8 MAC with accumulation")
    dequant_energy_pj_per_weight: NotNegative | None = Field(None, description="beside mac_energy_pj")
    background_power_mw: NotNegative | None = Field(None, description="drawn at all times; beside mac_energy_pj")

    @model_validator(mode="after")
    def _dequantised_once(self) -> Client:
        if self.dequant_share is not None and self.dequant_ps_per_weight is not None:
            raise ValueError("give dequant_share or dequant_ps_per_weight, not both")
        return self


class _Npu(Client):
    """What both forms of NPU say."""

    clock_ghz: Positive = Field(description="of the array")
    bit_cost: Literal["proportional", "bricks"] = Field(
        description="work of narrow weights: bits / 8, or 2-bit bricks ceil(a/2) x ceil(w/2)"
    )

    @model_validator(mode="before")
    @classmethod
    def _one_form(cls, data: Any) -> Any:
        """An empty key is as good as none, so that a file laid over another one can change the form."""
        if not isinstance(data, Mapping):
            return data
        given = {key: value for key, value in data.items() if value is not None}
        plain = [key for key in ("macs_per_cycle", "gemv_utilisation", "gemm_utilisation") if key in given]
        shape = [key for key in _SHAPE if key in given]
        if plain and shape:
            raise ValueError(f"give macs_per_cycle with utilisations, or the array's shape: remove {', '.join(plain)}, "
                             f"or {', '.join(shape)}")  # fmt: skip
        return given


class MacNpu(_Npu):
    """MAC array with one sequencer, by its peak and how much of it is in use."""

    macs_per_cycle: Count = Field(description="INT8 x INT8 multiply-accumulates in one cycle")
    gemv_utilisation: Share = Field(description="share of the array in use at batch 1")
    gemm_utilisation: Share = Field(description="share of the array in use in prefill")


class ArrayNpu(_Npu):
    """Systolic array by its shape; each matrix product's cycles follow from it."""

    array_rows: Count = Field(description="INT8 x INT8 cells down")
    array_columns: Count = Field(description="cells across")
    dataflow: Literal["weight-stationary", "output-stationary"] = Field(description="what stays in the cells")


_SHAPE = ("array_rows", "array_columns", "dataflow")


def _npu_form(data: Any) -> str:
    given = data if isinstance(data, Mapping) else getattr(data, "__dict__", {})
    return "array NPU" if any(given.get(key) is not None for key in _SHAPE) else "plain NPU"


Npu = Annotated[
    Annotated[MacNpu, Tag("plain NPU")] | Annotated[ArrayNpu, Tag("array NPU")],
    Discriminator(_npu_form),
]


class Cpu(Client):
    """Compute threads of a CPU. Narrow weights take as many operations as wide ones."""

    gflops: Positive = Field(description="sustained by all compute threads; a multiply-accumulate is two operations")


class Interconnect(Section):
    """Links between several devices that are all alike, each the one that the other sections describe."""

    devices: Count = Field(description="devices that share the experts")
    bandwidth_gbs: Positive = Field(description="one device's link, each way")
    latency_us: NotNegative = Field(description="of one exchange, before the first byte")
    energy_pj_per_bit: NotNegative = Field(description="from one device to another, both ends together")


class Device(Section):
    """The memory tiers and what computes: ``compute`` chooses among the clients that are given.

    interconnect: there are several such devices (expert parallelism).
    """

    name: str = Field(description="name in tables and plots")
    compute: Literal["npu", "cpu"] = Field("npu", description="which of the two clients runs the model")
    flash: Flash = Field(description="where all routed experts lie")
    dram: Dram = Field(description="where the cache and all other weights lie; by plain figures or by memory")
    sram: Sram = Field(description="what the client computes from")
    npu: Npu | None = Field(None, description="by its peak or by the shape of its array; needed if compute is npu")
    cpu: Cpu | None = Field(None, description="needed if compute is cpu")
    interconnect: Interconnect | None = Field(None, description="none: one device")

    @property
    def client(self) -> MacNpu | ArrayNpu | Cpu:
        """The section that ``compute`` names."""
        chosen = self.npu if self.compute == "npu" else self.cpu
        if chosen is None:
            raise ValueError(f"compute is {self.compute}, so give the section {self.compute}")
        return chosen

    @model_validator(mode="after")
    def _client_sees_the_dram(self) -> Device:
        share = self.client.client_share
        if isinstance(self.dram, MemoryDram) and share is None:
            raise ValueError(f"dram.memory gives the controller's rate: give {self.compute}.client_share too")
        if isinstance(self.dram, PlainDram) and share is not None:
            raise ValueError(
                f"dram.bandwidth_gbs is what the client sees: remove {self.compute}.client_share, or give dram.memory"
            )
        return self

    @model_validator(mode="after")
    def _energy_given_once(self) -> Device:
        client = self.compute
        own = ("mac_energy_pj", "dequant_energy_pj_per_weight", "background_power_mw")
        separate = {f"{client}.{key}": getattr(self.client, key) for key in own}
        by_node = self.sram.node_nm is not None
        sram_keys = ("node_nm", "cells") if by_node else PLAIN_SRAM_ENERGY
        separate |= {f"sram.{key}": getattr(self.sram, key) for key in sram_keys}
        if self.client.efficiency_tops_per_w is not None:
            twice = [key for key, value in separate.items() if value is not None]
            if twice:
                raise ValueError(
                    f"{client}.efficiency_tops_per_w is all-in (SRAM and leakage included): remove {', '.join(twice)}, "
                    "or it would be counted twice"
                )
        else:
            missing = [key for key, value in separate.items() if value is None]
            if missing:
                raise ValueError(f"give {client}.efficiency_tops_per_w, or all of: {', '.join(missing)}")
        return self


__all__ = [
    "ArrayNpu", "Client", "Coefficient", "Cpu", "Device", "Flash", "Interconnect", "MacNpu", "MemoryDram", "PlainDram",
    "Sram",
]  # fmt: skip
