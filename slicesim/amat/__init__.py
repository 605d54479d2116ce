"""AMAT: quantise, slice, rebuild, and what it costs in error."""

from slicesim.amat.error import gaussian_error, relative_mse
from slicesim.amat.quantise import Quantised, dequantise, quantise, rebuild, split, truncate

__all__ = ["Quantised", "dequantise", "gaussian_error", "quantise", "rebuild", "relative_mse", "split", "truncate"]
