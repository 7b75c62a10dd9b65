"""Deep linear networks: the least predictor, by a change of the first layer alone; or the least weights.

Paper: Block et al. 2025, arXiv 2505.22601, lemma 1 and theorems 3 and 4.
Formula: f(x) = cᵀ A_{L−1} … A_1 x, with the predictor w(θ) = A_1ᵀ … A_{L−1}ᵀ c, v = A_2ᵀ … A_{L−1}ᵀ c and w_r = P_{S_r} w(θ*) = pinv(X_r) y_r.
R = ‖w(θ)‖: A_1 ← A_1 − v (P_{S_r^⊥} w(θ*))ᵀ / ‖v‖², all other layers as they are; the new predictor is w_r. That only A_1 moves is needed: a change of all
layers that keeps retained outputs to first order may destroy them.
R = ‖θ‖: with ρ = ‖w_r‖ and unit vectors v_ℓ, A_1 = ρ^{(1−L)/L} v_1 w_rᵀ, A_ℓ = ρ^{1/L} v_ℓ v_{ℓ−1}ᵀ, c = ρ^{1/L} v_{L−1}; then ‖θ‖² = L ρ^{2/L}.
Deviations: none. The unit vectors are the first of each layer's coordinates, so that nothing of the original is left but w_r.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from unlearned.errors import Fault, raise_faults
from unlearned.exact._result import Exact, bias_faults, fit_faults, kind_of, replaced, residual, retained
from unlearned.exact.linear import least_norm, projected


def predictor(weights: Sequence[Tensor]) -> Tensor:
    """w(θ), (d,): the product of A_1 (h_1, d), …, A_{L−1}, c as a row (1, h_{L−1}); c alone if there is no other."""
    product = weights[-1]
    for weight in reversed(weights[:-1]):
        product = product @ weight
    return product[0]


def first_layer_change(weights: Sequence[Tensor], kept: Tensor) -> Tensor:
    """Lemma 1: −v (w(θ) − kept)ᵀ / ‖v‖², (h_1, d): the least change of A_1 after which the predictor is `kept`.

    Args:
        weights: A_1, …, A_{L−1}, c as a row; v = A_2ᵀ … A_{L−1}ᵀ c is not 0.
        kept: P_{S_r} w(θ), (d,).
    """
    v = predictor(weights[1:])
    return -torch.outer(v, predictor(weights) - kept) / v.square().sum()


def least_weights(kept: Tensor, widths: Sequence[int]) -> list[Tensor]:
    """Theorem 4: the weights of least norm whose predictor is `kept`.

    Args:
        kept: w_r, (d,).
        widths: of the hidden layers, h_1, …, h_{L−1}.

    Returns:
        A_1, …, A_{L−1}, c as a row.
    """
    depth, rho = len(widths) + 1, float(kept.norm())
    units = [torch.zeros(width, dtype=kept.dtype) for width in widths]
    for unit in units:
        unit[0] = 1
    direction = kept / rho if rho else kept  # ρ^{(1−L)/L} w_r = ρ^{1/L} w_r / ρ, which is 0 for w_r = 0
    ends = [direction, *units, torch.ones(1, dtype=kept.dtype)]
    return [rho ** (1 / depth) * torch.outer(after, before) for before, after in itertools.pairwise(ends)]


def forget_deep_linear(
    model: nn.Module, inputs: Tensor, targets: Tensor, *, complexity: Literal["predictor-norm", "parameter-norm"] = "predictor-norm", tolerance: float = 1e-5
) -> Exact:
    """Forget everything but the retained data: the deep linear network of least complexity that fits them.

    Args:
        model: an `nn.Sequential` of two or more `nn.Linear` without bias, the last of which has one output; it fits the retained data, and is not changed.
        inputs: X_r, (n, d): all that is retained.
        targets: y_r, (n,) or (n, 1).
        complexity: R: the norm of the linear map that the network computes, or of all weights.
        tolerance: how far the model may be from the targets, relative to the largest if that is above 1.

    Raises:
        InputError: with every assumption of theorem 3 or 4 that does not hold.
    """
    layers, faults = _layers(model)
    data, more = retained(inputs, targets, layers[0].in_features if layers else None, 1)
    if complexity not in {"predictor-norm", "parameter-norm"}:
        more.append(Fault("complexity", f"there is no {complexity!r}.", "Use predictor-norm or parameter-norm."))
    raise_faults([*faults, *more])
    weights = [layer.weight.detach().cpu().double() for layer in layers]
    faults = fit_faults(model, data, tolerance)
    if complexity == "predictor-norm" and not bool(predictor(weights[1:]).any()):
        faults.append(Fault("model", "what follows its first layer is 0, so no change of that layer shows.", "Use complexity parameter-norm."))
    raise_faults(faults)
    kept = projected(predictor(weights)[None], data)[0]
    least = float(least_norm(data).norm())
    if complexity == "predictor-norm":
        new = [weights[0] + first_layer_change(weights, kept), *weights[1:]]
        theorem = "Theorem 3, with the step of lemma 1"
        statement = "The network computes pinv(X_r) y_r, the least linear map of all that fit the retained data; only its first layer has changed."
        before, after, bound = float(predictor(weights).norm()), float(predictor(new).norm()), least
    else:
        new = least_weights(kept, [layer.out_features for layer in layers[:-1]])
        theorem = "Theorem 4"
        statement = "The weights are the least in norm of all deep linear networks of this depth that fit the retained data: their squared norm is L ρ^(2/L)."
        before, after = _norm(weights), _norm(new)
        bound = math.sqrt(len(layers)) * least ** (1 / len(layers))
    unlearned = replaced(model, dict(zip(layers, new, strict=True)))
    name = "norm of the predictor" if complexity == "predictor-norm" else "norm of all weights"
    return Exact(unlearned, theorem, statement, name, before, after, bound, residual(unlearned, data))


def _norm(weights: Sequence[Tensor]) -> float:
    return math.sqrt(sum(float(weight.square().sum()) for weight in weights))


def _layers(model: nn.Module) -> tuple[list[nn.Linear], list[Fault]]:
    if not isinstance(model, nn.Sequential):
        return [], [Fault("model", f"it is {kind_of(model)}.", "Give an nn.Sequential of nn.Linear layers.")]
    faults: list[Fault] = []
    layers = []
    for number, layer in enumerate(model):
        if isinstance(layer, nn.Linear):
            layers.append(layer)
            faults += bias_faults(layer, number)
        else:
            faults.append(Fault("model", f"layer {number} is {kind_of(layer)}, not a linear map.", "Give a network of nn.Linear layers alone."))
    if len(layers) < 2:
        faults.append(Fault("model", f"it has {len(layers)} linear layers.", "Give two or more; a single one is for `forget_linear`."))
    faults += [
        Fault("model", f"linear layers {i} and {i + 1} do not fit: {a.out_features} numbers come out, {b.in_features} go in.", "Make them agree.")
        for i, (a, b) in enumerate(itertools.pairwise(layers))
        if a.out_features != b.in_features
    ]
    if layers and layers[-1].out_features != 1:
        faults.append(Fault("model", f"it has {layers[-1].out_features} outputs, and the theorem is about one.", "Give a network with one output."))
    if len({id(layer.weight) for layer in layers}) < len(layers):
        faults.append(Fault("model", "two of its layers share their weights.", "Give each layer weights of its own."))
    return layers, faults
