"""YAML in, a checked and immutable scenario out."""

from slicesim.scenario.scenario import Scenario, parse_assignments

__all__ = ["Scenario", "parse_assignments"]
