"""Quantisation: store the weights with fewer bits and watch what the model still shows of the forget set.

Where unlearning moved weights by less than half a step of the grid, rounding puts them back to where the original's are. A retrained model, rounded in the
same way, is the zero line; the original's curve shows at how many bits the knowledge itself is lost.
Paper: Zhang et al. 2024, arXiv 2410.16454, who round language models to 8 and 4 bits.
Formula: round to nearest on a symmetric grid for each output channel (of an embedding: each entry): s = max |w| / (2^(b − 1) − 1), w ← s · round(w / s);
with `group_size`, for each run of so many weights of a channel, as 4-bit formats of language models have it (128, 64 or 32).
Deviations: weights are rounded and used in their own precision, which gives what a quantised model computes without special kernels. Biases, normalisations and
activations stay as they are. Grids fitted to data (GPTQ, AWQ) are not tried. 3 and 2 bits are our addition. `by` takes the formats of a library instead, for
linear layers: torchao with its kernels (whole numbers of 2 to 8 bits, by channel or group), bitsandbytes (8: weights of LLM.int8(); 4: the float NF4).
Findings: `knowledge` on split `forget`, for all models, and `retention`. The budget is the number of bits removed from each weight: with 32-bit weights, int8
is 24 of 32, int4 is 28 of 32.
"""

from __future__ import annotations

import copy
from functools import partial
from typing import Annotated, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from unlearned.attacks import attacks
from unlearned.attacks._attack import Attack
from unlearned.attacks._curves import curves_of, findings_of_knowledge, knowledge_of
from unlearned.attacks._quantizers import QUANTISERS, is_installed, quantisable
from unlearned.attacks._weights import KINDS, Kind, Weight, altered, weights_of
from unlearned.errors import Fault
from unlearned.evidence.comparison import absent
from unlearned.evidence.statistics import Array
from unlearned.evidence.subject import Subject
from unlearned.problem import Problem
from unlearned.records import Finding


def rounded(weight: Tensor, bits: int, channels: int, group_size: int | None = None) -> Tensor:
    """Round to nearest: s · round(w / s), s = max |w| / (2^(bits − 1) − 1) over each channel or group; a group of zeros stays.

    Args:
        weight: of any shape.
        bits: of the grid, at least 2.
        channels: the dimension that counts channels, each with a grid of its own.
        group_size: weights of a channel that share a grid, in their order, the last group perhaps fewer; None: all.
    """
    rows = weight.movedim(channels, 0).flatten(1)
    size = rows.shape[1] if group_size is None else min(group_size, rows.shape[1])
    groups = nn.functional.pad(rows, (0, -rows.shape[1] % size)).reshape(len(rows), -1, size)
    steps = groups.abs().amax(dim=2, keepdim=True) / (2 ** (bits - 1) - 1)
    steps = torch.where(steps > 0, steps, 1.0)
    put_back = (steps * (groups / steps).round()).flatten(1)[:, : rows.shape[1]]
    result: Tensor = put_back.reshape(weight.movedim(channels, 0).shape).movedim(0, channels)
    return result


@attacks.register("quantize")
class Quantize(Attack):
    """Round the weights to few bits; measure knowledge of the forget set."""

    name: ClassVar[str] = "quantize"
    bits: tuple[Annotated[int, Field(ge=2, le=16)], ...] = Field((8, 4, 3, 2), min_length=1, description="Bits per weight, each from 2 to 16.")
    group_size: int | None = Field(None, ge=2, description="Weights of an output channel that share a grid; None: all of the channel.")
    layers: tuple[Kind, ...] = Field(KINDS, min_length=1, description="Layers whose weights are rounded: linear, convolution, embedding.")
    by: Literal["rounding", "torchao", "bitsandbytes"] = Field("rounding", description="What quantises: our rounding, or a library, which does linear layers.")

    def faults(self, problem: Problem) -> list[Fault]:
        if self.by == "rounding":
            return []
        library, faults = QUANTISERS[self.by], []
        if not is_installed(self.by):
            faults.append(Fault("by", f"the package {self.by} is not installed.", f"Install it: pip install {self.by}; or use rounding."))
        unknown = [bits for bits in self.bits if bits not in library.bits]
        if unknown:
            faults.append(Fault("bits", f"{self.by} has no format of {unknown[0]} bits.", f"Choose from {', '.join(map(str, library.bits))}."))
        if "linear" not in self.layers:
            faults.append(Fault("layers", f"{self.by} quantises linear layers alone.", "Leave it out, or use rounding."))
        if self.group_size is not None and not library.groups:
            faults.append(Fault("group_size", f"the groups of {self.by} are its own.", "Leave it out, or use another library."))
        elif self.group_size is not None:
            widths = sorted({layer.in_features for layer in quantisable(problem.original.model).values() if layer.in_features % self.group_size})
            if widths:
                what = f"a linear layer reads {widths[0]} numbers, which groups of {self.group_size} do not divide."
                faults.append(Fault("group_size", what, "Give a divisor of it, or use rounding."))
        return faults

    def measure(self, subject: Subject) -> list[Finding]:
        weights = weights_of(subject.problem.original.model, self.layers if self.by == "rounding" else ("linear",))
        if not weights or (self.by != "rounding" and not quantisable(subject.problem.original.model)):
            reason = f"the model has no {' or '.join(self.layers)} layer whose weights could be rounded"
            return [absent(self.name, "knowledge", "forget", reason, unit="share", kind="attack")]
        whole = max(torch.finfo(weight.tensor.dtype).bits for weight in weights)
        bits = [None, *sorted({b for b in self.bits if b < whole}, reverse=True)]

        def curve(model: nn.Module) -> list[Array]:
            quantised = (model if b is None else self._quantised(model, b) for b in bits)
            return [knowledge_of(subject, each, subject.problem.forget) for each in quantised]

        removed = [0 if b is None else whole - b for b in bits]
        return findings_of_knowledge(subject, self.name, "forget", curves_of(subject, curve), removed, f"of {whole} bits removed")

    def evaluations(self, problem: Problem) -> int:
        del problem
        return 1 + len(set(self.bits))

    def _quantised(self, model: nn.Module, bits: int) -> nn.Module:
        if self.by == "rounding":
            return altered(model, partial(self._round, bits))
        copied = copy.deepcopy(model)
        QUANTISERS[self.by].quantise(copied, bits, self.group_size)
        return copied

    def _round(self, bits: int, weights: list[Weight]) -> None:
        for weight in weights:
            if weight.kind in self.layers:
                weight.tensor.copy_(rounded(weight.tensor, bits, weight.channels, self.group_size))
