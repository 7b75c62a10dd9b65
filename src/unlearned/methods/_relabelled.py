"""The forget loss of SalUn and EraseDiff: the concept's images, asked for with its prompt, shall be seen as they are with another."""

from __future__ import annotations

from torch import Tensor, nn

from unlearned.methods._diffusion import asked, beside, mean_squared_error, told
from unlearned.tasks._task import Batch
from unlearned.tasks.image_generation import ImageGeneration


def relabelled_loss(task: ImageGeneration, model: nn.Module, forget: Batch, retain: Batch) -> Tensor:
    """Mean of (ε_θ(x_t, c_f) − sg ε_θ(x_t, c'))² over noisy forget images x_t, a scalar; c' are the conditions of the retained samples beside them."""
    noised = task.noised(model, forget)
    other = beside(task.condition(model, retain), len(noised.noisy))
    return mean_squared_error(asked(model, noised, noised.condition), told(model, noised, other))
