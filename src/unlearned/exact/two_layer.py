"""Two-layer networks: as few active neurons as the retained data need.

Paper: Block et al. 2025, arXiv 2505.22601, theorem 5 with lemma 6, and proposition 1.
Formula: f(x) = cᵀ φ(A x), R = number of neurons with |c_i| ‖a_i‖ > 0. Only c moves, Δ_c ⊥ φ(A x) for all retained x, so that retained outputs stay exactly.
With s = dim span{φ(A x)} there is a basis p̃_1, …, p̃_{h−s} of the orthogonal complement in which p̃_i is 1 at its pivot j_i and 0 at the other pivots;
Δ_c = −Σ_i c_{j_i} p̃_i makes c zero at the pivots: at most s ≤ n_r neurons are left. Then the rows of A that c reads no more are set to 0.
Deviations: which neurons are pivots is left open; here those that a QR decomposition with column pivoting does not choose, for a well-conditioned basis.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from scipy.linalg import qr
from torch import Tensor, nn

from unlearned.errors import Fault, raise_faults
from unlearned.exact._result import Exact, bias_faults, fit_faults, kind_of, replaced, residual, retained

ELEMENTWISE = (
    nn.CELU,
    nn.ELU,
    nn.GELU,
    nn.Hardsigmoid,
    nn.Hardswish,
    nn.Hardtanh,
    nn.Identity,
    nn.LeakyReLU,
    nn.LogSigmoid,
    nn.Mish,
    nn.ReLU,
    nn.SELU,
    nn.SiLU,
    nn.Sigmoid,
    nn.Softplus,
    nn.Softshrink,
    nn.Softsign,
    nn.Tanh,
    nn.Tanhshrink,
)
"""Activations φ of one number; `nn.Hardtanh` includes `nn.ReLU6`."""


class Complement(NamedTuple):
    """A basis of what is orthogonal to all features, in column-echelon form."""

    basis: Tensor
    """p̃_1, …, p̃_{h−s} as columns, (h, h − s)."""
    pivots: Tensor
    """j_1, …, j_{h−s}: row j_i of the basis is the i-th unit vector."""


def complement(features: Tensor, precision: float) -> Complement:
    """Lemma 6: the basis for features φ(A x) of n samples.

    Args:
        features: (n, h), float64 on the CPU.
        precision: share of the largest below which a direction counts as rounding.
    """
    triangle, order = (torch.from_numpy(part) for part in qr(features.numpy(), mode="r", pivoting=True))
    diagonal = triangle.diagonal().abs()
    rank = int((diagonal > precision * diagonal[0]).sum())
    chosen, pivots = order[:rank].long(), order[rank:].long()
    basis = torch.zeros(features.shape[1], len(pivots), dtype=features.dtype)
    basis[pivots] = torch.eye(len(pivots), dtype=features.dtype)
    basis[chosen] = -torch.linalg.solve_triangular(triangle[:rank, :rank], triangle[:rank, rank:], upper=True)
    return Complement(basis, pivots)


def fewer_neurons(output: Tensor, found: Complement) -> Tensor:
    """Theorem 5: c + Δ_c, (h,): the same outputs on the features whose complement this is, 0 at the pivots.

    Args:
        output: c, (h,).
        found: from `complement`.
    """
    new = output - found.basis @ output[found.pivots]
    new[found.pivots] = 0
    return new


def without_traces(first: Tensor, output: Tensor) -> Tensor:
    """Proposition 1: A, (h, d), with zeros in the rows whose neuron has c_i = 0: the same function."""
    return torch.where(output[:, None] == 0, 0, first)


def active_neurons(first: Tensor, output: Tensor) -> int:
    """R: how many neurons have |c_i| ‖a_i‖ > 0."""
    return int(((output != 0) & (first != 0).any(dim=1)).sum())


def forget_two_layer(model: nn.Module, inputs: Tensor, targets: Tensor, *, tolerance: float = 1e-5) -> Exact:
    """Forget everything but the retained data: a network of the same width that fits them with few active neurons.

    Args:
        model: an `nn.Sequential` of `nn.Linear` without bias, an activation that works on each number by itself, and `nn.Linear` without bias to one output;
            it fits the retained data, and is not changed.
        inputs: X_r, (n, d): all that is retained.
        targets: y_r, (n,) or (n, 1).
        tolerance: how far the model may be from the targets, relative to the largest if that is above 1.

    Raises:
        InputError: with every assumption of theorem 5 that does not hold.
    """
    parts, faults = _parts(model)
    data, more = retained(inputs, targets, parts[0].in_features if parts else None, 1)
    raise_faults([*faults, *more])
    raise_faults(fit_faults(model, data, tolerance))
    assert parts is not None
    first, activation, last = parts
    a, c = (layer.weight.detach().cpu().double() for layer in (first, last))
    with torch.no_grad():
        features = activation(data.inputs @ a.T)
    found = complement(features, max(data.precision, torch.finfo(first.weight.dtype).eps * max(features.shape)))
    sparse = fewer_neurons(c[0], found)
    clean = without_traces(a, sparse)
    new = replaced(model, {first: clean, last: sparse[None]})
    return Exact(
        model=new,
        theorem="Theorem 5, with proposition 1",
        statement="It fits the retained data with no more active neurons than the dimension of their features; nothing of the others is left in its weights.",
        complexity="active neurons",
        before=active_neurons(a, c[0]),
        after=active_neurons(clean, sparse),
        bound=len(sparse) - len(found.pivots),
        residual=residual(new, data),
    )


def _parts(model: nn.Module) -> tuple[tuple[nn.Linear, nn.Module, nn.Linear] | None, list[Fault]]:
    remedy = "Give nn.Sequential(nn.Linear, activation, nn.Linear)."
    if not isinstance(model, nn.Sequential) or len(model) != 3:
        size = f" of {len(model)} layers" if isinstance(model, nn.Sequential) else ""
        return None, [Fault("model", f"it is {kind_of(model)}{size}, not two layers with an activation between them.", remedy)]
    first, activation, last = model
    faults = [
        Fault("model", f"layer {i} is {kind_of(layer)}, not a linear map.", remedy) for i, layer in ((0, first), (2, last)) if not isinstance(layer, nn.Linear)
    ]
    faults += [fault for i, layer in ((0, first), (2, last)) if isinstance(layer, nn.Linear) for fault in bias_faults(layer, i)]
    if not isinstance(activation, ELEMENTWISE):
        what = f"layer 1 is {kind_of(activation)}, which is not known to work on each number by itself."
        faults.append(Fault("model", what, f"Use one of {', '.join(kind.__name__ for kind in ELEMENTWISE)}."))
    if isinstance(last, nn.Linear) and last.out_features != 1:
        faults.append(Fault("model", f"it has {last.out_features} outputs, and the theorem is about one.", "Give a network with one output."))
    if isinstance(first, nn.Linear) and isinstance(last, nn.Linear):
        if first.out_features != last.in_features:
            what = f"its layers do not fit: {first.out_features} numbers come out of the first, {last.in_features} go into the last."
            faults.append(Fault("model", what, "Make them agree."))
        return (first, activation, last), faults
    return None, faults
