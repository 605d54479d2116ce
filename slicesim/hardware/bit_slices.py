"""Work of narrow weights on an array of 2-bit bricks, and the time of dequantisation (hardware.md 4.2, 4.3)."""

from __future__ import annotations

from fractions import Fraction


def bricks(activation_bits: int, weight_bits: int) -> int:
    """2 x 2-bit multipliers that one product needs: ceil(a / 2) x ceil(w / 2) (BitFusion, ISCA 2018)."""
    return -(-activation_bits // 2) * -(-weight_bits // 2)


def brick_share(activation_bits: int, *slice_bits: int) -> Fraction:
    """Work of one product whose weight is made of these slices, over that of 8 x 8 bits (16 bricks)."""
    return Fraction(sum(bricks(activation_bits, bits) for bits in slice_bits), bricks(8, 8))


def proportional_share(*slice_bits: int) -> Fraction:
    """Work in proportion to the weight's bits, over that of 8 bits (the paper's device)."""
    return Fraction(sum(slice_bits), 8)


def mac_energy_pj(brick_pj: float, activation_bits: int, *slice_bits: int, merge_pj: float = 0.0) -> float:
    """Energy of one product: its bricks (0.0365 pJ each at 45 nm, 0.013 at 7 nm), and one shift-add for each slice
    after the first (``merge_pj``: 0.03 pJ at 7 nm, if not shared by a partial sum)."""
    used = sum(bricks(activation_bits, bits) for bits in slice_bits)
    return used * brick_pj + (len(slice_bits) - 1) * merge_pj


def with_dequantisation_ps(compute_ps: int, share: float) -> int:
    """Compute time with dequantisation that is not fused into it: a ``share`` of it on top (0.05 to 0.12 of a GEMV)."""
    return -(-compute_ps * (10**6 + round(share * 10**6)) // 10**6)
