"""Image classification with one head for the class and perhaps another for the colour."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F  # noqa: N812  # the field's name for it
from pydantic import Field
from torch import Tensor, nn

from unlearned.data.samples import Row
from unlearned.tasks._task import Batch, measured, stack
from unlearned.tasks.image_classification import ImageClassification

CLASSES = 10
LIMIT = 30.0
"""Logits are held within ± this in the loss, as in the code of Block et al. 2025 (arXiv 2505.22601)."""


class HeadedImages(ImageClassification):
    """Classifiers whose logits are those of ten classes, then those of the colours.

    Two linear heads on one representation are one linear layer: outputs are (B, 10 + colours). With a second head, rows also hold `colours` ().
    The loss is the sum of the heads' cross-entropies, knowledge the probability that they give the right class and the right colour together, utility
    whether both are the most likely ones. Constraints hold the largest logit of each head: one column per head.
    """

    colours: int = Field(0, ge=0, description="Colours that the second head knows; 0: there is no second head.")

    @property
    def target_sizes(self) -> dict[str, int]:
        """Columns that say what each head should answer, with the number of answers that it has."""
        return {"labels": CLASSES} | ({"colours": self.colours} if self.colours else {})

    def heads(self, outputs: Tensor) -> Sequence[Tensor]:
        """Logits of each head, (B, classes) and (B, colours), from the logits of all."""
        return torch.split(outputs, list(self.target_sizes.values()), dim=1)

    def collate(self, rows: Sequence[Row]) -> Batch:
        return stack(rows, ("pixel_values", *self.target_sizes))

    def losses_from(self, outputs: Tensor, batch: Batch) -> Tensor:
        """Σ over heads of −log softmax(clamp(f_h(x), ±30))_y."""
        heads = zip(self.heads(measured(outputs).clamp(-LIMIT, LIMIT)), self.target_sizes, strict=True)
        return torch.stack([F.cross_entropy(logits, batch[name], reduction="none") for logits, name in heads]).sum(dim=0)

    def constraints(self, model: nn.Module, batch: Batch) -> Tensor:
        """The largest logit of each head, (B, heads)."""
        return torch.stack([logits.amax(dim=1) for logits in self.heads(self.outputs(model, batch))], dim=1)

    def utility(self, model: nn.Module, batch: Batch) -> Tensor:
        """1 where every head's largest logit is the right one, else 0."""
        heads = zip(self.heads(self.outputs(model, batch)), self.target_sizes, strict=True)
        return torch.stack([logits.argmax(dim=1) == batch[name] for logits, name in heads]).all(dim=0).to(torch.float32)
