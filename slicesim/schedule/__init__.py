"""The schedule plane: when each transfer and each computation happens on the shared resources."""

from slicesim.schedule.demand import DemandLowering
from slicesim.schedule.engines import Engine, engine
from slicesim.schedule.lower import LOWERING_KEYS, Lowering
from slicesim.schedule.parallel import Parallel
from slicesim.schedule.plan import Plan, Planner
from slicesim.schedule.software import SoftwareCosts
from slicesim.schedule.timeline import StepTimes, Timeline
from slicesim.schedule.workload import Shapes, Workload

__all__ = [
    "LOWERING_KEYS",
    "DemandLowering",
    "Engine",
    "Lowering",
    "Parallel",
    "Plan",
    "Planner",
    "Shapes",
    "SoftwareCosts",
    "StepTimes",
    "Timeline",
    "Workload",
    "engine",
]
