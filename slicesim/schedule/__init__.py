"""The schedule plane: when each transfer and each computation happens on the shared resources."""

from slicesim.schedule.plan import Plan, build_plan
from slicesim.schedule.reference import ReferenceEngine
from slicesim.schedule.timeline import StepTimes, Timeline
from slicesim.schedule.workload import Shapes, Workload, build_workload

__all__ = ["Plan", "ReferenceEngine", "Shapes", "StepTimes", "Timeline", "Workload", "build_plan", "build_workload"]
