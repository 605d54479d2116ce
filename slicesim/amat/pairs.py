"""Bit pairs as they are written on the command line."""

from __future__ import annotations

from pydantic import ValidationError

from slicesim.errors import UserError
from slicesim.scenario.scenario import plain_message
from slicesim.scenario.schema import Amat


def parse_pairs(text: str, group: int) -> list[Amat]:
    """Read bit pairs, high/low, with commas: ``8/4,6/3``. Raises UserError for what is no pair."""
    pairs: list[Amat] = []
    for word in text.split(","):
        high, slash, low = word.strip().partition("/")
        if not (slash and high.isdecimal() and low.isdecimal()):
            raise UserError(f"--pairs {text}: write pairs as high/low bits with commas, for example 8/4,6/3")
        pair = parse_pair(int(high), int(low), group)
        if pair not in pairs:
            pairs.append(pair)
    return pairs


def parse_pair(high: int, low: int, group: int) -> Amat:
    """Return a bit pair and its group; raises UserError for one that cannot be."""
    try:
        return Amat(high_bits=high, low_bits=low, group=group)
    except ValidationError as error:
        fault = error.errors()[0]
        place = ".".join(map(str, fault["loc"]))
        raise UserError(
            f"{high}/{low} bits, groups of {group}: {place}{' ' * bool(place)}{plain_message(fault)}"
        ) from None
