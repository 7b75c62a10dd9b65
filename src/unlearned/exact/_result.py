"""What an exact solver returns, and what it asks of its inputs."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor, nn

from unlearned.errors import Fault


class Exact(NamedTuple):
    """An unlearned model, and what is proved about it."""

    model: nn.Module
    """A copy of the original with other weights, of the same types and on the same device, in eval mode."""
    theorem: str
    """Which statement of the paper holds."""
    statement: str
    """What it says about this model."""
    complexity: str
    """R: what is least, or bounded."""
    before: float
    """R of the original."""
    after: float
    """R of the unlearned model."""
    bound: float
    """What R is at most, by the theorem and up to rounding."""
    residual: float
    """Largest |f(x) − y| of the unlearned model on the retained data."""


class Retained(NamedTuple):
    """Retained data in float64 on the CPU."""

    inputs: Tensor
    """X_r, (n, d)."""
    targets: Tensor
    """y_r, (n, K)."""
    precision: float
    """Of the type in which the inputs came: a singular value below this share of the largest is rounding."""


def retained(inputs: Tensor, targets: Tensor, width: int | None, outputs: int | None) -> tuple[Retained, list[Fault]]:
    """The data in float64, and what is wrong with them for a model from `width` numbers to `outputs`; None: not known."""
    faults = []
    if inputs.ndim != 2 or not inputs.is_floating_point():
        faults.append(Fault("inputs", f"they have shape {tuple(inputs.shape)} and type {inputs.dtype}.", "Give one row of floating-point numbers per sample."))
    elif not len(inputs):
        faults.append(Fault("inputs", "there are none.", "Give the retained samples."))
    elif width is not None and inputs.shape[1] != width:
        faults.append(Fault("inputs", f"each has {inputs.shape[1]} numbers, and the model takes {width}.", "Give what the model takes."))
    table = targets[:, None] if targets.ndim == 1 else targets
    if table.ndim != 2 or len(table) != len(inputs) or (outputs is not None and table.shape[1] != outputs):
        asked = "" if outputs is None else f" and {outputs} outputs"
        faults.append(Fault("targets", f"they have shape {tuple(targets.shape)}, for {len(inputs)} samples{asked}.", "Give one number per sample and output."))
    for name, tensor in (("inputs", inputs), ("targets", targets)):
        if not bool(torch.isfinite(tensor).all()):
            faults.append(Fault(name, "they hold NaN or infinity.", "Remove or replace them."))
    precision = torch.finfo(inputs.dtype).eps if inputs.is_floating_point() else 0.0
    return Retained(inputs.detach().cpu().double(), table.detach().cpu().double(), precision * max(inputs.shape, default=1)), faults


def bias_faults(layer: nn.Linear, number: int) -> list[Fault]:
    """That a layer has a bias, if it has one."""
    if "bias" not in dict(layer.named_parameters()):
        return []
    what = f"layer {number} has a bias, and the theorem is about layers without."
    return [Fault("model", what, "Use bias=False; a 1 at the end of each input does the work of one in the first layer.")]


def fit_faults(model: nn.Module, data: Retained, tolerance: float) -> list[Fault]:
    """That the model does not fit the retained data, if it does not."""
    if not 0 < tolerance < 1:
        return [Fault("tolerance", f"it is {tolerance}.", "Give a number between 0 and 1.")]
    off, allowed = residual(model, data), tolerance * max(1.0, float(data.targets.abs().max()))
    if off <= allowed:
        return []
    what = f"it misses a retained target by {off:.3g}, more than {allowed:.3g}, and the theorem is about models that fit their data."
    return [Fault("model", what, "Train it until it fits, or raise `tolerance` if that is rounding.")]


def residual(model: nn.Module, data: Retained) -> float:
    """Largest |f(x) − y|, computed in float64."""
    with torch.no_grad():
        said = copy.deepcopy(model).cpu().double().eval()(data.inputs)
    return float((said - data.targets).abs().max())


def replaced(model: nn.Module, weights: Mapping[nn.Linear, Tensor]) -> nn.Module:
    """A copy of the model in eval mode in which these layers have these weights."""
    new = {id(layer.weight): nn.Parameter(weight.to(layer.weight), requires_grad=layer.weight.requires_grad) for layer, weight in weights.items()}
    return copy.deepcopy(model, dict(new)).eval()


def kind_of(layer: nn.Module) -> str:
    """With its article, for messages."""
    name = type(layer).__name__
    return f"{'an' if name[0] in 'AEIOU' else 'a'} {name}"
