"""MoE geometry: one small YAML per model, one class that derives all sizes."""

from slicesim.models.geometry import ModelGeometry, int8_bytes, load_model, shipped_models, slice_bytes

__all__ = ["ModelGeometry", "int8_bytes", "load_model", "shipped_models", "slice_bytes"]
