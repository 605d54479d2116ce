"""One device's time: workloads in, plans and timelines out, one after another."""

from __future__ import annotations

from slicesim.decide import SliceSizes
from slicesim.errors import UserError
from slicesim.hardware import Hardware
from slicesim.models import ModelGeometry
from slicesim.scenario import Scenario
from slicesim.schedule import Plan, Planner, SoftwareCosts, Timeline, Workload, engine


class Clock:
    """Plans and schedules the workloads of one run, on the device and engine of a scenario."""

    def __init__(self, scenario: Scenario, hardware: Hardware, sizes: SliceSizes, model: ModelGeometry) -> None:
        settings = scenario.settings
        self.hardware = hardware
        self._planner = Planner(hardware, sizes, model)
        self._costs = SoftwareCosts(settings.software)
        self._engine = engine(settings.schedule.engine, settings.schedule.overlap)

    def run(self, work: Workload) -> tuple[Plan, Timeline]:
        """Put the next workload on the clock. Raises UserError where its time is too long to count."""
        try:
            plan = self._costs(self._planner(work))
            return plan, self._engine.run(plan)
        except OverflowError:
            raise UserError(
                "the simulated time passes 2^63 ps (107 days): look at device.flash and device.dram, "
                "bandwidth_gbs and latency_us"
            ) from None

    def finish(self) -> None:
        """Let what is still under way come to its end."""
        self._engine.finish()
