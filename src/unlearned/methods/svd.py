"""SVD class unlearning: each layer is made blind to directions of its input that matter for the forget set and not for the retain set. No training.

Paper: Kodge, Saha, Roy 2024 (TMLR), "Deep Unlearning: Fast and Efficient Gradient-free Approach to Class Forgetting", arXiv 2312.00761; code of the authors:
sangamesh-kodge/class_forgetting.
Formula: for each linear and convolutional layer, A holds its inputs in rows (of a convolution: the patches that its kernel sees), once on retain samples,
once on forget samples. A = V Σ Uᵀ, s_i = σ_i² / Σ_j σ_j², Λ = α s / ((α − 1) s + 1), M = U Λ Uᵀ with α_r for the retain set and α_f for the forget set. P = I
− M_f + M_f M_r, W ← W Pᵀ. All inputs are those of the original model, in eval mode; biases stay.
Defaults of the authors: 900 retain samples, as many of each class, and 900 forget samples; α_r 100, α_f 3 (VGG on CIFAR). They search α_r in {1, ..., 1000}
and α_f in {0.25, ..., 1000}.
Deviations: U and σ² come from the eigenvalues of AᵀA, so that A is never held; its memory does not grow with the samples, and all patches are used where the
code of the authors takes 10,000 per layer. Samples are drawn at random, where that code takes the first. In grouped convolutions each group is a layer.
Layers whose weights are used without the layer being called (nn.MultiheadAttention) are left as they are.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from typing import ClassVar

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812  # the field's name for it
from pydantic import Field
from torch import Tensor, nn

from unlearned.data.samples import Samples
from unlearned.engine.engine import Engine, evaluating, on_device
from unlearned.engine.loop import only
from unlearned.engine.randomness import derive_seed
from unlearned.engine.settings import Optimisation
from unlearned.errors import Fault, InputError, collecting
from unlearned.methods import methods
from unlearned.methods._method import Method
from unlearned.problem import Problem
from unlearned.settings import Pattern

Layer = nn.Linear | nn.Conv2d


def input_rows(layer: Layer, inputs: Tensor) -> Tensor:
    """What the rows of a layer's weight are multiplied with, (G, N, D): G groups, N positions, D entries of `weight.flatten(1)`.

    Args:
        layer: a linear layer (G = 1) or a two-dimensional convolution.
        inputs: as the layer is given them: (..., D) or (B, C, H, W).
    """
    if isinstance(layer, nn.Linear):
        return inputs.flatten(0, -2)[None]
    mode = "constant" if layer.padding_mode == "zeros" else layer.padding_mode
    padded = F.pad(inputs, layer._reversed_padding_repeated_twice, mode=mode)  # padding may be a word; this is what the layer makes of it
    patches = F.unfold(padded, layer.kernel_size, dilation=layer.dilation, stride=layer.stride)  # (B, C · k · k, L)
    grouped = patches.view(len(patches), layer.groups, -1, patches.shape[-1])  # (B, G, D, L)
    return grouped.permute(1, 0, 3, 2).flatten(1, 2)


def scaled_projection(gram: Tensor, alpha: float) -> Tensor:
    """M = U Λ Uᵀ of activations A: AᵀA = U diag(σ²) Uᵀ, s = σ² / Σ σ², Λ = α s / ((α − 1) s + 1).

    α = 1 gives Λ = s; for α → ∞, M tends to the projection on the span of A. Without any activation M is 0.

    Args:
        gram: AᵀA, (..., D, D), symmetric and positive semidefinite.
        alpha: α > 0.
    """
    variances, directions = torch.linalg.eigh(gram)
    variances = variances.clamp_min(0)
    share = variances / variances.sum(dim=-1, keepdim=True).clamp_min(torch.finfo(gram.dtype).tiny)
    scale = alpha * share / ((alpha - 1) * share + 1)
    projection: Tensor = directions * scale[..., None, :] @ directions.mT
    return projection


def unlearning_projection(retain: Tensor, forget: Tensor) -> Tensor:
    """P = I − M_f + M_f M_r, (..., D, D), from M_r and M_f of that shape."""
    return torch.eye(forget.shape[-1], dtype=forget.dtype, device=forget.device) - forget + forget @ retain


def projected(weight: Tensor, projection: Tensor) -> Tensor:
    """W Pᵀ, shaped like W: each group's rows times that group's projection.

    Args:
        weight: (O, ...), in G groups of O / G rows with D entries each.
        projection: P, (G, D, D).
    """
    rows = weight.reshape(len(projection), -1, projection.shape[-1]).to(projection.dtype)
    return (rows @ projection.mT).reshape(weight.shape).to(weight.dtype)


def balanced(samples: Samples, count: int, seed: int) -> Samples:
    """About `count` random samples, ⌊count / K⌋ but at least one of each of the K classes that there are; all of a class with fewer."""
    order = np.random.default_rng(seed).permutation(len(samples))
    labels = np.asarray(samples.fact("label"))[order]
    each = max(1, count // len(np.unique(labels)))
    return samples.subset(np.sort(np.concatenate([order[labels == label][:each] for label in np.unique(labels)])))


@methods.register("svd")
class SVD(Method):
    """Project weights in closed form."""

    name: ClassVar[str] = "svd"
    tasks: ClassVar[frozenset[str] | None] = frozenset({"image-classification"})
    alpha_retain: float = Field(100.0, gt=0, description="α_r: the larger, the more directions of the retain set are kept.")
    alpha_forget: float = Field(3.0, gt=0, description="α_f: the larger, the more directions of the forget set are removed.")
    retain_samples: int = Field(900, ge=1, description="Retain samples whose activations are looked at, as many of each class.")
    forget_samples: int = Field(900, ge=1, description="Forget samples whose activations are looked at.")
    batch_size: int = Field(64, ge=1, description="Samples per forward pass. Changes no result beyond rounding.")
    parameters: Pattern = Optimisation.field("parameters", ".*")

    def faults(self, problem: Problem, engine: Engine) -> list[Fault]:  # noqa: ARG002
        """A pattern that chooses no weight of a layer of these kinds."""
        found: list[Fault] = []
        with collecting(found), only(problem.original.model, self.parameters):
            self._layers(problem.original.model)
        return found

    def unlearn(self, problem: Problem, engine: Engine) -> nn.Module:
        model = copy.deepcopy(problem.original.model).eval()
        with only(model, self.parameters):
            layers = self._layers(model)
            forget, retain = (
                self._grams(engine, model, layers, balanced(samples, count, derive_seed(engine.seed, self.name, name)))
                for name, samples, count in (("forget", problem.forget, self.forget_samples), ("retain", problem.retain, self.retain_samples))
            )
        self._need(retain)  # layers may be there and never be called
        with torch.no_grad():
            for name in retain:
                kept, known = scaled_projection(retain[name], self.alpha_retain), scaled_projection(forget[name], self.alpha_forget)
                layers[name].weight.copy_(projected(layers[name].weight, unlearning_projection(kept, known)))
        return model

    def _layers(self, model: nn.Module) -> dict[str, Layer]:
        """Those whose weights may change."""
        layers = {name: layer for name, layer in model.named_modules() if isinstance(layer, Layer) and layer.weight.requires_grad}
        self._need(layers)
        return layers

    def _need(self, layers: Mapping[str, object]) -> None:
        if not layers:
            what = f"no linear layer or two-dimensional convolution has a trainable weight that matches {self.parameters!r}."
            raise InputError(Fault("method.parameters", what, "Give a pattern that matches some, or leave it out."))

    def _grams(self, engine: Engine, model: nn.Module, layers: Mapping[str, Layer], samples: Samples) -> dict[str, Tensor]:
        """AᵀA of each layer that is called, (G, D, D), in float64 on the CPU."""
        grams: dict[str, Tensor] = {}

        def adding(name: str) -> Callable[[nn.Module, tuple[Tensor, ...], Tensor], None]:
            def add(layer: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
                del output
                assert isinstance(layer, Layer)
                rows = input_rows(layer, inputs[0])
                gram = (rows.mT @ rows).cpu().double()
                grams[name] = grams[name] + gram if name in grams else gram

            return add

        handles = [layer.register_forward_hook(adding(name)) for name, layer in layers.items()]
        try:
            with on_device(model, engine.device), evaluating(model), torch.no_grad():
                for batch in engine.batches(samples, self.batch_size):
                    engine.task.outputs(model, batch)
                    engine.meter.count(len(batch["labels"]))
        finally:
            for handle in handles:
                handle.remove()
        return grams
