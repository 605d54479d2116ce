"""Routed experts by the names that the six families give them."""

from __future__ import annotations

import numpy as np
import pytest

from slicesim.checkpoint import find_experts, open_checkpoint
from slicesim.errors import UserError
from tests.checkpoint.samples import stored, write_file

HIDDEN, INNER, EXPERTS = 8, 6, 3
GATE, DOWN = (INNER, HIDDEN), (HIDDEN, INNER)

SINGLE = {
    "deepseek": "model.layers.{layer}.mlp.experts.{expert}.{part}.weight",
    "mixtral": "model.layers.{layer}.block_sparse_moe.experts.{expert}.{part}.weight",
    "nested": "model.language_model.layers.{layer}.mlp.experts.{expert}.{part}.weight",
}


def found(tmp_path, tensors):
    path = write_file(tmp_path / "m.safetensors", {name: stored(values) for name, values in tensors.items()})
    return find_experts(open_checkpoint(path))


@pytest.mark.parametrize(("family", "names"), [
    ("deepseek", ("gate_proj", "up_proj", "down_proj")),
    ("mixtral", ("w1", "w3", "w2")),
    ("nested", ("gate_proj", "up_proj", "down_proj")),
])  # fmt: skip
def test_a_tensor_for_each_matrix(tmp_path, family, names):
    tensors = {
        SINGLE[family].format(layer=layer, expert=expert, part=part): np.full(shape, 100 * layer + expert)
        for layer in (10, 2)
        for expert in range(EXPERTS)
        for part, shape in zip(names, (GATE, GATE, DOWN), strict=True)
    }
    tensors |= {
        "model.layers.2.mlp.shared_experts.gate_proj.weight": np.ones(GATE),
        "model.layers.2.mlp.shared_expert.gate_proj.weight": np.ones(GATE),
        "model.layers.0.mlp.gate_proj.weight": np.ones(GATE),
        "model.layers.2.mlp.gate.weight": np.ones((EXPERTS, HIDDEN)),
    }
    experts = found(tmp_path, tensors)
    assert [(e.layer, e.number) for e in experts] == [(layer, n) for layer in (2, 10) for n in range(EXPERTS)]
    assert [m.tensor.name.split(".")[-2] for m in experts[0].matrices] == list(names)
    assert all(e.size == 3 * HIDDEN * INNER for e in experts)
    assert (experts[-1].matrices[2].floats() == 1002).all()


@pytest.mark.parametrize("ending", ["", ".weight"])
@pytest.mark.parametrize("is_transposed", [False, True])
def test_fused(tmp_path, ending, is_transposed):
    """The same weights in both layouts read the same: [outputs, inputs]."""
    rng = np.random.default_rng(0)
    gate_up, down = rng.standard_normal((EXPERTS, 2 * INNER, HIDDEN)), rng.standard_normal((EXPERTS, HIDDEN, INNER))
    place = "model.layers.5.mlp.experts."
    laid = [values.transpose(0, 2, 1) if is_transposed else values for values in (gate_up, down)]
    experts = found(tmp_path, {
        f"{place}gate_up_proj{ending}": laid[0], f"{place}down_proj{ending}": laid[1],
        f"{place}gate_up_proj_bias": np.ones((EXPERTS, 2 * INNER)),
    })  # fmt: skip
    assert [(e.layer, e.number, len(e.matrices)) for e in experts] == [(5, n, 2) for n in range(EXPERTS)]
    for expert in experts:
        for matrix, values in zip(expert.matrices, (gate_up, down), strict=True):
            assert matrix.is_transposed is is_transposed
            assert (matrix.floats() == values[expert.number].astype(np.float32)).all()


def test_square_experts_can_be_told_apart():
    """hidden = 2 inner makes one fused matrix square; the other one still tells the layout."""
    from slicesim.checkpoint import Matrix, Tensor
    from slicesim.checkpoint.experts import _lies_transposed

    def matrices(*shapes):
        return tuple(Matrix(Tensor("t", "F32", (2, *shape), None, 0), 0) for shape in shapes)

    assert not _lies_transposed(matrices((16, 16), (16, 8)))
    assert _lies_transposed(matrices((16, 16), (8, 16)))


@pytest.mark.parametrize(
    ("tensors", "fragment"),
    [
        ({"model.norm.weight": np.ones(3)}, "no routed experts found"),
        ({"model.layers.1.mlp.experts.gate_up_proj_blocks": np.ones((2, 3))}, "MXFP4"),
        ({"model.layers.1.mlp.experts.0.gate_proj.weight_packed": np.ones((2, 3))}, "quantised already"),
        ({"model.layers.1.mlp.experts.0.gate_proj.weight": np.ones(GATE)}, "expert 0 of layer 1 has gate_proj; needed"),
        ({"model.layers.1.mlp.experts.0.gate_proj.weight": np.ones(4)}, "2 axes are needed"),
        ({"model.layers.1.mlp.experts.gate_up_proj": np.ones((4, 4))}, "3 axes are needed"),
        (
            {f"layers.1.experts.{part}": np.ones((2, *shape)) for part, shape in
             (("gate_up_proj", (8, 5)), ("down_proj", (6, 4)))},
            "do not belong together",
        ),
    ],
)  # fmt: skip
def test_what_cannot_be_used_is_one_line(tmp_path, tensors, fragment):
    with pytest.raises(UserError, match=fragment) as error:
        found(tmp_path, tensors)
    assert "m.safetensors" in str(error.value)


def test_eight_bit_floats_are_refused(tmp_path):
    name = "model.layers.1.mlp.experts.0.gate_proj.weight"
    path = write_file(tmp_path / "m.safetensors", {name: ("F8_E4M3", [2, 2], b"\0" * 4)})
    with pytest.raises(UserError, match="dtype F8_E4M3; dequantise the checkpoint first"):
        find_experts(open_checkpoint(path))
