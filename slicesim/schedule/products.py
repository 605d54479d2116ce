"""The matrix products of an operation, for arrays whose cycles depend on their shapes."""

from __future__ import annotations

from collections.abc import Callable

from slicesim.hardware.client import Product
from slicesim.models import ModelGeometry
from slicesim.models.geometry import Matrices

#: What an operation does: attention of a dense layer; attention and router of a MoE layer; the others. An expert may
#: be taken matrix by matrix: gate or up (``EXPERT_IN``), then down (``EXPERT_OUT``).
ATTENTION, ROUTED_ATTENTION, DENSE, SHARED, ROUTED_EXPERT, HEAD, EXPERT_IN, EXPERT_OUT = range(8)


def products(model: ModelGeometry, role: int, pairs: int, tokens: int) -> tuple[Product, ...]:
    """Return the products of an operation for ``tokens`` tokens at once.

    pairs: query and cached token, over all tokens (0 where there is no attention). A causal prompt has about half of
    tokens x tokens; each of its tokens is given the mean reach.
    """
    weights = tuple(Product(count, tokens, n, k) for count, n, k in _MATRICES[role](model))
    if not pairs:
        return weights
    reach = -(-pairs // tokens)
    scores = model.attention.score_products(reach)
    return weights + tuple(Product(count, rows * tokens, n, k) for count, rows, n, k in scores)


def _feed_forward(model: ModelGeometry, inner: int) -> tuple[Matrices, ...]:
    """Gate and up, then down."""
    return (2, inner, model.hidden), (1, model.hidden, inner)


_MATRICES: dict[int, Callable[[ModelGeometry], tuple[Matrices, ...]]] = {
    ATTENTION: lambda model: model.attention.matrices(model.hidden),
    ROUTED_ATTENTION: lambda model: (*model.attention.matrices(model.hidden), (1, model.experts, model.hidden)),
    DENSE: lambda model: _feed_forward(model, model.dense_inner),
    SHARED: lambda model: _feed_forward(model, model.shared_inner),
    ROUTED_EXPERT: lambda model: _feed_forward(model, model.expert_inner),
    HEAD: lambda model: ((1, model.vocabulary, model.hidden),),
    EXPERT_IN: lambda model: ((1, model.expert_inner, model.hidden),),
    EXPERT_OUT: lambda model: ((1, model.hidden, model.expert_inner),),
}
